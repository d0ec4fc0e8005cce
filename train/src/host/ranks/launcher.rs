//! What started this process as one of several, by the variables that launchers set.

use crate::error::RanksError;

/// Variables with the number of processes: of Open MPI, of Hydra and PMI, of Slurm for the current `srun`.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
/// Variables that only a launcher of MPI sets.
const MPI: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];
/// Set by launchers of other programs, which start no MPI.
const OTHER: &str = "WORLD_SIZE";
/// Variables with the number of this process, from 0.
const RANKS: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"];
/// Variables with the number of this process on this machine.
#[cfg(feature = "cuda")]
const LOCAL_RANKS: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];
/// Variables with the number of processes on this machine.
const LOCAL_SIZES: [&str; 2] = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"];

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

/// How many processes a launcher of MPI has started as one run; None if this one runs alone.
///
/// # Errors
///
/// [`RanksError::NoLauncher`] where something else started several: they would all train the same run.
pub fn launched() -> Result<Option<usize>, RanksError> {
    let by_mpi = MPI.iter().any(|variable| std::env::var_os(variable).is_some());
    let count = SIZES.iter().find_map(|variable| number(variable)).unwrap_or(1);
    if by_mpi && count > 1 {
        return Ok(Some(count));
    }
    match number(OTHER) {
        Some(count) if count > 1 && !by_mpi => Err(RanksError::NoLauncher { variable: OTHER, count }),
        _ => Ok(None),
    }
}

/// The number of this process among those of the run on this machine, from 0.
#[cfg(feature = "cuda")]
pub fn local_rank() -> usize {
    LOCAL_RANKS.iter().find_map(|variable| number(variable)).unwrap_or(0)
}

/// The number of this process, from 0; 0 too if it runs alone.
fn rank() -> usize {
    let several = matches!(launched(), Ok(Some(_)));
    RANKS.iter().find_map(|variable| number(variable)).filter(|_| several).unwrap_or(0)
}

/// Whether this process is one of several, and another one talks to the user.
pub fn follows() -> bool {
    rank() > 0
}

/// What begins a message of this process, if another one talks to the user.
pub fn name() -> String {
    if follows() { format!("rank {}: ", rank()) } else { String::new() }
}

/// Processes of the run on this machine, which share its processors.
pub fn local_ranks() -> usize {
    LOCAL_SIZES.iter().find_map(|variable| number(variable)).unwrap_or(1).max(1)
}
