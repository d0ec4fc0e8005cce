//! Learning rates that transfer to wider networks (rules: arXiv 2512.05620).
//!
//! A perceptron of three hidden layers of width D with ReLU learns a tanh network with 32 inputs and 8 outputs: 150 steps
//! of 128 fresh examples, squared error, linear decay. For every width the best of a grid of learning rates, one octave
//! apart, is searched; with m = D / 64:
//!
//! | | first weights | learning rate |
//! |---|---|---|
//! | standard | `sqrt(2 / d_in)`, head `1 / sqrt(D)` | the same everywhere |
//! | muP, AdamW | the same, head 0 | hidden and head `1 / m` |
//! | muP, Muon | the same, head 0 | hidden layers by Muon, scale `spectral`, without a factor; head AdamW at 2^-6 / m |
//!
//! **Known**: under muP the best rate is constant (within one octave over these widths) and wider networks are better; AdamW's under the
//! standard rules falls with the width, by an octave or more. Ours: sizes, teacher, criteria.

use burn::tensor::activation::{relu, tanh};
use burn::tensor::{DType, Device, Tensor};
use polaron::{ConfigError, OptimizerConfig};

use super::problem::{Finding, Setting, TaskError, Trained, config, gaussian};

const INPUTS: usize = 32;
const OUTPUTS: usize = 8;
const BATCH: usize = 128;
const STEPS: usize = 150;
const TEST: usize = 2048;
const BASE: usize = 64;
/// AdamW's rate for the head when Muon updates the hidden layers, at the base width.
const HEAD_OCTAVE: i32 = -6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rules {
    Standard,
    AdamWMup,
    MuonMup,
}

impl Rules {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "AdamW, standard",
            Self::AdamWMup => "AdamW, muP",
            Self::MuonMup => "Muon, spectral scale",
        }
    }

    /// Optimizer and learning rate of layer `index` (of four) at width `width`.
    fn layer(self, index: usize, width: usize, lr: f64) -> (OptimizerConfig, f64) {
        let adamw = config(r#"{"kind": "adamw", "weight_decay": 0.0}"#);
        let m = width as f64 / BASE as f64;
        match (self, index) {
            (Self::Standard, _) | (Self::AdamWMup, 0) => (adamw, lr),
            (Self::AdamWMup, _) => (adamw, lr / m),
            (Self::MuonMup, 3) => (adamw, 2f64.powi(HEAD_OCTAVE) / m),
            (Self::MuonMup, _) => (config(r#"{"kind": "muon", "scale": "spectral", "weight_decay": 0.0}"#), lr),
        }
    }

    fn octaves(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::MuonMup => -7..=-2,
            Self::Standard | Self::AdamWMup => -10..=-3,
        }
    }
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let widths: &[usize] = if setting.quick { &[64, 256] } else { &[64, 128, 256] };
    let rules: &[Rules] = if setting.quick {
        &[Rules::Standard, Rules::AdamWMup]
    } else {
        &[Rules::Standard, Rules::AdamWMup, Rules::MuonMup]
    };
    let mut findings = Vec::new();
    for rules in rules {
        let mut best = Vec::new();
        for width in widths {
            let (octave, loss) = best_octave(*rules, *width, setting.device)?;
            let what = format!("{}, width {width}: best learning rate, loss", rules.name());
            findings.push(Finding::shown(what, format!("2^{octave}, {loss:.4}"), ""));
            best.push((octave, loss));
        }
        findings.extend(judge(*rules, &best));
    }
    Ok(findings)
}

/// The findings over all widths.
fn judge(rules: Rules, best: &[(i32, f64)]) -> Vec<Finding> {
    let octaves = || best.iter().map(|(octave, _)| *octave);
    let moved = octaves().max().unwrap_or_default() - octaves().min().unwrap_or_default();
    let name = rules.name();
    let what = format!("{name}: octaves that the best rate moves");
    if rules == Rules::Standard {
        return vec![Finding::judged(what, moved, "at least 1", moved >= 1)];
    }
    let falls = best.is_sorted_by(|a, b| a.1 > b.1);
    vec![
        Finding::judged(what, moved, "at most 1", moved <= 1),
        Finding::judged(format!("{name}: wider is better"), falls, true, falls),
    ]
}

/// The octave of the best learning rate, and the loss there, over two seeds.
fn best_octave(rules: Rules, width: usize, device: &Device) -> Result<(i32, f64), ConfigError> {
    let mut best = (0, f64::INFINITY);
    for octave in rules.octaves() {
        let losses = [1, 2].map(|seed| final_loss(rules, width, 2f64.powi(octave), seed, device));
        let [first, second] = losses;
        let loss = 0.5 * (first? + second?);
        if loss < best.1 {
            best = (octave, loss);
        }
    }
    Ok(best)
}

/// Squared error on test examples after training.
fn final_loss(rules: Rules, width: usize, lr: f64, seed: u64, device: &Device) -> Result<f64, ConfigError> {
    let sizes = [INPUTS, width, width, width, OUTPUTS];
    let normal = |shape, std, stream: u64| gaussian(shape, std, 1000 * seed + stream, device).cast(DType::F32);
    let teacher = Teacher {
        hidden: normal([INPUTS, INPUTS], (1.0 / INPUTS as f64).sqrt() * 2.0, 1),
        head: normal([OUTPUTS, INPUTS], (1.0 / INPUTS as f64).sqrt() * 2.0, 2),
    };
    let mut layers = Vec::new();
    for index in 0..4 {
        let (d_in, d_out) = (sizes[index], sizes[index + 1]);
        let std = match (rules, index) {
            (Rules::Standard, 3) => (1.0 / d_in as f64).sqrt(),
            (_, 3) => 0.0,
            _ => (2.0 / d_in as f64).sqrt(),
        };
        let (optimizer, lr) = rules.layer(index, width, lr);
        layers.push((Trained::new(&optimizer, normal([d_out, d_in], std, 10 + index as u64))?, lr));
    }
    for step in 0..STEPS {
        let x = normal([BATCH, INPUTS], 1.0, 100 + step as u64);
        let gradients = gradients(&layers, x.clone(), teacher.forward(x));
        let factor = 1.0 - step as f64 / STEPS as f64;
        for ((layer, lr), gradient) in layers.iter_mut().zip(gradients) {
            layer.step(factor * *lr, gradient);
        }
    }
    let x = normal([TEST, INPUTS], 1.0, 99);
    let (activations, y) = (forward(&layers, x.clone()), teacher.forward(x));
    let error = activations.last().map(|out| (out.clone() - y).square().mean().into_scalar::<f32>());
    Ok(f64::from(error.unwrap_or(f32::NAN)))
}

struct Teacher {
    hidden: Tensor<2>,
    head: Tensor<2>,
}

impl Teacher {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        tanh(x.matmul(self.hidden.clone().transpose())).matmul(self.head.clone().transpose())
    }
}

/// Input, hidden activations and output.
fn forward(layers: &[(Trained, f64)], x: Tensor<2>) -> Vec<Tensor<2>> {
    let mut activations = vec![x.clone()];
    let mut h = x;
    for (index, (layer, _)) in layers.iter().enumerate() {
        let z = h.matmul(layer.weights.clone().transpose());
        h = if index + 1 < layers.len() { relu(z) } else { z };
        activations.push(h.clone());
    }
    activations
}

/// Gradients of half the mean squared error.
fn gradients(layers: &[(Trained, f64)], x: Tensor<2>, y: Tensor<2>) -> Vec<Tensor<2>> {
    let mut activations = forward(layers, x);
    let Some(out) = activations.pop() else { return Vec::new() };
    let mut slope = (out - y) / (BATCH * OUTPUTS) as f64;
    let mut gradients = Vec::new();
    for (layer, _) in layers.iter().rev() {
        let Some(h) = activations.pop() else { break };
        gradients.push(slope.clone().transpose().matmul(h.clone()));
        // The derivative of ReLU; at the input it is not used any more.
        let dtype = h.dtype();
        slope = slope.matmul(layer.weights.clone()) * h.greater_elem(0.0).float().cast(dtype);
    }
    gradients.reverse();
    gradients
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers of width 5 in f64, `moved` along their gradients.
    fn layers(device: &Device, gradients: &[Tensor<2>], moved: f64) -> Vec<(Trained, f64)> {
        let sizes = [INPUTS, 5, 5, 5, OUTPUTS];
        let layer = |index: usize| {
            let mut weights = gaussian([sizes[index + 1], sizes[index]], 0.5, 7 + index as u64, device);
            if let Some(gradient) = gradients.get(index) {
                weights = weights + gradient.clone() * moved;
            }
            let (optimizer, lr) = Rules::Standard.layer(index, BASE, 1.0);
            (Trained::new(&optimizer, weights).unwrap(), lr)
        };
        (0..4).map(layer).collect()
    }

    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        let device = Device::flex();
        let (x, y) = (gaussian([BATCH, INPUTS], 1.0, 1, &device), gaussian([BATCH, OUTPUTS], 1.0, 2, &device));
        let found = gradients(&layers(&device, &[], 0.0), x.clone(), y.clone());
        let loss = |moved: f64| {
            let out = forward(&layers(&device, &found, moved), x.clone()).pop().unwrap();
            0.5 * (out - y.clone()).square().mean().into_scalar::<f64>()
        };
        let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        let squares: f64 = found.iter().map(|gradient| gradient.clone().square().sum().into_scalar::<f64>()).sum();
        // The difference is off by the order of its step squared, but for a few units that cross zero.
        assert!((slope / squares - 1.0).abs() < 1e-4, "{slope} {squares}");
    }
}
