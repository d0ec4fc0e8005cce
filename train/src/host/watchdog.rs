//! Ends a run whose processes wait for each other for ever: one of them hangs, or they do not do the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::EXIT_FAILED;
use crate::host::{progress, ranks};

/// Signs of life since the start.
static BEATS: AtomicU64 = AtomicU64::new(0);

/// A process waits longer than the one before it: the first that runs ends all, which takes MPI some seconds, so that only one says why.
const APART: Duration = Duration::from_secs(5);

/// A sign of life: something was done that does not depend on other processes, or they have answered.
pub fn beat() {
    BEATS.fetch_add(1, Ordering::Relaxed);
}

/// While it exists, the processes of the run are watched.
#[derive(Debug)]
pub struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ends all processes of the run when this one, of this number, shows no sign of life for so long.
#[must_use]
pub fn watch(limit: Duration, rank: usize) -> Watch {
    let over = Arc::new(AtomicBool::new(false));
    let watch = Watch(over.clone());
    let patience = limit + APART * u32::try_from(rank).unwrap_or(u32::MAX);
    std::thread::spawn(move || {
        let pause = (limit / 10).min(Duration::from_secs(1));
        let (mut seen, mut since) = (BEATS.load(Ordering::Relaxed), Instant::now());
        while !over.load(Ordering::Relaxed) {
            let before = Instant::now();
            std::thread::sleep(pause);
            let beats = BEATS.load(Ordering::Relaxed);
            // A process that was stopped itself does not know what the others did.
            let was_stopped = before.elapsed() > limit;
            if beats != seen || was_stopped {
                (seen, since) = (beats, Instant::now());
            } else if since.elapsed() > patience {
                progress::cry(&format!(
                    "error: {}no step was made for {:.0} s: a process hangs, or the network does; the last checkpoint is intact, the \
                     same command resumes from it (`ranks.timeout` sets how long to wait)",
                    ranks::name(),
                    limit.as_secs_f64()
                ));
                ranks::abort(EXIT_FAILED);
                std::process::exit(i32::from(EXIT_FAILED));
            }
        }
    });
    watch
}
