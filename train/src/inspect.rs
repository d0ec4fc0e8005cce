//! `polaron inspect`: parameters, plan and cost of a run, a configuration or a preset.

use std::path::Path;

use polaron::Role;
use polaron::layerwise::Plan;
use polaron_datasets::ImageData;
use polaron_models::{RopeBound, Severity};
use toml::Value;

use crate::checkpoint::Store;
use crate::config::{Config, DataConfig};
use crate::data::load_text;
use crate::device;
use crate::error::{Error, FileError};
use crate::layers::{Layers, read_file};
use crate::list::table;
use crate::metrics::{self, Event};
use crate::network::NetworkConfig;
use crate::progress::thousands;
use crate::run_folder::RunFolder;
use crate::train::build_optimizer;

/// Vocabulary assumed for a bare preset: the 65 characters of the text that the published recipes train on.
const RECIPE_VOCABULARY: usize = 65;

/// Describes the run folder, the configuration file or the preset called `target`. `vocabulary` overrides the number of
/// tokens that the run, the configuration's text or the recipe has.
///
/// # Errors
///
/// A target that is none of the three, and whatever is wrong with it.
pub fn inspect(target: &str, vocabulary: Option<usize>) -> Result<String, Error> {
    let path = Path::new(target);
    let presets = NetworkConfig::presets();
    if presets.contains(&target) {
        let preset = ("inspect", "model.preset", Value::String(target.into()));
        let config = Layers { flags: vec![preset], ..Layers::default() }.resolve()?;
        let recipe = config.model.decoder().map(|_| RECIPE_VOCABULARY);
        return describe(&config, brought(&config, vocabulary.or(recipe))?);
    }
    if path.is_dir() {
        let folder = RunFolder::existing(path)?;
        let config = folder.config()?;
        let stored = match (vocabulary, config.model.decoder()) {
            (None, Some(_)) => Some(folder.tokenizer()?.vocab_size()),
            _ => vocabulary,
        };
        let brought = brought(&config, stored)?;
        return Ok(format!("{}\n{}", describe(&config, brought)?, describe_run(&folder, &config)?));
    }
    if path.is_file() {
        let file = Some((path.to_path_buf(), read_file(path)?));
        let config = Layers { file, ..Layers::default() }.resolve()?;
        return describe(&config, brought(&config, vocabulary)?);
    }
    let hint = polaron::nearest(target, presets.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
    Err(Error::Usage(format!(
        "`{target}` is neither a run folder, nor a configuration file, nor a model preset ({}){}",
        presets.join(", "),
        hint.unwrap_or_default()
    )))
}

/// Sizes that the data bring: those of the run's tokenizer, of the configuration's data, or of the published recipe.
enum Brought {
    Vocabulary(usize),
    Images { features: usize, classes: usize },
}

/// What the data of a configuration bring, unless `vocabulary` says it.
fn brought(config: &Config, vocabulary: Option<usize>) -> Result<Brought, Error> {
    let DataConfig { source, valid_fraction, .. } = &config.data;
    match (&config.model, vocabulary) {
        (NetworkConfig::Mlp(_), None) => {
            let data = ImageData::load(source, *valid_fraction)?;
            Ok(Brought::Images { features: data.train.features, classes: data.classes })
        }
        (NetworkConfig::Mlp(_), Some(_)) => {
            Err(Error::Usage("--vocab is for models of text: the images bring their own number of classes".into()))
        }
        (NetworkConfig::Decoder(_), Some(vocabulary)) => Ok(Brought::Vocabulary(vocabulary)),
        (NetworkConfig::Decoder(_), None) => {
            let data = load_text(&config.data)?;
            Ok(Brought::Vocabulary(data.tokenizer.vocab_size()))
        }
    }
}

fn describe(config: &Config, brought: Brought) -> Result<String, Error> {
    let device = device::open(device::default_name())?;
    let (seed, batch) = (config.train.seed, config.train.batch);
    let mut active = None;
    let (optimizer, flops, size) = match (&config.model, brought) {
        (NetworkConfig::Decoder(decoder), Brought::Vocabulary(vocabulary)) => {
            let model = decoder.init(vocabulary, seed, &device)?;
            let flops = decoder.flops_per_step(vocabulary, batch);
            active = (decoder.experts > 0).then(|| decoder.active_parameters(vocabulary));
            (build_optimizer(config, &model)?, flops, format!("vocabulary {vocabulary}"))
        }
        (NetworkConfig::Mlp(mlp), Brought::Images { features, classes }) => {
            let model = mlp.init(features, classes, seed, &device)?;
            let flops = mlp.flops_per_step(features, classes, batch);
            (build_optimizer(config, &model)?, flops, format!("{features} inputs, {classes} classes"))
        }
        _ => return Err(Error::Usage("a decoder needs a vocabulary and a perceptron images".into())),
    };
    let plan = optimizer.plan();
    let decoder = config.model.decoder();
    let rows = decoder.map_or(String::new(), |decoder| format!("{batch} x {} = ", decoder.context));
    let sizes = format!("{rows}{} {}", config.tokens_per_step(), config.model.unit().many);
    let mut facts = vec![
        ["model".into(), format!("{} ({size})", config.model.preset())],
        ["parameters".into(), thousands(plan.parameters() as u64)],
        ["in hidden matrices".into(), thousands(hidden_parameters(plan) as u64)],
        ["step".into(), format!("{sizes}, {:.2} GFLOP forward and backward", flops / 1e9)],
        [
            "run".into(),
            format!("{} steps, {:.3} TFLOP", thousands(config.train.steps), flops * config.train.steps as f64 / 1e12),
        ],
    ];
    if let Some(active) = active {
        facts.insert(2, ["used by one token".into(), thousands(active as u64)]);
    }
    let bounds = decoder.and_then(|model| Some((model.rope_base, model.rope_bounds()?)));
    facts.extend(bounds.map(|(base, bounds)| ["rotary base".into(), rope_advice(base, &bounds)]));
    Ok(format!("{}\n{}\n{plan}\n", table(facts), parameters(plan)))
}

/// The bounds on the base that do not hold, as advice.
fn rope_advice(base: f64, bounds: &[RopeBound]) -> String {
    let failed: Vec<String> = bounds
        .iter()
        .filter(|bound| !bound.holds)
        .map(|bound| {
            let weight = if bound.severity == Severity::Warning { "warning" } else { "info" };
            format!("{weight}: {} wants at least {:.0}", bound.name, bound.bound)
        })
        .collect();
    if failed.is_empty() {
        format!("{base}, large enough for this context")
    } else {
        format!("{base}; {}", failed.join("; "))
    }
}

/// Parameters in the matrices inside the blocks, which the matrix rules are for.
fn hidden_parameters(plan: &Plan) -> usize {
    let outside = [Role::Embedding, Role::TiedEmbedding, Role::Head, Role::Router, Role::Gain, Role::Bias];
    let hidden = plan.entries().iter().filter(|entry| entry.role.is_none_or(|role| !outside.contains(&role)));
    hidden.map(|entry| entry.shape.iter().product::<usize>()).sum()
}

fn parameters(plan: &Plan) -> String {
    table(plan.entries().iter().map(|entry| {
        let role = entry.role.map_or("by path", |role| role.name());
        let count = entry.shape.iter().product::<usize>();
        [entry.path.clone(), format!("{:?}  {}  {role}", entry.shape, thousands(count as u64))]
    }))
}

/// Where a run stands.
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
    Ok(table(rows))
}
