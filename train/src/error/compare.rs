//! Why a comparison cannot be made.

use std::path::PathBuf;

use super::exit::{EXIT_BAD_INPUT, EXIT_FAILED};

/// What is wrong with a plan, or what went wrong in a comparison. Every message is one sentence that says what, where and
/// what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Fewer than two optimizers.
    #[error(
        "a comparison needs at least two optimizers, not {count}: list more of them in `optimizers` or --optimizers"
    )]
    TooFew {
        /// How many there are.
        count: usize,
    },
    /// Two optimizers with the same name.
    #[error(
        "two optimizers are called `{name}`: give one of them another name, as in {{ name = \"other\", stack = \"{name}\" }}"
    )]
    SameName {
        /// The name.
        name: String,
    },
    /// A name that cannot be part of a file name.
    #[error(
        "`{name}` cannot be the name of an optimizer: use up to 40 letters, digits and -_.+, and do not begin with a dot"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// An optimizer table without a name.
    #[error("a table in `optimizers` has neither `name` nor `stack`: write {{ name = \"mine\", stack = \"muon\", … }}")]
    Nameless,
    /// An empty list of values to try.
    #[error("{what} is empty: list at least one value")]
    EmptyGrid {
        /// The list.
        what: String,
    },
    /// A learning rate that is not positive and finite, or is listed twice.
    #[error("{lr} cannot be among the learning rates of `{name}`: they must be positive, finite and all different")]
    BadRate {
        /// The optimizer.
        name: String,
        /// The rate.
        lr: f64,
    },
    /// Grids of different lengths.
    #[error(
        "`{}` has {} learning rates and `{}` has {}: a fair comparison tries the same number for every optimizer",
        first.0, first.1, other.0, other.1
    )]
    UnequalGrids {
        /// Name of the first optimizer, and its number of rates.
        first: (String, usize),
        /// The same for the optimizer that differs.
        other: (String, usize),
    },
    /// A key that the comparison sets itself.
    #[error("`{key}` cannot be set in a comparison, which sets it itself: use `{instead}` of the plan")]
    Decided {
        /// The key.
        key: String,
        /// The key of the plan that decides it.
        instead: &'static str,
    },
    /// A key that would give the optimizers different work.
    #[error(
        "`{key}` cannot be swept, since the optimizers would do different work: only keys of [optimizer] and [schedule] can"
    )]
    NotSwept {
        /// The key.
        key: String,
    },
    /// Ends between which nothing can be drawn.
    #[error("the range of `search.{key}` {why}")]
    BadRange {
        /// The key.
        key: String,
        /// What it must be.
        why: String,
    },
    /// Both ways of tuning.
    #[error(
        "`{name}` has a grid (`lrs`, `sweep`) and the plan has a search (`search`, `compare.trials`): use one of them; the range of the \
         learning rate is `search.\"optimizer.lr\"`"
    )]
    GridAndSearch {
        /// The optimizer.
        name: String,
    },
    /// Tuning and verdict share seeds.
    #[error(
        "the tuning seeds overlap the verdict seeds: set `compare.first_tune_seed` further away from `compare.first_seed`"
    )]
    SharedSeeds,
    /// The folder holds another comparison.
    #[error("`{}` holds a comparison with another plan: {}; choose another folder (--out), or repeat that plan to resume it", path.display(), differences.join(", "))]
    OtherPlan {
        /// The folder.
        path: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// The plan is not the one that the comparison began with.
    #[error("`{}` is not the plan that the comparison began with: {}; undo the change to resume it, or start a new comparison with `polaron compare {} --out NEW`", file.display(), differences.join(", "), file.display())]
    EditedPlan {
        /// The plan.
        file: PathBuf,
        /// One entry per differing key, with both values.
        differences: Vec<String>,
    },
    /// Some runs used different data from the rest.
    #[error("{} (fingerprint {}) and {} (fingerprint {}) did not use the same data, and losses on different data cannot be compared: restore the data, remove the folders of the runs on other data, and run the command again", first.0, first.1, other.0, other.1)]
    MixedData {
        /// Names of runs, and the fingerprint of their data.
        first: (String, String),
        /// The same for the runs that differ.
        other: (String, String),
    },
    /// The data are not those that the runs used.
    #[error(
        "the data `{source_name}` have changed since the comparison began: {runs} used data with the fingerprint {began_with}, now it is {now}; nothing is lost: restore the data and run the command again, or compare on the new data with another --out"
    )]
    OtherData {
        /// Name or path of the data.
        source_name: String,
        /// Names of runs.
        runs: String,
        /// The fingerprint of their data.
        began_with: String,
        /// The fingerprint now.
        now: String,
    },
    /// The data are no longer at their path.
    #[error("the data of the comparison in `{}` are not at `{source_name}`: if they were moved, resume with `polaron compare {} --data PATH`, which checks that they are the same", path.display(), path.display())]
    DataGone {
        /// The folder of the comparison.
        path: PathBuf,
        /// Path of the data.
        source_name: String,
    },
    /// A comparison whose runs only the program can make that began it.
    #[error("`{}` is the plan of a comparison on a training loop of its own: run that program again to resume it; `polaron report` writes its page", path.display())]
    OwnLoop {
        /// The plan.
        path: PathBuf,
    },
    /// The folder holds something that is not a comparison.
    #[error("`{}` is not empty and holds no comparison (no plan.toml in it): choose another folder (--out)", path.display())]
    NotAComparison {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works in the folder.
    #[error("another process is comparing in `{}`: wait for it, stop it, or choose another folder (--out)", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A run failed, other than by diverging.
    #[error("the run `{run}` failed ({message}): its log is `{}`; when the cause is fixed, run the command again to resume", log.display())]
    RunFailed {
        /// The run.
        run: String,
        /// Its error message, without `error:`.
        message: String,
        /// The file with all of its output.
        log: PathBuf,
        /// Its exit code.
        code: u8,
    },
    /// A training that is not a process failed, other than by diverging.
    #[error(
        "the run `{run}` failed ({message}); when the cause is fixed, run the program again: what has ended is not repeated"
    )]
    TrialFailed {
        /// The run.
        run: String,
        /// What went wrong.
        message: String,
    },
    /// A timed run of a dry run failed; its folder was removed.
    #[error(
        "a timed run of the dry run failed ({message}): correct the plan, or run the command again when the cause is fixed"
    )]
    TimingFailed {
        /// Its error message, without `error:`.
        message: String,
        /// Its exit code.
        code: u8,
    },
    /// This program cannot start itself.
    #[error("cannot start a run ({message}): check that the program `{}` can be executed", program.display())]
    CannotStart {
        /// The program.
        program: PathBuf,
        /// The error of the operating system.
        message: String,
    },
    /// A value of `--launch` that is no command.
    #[error(
        "--launch `{text}` cannot stand before a program, since {problem}: write it as for a shell, for example --launch \"srun -n1 -c2\""
    )]
    BadLaunch {
        /// The value.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The first word of `--launch` cannot be started.
    #[error(
        "cannot start `{program}` of --launch ({message}): check its name, and that this machine has it, or leave out --launch; the runs so far are saved"
    )]
    CannotLaunch {
        /// The program.
        program: String,
        /// The error of the operating system.
        message: String,
    },
    /// A run that was started with `--launch` did not end, and gave no reason itself.
    #[error("the run `{run}`, started with --launch `{prefix}`, did not end as a run does ({message}): check that `{prefix} true` works; the whole log is `{}`, and the command resumes with this prefix, another one, or none", log.display())]
    LaunchFailed {
        /// The run.
        run: String,
        /// The prefix.
        prefix: String,
        /// How it ended, and the last line of its output.
        message: String,
        /// The file with all of its output.
        log: PathBuf,
    },
    /// Fewer seeds than the folder has.
    #[error("`{}` holds a comparison with {there} seeds, and {now} are asked for: seeds can be added but not taken away, since that would choose among results; resume it with `polaron compare {}`, or choose another --out for {now} seeds", path.display(), path.display())]
    FewerSeeds {
        /// The folder.
        path: PathBuf,
        /// Its number of seeds.
        there: u64,
        /// The number that is asked for.
        now: u64,
    },
    /// A path that a line of `--next` cannot hold.
    #[error("`{path}` holds a line break, and `--next` prints one command a line: use a folder without one")]
    LineBreak {
        /// The path, with the line break escaped.
        path: String,
    },
    /// Every tuning run diverged.
    #[error(
        "every tuning run of every optimizer diverged: lower the learning rates with --lrs and choose another --out"
    )]
    AllDiverged,
    /// Every verdict run diverged.
    #[error(
        "every verdict run of every optimizer diverged: lower the learning rates with --lrs and choose another --out"
    )]
    NoneFinished,
}

impl CompareError {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::RunFailed { code, .. } | Self::TimingFailed { code, .. } => *code,
            Self::AllDiverged | Self::NoneFinished | Self::LaunchFailed { .. } | Self::TrialFailed { .. } => {
                EXIT_FAILED
            }
            _ => EXIT_BAD_INPUT,
        }
    }
}
