//! Where a run writes its events: to `metrics.jsonl`, and to the logs that are asked for.

use crate::error::FileError;
use crate::settings::train::LogTarget;
use crate::store::machines;
use crate::store::metrics::{Event, Metrics};
use crate::store::run_folder::RunFolder;
use crate::store::tensorboard::EventFile;

/// The events of a run, open for more.
#[derive(Debug)]
pub struct Log {
    /// None in a process that writes no files.
    metrics: Option<Metrics>,
    tensorboard: Option<EventFile>,
}

impl Log {
    /// Opens the logs of a run that resumes at `step`, notes the machine, and returns the events up to that step. `metrics.jsonl` decides which
    /// those are; the other logs are written anew from it, so that none has a step twice, or lacks one.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn resume(folder: &RunFolder, step: u64, targets: &[LogTarget]) -> Result<(Self, Vec<Event>), FileError> {
        machines::note(&folder.machines_file(), step)?;
        let (metrics, events) = Metrics::resume(&folder.metrics_file(), step)?;
        let asked = targets.contains(&LogTarget::Tensorboard);
        let tensorboard = asked.then(|| EventFile::begin(folder.path(), &events)).transpose()?;
        Ok((Self { metrics: Some(metrics), tensorboard }, events))
    }

    /// Of a process that writes no files.
    pub fn silent() -> Self {
        Self { metrics: None, tensorboard: None }
    }

    /// Appends an event to every log.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn write(&mut self, event: &Event) -> Result<(), FileError> {
        self.metrics.as_mut().map_or(Ok(()), |file| file.write(event))?;
        self.tensorboard.as_mut().map_or(Ok(()), |file| file.write(event))
    }

    /// Waits until every event is on the disk.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn sync(&self) -> Result<(), FileError> {
        self.metrics.as_ref().map_or(Ok(()), Metrics::sync)?;
        self.tensorboard.as_ref().map_or(Ok(()), EventFile::sync)
    }
}
