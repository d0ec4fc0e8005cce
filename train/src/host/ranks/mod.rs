//! Processes that train one model together, and how they exchange numbers.

mod exchange;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
mod world;

#[cfg(all(test, feature = "mpi"))]
pub mod tests {
    //! Tests that start themselves on several ranks.

    use std::process::{Command, Output};

    /// Runs an ignored test of this program on so many ranks.
    pub fn start(ranks: usize, test: &str) -> Output {
        let mut command = Command::new("mpirun");
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
        command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
        command.args(["--quiet", "--oversubscribe", "--bind-to", "none", "-np", &ranks.to_string()]);
        let program = std::env::current_exe().unwrap();
        command.arg(program).args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).output().unwrap()
    }
}

pub use exchange::{Crew, Ranks, in_turn, starts, tell};
#[cfg(feature = "cuda")]
pub use launcher::local_rank;
pub use launcher::{follows, local_ranks, name};
pub use world::{abort, enter, leave};
