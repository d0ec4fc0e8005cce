//! Configurations of runs, comparisons and optimizers.

use burn::tensor::{DType, Device};
use polaron::layerwise::Pattern;
use polaron::matrix::Placement;
use polaron::{Layerwise, LayerwiseConfig, OptimizerConfig};
use polaron_train::children::Request;
use polaron_train::compare::Plan;
use polaron_train::settings::config::Config;
use polaron_train::settings::layers::{Layers, read_file};
use polaron_verify::vectors::VectorFile;
use toml::Table;

use crate::harness::{fuzz, text, words};

/// The configuration that a file and `--set` arguments give.
pub fn resolved(file: Table, sets: Vec<(String, String)>) -> Result<Config, String> {
    Layers { file: Some(("config.toml".into(), file)), sets, ..Layers::default() }.resolve().map_err(words)
}

/// A configuration that was accepted is written, and read as the same.
pub fn comes_back(config: &Config) {
    let written = config.to_toml().expect("an accepted configuration can be written");
    let again = resolved(toml::from_str(&written).unwrap(), Vec::new()).expect(&written);
    assert_eq!(again.to_toml().unwrap(), written);
}

#[test]
fn a_run_file_is_refused_in_words_or_comes_back() {
    fuzz("run", 300, |folder, bytes| {
        let path = folder.join("config.toml");
        std::fs::write(&path, bytes).unwrap();
        let table = read_file(&path).map_err(|error| {
            assert!(error.to_string().contains("config.toml"), "{error}");
            words(error)
        })?;
        let config = resolved(table, Vec::new())?;
        comes_back(&config);
        Layerwise::from_config(&config.optimizer).map(drop).map_err(words)
    });
}

#[test]
fn set_arguments_are_refused_in_words_or_come_back() {
    fuzz("set", 300, |_, bytes| {
        let lines = text(bytes)?.lines();
        let sets = lines.map(|line| line.split_once('=').map(|(key, raw)| (key.to_owned(), raw.to_owned())));
        let sets = sets.collect::<Option<Vec<_>>>().ok_or("no `=`")?;
        let config = resolved(Table::new(), sets)?;
        comes_back(&config);
        Layerwise::from_config(&config.optimizer).map(drop).map_err(words)
    });
}

#[test]
fn a_plan_is_refused_in_words_or_comes_back() {
    fuzz("plan", 300, |folder, bytes| {
        let path = folder.join("plan.toml");
        std::fs::write(&path, bytes).unwrap();
        let plan = |table| Plan::resolve(&Request { file: Some(("plan.toml".into(), table)), ..Request::default() });
        let first = plan(read_file(&path).map_err(words)?).map_err(words)?;
        let written = toml::to_string(&first.to_table().unwrap()).unwrap();
        let again = plan(toml::from_str(&written).unwrap()).expect(&written);
        assert_eq!(toml::to_string(&again.to_table().unwrap()).unwrap(), written);
        Ok(())
    });
}

#[test]
fn an_optimizer_is_refused_in_words_or_comes_back() {
    fuzz("optimizer", 300, |_, bytes| {
        let input = text(bytes)?;
        let config: OptimizerConfig = match serde_json::from_str(input) {
            Ok(config) => config,
            Err(json) => toml::from_str(input).map_err(|error| format!("{json}; {error}"))?,
        };
        config.validate().map_err(words)?;
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<OptimizerConfig>(&written).expect(&written), config);
        config.build(Placement::default()).map(drop).map_err(words)
    });
}

#[test]
fn a_stack_is_refused_in_words_or_comes_back() {
    fuzz("stack", 300, |_, bytes| {
        let config = LayerwiseConfig::from_toml(text(bytes)?).map_err(words)?;
        Layerwise::from_config(&config).map_err(words)?;
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::to_string(&LayerwiseConfig::from_toml(&written).expect(&written)).unwrap(), written);
        Ok(())
    });
}

#[test]
fn a_pattern_is_refused_in_words_or_answers_at_once() {
    fuzz("pattern", 300, |_, bytes| {
        let pattern = Pattern::new(text(bytes)?.trim_end_matches('\n')).map_err(words)?;
        for path in ["blocks.3.attn.wq.weight", "", &"a.".repeat(1000)] {
            pattern.matches(path);
        }
        Ok(())
    });
}

#[test]
fn reference_vectors_are_refused_in_words_or_run() {
    fuzz("vectors", 300, |_, bytes| {
        let file = VectorFile::parse(text(bytes)?).map_err(words)?;
        for case in &file.cases {
            for dtype in [DType::F32, DType::F64] {
                case.run(&Device::flex(), dtype).map_err(words)?;
            }
        }
        Ok(())
    });
}
