//! The folder of a comparison.
//!
//! ```text
//! plan.toml         fully resolved; `polaron compare plan.toml` repeats the comparison
//! configs/          configuration of every run, and a copy of the plan that they were made from
//! runs/             the run folders: tune-<optimizer>-<trial>-lr<rate>-s<seed>, sensitivity-<optimizer>-lr<rate>-s<seed>,
//!                   verdict-<optimizer>-s<seed>
//! logs/             the output of every run
//! sessions.txt      every command that worked in the folder, with program and machine
//! results.json, results.csv, results.md, report.html
//! comparison.lock   held while a process works in the folder
//! ```

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::added;
use super::plan::Plan;
use crate::error::{CompareError, ConfigError, Error, FileError};
use crate::store::files::{Lock, is_locked, lock_file, write_atomically};
use crate::store::run_folder::RunFolder;

const PLAN: &str = "plan.toml";
/// Name of the plan's copy among the configurations, without its extension.
const PLAN_COPY: &str = "plan";
const LOCK: &str = "comparison.lock";
const FOLDERS: &[&str] = &["runs", "logs", "configs"];

/// Time between two looks at what another process or thread does.
pub const TICK: Duration = Duration::from_millis(50);

/// Reads a plan file.
pub type PlanReader = fn(&Path) -> Result<Plan, Error>;

/// A folder that holds, or will hold, one comparison.
#[derive(Clone, Debug)]
pub struct ComparisonFolder {
    path: PathBuf,
    read: PlanReader,
}

impl ComparisonFolder {
    /// The folder at `path`; nothing is read or created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read: Plan::read }
    }

    /// The same folder, whose plan needs another reader: one of `polaron compare` of an earlier version lacks newer keys.
    pub fn reading(self, read: PlanReader) -> Self {
        Self { read, ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `plan.toml`.
    pub fn plan_file(&self) -> PathBuf {
        self.path.join(PLAN)
    }

    /// The plan.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a damaged plan, one that was edited since the comparison began.
    pub fn plan(&self) -> Result<Plan, Error> {
        let plan = (self.read)(&self.plan_file())?;
        let copy = self.config(PLAN_COPY);
        if copy.is_file() {
            let differences = added::edited(&(self.read)(&copy)?, &plan)?;
            if !differences.is_empty() {
                return Err(CompareError::EditedPlan { file: self.plan_file(), differences }.into());
            }
        }
        Ok(plan)
    }

    /// The folder of a run.
    pub fn run(&self, name: &str) -> PathBuf {
        self.path.join("runs").join(name)
    }

    /// The folders of the runs so far, by name.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read.
    pub fn runs(&self) -> Result<Vec<PathBuf>, FileError> {
        let path = self.run("");
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::at("read", &path)(error)),
        };
        let runs = entries.filter_map(Result::ok).map(|entry| entry.path());
        let mut runs: Vec<PathBuf> = runs.filter(|run| RunFolder::new(run).config_file().is_file()).collect();
        runs.sort();
        Ok(runs)
    }

    /// Whether a process works in the folder.
    pub fn is_locked(&self) -> bool {
        is_locked(&self.path.join(LOCK))
    }

    /// The output of a run.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// The configuration that a run is started with.
    pub fn config(&self, name: &str) -> PathBuf {
        self.path.join("configs").join(format!("{name}.toml"))
    }

    /// `sessions.txt`: every command that worked in the folder.
    pub fn sessions_file(&self) -> PathBuf {
        self.path.join("sessions.txt")
    }

    /// Appends to `sessions.txt`.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn log_session(&self, text: &str) -> Result<(), FileError> {
        use std::io::Write;
        let path = self.sessions_file();
        let mut file = File::options().create(true).append(true).open(&path).map_err(FileError::at("write", &path))?;
        file.write_all(text.as_bytes()).map_err(FileError::at("write", &path))
    }

    /// Whether the folder holds a comparison.
    pub fn holds_comparison(&self) -> bool {
        self.plan_file().is_file()
    }

    /// Checks that the folder is free, or holds a comparison by the same plan with at most as many seeds, optimizers and rates. Nothing
    /// is written. Returns the plan as the folder shall keep it: with what there was before.
    ///
    /// # Errors
    ///
    /// [`CompareError::OtherPlan`] with the differences, [`CompareError::FewerSeeds`], [`CompareError::NotAComparison`].
    pub fn check(&self, plan: &Plan) -> Result<Plan, Error> {
        if self.holds_comparison() {
            return added::joined(&self.plan()?, plan, &self.path);
        }
        let mut fresh = plan.clone();
        fresh.settings.seeds_before = Vec::new();
        fresh.settings.optimizers_before = Vec::new();
        fresh.contenders.iter_mut().for_each(|contender| contender.lrs_before = Vec::new());
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(FileError::at("use the folder", &self.path)(error).into()),
        };
        // A process that was killed at its start may have left the lock or a half-written plan.
        let ours = |name: &str| name == LOCK || name.starts_with(&format!(".{PLAN}")) || FOLDERS.contains(&name);
        let foreign = entries.filter_map(Result::ok).any(|entry| !entry.file_name().to_str().is_some_and(ours));
        if foreign { Err(CompareError::NotAComparison { path: self.path.clone() }.into()) } else { Ok(fresh) }
    }

    /// Takes the folder's lock, for which it waits at most so long, and creates the subfolders. Returns the plan as the folder
    /// shall keep it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check`], [`CompareError::Locked`], a folder that cannot be written.
    pub fn claim(&self, plan: &Plan, patience: Duration) -> Result<(Lock, Plan), Error> {
        std::fs::create_dir_all(&self.path).map_err(FileError::at("create the folder", &self.path))?;
        let since = Instant::now();
        let lock = loop {
            match lock_file(&self.path.join(LOCK))? {
                Some(lock) => break lock,
                None if since.elapsed() < patience => std::thread::sleep(TICK),
                None => return Err(CompareError::Locked { path: self.path.clone() }.into()),
            }
        };
        // Another process may have begun here since the first check.
        let plan = self.check(plan)?;
        for name in FOLDERS {
            let folder = self.path.join(name);
            std::fs::create_dir_all(&folder).map_err(FileError::at("create the folder", &folder))?;
        }
        Ok((lock, plan))
    }

    /// Writes the plan if it is not there yet, or if the data were moved or something added.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), Error> {
        let text = toml::to_string(&plan.to_table()?).map_err(ConfigError::misfit)?;
        // The plan comes last: it makes the folder a comparison. Where it exists it comes first: its copy may lag behind.
        let mut files = [self.config(PLAN_COPY), self.plan_file()];
        if self.holds_comparison() {
            files.reverse();
        }
        let kept = |plan: &Plan| {
            let rates: Vec<_> = plan.contenders.iter().map(|contender| contender.lrs.clone()).collect();
            (plan.source().to_owned(), plan.settings.seeds, rates)
        };
        for path in files {
            let there = path.is_file().then(|| (self.read)(&path)).transpose()?;
            if there.is_none_or(|there| kept(&there) != kept(plan)) {
                write_atomically(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}
