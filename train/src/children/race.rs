//! `polaron race`: its fixed tasks, and the comparison of one that an entry's settings make. The rules are in `docs/RACE.md`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use polaron_common::did_you_mean;
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::request::Request;
use crate::compare::{LRS_BEFORE, Plan, check_name};
use crate::error::{ConfigError, Error, FileError};
use crate::settings::layers::read_file;
use crate::settings::merge;

/// A fixed task: the preset `nanogpt-char` with its defaults, on one text.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    /// Its name.
    pub name: &'static str,
    /// The validation loss to reach, in nats per token: what AdamW, tuned, ends with after [`ADAMW_STEPS`].
    pub target: f64,
    /// SHA-256 of its text, if that is a file.
    sha256: Option<&'static str>,
}

/// The model of every track.
const MODEL: &str = "nanogpt-char";
/// The steps of the AdamW that sets the target.
pub const ADAMW_STEPS: u64 = 2000;
/// The text inside the program.
const EMBEDDED: Track = Track { name: "shakespeare", target: 1.7833, sha256: None };
/// Tiny Shakespeare, 1,115,394 bytes.
const TINY: Track = Track {
    name: "tinyshakespeare",
    target: 1.7689,
    sha256: Some("86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
};
const TINY_ADDRESS: &str = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt";

impl Track {
    /// The names of the tracks.
    pub const NAMES: [&str; 2] = [EMBEDDED.name, TINY.name];

    /// The track of a text: the embedded one, or a file, which has to be Tiny Shakespeare.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, another text.
    pub fn of(data: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = data else { return Ok(EMBEDDED) };
        let bytes = std::fs::read(path).map_err(FileError::at("read", path))?;
        let found = hex::encode(Sha256::digest(&bytes));
        if TINY.sha256 == Some(found.as_str()) {
            return Ok(TINY);
        }
        Err(Error::Usage(format!(
            "`{}` is not the text of the race (its SHA-256 is {found}, and that of Tiny Shakespeare {}): fetch {TINY_ADDRESS}, or leave out \
             --data for the embedded text",
            path.display(),
            TINY.sha256.unwrap_or_default()
        )))
    }
}

/// An entry: what a settings file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    path: PathBuf,
    /// Its name: that in the file, or the name of the file.
    pub name: String,
    /// The steps within which it claims to reach the target.
    pub steps: u64,
    sections: Table,
}

/// What an entry may set: everything in the optimizer, its schedule, and the average of the weights that is evaluated.
const SECTIONS: [&str; 3] = ["optimizer", "schedule", "train"];
const OWN: [&str; 2] = ["name", "steps"];
const OF_TRAIN: &str = "average";
/// Keys of an optimizer in a plan that are no settings of it: an entry is not tuned while it runs.
const OF_A_PLAN: [&str; 5] = ["name", "lrs", LRS_BEFORE, "sweep", "search"];

impl Entry {
    /// Reads a settings file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a key that an entry may not set, a missing number of steps or stack.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut sections = read_file(path)?;
        let place = format!("in `{}`", path.display());
        let unknown = |key: &str, known: &[&str]| {
            let hint = did_you_mean(key, known.iter().copied());
            ConfigError::UnknownKey { key: key.into(), place: place.clone(), hint }
        };
        let known = [OWN.as_slice(), &SECTIONS].concat();
        if let Some(key) = sections.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(unknown(key, &known).into());
        }
        let train = sections.get("train").and_then(Value::as_table);
        if let Some(key) = train.and_then(|train| train.keys().find(|key| *key != OF_TRAIN)) {
            return Err(unknown(&format!("train.{key}"), &["train.average"]).into());
        }
        let optimizer = sections.get("optimizer").and_then(Value::as_table);
        if let Some(key) = OF_A_PLAN.iter().find(|key| optimizer.is_some_and(|optimizer| optimizer.contains_key(**key)))
        {
            return Err(unknown(&format!("optimizer.{key}"), &[]).into());
        }
        let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = match sections.remove("name") {
            Some(name) => name.as_str().map(String::from).ok_or_else(|| Self::lacks(path, "a string for `name`"))?,
            None => stem().unwrap_or_default(),
        };
        check_name(&name)?;
        let steps =
            sections.remove("steps").and_then(|steps| steps.as_integer()).and_then(|steps| u64::try_from(steps).ok());
        let steps = steps
            .ok_or_else(|| Self::lacks(path, "`steps = N`, the steps within which it claims to reach the target"))?;
        if merge::lookup(&sections, "optimizer.stack").is_none() {
            return Err(Self::lacks(path, "`stack` in [optimizer]"));
        }
        Ok(Self { path: path.into(), name, steps, sections })
    }

    fn lacks(path: &Path, what: impl Display) -> Error {
        Error::Usage(format!("`{}` is no entry of the race: it needs {what}", path.display()))
    }

    /// Its runs: a comparison of one, on the seeds 1, 2, 3 …, `jobs` of them at a time if that is given.
    ///
    /// # Errors
    ///
    /// A value of the settings that is not valid.
    pub fn plan(&self, track: &Track, data: Option<&Path>, seeds: u64, jobs: Option<u64>) -> Result<Plan, Error> {
        let number = |number: u64| Value::Integer(number.min(i64::MAX as u64) as i64);
        let mut compare = Table::new();
        compare.insert("race".into(), track.name.into());
        compare.insert("steps".into(), number(self.steps));
        compare.insert("seeds".into(), number(seeds));
        compare.insert("lr_points".into(), 1.into());
        compare.extend(jobs.map(|jobs| ("jobs".to_owned(), number(jobs))));
        let mut optimizer = self.sections["optimizer"].as_table().cloned().unwrap_or_default();
        optimizer.insert("name".into(), self.name.clone().into());
        let mut plan = self.sections.clone();
        plan.remove("optimizer");
        plan.insert("compare".into(), compare.into());
        plan.insert("optimizers".into(), vec![Value::Table(optimizer)].into());
        let one = |key: &str, value: Value| Value::Table(Table::from_iter([(key.to_owned(), value)]));
        plan.insert("model".into(), one("preset", MODEL.into()));
        // One thread each: the same bytes on every machine of a kind, however many threads it has.
        plan.insert("device".into(), one("threads", 1.into()));
        if let Some(path) = data {
            plan.insert("data".into(), one("source", path.to_string_lossy().into_owned().into()));
        }
        Plan::resolve(&Request { file: Some((self.path.clone(), plan)), ..Request::default() })
    }

    /// The name of the folder of its runs.
    pub fn folder(&self, track: &Track) -> String {
        format!("{}-{}-{}", track.name, self.name, self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Purpose;

    fn entry(text: &str) -> Result<Entry, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        Entry::read(&path)
    }

    #[test]
    fn an_entry_decides_optimizer_and_schedule_and_the_track_everything_else() {
        let text = "steps = 1500\n[optimizer]\nstack = 'muon'\nlr = 0.03\nmatrix = { momentum = 0.9 }\n[schedule]\nkind = 'wsd'\n[train.average]\n";
        let entry = entry(text).unwrap();
        assert_eq!((entry.name.as_str(), entry.folder(&EMBEDDED)), ("mine", "shakespeare-mine-1500".to_owned()));
        let plan = entry.plan(&EMBEDDED, None, 8, Some(2)).unwrap();
        assert_eq!((plan.contenders.len(), plan.seeds(), plan.settings.jobs), (1, 1..9, 2));
        let candidates = plan.candidates(0);
        let config = plan.config(0, &candidates[0], Purpose::Verdict, 3).unwrap();
        assert_eq!((candidates.len(), config.optimizer.lr, config.train.steps, config.train.seed), (1, 0.03, 1500, 3));
        assert_eq!((config.model.preset(), config.device.threads), (MODEL, 1));
        assert!(config.train.average.is_some());
        // Beside the entry's sections every key is the preset's.
        let other = super::tests::entry("steps = 1500\n[optimizer]\nstack = 'sgd'")
            .unwrap()
            .plan(&EMBEDDED, None, 8, Some(2))
            .unwrap();
        let other = other.config(0, &other.candidates(0)[0], Purpose::Verdict, 3).unwrap();
        assert_eq!((&config.model, &config.data, config.train.batch), (&other.model, &other.data, other.train.batch));
    }

    #[test]
    fn what_an_entry_may_not_set_or_lacks_is_said() {
        let optimizer = "[optimizer]\nstack = 'muon'\n";
        for (text, said) in [
            (format!("steps = 5\n{optimizer}[model]\nlayers = 2"), "`model`"),
            (format!("steps = 5\n{optimizer}[train]\nbatch = 64"), "`train.batch`"),
            (format!("steps = 5\n{optimizer}[shedule]\n"), "did you mean `schedule`?"),
            (optimizer.into(), "needs `steps = N`"),
            (format!("steps = -5\n{optimizer}"), "needs `steps = N`"),
            ("steps = 5\n[optimizer]\nlr = 0.1".into(), "needs `stack`"),
            (format!("steps = 5\n{optimizer}lrs = [0.1, 0.2]"), "`optimizer.lrs`"),
            (format!("steps = 5\n{optimizer}search = {{}}"), "`optimizer.search`"),
            (format!("steps = 5\nname = 'a/b'\n{optimizer}"), "a/b"),
            (format!("steps = 5\nname = 3\n{optimizer}"), "a string for `name`"),
        ] {
            let error = entry(&text).unwrap_err();
            assert!(error.to_string().contains(said) && error.exit_code() == 2, "{text}: {error}");
        }
        let misspelt =
            entry(&format!("steps = 5\n{optimizer}momentun = 1")).unwrap().plan(&EMBEDDED, None, 8, None).unwrap_err();
        assert!(misspelt.to_string().contains("momentun"), "{misspelt}");
        let none = entry(&format!("steps = 0\n{optimizer}")).unwrap().plan(&EMBEDDED, None, 8, None).unwrap_err();
        assert!(none.to_string().contains("`compare.steps` is 0"), "{none}");
    }
}
