//! Joining the other processes of a run, and leaving them.

use super::exchange::Ranks;
use super::launcher;
use crate::error::RanksError;

/// The other processes of the run, if a launcher has started several.
///
/// # Errors
///
/// [`RanksError::NotCompiled`] where this program has no MPI; [`RanksError::NoLauncher`].
pub fn enter() -> Result<Option<Box<dyn Ranks>>, RanksError> {
    let Some(count) = launcher::launched()? else { return Ok(None) };
    #[cfg(feature = "mpi")]
    return super::mpi::enter(count).map(Some);
    #[cfg(not(feature = "mpi"))]
    Err(RanksError::NotCompiled { count })
}

/// Ends the part of this process in an orderly way: it waits until all others do the same.
pub fn leave() {
    #[cfg(feature = "mpi")]
    super::mpi::leave();
}

/// Ends all processes of the run at once, if there are others. Without this, they would wait for this one for ever.
pub fn abort(code: u8) {
    #[cfg(feature = "mpi")]
    super::mpi::abort(code);
    #[cfg(not(feature = "mpi"))]
    let _ = code;
}
