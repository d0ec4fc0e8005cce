//! Why several processes cannot train together.

use std::path::PathBuf;

use super::exit::{EXIT_BAD_INPUT, EXIT_FAILED};

/// Why several processes cannot train together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// A launcher of MPI started several processes of a program without MPI.
    #[error(
        "this program was started as {count} processes, but was built without MPI, so that each would train the same run: build it \
         by `cargo build --release -p polaron-train --features mpi`, or start one process"
    )]
    NotCompiled {
        /// How many were started.
        count: usize,
    },
    /// Something that is no launcher of MPI started several processes.
    #[error(
        "`{variable}` is {count}, but no launcher of MPI started this process, so that each would train the same run: start it by \
         `polaron launch --ranks {count} -- train …` or `mpirun -np {count} polaron train …`, or unset the variable"
    )]
    NoLauncher {
        /// The variable that says so.
        variable: &'static str,
        /// How many were started.
        count: usize,
    },
    /// MPI is there, but cannot be used.
    #[error(
        "MPI cannot be used ({message}): start the processes by the `mpirun` of the library that this program was built with"
    )]
    Unusable {
        /// What is wrong with it.
        message: String,
    },
    /// The launcher is not there.
    #[error(
        "`{}` was not found: install the MPI library that this program was built with (Debian: `apt-get install openmpi-bin`), or \
         name its launcher by --mpirun",
        path.display()
    )]
    NoMpirun {
        /// Its name or path.
        path: PathBuf,
    },
    /// Too few grains for so many processes.
    #[error(
        "{ranks} processes cannot share {grains} grains: set `train.grains` to a multiple of {ranks}, raise `train.batch`, or start \
         fewer processes"
    )]
    Grains {
        /// The processes.
        ranks: usize,
        /// Grains of a batch.
        grains: usize,
    },
    /// Something that only one process can do.
    #[error("`{key}` is measured by a single process only: leave the key out, or start one process")]
    Alone {
        /// The key that asks for it.
        key: &'static str,
    },
    /// The processes do not have the same.
    #[error(
        "rank {rank} has another {what} than rank 0 ({theirs}, and there {ours}): start the same program with the same arguments, \
         files and data on every machine"
    )]
    Differs {
        /// The first process that differs.
        rank: usize,
        /// What differs.
        what: String,
        /// What that process has.
        theirs: String,
        /// What rank 0 has.
        ours: String,
    },
    /// A process has an error, and all end with it.
    #[error("{}{message}", place(*rank))]
    Agreed {
        /// The first process that has one.
        rank: usize,
        /// Its message.
        message: String,
        /// Its exit code.
        code: u8,
    },
    /// A message that cannot be read.
    #[error("a message of rank {rank} cannot be read ({message}): start the same program on every machine")]
    Message {
        /// Who sent it.
        rank: usize,
        /// Why not.
        message: String,
    },
}

/// Where something happened, if it is not where the user looks.
fn place(rank: usize) -> String {
    if rank == 0 { String::new() } else { format!("rank {rank}: ") }
}

impl RanksError {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Agreed { code, .. } => *code,
            Self::Message { .. } => EXIT_FAILED,
            _ => EXIT_BAD_INPUT,
        }
    }

    /// Whether every process of the run ends with it.
    pub fn is_common(&self) -> bool {
        !matches!(self, Self::Message { .. })
    }
}
