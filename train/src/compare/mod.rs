//! A verdict on optimizers, from paired runs.
//!
//! For one seed every optimizer starts from the same weights and sees the same batches. Each is tuned with the same number of
//! learning rates on seeds that the verdict does not use (`tuning`); then each runs with every verdict seed
//! (`runner`), and the differences are tested seed by seed (`statistics`, `results`, `verdict`).

mod child;
mod estimate;
mod folder;
mod judge;
mod launch;
mod loaded;
mod make;
mod next;
mod outcome;
mod plan;
mod processors;
mod resolve;
mod results;
mod runner;
mod seeds;
mod sizes;
mod statistics;
mod tables;
mod tuning;
mod verdict;

pub use estimate::describe as estimate;
pub use folder::ComparisonFolder;
pub use judge::results;
pub use launch::Launch;
pub use loaded::LoadedComparison;
pub use make::{check, make};
pub use next::{Next, next};
pub use outcome::{Outcome, Point, Snapshot, first_reach, snapshots, train_losses, validations};
pub use plan::{Candidate, Contender, Plan, Purpose, Request, Settings};
pub use processors::time_column;
pub use resolve::DEFAULT_OPTIMIZERS;
pub use results::{Pair, PairReach, Reach, Results, Standing, VerdictRun};
pub use statistics::{Paired, half_width, mean};
pub use tables::{
    columns as table_columns, markdown, pairs as pair_table, rates as rate_table, rates_note, text as table_text,
};
pub use tuning::{AtFactor, Edge, Known, Trial, Tuning};
