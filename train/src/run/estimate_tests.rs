use polaron::LayerwiseConfig;

use super::*;
use crate::networks::data::DataSizes;
use crate::networks::decoder::vocabulary;
use crate::networks::family::Family;
use crate::networks::registry::{ForFamily, NetworkConfig};
use crate::run::prepare::outline;
use crate::settings::layers::Layers;

fn with_sets(sets: &[(&str, &str)]) -> Config {
    let sets = sets.iter().map(|(key, raw)| ((*key).into(), (*raw).into())).collect();
    Layers { sets, ..Layers::default() }.resolve().unwrap()
}

/// A configuration, the sizes of its data, and the number of its processes.
struct Estimated<'a>(&'a Config, DataSizes, usize);

impl ForFamily for Estimated<'_> {
    type Output = Estimate;

    fn run<F: Family>(self, settings: &F) -> Estimate {
        Estimate::of(self.0, self.1, &outline(self.0, settings, self.1).unwrap(), self.2)
    }
}

fn estimate(config: &Config, sizes: DataSizes) -> Estimate {
    config.model.with(Estimated(config, sizes, 1))
}

fn refusal(config: &Config, sizes: DataSizes, available: f64) -> String {
    training_fits(config, sizes, &estimate(config, sizes), available).unwrap_err().to_string()
}

#[test]
fn weights_gradients_and_states_are_counted_from_the_plan() {
    let parameters = 4.0 * 221_888.0;
    for (stack, states) in [("adamw", 2.0), ("sgd", 1.0)] {
        let config = with_sets(&[("optimizer.stack", stack), ("device.threads", "1")]);
        let estimate = estimate(&config, vocabulary(65));
        assert_eq!((estimate.weights, estimate.gradients), (parameters, parameters), "{stack}");
        assert_eq!(estimate.states, states * parameters, "{stack}");
    }
    let config = with_sets(&[("device.threads", "2"), ("train.accumulation", "2")]);
    let several = estimate(&config, vocabulary(65));
    assert_eq!(several.gradients, 3.0 * parameters, "two workers, and the micro-batch before");
}

#[test]
fn grains_keep_the_activations_of_one_a_thread_and_a_sum_a_level() {
    let passes = |grains: &str, threads: &str, ranks: usize| {
        let sets = [("train.batch", "16"), ("train.grains", grains), ("device.threads", threads)];
        let Passes { rows, workers, gradients } = Passes::of(&with_sets(&sets), ranks);
        [rows, workers, gradients]
    };
    assert_eq!(passes("0", "2", 1), [16.0, 2.0, 2.0]);
    assert_eq!(passes("1", "2", 1), [16.0, 1.0, 1.0]);
    assert_eq!(passes("2", "2", 1), [16.0, 2.0, 2.0]);
    assert_eq!(passes("8", "2", 1), [4.0, 2.0, 6.0]);
    assert_eq!(passes("8", "1", 1), [2.0, 1.0, 4.0]);
    assert_eq!(passes("8", "1", 4), [2.0, 1.0, 2.0]);
    assert_eq!(passes("8", "4", 4), [4.0, 2.0, 2.0]);
}

#[test]
fn states_are_spread_over_the_ranks_and_gathered_by_one() {
    let config = with_sets(&[("train.batch", "8"), ("train.grains", "8"), ("device.threads", "1")]);
    let of = |ranks: usize| config.model.with(Estimated(&config, vocabulary(65), ranks));
    let [one, four] = [of(1), of(4)];
    assert_eq!((four.weights, four.states), (one.weights, one.states / 4.0));
    assert!(four.gradients < one.gradients);
}

#[test]
fn copies_of_the_trained_weights_are_counted() {
    let states = |sets: &[(&str, &str)]| estimate(&with_sets(sets), vocabulary(65)).states;
    let (plain, parameters) = (states(&[]), 4.0 * 221_888.0);
    let wrapper = ("optimizer.wrapper.kind", "outer_nesterov");
    assert_eq!(states(&[wrapper]) - plain, 2.0 * parameters);
    assert_eq!(states(&[wrapper, ("train.average.mix", "0.5")]) - plain, 3.0 * parameters);
    assert_eq!(states(&[("train.spectra_every", "5")]) - plain, 2.0 * parameters);
    let frozen = ("train.freeze", "[\"embed*\"]");
    assert_eq!(states(&[wrapper, frozen]) - states(&[frozen]), 2.0 * (parameters - 4.0 * 64.0 * 65.0));
}

#[test]
fn every_stack_has_a_known_state_of_at_least_a_buffer_for_most_parameters() {
    for stack in LayerwiseConfig::STACKS {
        let found = estimate(&with_sets(&[("optimizer.stack", stack)]), vocabulary(65));
        // SOAP keeps two moments, and two squares of each side.
        let most = if stack.starts_with("soap") { 10.0 } else { 4.0 };
        assert!((0.0..=most * found.weights).contains(&found.states), "{stack}: {found:?}");
    }
}

#[test]
fn recomputing_keeps_the_inputs_of_the_blocks_and_one_block() {
    let config = with_sets(&[("model.preset", "llama-d256"), ("device.threads", "1")]);
    let found = estimate(&config, vocabulary(65));
    let row = config.model.memory(vocabulary(65)).row;
    assert_eq!(found.recomputed, Some(FLOAT * 16.0 * (row.inputs + row.largest_block)));
    assert!(found.recomputed_peak.unwrap() < 0.5 * found.peak, "{found:?}");
    let perceptron = estimate(&with_sets(&[("model.preset", "mlp")]), DataSizes { inputs: 64, outputs: 10 });
    assert_eq!((perceptron.recomputed, perceptron.recomputed_peak), (None, None));
}

#[test]
fn what_does_not_fit_names_figures_and_what_needs_less() {
    let config = with_sets(&[("model.d_model", "1000000")]);
    let said = weights_fit(&config, vocabulary(65), 16e9).unwrap_err().to_string();
    for fragment in ["at least 192 TB", "16 GB are available", "lower `model.d_model` (1000000)"] {
        assert!(said.contains(fragment), "{fragment}: {said}");
    }
    let config = with_sets(&[("train.batch", "200000")]);
    let said = refusal(&config, vocabulary(65), 16e9);
    for fragment in
        ["set `train.recompute`", "raise `train.accumulation` (1)", "lower `train.batch` (200000)", "--force"]
    {
        assert!(said.contains(fragment), "{fragment}: {said}");
    }
    weights_fit(&config, vocabulary(65), 16e9).unwrap();
}

#[test]
fn what_fits_is_not_refused() {
    for preset in NetworkConfig::presets() {
        let config = with_sets(&[("model.preset", preset), ("train.batch", "2")]);
        let (sizes, found) = match config.model.is_text() {
            true => (vocabulary(256), estimate(&config, vocabulary(256))),
            false => (DataSizes { inputs: 64, outputs: 10 }, estimate(&config, DataSizes { inputs: 64, outputs: 10 })),
        };
        training_fits(&config, sizes, &found, found.peak / 0.89).unwrap();
        training_fits(&config, sizes, &found, found.peak / 0.91).unwrap_err();
    }
}
