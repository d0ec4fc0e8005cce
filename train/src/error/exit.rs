//! Exit codes of the program.

/// Exit code: success.
pub const EXIT_DONE: u8 = 0;
/// Exit code: the work itself failed (a diverged run, an internal error).
pub const EXIT_FAILED: u8 = 1;
/// Exit code: bad usage or input, a full or read-only disk included.
pub const EXIT_BAD_INPUT: u8 = 2;
/// Exit code: interrupted by a signal, after saving.
pub const EXIT_INTERRUPTED: u8 = 130;
