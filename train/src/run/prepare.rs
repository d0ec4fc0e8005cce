//! What a run needs before its first step: its optimizer, and checks for everything that would make it fail.

use burn::module::Module;
use polaron::{Layerwise, LayerwiseError, LayerwiseOptimizer, Roles};

use crate::error::{ConfigError, Error};
use crate::host::device;
use crate::networks::family::Family;
use crate::networks::registry::ForFamily;
use crate::run::estimate::{self, Purpose};
use crate::run::prompt;
use crate::settings::config::Config;

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
        let Config { data, train, device, .. } = self.first;
        let opened = device::open(&device.name)?;
        let data = F::load(data, None)?;
        settings.check_data(&data)?;
        self.configs.iter().try_for_each(|config| prompt::check_sample(config, F::tokenizer(&data)))?;
        let sizes = settings.sizes_for(F::data_sizes(&data))?;
        estimate::check(self.first, &device.name, sizes, Purpose::Train)?;
        let model = settings.init(sizes, train.seed, &opened)?;
        self.configs.iter().try_for_each(|config| build_optimizer(config, &model).map(drop))?;
        F::fingerprint(&data)
    }
}

/// Builds the optimizer that the configuration describes, with the model's hints about roles, and its width rules.
///
/// # Errors
///
/// [`polaron::LayerwiseError`].
pub fn build_optimizer<M: Module + Roles>(config: &Config, model: &M) -> Result<LayerwiseOptimizer, Error> {
    let builder = Layerwise::from_config(&config.optimizer)?.hints(model.roles());
    let builder = match config.model.width_ratio() {
        Some(ratio) => builder.width(ratio),
        None => builder,
    };
    match builder.build(model) {
        Err(LayerwiseError::Width { path, optimizer, reason }) => {
            let rule = format!("`{path}` is updated by {optimizer}, for which no width rule is known: {reason}");
            Err(ConfigError::BadValue { key: "model.parametrization".into(), value: "mup".into(), rule }.into())
        }
        built => Ok(built?),
    }
}
