//! `polaron list`: what there is to choose from.

use std::fmt::Write;

use polaron::{LayerwiseConfig, OptimizerConfig};
use polaron_datasets::DATASETS;
use polaron_models::ModelConfig;

use crate::device::{self, DEVICES};

/// Every optimizer kind with formula, source, state and cost.
pub fn optimizers() -> String {
    let mut text = String::new();
    for kind in OptimizerConfig::KINDS {
        let Ok(config) = OptimizerConfig::of_kind(kind) else { continue };
        let about = config.describe();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{kind}\n  update  {}\n  source  {}\n  state   {}\n  cost    {}",
            about.formula, about.source, about.state, about.cost
        );
    }
    text
}

/// Every stack.
pub fn stacks() -> String {
    table(
        LayerwiseConfig::STACKS
            .iter()
            .map(|name| [(*name).to_owned(), LayerwiseConfig::describe_stack(name).to_owned()]),
    )
}

/// Every model preset.
pub fn models() -> String {
    table(ModelConfig::PRESETS.iter().map(|name| [(*name).to_owned(), ModelConfig::describe_preset(name).to_owned()]))
}

/// Every embedded text.
pub fn datasets() -> String {
    let rows = DATASETS
        .iter()
        .map(|info| [info.name.to_owned(), format!("{}; {}; {}", info.description, info.origin, info.licence)]);
    format!("{}any other name is taken as the path of a UTF-8 text file\n", table(rows))
}

/// Every device, compiled in or not.
pub fn devices() -> String {
    table(DEVICES.iter().map(|info| {
        let state = match (info.compiled, info.name == device::default_name()) {
            (true, true) => "compiled in, the default".to_owned(),
            (true, false) => "compiled in".to_owned(),
            (false, _) => format!("not compiled in; build with `{}`", info.build_command()),
        };
        let names = std::iter::once(info.name).chain(info.aliases.iter().copied()).collect::<Vec<_>>().join(", ");
        [names, format!("{} ({state})", info.description)]
    }))
}

/// Two columns, the first as wide as it needs to be.
pub fn table(rows: impl IntoIterator<Item = [String; 2]>) -> String {
    let rows: Vec<[String; 2]> = rows.into_iter().collect();
    let width = rows.iter().map(|[name, _]| name.chars().count()).max().unwrap_or(0);
    let lines = rows.iter().map(|[name, text]| format!("{name:<width$}  {text}").trim_end().to_owned() + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_names_everything() {
        for kind in OptimizerConfig::KINDS {
            assert!(optimizers().contains(kind), "{kind}");
        }
        for (list, names) in [(stacks(), LayerwiseConfig::STACKS), (models(), ModelConfig::PRESETS)] {
            assert!(names.iter().all(|name| list.contains(name)), "{list}");
        }
        assert!(datasets().contains("shakespeare"));
        assert!(DEVICES.iter().all(|info| devices().contains(info.name)));
    }

    #[test]
    fn the_second_column_is_aligned() {
        let rows = [["a".into(), "x".into()], ["long".into(), "y".into()]];
        assert_eq!(table(rows), "a     x\nlong  y\n");
    }
}
