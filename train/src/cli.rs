//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use polaron_datasets::pack::PackOptions;
use toml::Value;
use tracing_subscriber::EnvFilter;

use crate::compare::{self, ComparisonFolder, Plan, Request};
use crate::config::{Config, ConfigError};
use crate::error::{EXIT_DONE, EXIT_FAILED, Error};
use crate::generate::{Sampling, generate};
use crate::layers::{self, Layers};
use crate::loaded::{LoadOptions, LoadedNetwork, LoadedRun};
use crate::progress::{self, print, say};
use crate::run_folder::{FolderError, RunFolder};
use crate::train::{self, Resume, train};
use crate::verify::verify;
use crate::{data, device, export, inspect, interrupt, list, panics, prompt, report, task, usage};
use polaron_datasets::quoted;

/// Train small language models with Muon and its relatives.
///
/// Without a command: train. Without any argument: train on the embedded Shakespeare with the defaults.
#[derive(Debug, Parser)]
#[command(
    name = "polaron",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: TrainArgs,
    /// What the log on stderr shows: off, error, warn, info, debug, or a filter such as `polaron_train=debug`.
    /// [default: the variable RUST_LOG, or warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model, or go on with a run.
    Train(Box<TrainArgs>),
    /// Write one self-contained HTML page about comparisons and runs.
    Report {
        /// Folders of comparisons and runs, in any mixture.
        #[arg(value_name = "DIR", required = true)]
        dirs: Vec<PathBuf>,
        /// File to write. [default: report.html in the folder, or here for several folders]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Go on from a prompt with the model of a run.
    Generate(GenerateArgs),
    /// Write the weights of a run as safetensors, for other programs.
    Export(ExportArgs),
    /// Show parameters, optimizer plan and cost of a run folder, a configuration file or a model preset.
    Inspect(InspectArgs),
    /// Compare optimizers: tune each alike, run each with the same seeds, and say which differences are real.
    ///
    /// Without arguments: adamw, muon, muon_eq and symmetric on the embedded Shakespeare. docs/COMPARING.md has the rules.
    Compare(Box<CompareArgs>),
    /// Check that the optimizers compute on a device what they must: reference vectors, exit code 1 on a miss.
    Verify(VerifyArgs),
    /// Run a problem whose answer is known, or `all`: measured beside predicted, exit code 1 if a criterion fails.
    Task {
        /// Name of the task; `polaron list tasks`.
        #[arg(value_name = "NAME")]
        name: String,
        /// Smaller sizes where the task allows it.
        #[arg(long)]
        quick: bool,
        /// Kind of an optimizer to run as well, or its configuration as JSON.
        #[arg(long, value_name = "KIND|JSON")]
        optimizer: Option<String>,
        /// Its learning rate. [default: 0.02]
        #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = usage::real)]
        lr: Option<f64>,
    },
    /// Pack texts into tokens, or look at packed ones.
    #[command(subcommand)]
    Data(DataCommand),
    /// Show what there is to choose from.
    List {
        /// What to list.
        #[arg(value_enum)]
        what: Listing,
        /// With `optimizers`: which symmetries every rule has, measured.
        #[arg(long)]
        symmetry: bool,
        /// With `optimizers`: what every kind does to singular values, measured.
        #[arg(long, conflicts_with = "symmetry")]
        spectrum: bool,
    },
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Pack text files (.txt, .md, .jsonl, .ndjson, also .gz and .zst) of any size into a folder for `polaron train --data`.
    Pack(PackArgs),
    /// Show what a folder of packed tokens holds.
    Info {
        /// Folder that `polaron data pack` wrote.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Check every token against its checksum; small sets always are.
        #[arg(long)]
        verify: bool,
    },
}

#[derive(Debug, Args)]
struct PackArgs {
    /// Files, in this order, and folders, whose files are sorted by path.
    #[arg(value_name = "FILE|DIR", required = true)]
    inputs: Vec<PathBuf>,
    /// char, byte, bpe:N (learnt from the text, at most N tokens) or a tokenizer.json.
    #[arg(long, value_name = "char|byte|bpe:N|FILE")]
    tokenizer: String,
    /// Folder to write; must be new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Key of the text in the objects of .jsonl files.
    #[arg(long, value_name = "KEY", default_value = "text")]
    key: String,
    /// Pack even if more than 0.1 % of the text is unknown to the tokenizer.json, and lost.
    #[arg(long)]
    allow_unknown: bool,
    /// Share of the tokens, at the end, kept for validation.
    #[arg(long, value_name = "X", default_value_t = 0.1, allow_negative_numbers = true, value_parser = usage::real)]
    valid_fraction: f64,
    /// Tokens of one file of the folder.
    #[arg(long, value_name = "N", default_value_t = 1 << 26, allow_negative_numbers = true, value_parser = usage::whole)]
    shard_tokens: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Listing {
    Optimizers,
    Stacks,
    Models,
    Datasets,
    Tasks,
    Devices,
}

#[derive(Debug, Default, Args)]
struct TrainArgs {
    /// TOML configuration; every key it leaves out keeps the preset's value.
    #[arg(value_name = "CONFIG.toml")]
    config: Option<PathBuf>,
    /// Set any key of the configuration, e.g. `--set train.batch=24`; wins over everything else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Model preset; `polaron list models`. [default: llama-d64]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Optimizer stack or kind; `polaron list stacks`. [default: muon]
    #[arg(long, value_name = "STACK")]
    optimizer: Option<String>,
    /// Embedded data, path of a UTF-8 text file or of a folder that `polaron data pack` wrote, or for `--model mlp` folder
    /// of IDX files. [default: shakespeare, or digits for the mlp]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// Optimizer steps. [default: by model]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    steps: Option<i64>,
    /// Peak learning rate of the stack's main rule. [default: `polaron list stacks`]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = usage::real)]
    lr: Option<f64>,
    /// Fixes the initial weights. [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    seed: Option<i64>,
    /// Fixes the batches. [default: seed + 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    data_seed: Option<i64>,
    /// Device; `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// CPU threads; 0 is all. Part of the configuration: sums depend on it. [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    threads: Option<i64>,
    /// Run folder. [default: runs/<model>-<optimizer>-s<seed>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// `auto` goes on with an existing run of the same configuration, `never` refuses an existing folder, a folder goes on
    /// with the run in it. [default: auto]
    #[arg(long, value_name = "auto|never|DIR")]
    resume: Option<String>,
    /// Save and end when standard input closes; for programs that start this one.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
    /// Refuse data of another fingerprint; for programs that start this one.
    #[arg(long, hide = true, value_name = "HEX")]
    data_sha256: Option<String>,
}

#[derive(Debug, Default, Args)]
struct CompareArgs {
    /// TOML plan, in which every key may be left out; or the folder of a comparison to go on with.
    #[arg(value_name = "PLAN.toml|DIR")]
    plan: Option<PathBuf>,
    /// Optimizers: stacks (`polaron list stacks`) or names from the plan, comma separated.
    /// [default: adamw,muon,muon_eq,symmetric]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    optimizers: Option<Vec<String>>,
    /// Learning rates to try for every optimizer, comma separated.
    /// [default: three around each optimizer's own, a factor 3 apart]
    #[arg(long, value_name = "X,Y,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = usage::real)]
    lrs: Option<Vec<f64>>,
    /// Paired seeds of the verdict. [default: 3]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    seeds: Option<i64>,
    /// Seeds of the tuning, other ones. [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    tune_seeds: Option<i64>,
    /// Validation losses to reach, comma separated. [default: the lowest that every run reached]
    #[arg(long, value_name = "LOSS,…", value_delimiter = ',', allow_negative_numbers = true, value_parser = usage::real)]
    target: Option<Vec<f64>>,
    /// Steps of a verdict run. [default: 400]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    steps: Option<i64>,
    /// Steps of a tuning run. [default: 3/5 of --steps]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    tune_steps: Option<i64>,
    /// Run every best learning rate divided and multiplied by 2 and 4 as well, for a table that interpolates nothing.
    #[arg(long)]
    sensitivity: bool,
    /// Model preset; `polaron list models`. [default: llama-d64]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Embedded data or path of a UTF-8 text file. [default: shakespeare]
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// Device; `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Set any key of the runs' configuration, e.g. `--set model.d_model=32`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Runs at a time. [default: as many as CPU threads]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::setting)]
    jobs: Option<i64>,
    /// CPU threads in all, shared out among the jobs; 0 is all. [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::count)]
    threads: Option<usize>,
    /// Folder of the comparison. [default: runs/compare-<model>-<optimizers>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show the runs and an estimate of the time, from a few timed steps; train nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Run folder that `polaron train` wrote.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Checkpoint to use. [default: the newest]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::whole)]
    step: Option<u64>,
    /// Device; `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// CPU threads; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = usage::count)]
    threads: usize,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Text to go on from; may be empty.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 300, allow_negative_numbers = true, value_parser = usage::count)]
    tokens: usize,
    /// Randomness; 0 always takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true, value_parser = usage::real)]
    temperature: f64,
    /// Draw from this many likeliest tokens; 0 draws from all.
    #[arg(long, value_name = "K", default_value_t = 0, allow_negative_numbers = true, value_parser = usage::count)]
    top_k: usize,
    /// Fixes the text.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = usage::whole)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    run: RunArgs,
    /// File to write; an existing one is replaced.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Write the optimizer's states too, beside it as FILE.optimizer.safetensors, named and laid out as their weights.
    #[arg(long)]
    optimizer_state: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Run folder, configuration file or model preset.
    #[arg(value_name = "RUN|CONFIG|MODEL")]
    target: String,
    /// Vocabulary to count with. [default: that of the run or the text; 65 for a bare preset, as in the published recipes]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::count)]
    vocab: Option<usize>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Files of reference vectors. [default: the built-in ones]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Device; `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

/// Runs the program with the arguments of the process. Returns the exit code.
pub fn main() -> u8 {
    panics::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    match panics::catch(|| start_log(cli.log.as_deref()).and_then(|()| dispatch(cli))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            say(&format!("error: {error}"));
            error.exit_code()
        }
        Err(panic) => {
            say(&format!(
                "error: internal error: {panic}; this is a bug in polaron, please report it with the command"
            ));
            EXIT_FAILED
        }
    }
}

fn start_log(level: Option<&str>) -> Result<(), Error> {
    let from_environment = || std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = level.map(String::from).or_else(from_environment).unwrap_or_else(|| "warn".into());
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        Error::Usage(format!("`{text}` is no log filter ({error}): use off, error, warn, info or debug"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| progress::LogWriter).with_ansi(false);
    if log.try_init().is_err() {
        tracing::debug!("a log is installed already");
    }
    Ok(())
}

fn dispatch(cli: Cli) -> Result<u8, Error> {
    match cli.command {
        None => run_train(&cli.train),
        Some(Command::Train(args)) => run_train(&args),
        Some(Command::Compare(args)) => run_compare(&args),
        Some(Command::Report { dirs, out }) => report::report(&dirs, out.as_deref()),
        Some(Command::Generate(args)) => run_generate(&args),
        Some(Command::Export(args)) => run_export(&args),
        Some(Command::Inspect(args)) => {
            print(&inspect::inspect(&args.target, args.vocab)?);
            Ok(EXIT_DONE)
        }
        Some(Command::Verify(args)) => {
            let device = device::open(args.device.as_deref().unwrap_or(device::default_name()))?;
            let (table, passed) = verify(&args.files, &device)?;
            print(&table);
            Ok(if passed { EXIT_DONE } else { EXIT_FAILED })
        }
        Some(Command::Task { name, quick, optimizer, lr }) => {
            let passed = task::run(&name, quick, optimizer.as_deref(), lr, print)?;
            Ok(if passed { EXIT_DONE } else { EXIT_FAILED })
        }
        Some(Command::Data(DataCommand::Pack(args))) => run_pack(args),
        Some(Command::Data(DataCommand::Info { folder, verify })) => {
            print(&data::info(&folder, verify)?);
            Ok(EXIT_DONE)
        }
        Some(Command::List { what, symmetry, spectrum }) if symmetry || spectrum => {
            let Listing::Optimizers = what else {
                let flag = if symmetry { "--symmetry" } else { "--spectrum" };
                return Err(Error::Usage(format!("{flag} is for optimizers: write `polaron list optimizers {flag}`")));
            };
            let device = device::open(device::default_name())?;
            print(&if symmetry { list::symmetries(&device)? } else { list::spectra(&device)? });
            Ok(EXIT_DONE)
        }
        Some(Command::List { what, .. }) => {
            print(&match what {
                Listing::Optimizers => list::optimizers(),
                Listing::Stacks => list::stacks(),
                Listing::Models => list::models(),
                Listing::Datasets => list::datasets(),
                Listing::Tasks => task::names(),
                Listing::Devices => list::devices(),
            });
            Ok(EXIT_DONE)
        }
    }
}

fn run_train(args: &TrainArgs) -> Result<u8, Error> {
    let (resume, folder) = match args.resume.as_deref() {
        None | Some("auto") => (Resume::Auto, None),
        Some("never") => (Resume::Never, None),
        Some(folder) => (Resume::Auto, Some(PathBuf::from(folder))),
    };
    let config = resolve(args, folder.as_deref())?;
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
        (None, None) => config.default_folder(),
    };
    if args.stop_with_stdin {
        interrupt::stop_with_stdin();
    }
    train(&config, &out, &train::Request { resume, data_sha256: args.data_sha256.as_deref() })
}

fn run_compare(args: &CompareArgs) -> Result<u8, Error> {
    // The folder of a comparison stands for its plan, to go on with.
    let folder = args.plan.clone().filter(|path| ComparisonFolder::new(path).holds_comparison());
    let plan = folder.as_ref().map(|folder| ComparisonFolder::new(folder).plan_file()).or_else(|| args.plan.clone());
    let file = match plan {
        Some(path) => Some((path.clone(), layers::read_file(&path)?)),
        None => None,
    };
    let number = |value: Option<i64>| value.map(Value::Integer);
    let numbers = |values: &Option<Vec<f64>>| values.clone().map(Value::from);
    let settings = [
        ("--seeds", "seeds", number(args.seeds)),
        ("--tune-seeds", "tune_seeds", number(args.tune_seeds)),
        ("--steps", "steps", number(args.steps)),
        ("--tune-steps", "tune_steps", number(args.tune_steps)),
        ("--jobs", "jobs", number(args.jobs)),
        ("--lrs", "lrs", numbers(&args.lrs)),
        ("--target", "targets", numbers(&args.target)),
        ("--sensitivity", "sensitivity", args.sensitivity.then_some(Value::Boolean(true))),
    ];
    let text = |value: &Option<String>| value.clone().map(Value::String);
    let flags = [
        ("--model", "model.preset", text(&args.model)),
        ("--data", "data.source", text(&args.data)),
        ("--device", "device.name", text(&args.device)),
    ];
    let request = Request {
        file,
        optimizers: args.optimizers.clone(),
        settings: settings.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect(),
        flags: flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect(),
        threads: args.threads,
        sets: args.sets.iter().map(|text| split_set(text)).collect::<Result<_, _>>()?,
    };
    let plan = Plan::resolve(&request)?;
    if args.dry_run {
        return compare::dry_run(&plan);
    }
    compare::compare(&plan, &args.out.clone().or(folder).unwrap_or_else(|| plan.default_folder()))
}

/// The configuration that the arguments describe; with `--resume DIR` on top of that run's own.
fn resolve(args: &TrainArgs, resumed: Option<&Path>) -> Result<Config, Error> {
    let path = match (&args.config, resumed) {
        (Some(_), Some(folder)) => {
            let folder = folder.display();
            return Err(Error::Usage(format!(
                "--resume {folder} brings its own configuration: leave out the other file"
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
    Layers { file, flags: flags(args), sets }.resolve()
}

/// A mistyped command arrives here as the name of a configuration file.
fn explain_missing(path: &Path, error: Error) -> Error {
    if let Some(message) = path.to_str().filter(|_| !path.exists()).and_then(usage::no_command) {
        return Error::Usage(message);
    }
    if path.is_dir() {
        let folder = path.display();
        return Error::Usage(format!(
            "`{folder}` is a folder, not a configuration file: to go on with a run, write `--resume {}`",
            quoted(path)
        ));
    }
    error
}

fn flags(args: &TrainArgs) -> Vec<(&'static str, &'static str, Value)> {
    let text = |value: &Option<String>| value.clone().map(Value::String);
    let number = |value: Option<i64>| value.map(Value::Integer);
    let all = [
        ("--model", "model.preset", text(&args.model)),
        ("--optimizer", "optimizer.stack", text(&args.optimizer)),
        ("--data", "data.source", text(&args.data)),
        ("--steps", "train.steps", number(args.steps)),
        ("--lr", "optimizer.lr", args.lr.map(Value::Float)),
        ("--seed", "train.seed", number(args.seed)),
        ("--data-seed", "train.data_seed", number(args.data_seed)),
        ("--device", "device.name", text(&args.device)),
        ("--threads", "device.threads", number(args.threads)),
    ];
    all.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect()
}

fn split_set(text: &str) -> Result<(String, String), ConfigError> {
    let parts = text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    parts.filter(|(key, _)| !key.is_empty()).ok_or_else(|| ConfigError::BadSet { text: text.into() })
}

fn load(args: &RunArgs) -> Result<LoadedRun, Error> {
    if !args.run.exists() {
        return Err(FolderError::NoRun { path: args.run.clone() }.into());
    }
    let options = LoadOptions { step: args.step, device: args.device.clone(), threads: args.threads };
    LoadedRun::open(&args.run, &options)
}

fn run_generate(args: &GenerateArgs) -> Result<u8, Error> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        let rule = "it must be a finite number and not negative".into();
        let value = args.temperature.to_string();
        return Err(ConfigError::BadValue { key: "--temperature".into(), value, rule }.into());
    }
    let run = load(&args.run)?;
    let LoadedNetwork::Decoder(model, tokenizer) = &run.network else {
        let folder = args.run.run.display();
        return Err(Error::Usage(format!(
            "`{folder}` holds a perceptron, which has no text to go on with: give a decoder's run"
        )));
    };
    let sampling = Sampling { tokens: args.tokens, temperature: args.temperature, top_k: args.top_k, seed: args.seed };
    prompt::check("--prompt", &args.prompt, tokenizer, model.context())?;
    let text = run.worker.alone(|| generate(model, tokenizer, &args.prompt, &sampling, &run.device))?;
    print(&format!("{}{text}\n", args.prompt));
    Ok(EXIT_DONE)
}

fn run_pack(args: PackArgs) -> Result<u8, Error> {
    let mut options = PackOptions::new(args.inputs, args.tokenizer.parse()?);
    options.key = args.key;
    options.allow_unknown = args.allow_unknown;
    options.valid_fraction = args.valid_fraction;
    options.shard_tokens = args.shard_tokens;
    print(&data::pack(&options, &args.out)?);
    Ok(EXIT_DONE)
}

fn run_export(args: &ExportArgs) -> Result<u8, Error> {
    let run = load(&args.run)?;
    for path in export::export(&run, &args.out, args.optimizer_state)? {
        print(&format!("wrote {} (step {})\n", path.display(), run.step));
    }
    Ok(EXIT_DONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_train() {
        let cli = Cli::try_parse_from(["polaron", "--steps", "3", "--log", "info"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.train.steps, Some(3));
        let cli = Cli::try_parse_from(["polaron", "train", "x.toml", "--lr", "-1"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Train(args)) if args.lr == Some(-1.0)));
    }

    #[test]
    fn a_set_without_a_key_or_value_is_refused() {
        assert_eq!(split_set("a.b = 3").unwrap(), ("a.b".into(), "3".into()));
        assert_eq!(split_set("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(split_set("a.b").is_err());
        assert!(split_set("=3").is_err());
    }
}
