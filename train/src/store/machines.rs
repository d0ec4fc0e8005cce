//! `machines.jsonl`: on which processors a run was trained, and from which step on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::host::processor;
use crate::store::files::write_atomically;

/// One line: from this step on, the run was trained on this processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Machine {
    /// Finished steps when the session began.
    step: u64,
    /// Model of the processor of the process that writes the files of the run.
    cpu: String,
}

/// Notes that a session on this machine begins after `step` steps. Sessions of which no step is left are forgotten.
///
/// # Errors
///
/// [`FileError`] naming the file.
pub fn note(path: &Path, step: u64) -> Result<(), FileError> {
    let before = read(path)?;
    let after = noted(&before, Machine { step, cpu: processor::model() });
    if after == before { Ok(()) } else { write(path, &after) }
}

fn noted(before: &[Machine], now: Machine) -> Vec<Machine> {
    let mut kept: Vec<Machine> = before.iter().filter(|machine| machine.step < now.step).cloned().collect();
    if kept.last().is_none_or(|last| last.cpu != now.cpu) {
        kept.push(now);
    }
    kept
}

fn write(path: &Path, machines: &[Machine]) -> Result<(), FileError> {
    let line = |machine: &Machine| serde_json::to_string(machine).map(|text| text + "\n");
    let text: Result<String, _> = machines.iter().map(line).collect();
    let text = text.map_err(|error| FileError::at("write", path)(error.into()))?;
    write_atomically(path, text.as_bytes())
}

/// The models of the processors on which a run was trained, each once, sorted; empty for a run of an earlier version.
///
/// # Errors
///
/// [`FileError`] naming the file.
pub fn cpus(path: &Path) -> Result<Vec<String>, FileError> {
    let mut cpus: Vec<String> = read(path)?.into_iter().map(|machine| machine.cpu).collect();
    cpus.sort();
    cpus.dedup();
    Ok(cpus)
}

fn read(path: &Path) -> Result<Vec<Machine>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let machines: Result<Vec<Machine>, _> = text.lines().map(serde_json::from_str).collect();
            machines.map_err(|error| FileError::at("read", path)(error.into()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(FileError::at("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(step: u64, cpu: &str) -> Machine {
        Machine { step, cpu: cpu.into() }
    }

    #[test]
    fn a_run_knows_every_processor_that_made_steps_which_are_left() {
        let first = noted(&[], on(0, "A"));
        assert_eq!(first, [on(0, "A")]);
        // Killed before its first checkpoint, and begun again elsewhere.
        assert_eq!(noted(&first, on(0, "B")), [on(0, "B")]);
        let second = noted(&first, on(100, "B"));
        assert_eq!(second, [on(0, "A"), on(100, "B")]);
        assert_eq!(noted(&second, on(150, "B")), second);
        assert_eq!(noted(&second, on(100, "A")), first);
        assert_eq!(noted(&second, on(150, "A")), [on(0, "A"), on(100, "B"), on(150, "A")]);
    }

    #[test]
    fn what_was_noted_is_read_back_once_for_each_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machines.jsonl");
        assert!(cpus(&path).unwrap().is_empty());
        write(&path, &[on(0, "B"), on(5, "A \"x\""), on(9, "B")]).unwrap();
        assert_eq!(cpus(&path).unwrap(), ["A \"x\"", "B"]);
        std::fs::write(&path, "{\"step\":0,\"cpu\":\"B\"}\nnonsense\n").unwrap();
        let said = cpus(&path).unwrap_err().to_string();
        assert!(said.contains("machines.jsonl"), "{said}");
        write(&path, &[on(0, "B")]).unwrap();
        note(&path, 0).unwrap();
        assert_eq!(cpus(&path).unwrap(), [processor::model()]);
    }
}
