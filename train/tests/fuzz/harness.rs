//! Runs a reader on its corpus and on changed files of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::changes::{Draws, changed};

/// A case that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Slower than any of these small files needs.
const SLOW: Duration = Duration::from_secs(10);
/// Memory that one small file may take.
const ENOUGH: u64 = 1 << 30;
/// Depth of recursion must not depend on a file: as much stack as a thread has by default.
const STACK: usize = 2 << 20;

/// One reader at a time, so that time and memory are its own.
static TURN: Mutex<()> = Mutex::new(());

/// What a reader makes of a file: accepted, or refused in these words. Whatever else must hold it asserts itself. The
/// folder is empty at first and is the reader's.
pub trait Reader: Fn(&Path, &[u8]) -> Result<(), String> + Send + 'static {}
impl<F: Fn(&Path, &[u8]) -> Result<(), String> + Send + 'static> Reader for F {}

/// Reads every file of `corpus/NAME`, then `cases` changed ones.
pub fn fuzz(name: &'static str, cases: u64, reader: impl Reader) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = corpus(name);
    let cases = std::env::var("POLARON_FUZZ_CASES").map_or(cases, |cases| cases.parse().expect("a number of cases"));
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let (input, (sender, receiver)) = (kept.clone(), channel());
    let all = move || {
        for (file, bytes) in &corpus {
            let refused = one(&input, &place, bytes, file, &reader);
            assert_eq!(refused.is_some(), file.starts_with("bad-"), "{name}: {file}: {refused:?}");
            sender.send(()).unwrap();
        }
        for case in 0..cases {
            let mut draws = Draws::new(case);
            let [(_, seed), (_, other)] = [(); 2].map(|()| &corpus[draws.below(corpus.len())]);
            let bytes = changed(seed, other, &mut draws);
            one(&input, &place, &bytes, &format!("case {case}"), &reader);
            sender.send(()).unwrap();
        }
    };
    let worker = std::thread::Builder::new().stack_size(STACK).name(name.into()).spawn(all).unwrap();
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(()) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(_) => panic!("{name}: no answer within {PATIENCE:?}; the input is {}", kept.display()),
        }
    }
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let _ = std::fs::remove_file(kept);
}

/// Reads one input and returns the words of a refusal.
fn one(kept: &Path, place: &Path, bytes: &[u8], what: &str, reader: &impl Reader) -> Option<String> {
    // Written before it is read: what ends the process leaves it behind.
    std::fs::write(kept, bytes).unwrap();
    let (began, before) = (Instant::now(), peak());
    let result = catch_unwind(AssertUnwindSafe(|| reader(place, bytes)));
    let (took, grown) = (began.elapsed(), peak().saturating_sub(before));
    let at = format!(
        "{what}; its input is {}, {}",
        kept.display(),
        bytes.escape_ascii().to_string().get(..400).unwrap_or("short")
    );
    let refused = match result {
        Ok(result) => result.err(),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            panic!("{at}: panicked: {}", said.unwrap_or_default());
        }
    };
    assert!(took < SLOW, "{at}: took {took:?}");
    assert!(grown < ENOUGH, "{at}: took {grown} bytes");
    if let Some(message) = &refused {
        assert!(!message.trim().is_empty() && message.len() < 4000 + 4 * bytes.len(), "{at}: said {message:?}");
    }
    refused
}

/// Largest address space of this process so far, promised memory included; 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// The files of a folder of the corpus, by name.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Text of an input that is text.
pub fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

/// An error in words.
pub fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
