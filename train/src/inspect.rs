//! `polaron inspect`: parameters, plan and cost of a run, a configuration or a preset.

use std::path::Path;

use polaron::Role;
use polaron::layerwise::Plan;
use polaron_common::{did_you_mean, table, thousands};
use polaron_datasets::ImageData;
use polaron_models::{RopeLayers, Severity};
use toml::Value;

use crate::checkpoint::Store;
use crate::config::{Config, DataConfig};
use crate::data::load_text;
use crate::device;
use crate::error::{Error, FileError};
use crate::estimate::{self, Brought, Estimate, Purpose};
use crate::layers::{Layers, read_file};
use crate::metrics::{self, Event};
use crate::network::NetworkConfig;
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
    let hint = did_you_mean(target, presets.iter().copied());
    Err(Error::Usage(format!(
        "`{target}` is neither a run folder, nor a configuration file, nor a model preset ({}){}",
        presets.join(", "),
        hint
    )))
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
    estimate::check(config, device::default_name(), brought, Purpose::Look)?;
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
    let memory = Estimate::of(config, brought);
    let text = format!("to train at least {} ({})", estimate::bytes(memory.total()), memory.parts());
    facts.push(["memory".into(), text]);
    if let Some(active) = active {
        facts.insert(2, ["used by one token".into(), thousands(active as u64)]);
    }
    let rotary = decoder.map(|model| model.rope_layers()).unwrap_or_default();
    facts.extend(rotary.iter().map(|layers| {
        let name = if layers.sliding { "sliding base" } else { "rotary base" };
        [name.into(), rope_advice(layers)]
    }));
    Ok(format!("{}\n{}\n{plan}\n", table(facts, &[]), parameters(plan)))
}

/// Between which values the base of some layers should lie, and the bounds that it does not keep, as advice.
fn rope_advice(layers: &RopeLayers) -> String {
    let RopeLayers { base, context, bounds, .. } = layers;
    let tokens = thousands(*context as u64);
    let window = if layers.sliding { "a window" } else { "a context" };
    let (least, most) = layers.feasible();
    let place = if least > most {
        let key = if layers.sliding { "model.sliding_window" } else { "model.context" };
        format!(
            "no base suits {window} of {tokens} tokens, which wants at least {least:.0} and at most {most:.0}: lower {key}"
        )
    } else {
        let verdict = if (least..=most).contains(base) { "suits" } else { "does not suit" };
        format!(
            "{verdict} {window} of {tokens} tokens, which wants at least {least:.0} and at most {most:.0}; free of aliasing \
             up to {} tokens",
            thousands(layers.largest_context as u64)
        )
    };
    let failed = bounds.iter().filter(|bound| !bound.holds).map(|bound| {
        let weight = if bound.severity == Severity::Warning { "warning" } else { "info" };
        let wants = if bound.is_upper() { "at most" } else { "at least" };
        format!("; {weight}: {} wants {wants} {:.0}", bound.name, bound.bound)
    });
    format!("{base} {place}{}", failed.collect::<String>())
}

/// Parameters in the matrices inside the blocks, which the matrix rules are for.
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
    Ok(table(rows, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use polaron_models::ModelConfig;

    fn advice(change: impl FnOnce(&mut ModelConfig)) -> Vec<String> {
        let mut config = ModelConfig::preset("gemma3-tiny").unwrap();
        change(&mut config);
        config.rope_layers().iter().map(rope_advice).collect()
    }

    #[test]
    fn a_base_that_is_too_large_is_told_the_largest_in_every_kind_of_layer() {
        let too_large = "warning: precision wants at most 4503599627370496";
        let said = advice(|config| config.rope_base = 1e17);
        assert!(said[0].contains(too_large) && said[0].contains("does not suit a context of 128"), "{said:?}");
        assert!(!said[1].contains("wants at most 4503599627370496;") || said[1].contains("suits"), "{said:?}");
        assert!(!said[1].contains("warning"), "{said:?}");
        let said = advice(|config| config.rope_base_sliding = 1e17);
        assert!(said[1].contains(too_large) && said[1].contains("a window of 32"), "{said:?}");
        assert!(!said[0].contains("warning"), "{said:?}");
        assert!(said.iter().all(|line| !line.contains("precision wants at least")), "{said:?}");
    }

    #[test]
    fn a_sliding_layer_is_judged_by_its_window_and_base() {
        // 2 of 128 tokens turn around; 2 is no problem for a window of 8.
        let said = advice(|config| (config.rope_base, config.rope_base_sliding) = (1e6, 2.0));
        assert!(said[1].contains("warning: aliasing wants at least 5"), "{said:?}");
        let said = advice(|config| (config.rope_base_sliding, config.sliding_window) = (2.0, 8));
        assert!(!said[1].contains("aliasing wants"), "{said:?}");
        // Without a base of its own it has that of the others.
        let said = advice(|config| (config.rope_base, config.rope_base_sliding) = (1e17, 0.0));
        assert!(said.iter().all(|line| line.contains("precision wants at most")), "{said:?}");
        // A window beyond the context is the context.
        assert!(advice(|config| config.sliding_window = 1000)[1].contains("a window of 128 tokens"));
    }

    #[test]
    fn only_the_kinds_of_layers_that_there_are_are_judged() {
        assert_eq!(advice(|config| config.full_every = 1).len(), 1);
        let said = advice(|config| config.full_every = 100);
        assert!(said.len() == 1 && said[0].contains("a window"), "{said:?}");
    }

    #[test]
    fn a_context_that_no_base_suits_is_said_to_be_one() {
        let said = advice(|config| (config.context, config.head_dim) = (1 << 30, 4));
        assert!(said[0].contains("no base suits a context of 1,073,741,824 tokens"), "{said:?}");
    }
}
