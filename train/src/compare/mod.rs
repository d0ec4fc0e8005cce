//! A verdict on optimizers, from paired runs.
//!
//! For one seed every optimizer starts from the same weights and sees the same batches. Each is tuned with the same number of
//! learning rates on seeds that the verdict does not use (`tuning`); then each runs with every verdict seed
//! (`engine`), and the differences are tested seed by seed (`statistics`, `results`, `verdict`).
//!
//! Nothing here knows what is trained: a comparison is given a function that makes one run, from a [`Trial`] to [`Measurement`]s.
//! `polaron compare` gives it one that starts a child process, [`Comparison`](crate::Comparison) that of its user.

mod added;
mod claim;
mod complete;
mod contenders;
mod draw;
mod engine;
mod folder;
mod journal;
mod judge;
mod listed;
mod measurement;
mod outcome;
mod pairing;
mod plan;
mod processors;
mod profile;
mod range;
mod read;
mod results;
mod runs;
mod search;
mod settings;
mod statistics;
mod subject;
mod tables;
mod trial;
mod tuning;
mod verdict;

pub use claim::{Claim, LEAST_RUNS, Lead, MARGIN, leads};
pub use complete::{complete, session};
pub use contenders::{check_grids, check_name, check_names, check_rates, grid};
pub use folder::{ComparisonFolder, PlanReader, TICK};
pub use judge::results;
pub use listed::{Shared, TUNED, contender, named, wrong_type};
pub use measurement::Measurement;
pub use outcome::{Outcome, Point, Snapshot, first_reach, snapshots, train_losses, validations};
#[cfg(test)]
pub(crate) use plan::differences;
pub use plan::{Candidate, Contender, LRS_BEFORE, Plan, Purpose, Settings, section};
pub use processors::time_column;
pub use profile::{Count, LARGEST, Profile};
pub use read::LOOP;
pub use results::{Pair, PairReach, Reach, Results, Standing, VerdictRun};
pub use runs::Runs;
pub use search::{complete_search, trials};
pub use statistics::{Paired, half_width, mean};
pub use subject::Subject;
pub use tables::{
    columns as table_columns, markdown, pairs as pair_table, rates as rate_table, rates_note, summary,
    text as table_text,
};
pub use trial::Trial;
pub use tuning::{AtFactor, Edge, FACTORS, Known, Run, Tried, Tuning};
