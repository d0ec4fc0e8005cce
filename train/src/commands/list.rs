//! `polaron list`: the available optimizers, stacks, models, datasets, tasks and devices.

use std::fmt::Write;

use burn::tensor::{DType, Device};
use clap::{Args, ValueEnum};
use polaron::{LayerwiseConfig, OptimizerConfig};
use polaron_common::table;
use polaron_datasets::{DATASETS, IMAGE_DATASETS};
use polaron_verify::inspect::{singular_map, symmetry};

use serde_json::Value;

use super::task;
use crate::error::{EXIT_DONE, Error};
use crate::host::device::{self, DEVICES};
use crate::host::progress::print;
use crate::networks::registry::NetworkConfig;

/// What can be listed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Listing {
    /// Every optimizer kind.
    Optimizers,
    /// Every stack.
    Stacks,
    /// Every model preset.
    Models,
    /// Every embedded text and image set.
    Datasets,
    /// Every problem with a known answer.
    Tasks,
    /// Every device.
    Devices,
}

/// Arguments of `polaron list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// What to list.
    #[arg(value_enum)]
    pub what: Listing,
    /// With `optimizers`: the measured symmetries of every rule.
    #[arg(long)]
    pub symmetry: bool,
    /// With `optimizers`: the measured effect of every kind on singular values.
    #[arg(long, conflicts_with = "symmetry")]
    pub spectrum: bool,
}

/// Prints the list.
///
/// # Errors
///
/// A flag that is for optimizers only; a device that cannot be opened.
pub fn run(args: &ListArgs) -> Result<u8, Error> {
    let text = if args.symmetry || args.spectrum {
        measured(args)?
    } else {
        match args.what {
            Listing::Optimizers => optimizers(),
            Listing::Stacks => stacks(),
            Listing::Models => models(),
            Listing::Datasets => datasets(),
            Listing::Tasks => task::names(),
            Listing::Devices => devices(),
        }
    };
    print(&text);
    Ok(EXIT_DONE)
}

fn measured(args: &ListArgs) -> Result<String, Error> {
    let Listing::Optimizers = args.what else {
        let flag = if args.symmetry { "--symmetry" } else { "--spectrum" };
        return Err(Error::Usage(format!("{flag} applies only to optimizers: write `polaron list optimizers {flag}`")));
    };
    let device = device::open(device::default_name())?;
    if args.symmetry { symmetries(&device) } else { spectra(&device) }
}

/// Every optimizer kind with formula, source, state, cost and defaults.
fn optimizers() -> String {
    let mut text = String::new();
    for kind in OptimizerConfig::KINDS {
        let Ok(config) = OptimizerConfig::of_kind(kind) else { continue };
        let about = config.describe();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{kind}\n  update    {}\n  source    {}\n  state     {}\n  cost      {}\n  defaults  {}\n  also      {}",
            about.formula,
            about.source,
            about.state(),
            about.cost,
            defaults(&config),
            absent(&config).join(", ")
        );
    }
    text
}

/// The keys of a configuration with their values, as in a TOML file.
fn defaults(config: &OptimizerConfig) -> String {
    let Ok(Value::Object(keys)) = serde_json::to_value(config) else { return String::new() };
    let shown = keys.iter().filter(|(key, _)| *key != "kind").map(|(key, value)| match value {
        Value::Null => format!("{key} off"),
        Value::Object(inner) => {
            let inner: Vec<String> = inner.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("{key} = {{ {} }}", inner.join(", "))
        }
        value => format!("{key} = {value}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The keys that a configuration need not have, and does not have by default.
fn absent(config: &OptimizerConfig) -> Vec<&'static str> {
    let given = serde_json::to_value(config).unwrap_or_default();
    let keys = OptimizerConfig::choices(config.kind()).unwrap_or_default().into_iter().map(|(key, _)| key);
    keys.filter(|key| given.get(key).is_none()).collect()
}

/// Which symmetries the updates of every rule have, measured now, in f64 if the device supports it.
///
/// # Errors
///
/// If a rule of the table is not valid.
fn symmetries(device: &Device) -> Result<String, Error> {
    let rounding = if device.supports_dtype(DType::F64) { 1e-9 } else { 1e-3 };
    let mut text = String::from(SYMMETRY_HEAD);
    for (rule, config) in polaron::rules::symmetries() {
        let fail = |error: polaron::ConfigError| Error::Usage(format!("{}: {error}", rule.name));
        let measured = symmetry(&config, device).map_err(fail)?;
        let _ = write!(text, "{:32}", rule.name);
        for error in measured.errors() {
            let _ = write!(text, "{:>10}", if error < rounding { "ok".to_owned() } else { format!("{error:.0e}") });
        }
        let _ = writeln!(text, "{:>8.0}", measured.degree.round() + 0.0);
    }
    Ok(text)
}

/// How the first update of every kind maps the singular values of a gradient.
///
/// # Errors
///
/// If the defaults of a kind are not valid.
fn spectra(device: &Device) -> Result<String, Error> {
    let singular = [1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4];
    // Rounded first: -1e-17 is not "-0.0000".
    let cell = |value: &f64| format!("{:>9.4}", (value * 1e4).round() / 1e4 + 0.0);
    let cells = |values: &[f64]| -> String { values.iter().map(cell).collect() };
    let mut text = format!("{SPECTRUM_HEAD}{:20}{}\n", "gradient", cells(&singular));
    for kind in OptimizerConfig::KINDS {
        let fail = |error: polaron::ConfigError| Error::Usage(format!("{kind}: {error}"));
        let config = OptimizerConfig::of_kind(kind).map_err(fail)?;
        let mapped = singular_map(&config, &singular, device).map_err(fail)?;
        let _ = writeln!(text, "{kind:20}{}", cells(&mapped));
    }
    Ok(text)
}

const SPECTRUM_HEAD: &str = "\
How the first update maps each singular value of a gradient: measured along its singular vectors, before the learning rate.
Of soap, whose first gradient only sets its bases, the second update of the same gradient.

";

const SYMMETRY_HEAD: &str = "\
Does the update of a transformed gradient equal the transformed update? Relative error over six steps; ok: rounding.
rotate, permute: output or input units. shift: adding one vector to every output unit of the gradient changes nothing.
zero sum: the update sums to zero over output units if the gradient does. degree: power of the gradient's size.

rule                                rotate   permute    rotate   permute     shift  zero sum  degree
                                   outputs   outputs    inputs    inputs
";

/// Every stack, with its learning rate.
fn stacks() -> String {
    let rows = LayerwiseConfig::STACKS.iter().map(|name| {
        let lr = LayerwiseConfig::stack(name).map_or(String::new(), |config| format!(" (lr {})", config.lr));
        [(*name).to_owned(), format!("{}{lr}", LayerwiseConfig::describe_stack(name))]
    });
    table(rows, &[])
}

/// Every model preset.
fn models() -> String {
    let row = |name: &str| [name.to_owned(), NetworkConfig::describe_preset(name).to_owned()];
    table(NetworkConfig::presets().into_iter().map(row), &[])
}

/// Every embedded text and image set.
fn datasets() -> String {
    let rows = DATASETS
        .iter()
        .chain(IMAGE_DATASETS)
        .map(|info| [info.name.to_owned(), format!("{}; {}; {}", info.description, info.origin, info.licence)]);
    format!(
        "{}any other name is a path: to a UTF-8 text file, to a folder that `polaron data pack` wrote or, for images, \
         to a folder of IDX files\n",
        table(rows, &[])
    )
}

/// Every device, compiled in or not.
fn devices() -> String {
    let rows = DEVICES.iter().map(|info| {
        let state = match (info.compiled, info.name == device::default_name()) {
            (true, true) => "compiled in, the default".to_owned(),
            (true, false) => "compiled in".to_owned(),
            (false, _) => format!("not compiled in; build with `{}`", info.build_command()),
        };
        let names = std::iter::once(info.name).chain(info.aliases.iter().copied()).collect::<Vec<_>>().join(", ");
        [names, format!("{} ({state})", info.description)]
    });
    table(rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_names_everything() {
        for kind in OptimizerConfig::KINDS {
            assert!(optimizers().contains(kind), "{kind}");
        }
        for (list, names) in [(stacks(), LayerwiseConfig::STACKS), (models(), &NetworkConfig::presets())] {
            assert!(names.iter().all(|name| list.contains(name)), "{list}");
        }
        assert!(datasets().contains("shakespeare") && datasets().contains("digits"));
        assert!(DEVICES.iter().all(|info| devices().contains(info.name)));
    }
}
