//! `polaron inspect`: parameters, plan and cost of a run, a configuration or a preset.

use std::path::{Path, PathBuf};

use clap::Args;
use polaron::Role;
use polaron::layerwise::Plan;
use polaron_common::{did_you_mean, table, thousands};
use toml::Value;

use super::{circulant, conditioning, cost, delta, usage};
use crate::error::{EXIT_DONE, Error, FileError};
use crate::host::device;
use crate::host::progress::print;
use crate::networks::data::{DataConfig, DataSizes};
use crate::networks::decoder::vocabulary;
use crate::networks::family::Family;
use crate::networks::registry::{ForFamily, NetworkConfig};
use crate::run::estimate;
use crate::run::prepare::outline;
use crate::run::rope;
use crate::settings::config::Config;
use crate::settings::layers::{Layers, read_file};
use crate::store::checkpoint::Store;
use crate::store::huggingface;
use crate::store::metrics::{self, Event};
use crate::store::run_folder::RunFolder;
use crate::store::weights::{self, Kind};

/// Arguments of `polaron inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Run folder, Hugging Face folder, configuration file or model preset.
    #[arg(value_name = "RUN|CONFIG|MODEL")]
    pub target: String,
    /// Vocabulary size. [default: that of the run or the text; 65 for a bare preset, as in the published recipes]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::count)]
    pub vocab: Option<usize>,
    /// Estimate the time of a step and of the run, from the measured time of a matrix product.
    #[arg(long)]
    pub time: bool,
    /// Instead: what the equilibrations of MuonEq would change in the momenta of a run.
    #[arg(long, conflicts_with_all = ["vocab", "time", "circulant"])]
    pub conditioning: bool,
    /// Instead: whether the embeddings of these words, one token each, stand on a circle in this order.
    #[arg(long, value_name = "WORD,WORD,...", conflicts_with_all = ["vocab", "time"])]
    pub circulant: Option<String>,
    /// Instead: the strongest directions of the change of every matrix from the weights of BASE to those of the run.
    #[arg(long, value_name = "BASE", conflicts_with_all = ["vocab", "time", "conditioning", "circulant"])]
    pub delta: Option<PathBuf>,
    /// With --delta: how many directions of each matrix. [default: 8]
    #[arg(long, value_name = "K", requires = "delta", allow_negative_numbers = true, value_parser = usage::count)]
    pub rank: Option<usize>,
    /// With --delta: a safetensors file for the directions, as `project` of a rule of the optimizer reads them.
    #[arg(long, value_name = "FILE", requires = "delta")]
    pub out: Option<PathBuf>,
}

/// Prints a description of a run folder, a Hugging Face folder, a configuration file or a preset.
///
/// # Errors
///
/// A target that is none of these, or that is invalid.
pub fn run(args: &InspectArgs) -> Result<u8, Error> {
    let path = Path::new(&args.target);
    let said = match (&args.circulant, &args.delta) {
        _ if args.conditioning => conditioning::of(path)?,
        (Some(words), _) => circulant::of(path, words)?,
        (None, Some(base)) => delta::of(base, path, args.rank.unwrap_or(delta::RANK), args.out.as_deref())?,
        (None, None) => inspect(&args.target, args.vocab, args.time)?,
    };
    print(&said);
    Ok(EXIT_DONE)
}

/// Vocabulary assumed for a bare preset: the 65 characters of the text that the published recipes train on.
const RECIPE_VOCABULARY: usize = 65;

/// Describes the folder, the configuration file or the preset called `target`. `vocabulary` overrides the number of
/// tokens that the run, the configuration's text or the recipe has. `timed`: whether to estimate the time of a step.
///
/// # Errors
///
/// A target that is none of these, or that is invalid.
fn inspect(target: &str, vocabulary: Option<usize>, timed: bool) -> Result<String, Error> {
    let path = Path::new(target);
    let presets = NetworkConfig::presets();
    if presets.contains(&target) {
        let preset = ("inspect", "model.preset", Value::String(target.into()));
        let config = Layers { flags: vec![preset], ..Layers::default() }.resolve()?;
        let recipe = config.model.is_text().then_some(RECIPE_VOCABULARY);
        return describe(&config, data_sizes(&config, vocabulary.or(recipe))?, timed);
    }
    if path.is_dir() && weights::kind_of(path)? == Kind::HuggingFace {
        return describe_foreign(path, timed);
    }
    if path.is_dir() {
        let folder = RunFolder::existing(path)?;
        let config = folder.config()?;
        let stored = match vocabulary {
            None if config.model.is_text() => Some(folder.tokenizer()?.vocab_size()),
            given => given,
        };
        let sizes = data_sizes(&config, stored)?;
        return Ok(format!("{}\n{}", describe(&config, sizes, timed)?, describe_run(&folder, &config)?));
    }
    if path.is_file() {
        let file = Some((path.to_path_buf(), read_file(path)?));
        let config = weights::resolve(Layers { file, ..Layers::default() })?;
        return describe(&config, data_sizes(&config, vocabulary)?, timed);
    }
    if target.contains('/') {
        weights::kind_of(path)?;
    }
    let hint = did_you_mean(target, presets.iter().copied());
    Err(Error::Usage(format!(
        "`{target}` is neither a run folder, nor a Hugging Face folder, nor a configuration file, nor a model preset ({}){}",
        presets.join(", "),
        hint
    )))
}

/// Describes a folder of Hugging Face: its model, trained by the defaults, and its files.
fn describe_foreign(path: &Path, timed: bool) -> Result<String, Error> {
    let folder = huggingface::Folder::open(path)?;
    let config = folder.config()?;
    let sizes = config.model.sizes_for(vocabulary(0))?;
    let tokenizer = folder.tokenizer.as_ref();
    let tokenizer = tokenizer.map(|tokenizer| format!("{}, {} tokens", tokenizer.kind(), tokenizer.vocab_size()));
    let mut facts =
        vec![["weights".into(), folder.describe()], ["tokenizer".into(), tokenizer.unwrap_or_else(|| "none".into())]];
    facts.extend(folder.notes.iter().map(|note| ["note".into(), note.clone()]));
    Ok(format!("{}\n{}", describe(&config, sizes, timed)?, table(facts, &[])))
}

/// The sizes that the data of a configuration determine, read from the data unless the vocabulary is given.
fn data_sizes(config: &Config, given: Option<usize>) -> Result<DataSizes, Error> {
    match given {
        Some(tokens) if config.model.is_text() => Ok(config.model.sizes_for(vocabulary(tokens))?),
        Some(_) => {
            Err(Error::Usage("--vocab applies only to text models: the number of classes comes from the images".into()))
        }
        // Then the weights say how large the vocabulary is.
        None if config.model.is_text() && !config.train.init.is_empty() => Ok(config.model.sizes_for(vocabulary(0))?),
        None => config.model.with(OfData(&config.data)),
    }
}

/// The data of a configuration, read for their sizes.
struct OfData<'a>(&'a DataConfig);

impl ForFamily for OfData<'_> {
    type Output = Result<DataSizes, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        Ok(settings.sizes_for(F::data_sizes(&F::load(self.0, None)?))?)
    }
}

/// A configuration whose model is outlined, to see the plan of its optimizer.
struct Outlined<'a> {
    config: &'a Config,
    sizes: DataSizes,
}

impl ForFamily for Outlined<'_> {
    type Output = Result<(Plan, String), Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        Ok((outline(self.config, settings, self.sizes)?, F::describe_sizes(self.sizes)))
    }
}

/// Models of more parameters are described only where they could exist.
const ANY_MACHINE: usize = 1_000_000_000_000;

fn describe(config: &Config, sizes: DataSizes, timed: bool) -> Result<String, Error> {
    if config.model.memory(sizes).parameters > ANY_MACHINE {
        estimate::check_weights(config, device::default_name(), sizes)?;
    }
    let (plan, size) = config.model.with(Outlined { config, sizes })?;
    let mut facts = vec![
        ["model".into(), format!("{} ({size})", config.model.preset())],
        ["parameters".into(), thousands(plan.parameters() as u64)],
        ["in hidden matrices".into(), thousands(hidden_parameters(&plan) as u64)],
    ];
    if plan.frozen() > 0 {
        let trained = (plan.parameters() - plan.frozen()) as u64;
        let text = format!("{}; {} are frozen", thousands(trained), thousands(plan.frozen() as u64));
        facts.insert(2, ["trained".into(), text]);
    }
    if let Some(active) = config.model.work(sizes).active {
        facts.insert(2, ["active per token".into(), thousands(active as u64)]);
    }
    facts.extend(cost::facts(config, sizes, &plan));
    if timed {
        facts.push(["time".into(), cost::time(config, sizes, &plan)?]);
    }
    facts.extend(config.model.rope_layers().iter().map(|layers| {
        let name = if layers.sliding { "sliding base" } else { "rotary base" };
        [name.into(), rope::advice(layers)]
    }));
    Ok(format!("{}\n{}\n{plan}\n", table(facts, &[]), parameters(&plan)))
}

/// Number of parameters in the matrices inside the blocks, which are the ones that the matrix rules update.
fn hidden_parameters(plan: &Plan) -> usize {
    let outside = |role: &Role| Role::EDGES.contains(role) || Role::VECTORS.contains(role);
    let hidden = plan.entries().iter().filter(|entry| !entry.role.as_ref().is_some_and(outside));
    hidden.map(|entry| entry.shape.iter().product::<usize>()).sum()
}

fn parameters(plan: &Plan) -> String {
    let rows = plan.entries().iter().map(|entry| {
        let role = entry.role.map_or("by path", |role| role.name());
        let count = entry.shape.iter().product::<usize>();
        [entry.path.clone(), format!("{:?}  {}  {role}", entry.shape, thousands(count as u64))]
    });
    table(rows, &[])
}

/// The status of a run: its step, its checkpoints and its validation losses.
fn describe_run(folder: &RunFolder, config: &Config) -> Result<String, FileError> {
    let events = metrics::read(&folder.metrics_file())?;
    let steps = Store::new(folder.checkpoints()).steps();
    let reached = events.iter().map(Event::step).max().unwrap_or_default();
    let status = match events.last() {
        Some(Event::End(end)) => end.status.clone(),
        _ => "not ended".into(),
    };
    let losses = events.iter().filter_map(|event| match event {
        Event::Valid { step, loss, .. } => Some(["validation".into(), format!("step {step}: {loss:.4}")]),
        _ => None,
    });
    let checkpoints = steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ["status".into(), format!("{status}, step {} of {}", thousands(reached), thousands(config.train.steps))],
        ["checkpoints".into(), format!("steps {checkpoints}")],
    ];
    rows.extend(losses);
    Ok(table(rows, &[]))
}
