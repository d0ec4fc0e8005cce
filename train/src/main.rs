//! The program `polaron`.

use std::process::ExitCode;

/// Burn's CPU backend allocates the result of every operation. The system allocator returns such
/// blocks to the kernel and faults them in again; this one keeps them: 5 to 9 % of a training step
/// of `nanogpt-char`, 12 to 26 % of `llama-d128`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, for which the bindings have no name: milliseconds after which unused pages are returned to the
/// system, -1 for never.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // Every step needs the memory of the previous step again: returning it and getting it back zeroed made a step of
    // `llama-d256` 1.17 times as long, one of `llama-d128` 1.07. A delay set by the user (`MIMALLOC_PURGE_DELAY`) is kept.
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1);
    }
    ExitCode::from(polaron_train::main())
}
