//! What TensorBoard shows of a run: an event file beside `metrics.jsonl`, which has all of its numbers.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::FileError;
use crate::store::event_file;
use crate::store::metrics::Event;

const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".polaron";

/// An event file, open for more events.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
    /// Tokens and seconds at the newest step.
    at: (u64, f64),
}

impl EventFile {
    /// Begins a file in `folder` with the events so far, and removes those of earlier sessions: `metrics.jsonl` knows which
    /// of their events still hold. The time of an event of an earlier session is as many seconds ago as the run trained since.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn begin(folder: &Path, events: &[Event]) -> Result<Self, FileError> {
        let earlier = event_files(folder)?;
        let now = now();
        // Readers follow files in the order of their names.
        let newest = earlier.iter().filter_map(|path| started(path)).max();
        let started = newest.map_or(now as u64, |newest| (now as u64).max(newest + 1));
        let path = folder.join(format!("{PREFIX}{started:010}{SUFFIX}"));
        let file = File::create(&path).map_err(FileError::at("write", &path))?;
        let mut log = Self { file, path, at: (0, 0.0) };
        let trained = events.iter().filter_map(totals).map(|(_, seconds)| seconds).fold(0.0, f64::max);
        let mut bytes = event_file::head(now - trained);
        for event in events {
            let since = trained - totals(event).map_or(log.at.1, |(_, seconds)| seconds);
            bytes.extend(log.record(event, now - since));
        }
        log.append(&bytes)?;
        earlier.iter().try_for_each(|path| std::fs::remove_file(path).map_err(FileError::at("remove", path)))?;
        Ok(log)
    }

    /// Appends the numbers of an event. They are passed to the operating system at once.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn write(&mut self, event: &Event) -> Result<(), FileError> {
        let bytes = self.record(event, now());
        self.append(&bytes)
    }

    /// Waits until every event is on the disk.
    ///
    /// # Errors
    ///
    /// [`FileError`] naming the file.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_all().map_err(FileError::at("write", &self.path))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(FileError::at("write", &self.path))
    }

    /// The record of an event, and how fast the run was since the step before.
    fn record(&mut self, event: &Event, wall_time: f64) -> Vec<u8> {
        let numbers = event.fields().into_iter().filter_map(|(name, value)| {
            let number = if let Value::Number(number) = value { number.as_f64()? } else { return None };
            Some((format!("{}/{name}", event.kind()), number))
        });
        let mut numbers: Vec<(String, f64)> = numbers.collect();
        if let (Event::Train { .. }, Some((tokens, seconds))) = (event, totals(event)) {
            let (tokens_before, seconds_before) = std::mem::replace(&mut self.at, (tokens, seconds));
            let pace = tokens.saturating_sub(tokens_before) as f64 / (seconds - seconds_before);
            numbers.extend(pace.is_finite().then(|| ("train/tokens_per_second".into(), pace)));
        }
        event_file::scalars(wall_time, event.step(), &numbers)
    }
}

/// Training tokens and seconds at an event.
fn totals(event: &Event) -> Option<(u64, f64)> {
    match event {
        Event::Train { tokens, seconds, .. } | Event::Valid { tokens, seconds, .. } => Some((*tokens, *seconds)),
        Event::Spectra { .. }
        | Event::Heads { .. }
        | Event::Probe { .. }
        | Event::Sharpness { .. }
        | Event::Energy { .. }
        | Event::End(_) => None,
    }
}

/// The event files of this program in a folder; others are left alone.
fn event_files(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = std::fs::read_dir(folder).map_err(FileError::at("read", folder))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    Ok(paths.filter(|path| started(path).is_some()).collect())
}

/// When an event file was begun, in seconds since 1970.
fn started(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn train(step: u64) -> Event {
        let (tokens, seconds) = (step * 100, step as f64 * 0.5);
        Event::Train {
            step,
            loss: 2.5,
            lr: 0.25,
            tokens,
            grad_norm: Some(1.0),
            seconds,
            optimizer_seconds: 0.125,
            factors: BTreeMap::new(),
            momentum: None,
        }
    }

    /// Name, step and time of every number in a file, read again without the code that writes.
    fn read(folder: &Path) -> Vec<(String, u64, f32)> {
        let files = event_files(folder).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        let bytes = std::fs::read(&files[0]).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            found.extend(numbers(&bytes[at + 12..at + 12 + length]));
            at += length + 16;
        }
        found
    }

    fn numbers(event: &[u8]) -> Vec<(String, u64, f32)> {
        // Steps here need one byte.
        let (Some(0x10), Some(step)) = (event.get(9), event.get(10)) else { return Vec::new() };
        let mut rest = &event[13 + usize::from(event[12] > 0x7f)..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let name = 4 + usize::from(rest[3]);
            let number = f32::from_le_bytes(rest[name + 1..name + 5].try_into().unwrap());
            found.push((String::from_utf8(rest[4..name].to_vec()).unwrap(), u64::from(*step), number));
            rest = &rest[name + 5..];
        }
        found
    }

    #[test]
    fn a_file_has_every_number_of_the_events() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventFile::begin(folder.path(), &[train(1)]).unwrap();
        log.write(&train(2)).unwrap();
        log.sync().unwrap();
        let expected = |step: u64| {
            [
                ("loss", 2.5),
                ("lr", 0.25),
                ("tokens", step as f32 * 100.0),
                ("grad_norm", 1.0),
                ("seconds", step as f32 * 0.5),
                ("optimizer_seconds", 0.125),
                ("tokens_per_second", 200.0),
            ]
            .map(|(name, number)| (format!("train/{name}"), step, number))
        };
        assert_eq!(read(folder.path()), [expected(1), expected(2)].concat());
    }

    #[test]
    fn the_next_session_has_one_file_with_the_events_that_hold() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.out.tfevents.1.other"), "x").unwrap();
        let mut log = EventFile::begin(folder.path(), &[]).unwrap();
        (1..=5).for_each(|step| log.write(&train(step)).unwrap());
        let before = event_files(folder.path()).unwrap();
        let mut log = EventFile::begin(folder.path(), &[train(1), train(2), train(3)]).unwrap();
        log.write(&train(4)).unwrap();
        assert!(event_files(folder.path()).unwrap()[0] > before[0], "readers go on to later names only");
        let steps: Vec<u64> =
            read(folder.path()).iter().filter(|(name, ..)| name == "train/loss").map(|n| n.1).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert!(folder.path().join("events.out.tfevents.1.other").exists());
    }
}
