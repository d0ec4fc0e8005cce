//! What a run needs before its first step: its optimizer, and checks for everything that would make it fail.

use std::path::Path;

use polaron::layerwise::{Plan, PlanEntry};
use polaron::tensor_file;
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer, Role, Roles};
use polaron_models::{Projections, with_lora};

use crate::error::{ConfigError, Error, FileError};
use crate::host::device;
use crate::networks::data::DataSizes;
use crate::networks::family::Family;
use crate::networks::registry::ForFamily;
use crate::run::estimate;
use crate::run::prompt;
use crate::settings::config::{Config, QK_CLIP, REFACTOR_EVERY};

/// Checks everything that would make runs of these configurations fail: the data, the model, the rules of the optimizer.
/// The configurations may differ only in their optimizers. Returns the fingerprint of the data.
///
/// # Errors
///
/// The first problem found.
pub fn check(configs: &[Config]) -> Result<String, Error> {
    configs.first().map_or_else(|| Ok(String::new()), |first| first.model.with(Checked { first, configs }))
}

/// Configurations that differ only in their optimizers.
struct Checked<'a> {
    first: &'a Config,
    configs: &'a [Config],
}

impl ForFamily for Checked<'_> {
    type Output = Result<String, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let Config { data, device, .. } = self.first;
        device::open(&device.name)?;
        let data = F::load(data, None)?;
        settings.check_data(&data)?;
        self.configs.iter().try_for_each(|config| prompt::check_sample(config, F::tokenizer(&data)))?;
        let sizes = settings.sizes_for(F::data_sizes(&data))?;
        for config in self.configs {
            check_memory(config, settings, sizes, 1)?;
        }
        F::fingerprint(&data)
    }
}

/// `model` with the adapters of the configuration, if it has some: for initial or loaded weights, and before the weights of
/// a run with adapters are loaded.
///
/// # Errors
///
/// [`polaron_models::ModelError`].
pub fn with_adapters<M: Projections>(config: &Config, model: M) -> Result<M, Error> {
    match &config.train.lora {
        Some(lora) => Ok(with_lora(model, lora, config.train.seed)?),
        None => Ok(model),
    }
}

/// Refuses a run of so many processes that would not fit into the memory of its device, or would take nearly all of it, before its model is built.
///
/// # Errors
///
/// [`TooLarge`](crate::error::TooLarge), or those of [`build_optimizer`].
pub fn check_memory<F: Family>(config: &Config, settings: &F, sizes: DataSizes, ranks: usize) -> Result<(), Error> {
    estimate::check_weights(config, &config.device.name, sizes)?;
    estimate::check_training(config, sizes, &outline(config, settings, sizes)?, ranks)
}

/// The plan of the optimizer of a configuration, made from the shapes of its model alone.
///
/// # Errors
///
/// Those of [`build_optimizer`] that do not depend on weights.
pub fn outline<F: Family>(config: &Config, settings: &F, sizes: DataSizes) -> Result<Plan, Error> {
    let device = device::open(device::default_name())?;
    let model = with_adapters(config, settings.outline(sizes, &device)?)?;
    let plan = builder(config, &model)?.plan(&model).map_err(refusal)?;
    check_plan::<F>(config, &model, &plan)?;
    Ok(plan)
}

/// Builds the optimizer that the configuration describes, with the model's hints about roles, its width rules and what is
/// frozen: with adapters, everything else.
///
/// # Errors
///
/// [`polaron::LayerwiseError`], and what it may not change.
pub fn build_optimizer<F: Family>(config: &Config, model: &F::Network) -> Result<LayerwiseOptimizer, Error> {
    let optimizer = builder(config, model)?.build(model).map_err(refusal)?;
    check_plan::<F>(config, model, optimizer.plan())?;
    Ok(optimizer)
}

fn check_plan<F: Family>(config: &Config, model: &F::Network, plan: &Plan) -> Result<(), Error> {
    check_adapters(config, plan)?;
    Ok(check_heads::<F>(config, model, plan)?)
}

fn builder(config: &Config, model: &impl Roles) -> Result<Layerwise, Error> {
    let builder = Layerwise::from_config(&config.optimizer)?.schedules(&config.schedule)?.hints(model.roles());
    let builder = with_directions(config, builder)?;
    let builder = config.train.freeze.iter().fold(builder, Layerwise::freeze);
    let builder = if config.train.lora.is_some() { builder.train_only(Role::ADAPTERS) } else { builder };
    Ok(match config.model.width_ratio() {
        Some(ratio) => builder.width(ratio),
        None => builder,
    })
}

/// With the directions that the rules of the optimizer leave as they are, from their files.
fn with_directions(config: &Config, mut builder: Layerwise) -> Result<Layerwise, Error> {
    for name in config.optimizer.direction_files()? {
        let path = Path::new(&name);
        let bytes = std::fs::read(path).map_err(FileError::at("read", path))?;
        let (tensors, _) = tensor_file::from_bytes(&bytes).map_err(|error| LayerwiseError::Directions {
            name: name.clone(),
            message: format!(
                "it is no safetensors file of directions ({error}): make one by `polaron inspect RUN --delta BASE --out FILE`"
            ),
        })?;
        builder = builder.directions(name, tensors);
    }
    Ok(builder)
}

/// Why an optimizer cannot be built, in words of the configuration.
fn refusal(error: LayerwiseError) -> Error {
    match error {
        LayerwiseError::Width { path, optimizer, reason } => {
            let rule = format!("`{path}` is updated by {optimizer}, for which no width rule is known: {reason}");
            ConfigError::BadValue { key: "model.parametrization".into(), value: "mup".into(), rule }.into()
        }
        other => other.into(),
    }
}

/// Refuses QK-clip on projections that are frozen, or of which a rule keeps directions.
fn check_heads<F: Family>(config: &Config, model: &F::Network, plan: &Plan) -> Result<(), ConfigError> {
    let Some(threshold) = config.optimizer.qk_clip else { return Ok(()) };
    let layers = F::head_logits(model, &vec![Vec::new(); config.model.layers()]);
    let scaled = |path: &str| {
        let holder = path.rsplit_once('.').map_or("", |(holder, _)| holder);
        layers.iter().any(|layer| holder == layer.query || holder == layer.key)
    };
    let fixed = |entry: &&PlanEntry| (entry.is_frozen() || entry.projection.is_some()) && scaled(&entry.path);
    let Some(fixed) = plan.entries().iter().find(fixed) else { return Ok(()) };
    let path = &fixed.path;
    let rule = if fixed.is_frozen() {
        format!("it would scale `{path}`, which is frozen: leave the key out, or train all queries and keys")
    } else {
        format!("it would scale `{path}`, of which a project keeps directions: leave out the key, or that project")
    };
    ConfigError::ensure(false, QK_CLIP, threshold, &rule)
}

/// Refuses a frozen second factor, which is zero, so that its adapter would stay nothing; and where adapters are re-factorised
/// a trained first factor, or a second one of which a rule keeps directions.
fn check_adapters(config: &Config, plan: &Plan) -> Result<(), ConfigError> {
    let factor =
        |role: Role, frozen: bool| move |entry: &&PlanEntry| entry.role == Some(role) && entry.is_frozen() == frozen;
    if let Some(entry) = plan.entries().iter().find(factor(Role::LoraB, true)) {
        let rule = format!(
            "it freezes `{}`, which is zero at first, so that its adapter would stay without effect: freeze first factors only \
             (`**.lora.a`), or make train.lora.match narrower",
            entry.path
        );
        ConfigError::ensure(false, "train.freeze", config.train.freeze.join(", "), &rule)?;
    }
    let every = config.train.lora.as_ref().map_or(0, |lora| lora.refactor_every);
    let trained = plan.entries().iter().find(factor(Role::LoraA, false)).filter(|_| every > 0);
    let rule = trained.map_or_else(String::new, |entry| {
        format!(
            "it replaces `{}`, which is trained, so that its momentum would be that of another factor: add `--freeze '**.lora.a'`, \
             which trains second factors only, or leave the key out",
            entry.path
        )
    });
    ConfigError::ensure(trained.is_none(), REFACTOR_EVERY, every, &rule)?;
    let kept = |entry: &&PlanEntry| entry.role == Some(Role::LoraB) && entry.projection.is_some() && every > 0;
    let kept = plan.entries().iter().find(kept);
    let rule = kept.map_or_else(String::new, |entry| {
        format!("it replaces `{}`, of which a project keeps directions: leave out the key, or that project", entry.path)
    });
    ConfigError::ensure(kept.is_none(), REFACTOR_EVERY, every, &rule)
}
