//! Ctrl-C and SIGTERM: the first requests an orderly end, the second ends the process at once. SIGUSR1, by which schedulers and
//! launchers announce the end, only requests it.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::EXIT_INTERRUPTED;
use crate::host::progress;

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// What a process that trains says to the first signal.
pub const SAVING: &str = "interrupted: finishing this step and saving (interrupt again to stop at once)";

/// Installs the signal handler, once per process; `said` answers the first signal.
pub fn install(said: &'static str) {
    let handler = move || {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        progress::say(said);
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("cannot handle signals ({error}): Ctrl-C ends this process at once, without saving");
    }
    #[cfg(unix)]
    on_announcement(said);
}

/// Requests an orderly end at every SIGUSR1.
#[cfg(unix)]
fn on_announcement(said: &'static str) {
    use signal_hook::consts::SIGUSR1;
    let mut signals = match signal_hook::iterator::Signals::new([SIGUSR1]) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!("cannot handle SIGUSR1 ({error}): it ends this process at once, without saving");
            return;
        }
    };
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if !requested() {
                progress::say(said);
            }
            request();
        }
    });
}

/// Requests an orderly end, as the first signal does.
pub fn request() {
    SIGNALS.fetch_max(1, Ordering::SeqCst);
}

/// Requests an orderly end when standard input closes: the process that holds its other end has ended, or wants this one to
/// end. That process has written a byte; an input that ends without one comes from what stands between the two, and means nothing.
pub fn stop_with_stdin() {
    std::thread::spawn(|| {
        let mut input = std::io::stdin().lock();
        if input.read_exact(&mut [0]).is_err() {
            progress::say("standard input is not passed on to this run: its end does not stop the run, SIGUSR1 does");
            return;
        }
        // Input is discarded; an error counts as closed.
        let _ = std::io::copy(&mut input, &mut std::io::sink());
        request();
    });
}

/// Whether an orderly end was requested.
pub fn requested() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}
