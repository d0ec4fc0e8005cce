//! `polaron train`: its arguments.

use std::path::{Path, PathBuf};

use clap::Args;
use polaron_datasets::quoted;
use toml::Value;

use super::training::{self, Resume, together, train};
use super::usage::{self, split_set};
use crate::error::{ConfigError, Error};
use crate::host::interrupt;
use crate::host::ranks::{self, Ranks};
use crate::settings::config::Config;
use crate::settings::given_model::{INIT, INIT_CONTINUES, INIT_STEP, SCHEDULE_STEPS};
use crate::settings::layers::{self, Layers};
use crate::settings::merge;
use crate::settings::train::GRAINS;
use crate::store::run_folder::RunFolder;
use crate::store::weights;

/// Arguments of `polaron train`.
#[derive(Debug, Default, Args)]
pub struct TrainArgs {
    /// TOML configuration; every key it leaves out keeps the preset's value.
    #[arg(value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,
    /// Set any key of the configuration, e.g. `--set train.batch=24`; takes precedence over everything else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Model preset; see `polaron list models`. [default: llama-d64]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Optimizer stack or kind; see `polaron list stacks`. [default: muon]
    #[arg(long, value_name = "STACK")]
    pub optimizer: Option<String>,
    /// Embedded data, path of a UTF-8 text file or of a folder that `polaron data pack` wrote, or, for `--model mlp`, of a
    /// folder of IDX files. [default: shakespeare, or digits for the mlp]
    #[arg(long, value_name = "NAME|PATH")]
    pub data: Option<String>,
    /// Optimizer steps. [default: depends on the model]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub steps: Option<i64>,
    /// Peak learning rate of the stack's main rule. [default: see `polaron list stacks`]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = usage::real)]
    pub lr: Option<f64>,
    /// Do not train the parameters whose path matches, e.g. `--freeze 'embed*'`; may be repeated. [default: train all]
    #[arg(long, value_name = "PATTERN")]
    pub freeze: Vec<String>,
    /// Seed of the initial weights. [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub seed: Option<i64>,
    /// Seed of the batches. [default: seed + 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub data_seed: Option<i64>,
    /// Device; see `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// CPU threads; 0 means all. Part of the configuration, because rounding depends on it. [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    pub threads: Option<i64>,
    /// Also write the metrics for this program: tensorboard, as an event file in the run folder.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub log_to: Vec<String>,
    /// Run folder. [default: runs/<model>-<optimizer>-s<seed>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// `auto` resumes an existing run of the same configuration, `never` refuses an existing folder, DIR resumes the run in
    /// that folder. [default: auto]
    #[arg(long, value_name = "auto|never|DIR")]
    pub resume: Option<String>,
    /// Start from the weights of another run, or of a Hugging Face folder: its model and its tokenizer, fresh optimizer states,
    /// step 0.
    #[arg(long, value_name = "RUN|DIR", conflicts_with_all = ["model", "extend"])]
    pub init: Option<String>,
    /// Which checkpoint `--init` takes. [default: the newest]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting, requires = "init")]
    pub init_step: Option<i64>,
    /// Continue a run in a new folder up to `--steps`, with its configuration and its optimizer states; other flags change single
    /// keys. [default folder: RUN-to<steps>]
    #[arg(long, value_name = "RUN", requires = "steps", conflicts_with_all = ["config", "model"])]
    pub extend: Option<String>,
    /// Which checkpoint `--extend` continues. [default: the newest]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting, requires = "extend")]
    pub from_step: Option<i64>,
    /// With `--extend`: keep the schedule of the run, whose last learning rate then stays. Without it, the schedule is computed for
    /// all `--steps`.
    #[arg(long, requires = "extend")]
    pub keep_schedule: bool,
    /// Train although the memory may not suffice.
    #[arg(long)]
    pub force: bool,
    /// Save and end when standard input closes; for programs that start this one.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
    /// Refuse data with another fingerprint; for programs that start this one.
    #[arg(long, hide = true, value_name = "HEX")]
    pub data_sha256: Option<String>,
}

/// Trains the run that the arguments describe. Returns the exit code.
///
/// # Errors
///
/// Those of [`train`].
pub fn run(args: &TrainArgs) -> Result<u8, Error> {
    let ranks = ranks::enter()?;
    let ranks = ranks.as_deref();
    let (config, out, resume) = together(ranks, asked(args, ranks.map(Ranks::count)))?;
    if args.stop_with_stdin {
        interrupt::stop_with_stdin();
    }
    let data_sha256 = args.data_sha256.as_deref();
    train(&config, &out, &training::Request { resume, data_sha256, force: args.force, ranks })
}

/// The run that the arguments ask for: its configuration, its folder, and whether an existing one is resumed. `ranks` is the number
/// of its processes, if there are several.
fn asked(args: &TrainArgs, ranks: Option<usize>) -> Result<(Config, PathBuf, Resume), Error> {
    let (resume, folder) = match args.resume.as_deref() {
        None | Some("auto") => (Resume::Auto, None),
        Some("never") => (Resume::Never, None),
        Some(folder) => (Resume::Auto, Some(PathBuf::from(folder))),
    };
    check_steps(args)?;
    let mut config = resolve(args, folder.as_deref())?;
    let out = match (&folder, &args.out) {
        (Some(folder), Some(out)) if folder != out => {
            let message = format!(
                "--resume {} and --out {} name two folders: leave out one of them",
                folder.display(),
                out.display()
            );
            return Err(Error::Usage(message));
        }
        (Some(folder), _) => folder.clone(),
        (None, Some(out)) => out.clone(),
        (None, None) => default_folder(args, &config),
    };
    choose_grains(&mut config, &out, ranks.unwrap_or(1));
    Ok((config, out, resume))
}

/// Where nothing is said about grains, a run keeps those that it has, and several processes need some: as many as they have threads
/// together, or the next power of two, so that twice or half as many processes share them evenly.
fn choose_grains(config: &mut Config, out: &Path, ranks: usize) {
    if config.train.grains > 0 {
        return;
    }
    let run = RunFolder::existing(out).ok().and_then(|run| layers::read_file(&run.config_file()).ok());
    let theirs = run.as_ref().and_then(|table| merge::lookup(table, GRAINS)).and_then(Value::as_integer);
    let rows = config.train.batch / config.train.accumulation.max(1);
    let chosen = match theirs.and_then(|grains| usize::try_from(grains).ok()) {
        None | Some(0) if ranks > 1 => (ranks * config.device.threads).next_power_of_two().min(rows),
        grains => grains.unwrap_or_default(),
    };
    config.train.grains = chosen;
}

/// The default folder; of a continued run, written as its folder was given.
fn default_folder(args: &TrainArgs, config: &Config) -> PathBuf {
    let folder = config.default_folder();
    let run = args.extend.as_deref().map(Path::new).filter(|run| run.file_name().is_some());
    match (run, folder.file_name()) {
        (Some(run), Some(name)) => run.with_file_name(name),
        _ => folder,
    }
}

/// Step 0 would stand for the newest checkpoint.
fn check_steps(args: &TrainArgs) -> Result<(), ConfigError> {
    let rule = "there are no trained weights at step 0: leave it out for the newest checkpoint, or name another one";
    for (flag, step) in [("--init-step", args.init_step), ("--from-step", args.from_step)] {
        ConfigError::ensure(step != Some(0), flag, 0, rule)?;
    }
    Ok(())
}

/// The configuration that the arguments describe; with `--resume DIR` on top of that run's own.
fn resolve(args: &TrainArgs, resumed: Option<&Path>) -> Result<Config, Error> {
    let path = match (&args.config, resumed) {
        (Some(_), Some(folder)) => {
            let folder = folder.display();
            return Err(Error::Usage(format!(
                "--resume {folder} uses the configuration of that run: leave out the configuration file"
            )));
        }
        (Some(path), None) => Some(path.clone()),
        (None, Some(folder)) => Some(RunFolder::existing(folder)?.config_file()),
        (None, None) => None,
    };
    let file = match path {
        Some(path) => Some((path.clone(), layers::read_file(&path).map_err(|error| explain_missing(&path, error))?)),
        None => None,
    };
    let sets = args.sets.iter().map(|text| split_set(text)).collect::<Result<_, _>>()?;
    let mut layers = Layers { file, flags: flags(args), sets, ..Layers::default() };
    if let Some(run) = &args.extend {
        extend(&mut layers, run, args, resumed)?;
    }
    weights::resolve(layers)
}

/// The configuration of `run` as the file, with what makes the new run its continuation.
fn extend(layers: &mut Layers, run: &str, args: &TrainArgs, resumed: Option<&Path>) -> Result<(), Error> {
    if let Some(folder) = resumed {
        return Err(Error::Usage(format!(
            "--extend {run} begins a new run, and --resume {} resumes one: leave out one of them",
            folder.display()
        )));
    }
    let (path, text) = RunFolder::existing(Path::new(run))?.config_text()?;
    let file = layers::parse(&path, &text)?;
    let number = |key: &str| merge::lookup(&file, key).and_then(Value::as_integer).filter(|number| *number > 0);
    let theirs = number(SCHEDULE_STEPS).or_else(|| number("train.steps")).unwrap_or_default();
    let schedule_steps = if args.keep_schedule { theirs } else { 0 };
    layers.flags.extend([
        ("--extend", INIT, Value::String(run.into())),
        ("--from-step", INIT_STEP, Value::Integer(args.from_step.unwrap_or_default())),
        ("--extend", INIT_CONTINUES, Value::Boolean(true)),
        ("--keep-schedule", SCHEDULE_STEPS, Value::Integer(schedule_steps)),
    ]);
    layers.file = Some((path, file));
    Ok(())
}

/// A mistyped command arrives here as the name of a configuration file.
fn explain_missing(path: &Path, error: Error) -> Error {
    if let Some(message) = path.to_str().filter(|_| !path.exists()).and_then(usage::no_command) {
        return Error::Usage(message);
    }
    if path.is_dir() {
        let folder = path.display();
        return Error::Usage(format!(
            "`{folder}` is a folder, not a configuration file: to resume a run, write `--resume {}`",
            quoted(path)
        ));
    }
    error
}

fn flags(args: &TrainArgs) -> Vec<(&'static str, &'static str, Value)> {
    let text = |value: &Option<String>| value.clone().map(Value::String);
    let number = |value: Option<i64>| value.map(Value::Integer);
    let names = |values: &[String]| Value::Array(values.iter().cloned().map(Value::String).collect());
    let all = [
        ("--model", "model.preset", text(&args.model)),
        ("--optimizer", "optimizer.stack", text(&args.optimizer)),
        ("--data", "data.source", text(&args.data)),
        ("--steps", "train.steps", number(args.steps)),
        ("--lr", "optimizer.lr", args.lr.map(Value::Float)),
        ("--freeze", "train.freeze", (!args.freeze.is_empty()).then(|| names(&args.freeze))),
        ("--seed", "train.seed", number(args.seed)),
        ("--data-seed", "train.data_seed", number(args.data_seed)),
        ("--device", "device.name", text(&args.device)),
        ("--threads", "device.threads", number(args.threads)),
        ("--init", INIT, text(&args.init)),
        ("--init-step", INIT_STEP, number(args.init_step)),
        ("--log-to", "train.log_to", (!args.log_to.is_empty()).then(|| names(&args.log_to))),
    ];
    all.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect()
}
