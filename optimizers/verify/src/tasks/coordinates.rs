//! The coordinate check of muP (arXiv 2203.03466, appendix D.1): may the learning rates of a stack follow the width?
//!
//! A network of tokens, `logits = head(relu(down(relu(up(embedding)))))` with the widths D, 2 D and D, begins as the width rules say:
//! with m = D / 64 logits are divided by m, and the first weights of the head have the same size at every width. It learns a few tokens
//! at the learning rates that [`Layerwise::width`] gives to a stack, without clipping. Measured is how far its own change moves the
//! output of each layer, `(W_t - W_0) x` for its present inputs x, over the learning rate of the stack.
//!
//! **Known**: under rules that fit, that has the same size at every width, after one step and after ten. So must it be with every stack
//! that the width rules accept; how much it grows or falls with one that they refuse is shown, at learning rates that do not follow the
//! width. Ours: the network, and the limit of 1.3 for the largest over the smallest, in the mean of three networks.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{DType, Device, Tensor};
use polaron::layerwise::{LayerwiseConfig, LayerwiseError, Plan};
use polaron::{Layerwise, Role};

use super::problem::{Finding, Setting, TaskError, gaussian, stack_of};

const BASE: usize = 64;
const TOKENS: usize = 8;
const VOCABULARY: usize = 2 * TOKENS;
/// Networks with different first weights: few, and many where these few are not flat.
const FEW: u64 = 3;
const MANY: u64 = 24;
const STEPS: [usize; 2] = [1, 10];
const LIMIT: f64 = 1.3;
const LAYERS: [(&str, Role); 4] =
    [("embedding", Role::Embedding), ("up", Role::Up), ("down", Role::Down), ("head", Role::Head)];

/// One number for each layer.
type PerLayer<T> = [T; LAYERS.len()];

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let widths: &[usize] = if setting.quick { &[32, 128] } else { &[64, 128, 256, 512] };
    let check = |config| Checked::of(config, widths, setting.device);
    if let Some((own, lr)) = &setting.optimizer {
        let checked = check(stack_of(own, *lr)?)?;
        return Ok([vec![checked.verdict()], checked.details()].concat());
    }
    let (mut findings, mut flat) = (Vec::new(), Vec::new());
    for name in LayerwiseConfig::STACKS {
        let checked = check(LayerwiseConfig { weight_decay: 0.0, ..LayerwiseConfig::stack(name)? })?;
        let verdict = checked.verdict();
        if verdict.passed == Some(false) {
            findings.extend(checked.details());
        }
        findings.push(verdict);
        if checked.refusal.is_some() && checked.is_flat() {
            flat.push(*name);
        }
    }
    let flat = if flat.is_empty() { "none".into() } else { flat.join(", ") };
    findings.push(Finding::shown("refused, but flat in this network", flat, ""));
    Ok(findings)
}

/// A stack, and what it does at every width.
struct Checked<'a> {
    config: LayerwiseConfig,
    widths: &'a [usize],
    /// Why learning rates cannot follow the width.
    refusal: Option<String>,
    /// The powers of the width by which the learning rates of the layers are divided.
    exponents: PerLayer<f64>,
    moved: Moved,
}

/// How far each layer moves at each width, for each of [`STEPS`].
type Moved = [PerLayer<Vec<f64>>; STEPS.len()];

/// Where a layer moves most unlike at different widths.
#[derive(Clone, Copy)]
struct Worst {
    /// Largest over smallest.
    ratio: f64,
    layer: &'static str,
    steps: usize,
}

impl<'a> Checked<'a> {
    fn of(config: LayerwiseConfig, widths: &'a [usize], device: &Device) -> Result<Self, LayerwiseError> {
        let config = LayerwiseConfig { clip: None, ..config };
        let builder = LAYERS.into_iter().fold(Layerwise::from_config(&config)?, |b, (path, role)| b.assign(path, role));
        let device = &device.clone().autodiff();
        let (exponents, refusal) = match builder.clone().width(2.0).plan(&Network::new(2 * BASE, 0, device)) {
            Ok(plan) => (exponents(&plan), None),
            Err(error @ LayerwiseError::Width { .. }) => ([0.0; LAYERS.len()], Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let follow = |width: usize| match refusal {
            None => builder.clone().width(width as f64 / BASE as f64),
            Some(_) => builder.clone(),
        };
        let measure = |networks| -> Result<Moved, LayerwiseError> {
            let mut moved = Moved::default();
            for width in widths {
                let found = mean_moves(&follow(*width), *width, networks, device)?;
                for (moved, found) in moved.iter_mut().flatten().zip(found.into_iter().flatten()) {
                    moved.push(found / config.lr);
                }
            }
            Ok(moved)
        };
        let moved = measure(FEW)?;
        let mut checked = Self { widths, exponents, moved, refusal: refusal.clone(), config: config.clone() };
        if refusal.is_none() && !checked.is_flat() {
            checked.moved = measure(MANY)?;
        }
        Ok(checked)
    }

    /// `None` if nothing moves at all.
    fn worst(&self) -> Option<Worst> {
        let all = STEPS.into_iter().zip(&self.moved).flat_map(|(steps, layers)| {
            LAYERS.into_iter().zip(layers).map(move |((layer, _), moved)| (steps, layer, moved))
        });
        // A layer may rest for a step: SOAP's first gradient only sets its bases.
        let moving = all.filter(|(.., moved)| moved.iter().any(|moved| *moved != 0.0));
        let worst = moving.map(|(steps, layer, moved)| Worst { ratio: ratio(moved), layer, steps });
        worst.max_by(|a, b| a.ratio.total_cmp(&b.ratio))
    }

    fn is_flat(&self) -> bool {
        self.worst().is_some_and(|worst| worst.ratio < LIMIT)
    }

    fn verdict(&self) -> Finding {
        let stack = &self.config.stack;
        let measured = self.worst().map_or("nothing moves".into(), |Worst { ratio, layer, steps }| {
            let ratio = if ratio < 1000.0 { format!("{ratio:.2}") } else { format!("{ratio:.0e}") };
            format!("{ratio}, {layer} after {}", counted(steps))
        });
        match self.refusal {
            Some(_) => Finding::shown(
                format!("{stack}, refused by the width rules: largest over smallest change"),
                measured,
                "",
            ),
            None => {
                let what = format!("{stack}, accepted: largest over smallest change");
                Finding::judged(what, measured, format!("below {LIMIT}"), self.is_flat())
            }
        }
    }

    /// A line for each layer, and why the width rules refuse the stack if they do.
    fn details(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (steps, layers) in STEPS.into_iter().zip(&self.moved) {
            for (((layer, _), moved), exponent) in LAYERS.into_iter().zip(layers).zip(self.exponents) {
                let widths = self.widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                let moved = moved.iter().map(|moved| format!("{moved:.3}")).collect::<Vec<_>>().join(" ");
                let what = format!("  {layer} after {}, change over learning rate at widths {widths}", counted(steps));
                let wanted = match (&self.refusal, exponent) {
                    (Some(_), _) => String::new(),
                    (None, 0.0) => "all alike, at one learning rate".into(),
                    (None, exponent) => format!("all alike, with the learning rate times m^{}", -exponent),
                };
                findings.push(Finding::shown(what, moved, wanted));
            }
        }
        findings.extend(self.refusal.iter().map(Finding::note));
        findings
    }
}

fn counted(steps: usize) -> String {
    format!("{steps} {}", if steps == 1 { "step" } else { "steps" })
}

/// Largest over smallest; NaN if one of them is.
fn ratio(moved: &[f64]) -> f64 {
    if moved.iter().any(|moved| moved.is_nan()) {
        return f64::NAN;
    }
    let largest = moved.iter().copied().fold(0.0, f64::max);
    largest / moved.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Of a plan whose learning rates follow the width.
fn exponents(plan: &Plan) -> PerLayer<f64> {
    LAYERS.map(|(path, role)| {
        let entry = plan.entries().iter().find(|entry| entry.path == path);
        let exponent = entry.and_then(|entry| {
            let &[inputs, outputs] = entry.shape.as_slice() else { return None };
            entry.config()?.width_exponent(role, [outputs, inputs]).ok()
        });
        exponent.unwrap_or_default()
    })
}

/// How far the layers move, in the mean of networks with different first weights.
fn mean_moves(
    builder: &Layerwise,
    width: usize,
    networks: u64,
    device: &Device,
) -> Result<[PerLayer<f64>; STEPS.len()], LayerwiseError> {
    let mut mean = [[0.0; LAYERS.len()]; STEPS.len()];
    for seed in 1..=networks {
        let moves = moves(builder.clone(), Network::new(width, seed, device))?;
        for (mean, moved) in mean.iter_mut().flatten().zip(moves.into_iter().flatten()) {
            *mean += moved / networks as f64;
        }
    }
    Ok(mean)
}

fn moves(builder: Layerwise, start: Network) -> Result<[PerLayer<f64>; STEPS.len()], LayerwiseError> {
    let (mut network, mut optimizer, mut done) = (start.clone(), builder.build(&start)?, 0);
    let mut moves = [[0.0; LAYERS.len()]; STEPS.len()];
    for (steps, moves) in STEPS.into_iter().zip(&mut moves) {
        for _ in done..steps {
            let gradients = GradientsParams::from_grads(network.loss().backward(), &network);
            network = optimizer.try_step(1.0, network, gradients)?;
        }
        done = steps;
        *moves = network.moved(&start);
    }
    Ok(moves)
}

#[derive(Module, Debug)]
struct Network {
    embedding: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
    down: Param<Tensor<2>>,
    head: Param<Tensor<2>>,
}

/// The inputs of the layers, and the logits.
struct Activations {
    inputs: PerLayer<Tensor<2>>,
    logits: Tensor<2>,
}

impl Network {
    fn new(width: usize, seed: u64, device: &Device) -> Self {
        let weights = |shape: [usize; 2], std: f64, stream: u64| {
            let values = gaussian(shape, std, 10 * seed + stream, device);
            Param::from_tensor(values.cast(DType::F32))
        };
        let of_relu = |inputs: usize| (2.0 / inputs as f64).sqrt();
        Self {
            embedding: weights([VOCABULARY, width], 1.0, 1),
            up: weights([width, 2 * width], of_relu(width), 2),
            down: weights([2 * width, width], of_relu(2 * width), 3),
            head: weights([width, VOCABULARY], (1.0 / BASE as f64).sqrt(), 4),
        }
    }

    fn weights(&self) -> PerLayer<Tensor<2>> {
        [&self.embedding, &self.up, &self.down, &self.head].map(Param::val)
    }

    fn forward(&self) -> Activations {
        let [embedding, up, down, head] = self.weights();
        let tokens = Tensor::<2>::eye(VOCABULARY, &embedding.device()).narrow(0, 0, TOKENS);
        let embedded = tokens.clone().matmul(embedding);
        let raised = relu(embedded.clone().matmul(up));
        let lowered = relu(raised.clone().matmul(down));
        let logits = lowered.clone().matmul(head) / self.ratio();
        Activations { inputs: [tokens, embedded, raised, lowered], logits }
    }

    /// m, by which logits are divided.
    fn ratio(&self) -> f64 {
        self.head.dims()[0] as f64 / BASE as f64
    }

    /// Cross-entropy of one next token for each token.
    fn loss(&self) -> Tensor<1> {
        let logits = self.forward().logits;
        let next = Tensor::<2>::eye(VOCABULARY, &logits.device()).narrow(0, TOKENS, TOKENS);
        -(log_softmax(logits, 1) * next).sum() / TOKENS as f64
    }

    /// How far the change of each layer since `start` moves its output: the root mean square of the entries.
    fn moved(&self, start: &Self) -> PerLayer<f64> {
        let inputs = self.forward().inputs;
        let (now, before) = (self.weights(), start.weights());
        std::array::from_fn(|i| {
            let moved = inputs[i].clone().matmul(now[i].clone() - before[i].clone());
            let size = moved.inner().square().mean().sqrt().into_scalar::<f64>();
            if LAYERS[i].1 == Role::Head { size / self.ratio() } else { size }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [usize; 2] = [64, 256];

    fn checked(json: &str, lr: f64) -> Checked<'static> {
        Checked::of(stack_of(&super::super::problem::config(json), lr).unwrap(), &WIDTHS, &Device::flex()).unwrap()
    }

    /// The power of the width by which a layer's change grows from one step.
    fn growth(checked: &Checked<'_>, layer: usize) -> f64 {
        let moved = &checked.moved[0][layer];
        (moved[1] / moved[0]).ln() / 4_f64.ln()
    }

    #[test]
    fn settings_that_grow_with_the_width_are_refused_and_seen_to_grow() {
        // Powers of the width by which one update of a hidden matrix grows at a fixed rate, for the rank of a few tokens.
        for (json, power) in [
            (r#"{"kind": "muon", "scale": "match_rms_adamw"}"#, 0.5),
            (r#"{"kind": "row_norm"}"#, 0.5),
            (r#"{"kind": "hybrid"}"#, 0.5),
        ] {
            let checked = checked(json, 0.02);
            assert!(checked.refusal.is_some() && !checked.is_flat(), "{json}");
            let found = growth(&checked, 1);
            assert!((found - power).abs() < 0.15, "{json}: {found}");
        }
    }

    #[test]
    fn accepted_settings_are_flat_by_their_exponents() {
        for (json, exponents) in [
            (r#"{"kind": "muon"}"#, [0.0, 0.0, 0.0, 0.0]),
            (r#"{"kind": "adamw"}"#, [0.0, 1.0, 1.0, 0.0]),
            (r#"{"kind": "adamuon"}"#, [0.0, 0.5, 0.5, 0.0]),
        ] {
            let checked = checked(json, 0.01);
            assert!(checked.refusal.is_none() && checked.is_flat(), "{json}: {:?}", checked.moved);
            assert_eq!(checked.exponents, exponents, "{json}");
        }
    }

    #[test]
    fn a_change_that_is_not_a_number_is_never_flat() {
        assert!(ratio(&[1.0, f64::NAN]).is_nan());
        assert_eq!(ratio(&[2.0, 1.0, 4.0]), 4.0);
        let mut checked = checked(r#"{"kind": "muon"}"#, 0.02);
        checked.moved[1][2][0] = f64::NAN;
        assert!(!checked.is_flat());
        assert_eq!(checked.verdict().passed, Some(false));
    }
}
