//! A folder with a small text, and commands run in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Settings that make a step take about a millisecond.
pub const TINY: &[&str] = &[
    "--set",
    "model.d_model=16",
    "--set",
    "model.layers=1",
    "--set",
    "model.heads=2",
    "--set",
    "model.context=16",
    "--set",
    "train.batch=4",
    "--set",
    "train.sample_tokens=20",
    "--set",
    "schedule.warmup=5",
    "--data",
    "text.txt",
    "--threads",
    "2",
];

/// A folder of its own, with `text.txt` in it.
pub struct Place {
    folder: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        place.write("text.txt", sample_text().as_bytes());
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polaron"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// `polaron train` with the thumbnail settings and more arguments.
    pub fn train(&self, more: &[&str]) -> Said {
        self.run(&tiny(more))
    }

    pub fn spawn_train(&self, more: &[&str]) -> Child {
        self.command(&tiny(more)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a command with `--out disk/run` in the folder of this place, in which `disk` is a disk of its own of that size. Stdout ends with
    /// the exit code and the checkpoints. None where no small disk can be mounted.
    pub fn on_small_disk(&self, size: &str, inner: &Command) -> Option<Said> {
        std::fs::create_dir(self.path("disk")).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={size} none disk || exit 77\n\
             \"$@\" --out disk/run; echo \"exit $?\"; ls -A disk/run/checkpoints"
        );
        // A namespace of its own, so that nothing needs to be unmounted.
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]).arg(inner.get_program());
        command.args(inner.get_args()).current_dir(self.folder.path());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let Ok(output) = command.output() else {
            eprintln!("skipped: there is no `unshare` here to mount a small disk with");
            return None;
        };
        let said = Said::from(output);
        if said.code != Some(0) {
            eprintln!("skipped: a small disk cannot be mounted here ({})", said.err.trim());
            return None;
        }
        Some(said)
    }

    /// The final weights of a run, as bytes.
    pub fn weights(&self, run: &str, step: u64) -> Vec<u8> {
        self.read(&format!("{run}/checkpoints/step-{step:06}/model.safetensors"))
    }

    /// The events of a run.
    pub fn events(&self, run: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{run}/metrics.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Events without the fields that differ from one undisturbed run to the next.
    pub fn timeless_events(&self, run: &str) -> Vec<Value> {
        let mut events = self.events(run);
        for event in &mut events {
            let fields = event.as_object_mut().unwrap();
            for name in ["seconds", "optimizer_seconds", "peak_memory_bytes"] {
                fields.remove(name);
            }
        }
        events
    }

    /// Waits until a run has logged at least `steps` steps, or its process has ended.
    pub fn wait_for_step(&self, run: &str, steps: u64, child: &mut Child) {
        let path = self.path(&format!("{run}/metrics.jsonl"));
        let wanted = format!("\"step\":{steps},");
        wait(child, || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&wanted)));
    }

    /// Waits until a checkpoint is half written, or the process has ended.
    pub fn wait_for_unfinished_checkpoint(&self, run: &str, child: &mut Child) {
        wait(child, || self.unfinished_checkpoints(run) > 0);
    }

    pub fn unfinished_checkpoints(&self, run: &str) -> usize {
        let entries = std::fs::read_dir(self.path(&format!("{run}/checkpoints"))).into_iter().flatten();
        entries
            .filter(|entry| entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with(".tmp-")))
            .count()
    }
}

fn tiny<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train"], TINY, more].concat()
}

/// Polls without pause: what is waited for may last a millisecond only.
pub fn wait(child: &mut Child, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing happened for two minutes");
    }
}

/// Lines that are alike but not the same, so that there is something to learn.
fn sample_text() -> String {
    let nouns = ["king", "queen", "fool", "ghost", "sailor"];
    let verbs = ["greets", "fears", "follows", "mocks"];
    let line = |i: usize| {
        let (subject, verb, object) = (nouns[i % 5], verbs[(i / 5) % 4], nouns[(i * 7 / 3) % 5]);
        format!("The {subject} {verb} the {object}.\n")
    };
    (0..300).map(line).collect()
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Exit code `code` and exactly one line that begins with `error:`, holding all `fragments`.
    #[track_caller]
    pub fn fails(self, code: i32, fragments: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert_eq!(self.err.lines().last(), errors.first().copied(), "{self:?}");
        for fragment in fragments {
            assert!(errors[0].contains(fragment), "{fragment:?} is not in {self:?}");
        }
        assert!(!self.err.contains("internal error") && !self.err.contains("panicked"), "{self:?}");
        self
    }
}

/// Files and folders in `folder`, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}
