//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::EXIT_INTERRUPTED;
use crate::progress;

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Starts listening, once per process.
pub fn install() {
    let handler = || {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        progress::say("interrupted: finishing this step and saving (once more to stop at once)");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("signals end this process at once, without saving ({error})");
    }
}

/// Asks for an orderly end, as the first signal does.
pub fn request() {
    SIGNALS.fetch_max(1, Ordering::SeqCst);
}

/// Asks for an orderly end when standard input closes: the process at its other end has ended, or wants this one to end.
pub fn stop_with_stdin() {
    std::thread::spawn(|| {
        // Whatever comes is thrown away; an error is an end too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        request();
    });
}

/// Whether an orderly end was asked for.
pub fn requested() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}
