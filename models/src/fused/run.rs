//! Work on parts of tensors, in parallel and in vector code.

use rayon::prelude::*;

/// Elements per task: few enough for the innermost caches. Fixed, so that sums over tasks do not depend on the number of
/// threads.
pub(super) const TASK: usize = 8192;

/// Runs `task` on every item, in parallel if there are several, compiled for the widest vectors of this processor.
#[inline(always)]
pub(super) fn run<T: Send, R: Send>(items: Vec<T>, task: impl Fn(T) -> R + Sync) -> Vec<R> {
    let arch = pulp::Arch::new();
    let one = |item| {
        arch.dispatch(
            #[inline(always)]
            || task(item),
        )
    };
    match items.len() {
        0 | 1 => items.into_iter().map(one).collect(),
        _ => items.into_par_iter().map(one).collect(),
    }
}

/// Elements per task, in whole lines of `width` elements.
pub(super) fn lines(width: usize) -> usize {
    width * (TASK / width.max(1)).max(1)
}
