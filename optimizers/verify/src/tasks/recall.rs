//! Recall capacity (arXiv 2605.10795): p random pairs in R^d, one matrix that ranks every value first for its key.
//!
//! The load is `L = p ln p / d²`; all pairs can be stored up to 1/2 as d grows, and up to more for small d (ours: about
//! 0.95 at d = 32). Trained by cross-entropy from three times the Hebbian matrix. A stress test, not a ranking: tuned
//! optimizers are close.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::TaskError;
use super::problem::{EXACT_MUON, Finding, SGD, Setting, Trained, config, cosine, gaussian, tensor};

const WIDTH: usize = 32;
const STEPS: usize = 800;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let own = [
        ("sgd", config(SGD), 5000.0),
        ("adamw", config(r#"{"kind": "adamw"}"#), 1.0),
        ("muon", config(EXACT_MUON), 1.0),
    ];
    let mut findings = Vec::new();
    for (load, possible) in [(0.5, true), (0.8, true), (1.1, false)] {
        let pairs = pairs_at(load);
        for (name, config, lr) in &own {
            let steps = steps_to_recall(config, *lr, pairs, setting.device)?;
            let wanted = if possible { "all within 800 steps" } else { "never" };
            let what = format!("load {load} ({pairs} pairs), {name}, lr {lr}: steps until all are recalled");
            findings.push(Finding::judged(what, shown(steps), wanted, steps.is_some() == possible));
        }
        if let Some((config, lr)) = &setting.optimizer {
            let steps = steps_to_recall(config, *lr, pairs, setting.device)?;
            findings.push(Finding::shown(format!("load {load}, {}, lr {lr}", config.kind()), shown(steps), ""));
        }
    }
    Ok(findings)
}

fn shown(steps: Option<usize>) -> String {
    steps.map_or("not in 800".into(), |steps| steps.to_string())
}

/// The number of pairs with `p ln p / d²` nearest to the load.
fn pairs_at(load: f64) -> usize {
    let wanted = load * (WIDTH * WIDTH) as f64;
    (2..WIDTH * WIDTH).find(|p| *p as f64 * (*p as f64).ln() >= wanted).unwrap_or(WIDTH)
}

fn steps_to_recall(
    config: &OptimizerConfig,
    lr: f64,
    pairs: usize,
    device: &Device,
) -> Result<Option<usize>, ConfigError> {
    let std = (1.0 / WIDTH as f64).sqrt();
    let (keys, values) = (gaussian([pairs, WIDTH], std, 1, device), gaussian([pairs, WIDTH], std, 2, device));
    let identity = (0..pairs * pairs).map(|k| f64::from(u8::from(k / pairs == k % pairs))).collect();
    let identity = tensor(identity, [pairs, pairs], device);
    let hebbian = values.clone().transpose().matmul(keys.clone()) * 3.0;
    let mut trained = Trained::new(config, hebbian)?;
    for step in 0..STEPS {
        let scores = keys.clone().matmul(trained.weights.clone().transpose()).matmul(values.clone().transpose());
        if all_first(&scores) {
            return Ok(Some(step));
        }
        let slope = (softmax(scores, 1) - identity.clone()) / pairs as f64;
        let gradient = values.clone().transpose().matmul(slope.transpose()).matmul(keys.clone());
        trained.step(lr * cosine(step, STEPS), gradient);
    }
    Ok(None)
}

fn all_first(scores: &Tensor<2>) -> bool {
    let best = scores.clone().argmax(1).into_data();
    best.iter::<i64>().enumerate().all(|(i, best)| i as i64 == best)
}
