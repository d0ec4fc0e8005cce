//! Whether training keeps the symmetries of a network (arXiv 2605.18106; trajectories ours).
//!
//! A small language model in f64, with a feed-forward layer, a mixture of five experts of which two are used, and norms without gains,
//! learns for 60 steps from first weights, and from the same ones under another name: tokens, neurons or experts in another order, a
//! rotated residual stream, one vector added to all units of the head or of the router. The loss is the same before. **Known**: under
//! rules with the symmetry of their parameters it is the same after, to rounding; entrywise rules depend on the basis of the residual
//! stream, and so learn something else when it is rotated.
//!
//! Also measured: how far the mean unit of head and router drifts, `‖mean unit of W - W₀‖ √units / ‖W - W₀‖`. The softmax does not see
//! it, and centred rules leave it where it is.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{LayerwiseError, Rule};
use polaron::{Layerwise, Role};
use polaron_common::splitmix64;

use super::problem::{Finding, Setting, TaskError, config, gaussian, normal, stack_of, tensor, values};

const VOCABULARY: usize = 14;
const STREAM: usize = 8;
const NEURONS: usize = 10;
const EXPERTS: usize = 5;
const USED: usize = 2;
const TOKENS: usize = 24;
const STEPS: u64 = 60;
/// At most so far apart are losses that differ by rounding.
const ROUNDING: f64 = 1e-12;
/// At least so far apart are losses of networks that learned something else.
const APART: f64 = 1e-3;

/// Another name for the same network.
#[derive(Clone, Copy)]
enum Renamed {
    Tokens,
    Stream,
    Neurons,
    Experts,
    Head,
    Router,
}

const RENAMED: [(&str, Renamed); 6] = [
    ("tokens in another order", Renamed::Tokens),
    ("residual stream rotated", Renamed::Stream),
    ("neurons in another order", Renamed::Neurons),
    ("experts in another order", Renamed::Experts),
    ("head shifted", Renamed::Head),
    ("router shifted", Renamed::Router),
];

/// A way to train, and what another program measured with it.
struct Way {
    name: String,
    builder: Layerwise,
    /// In the order of [`RENAMED`].
    losses: [f64; RENAMED.len()],
    /// Drift of head and router.
    drifts: [f64; 2],
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let device = setting.device.clone().autodiff();
    let mut findings = Vec::new();
    for way in ways()? {
        let found = Trajectories::of(&way.builder, &device)?;
        for (((name, _), found), known) in RENAMED.into_iter().zip(found.losses).zip(way.losses) {
            findings.push(judge(format!("{}: loss, {name}", way.name), found, known));
        }
        for ((layer, found), known) in ["head", "router"].into_iter().zip(found.drifts).zip(way.drifts) {
            findings.push(judge(format!("{}: drift of the {layer}", way.name), found, known));
        }
    }
    if let Some((own, lr)) = &setting.optimizer {
        let name = format!("{}, lr {lr}", own.kind());
        let found = Trajectories::of(&Layerwise::from_config(&stack_of(own, *lr)?)?, &device)?;
        for ((renamed, _), found) in RENAMED.into_iter().zip(found.losses) {
            findings.push(Finding::shown(format!("{name}: loss, {renamed}"), format!("{found:.0e}"), ""));
        }
        for (layer, found) in ["head", "router"].into_iter().zip(found.drifts) {
            findings.push(Finding::shown(format!("{name}: drift of the {layer}"), format!("{found:.0e}"), ""));
        }
    }
    Ok(findings)
}

/// Both are rounding, or both are not.
fn judge(what: String, found: f64, known: f64) -> Finding {
    let passed = if known < ROUNDING { found <= ROUNDING } else { found > APART };
    Finding::judged(what, format!("{found:.0e}"), format!("{known:.0e}"), passed)
}

/// Without weight decay, which would pull a shift back.
fn ways() -> Result<Vec<Way>, LayerwiseError> {
    let (matrices, edges) = (Role::MATRICES.to_vec(), Role::EDGES.to_vec());
    let everywhere = |json: &str, lr: f64| {
        let rule = |roles| Rule::roles(roles, config(json));
        Layerwise::new().lr(lr).rule(rule(matrices.clone())).rule(rule(edges.clone()))
    };
    let stack = |name: &str| Ok::<_, LayerwiseError>(Layerwise::stack(name)?.weight_decay(0.0));
    let sign = r#"{"kind": "scion", "lmo": "sign", "constrained": false}"#;
    let way = |name: &str, builder, losses, drifts| Way { name: name.into(), builder, losses, drifts };
    Ok(vec![
        way(
            "AdamW",
            everywhere(r#"{"kind": "adamw"}"#, 0.01),
            [4e-16, 3.7e-2, 4e-16, 4e-16, 9e-16, 9e-16],
            [9.1e-2, 1.8e-1],
        ),
        way("signs", everywhere(sign, 0.1), [4e-16, 6.0e-2, 4e-16, 4e-16, 1e-15, 4e-16], [1.4e-1, 1.9e-1]),
        way(
            "Muon everywhere",
            everywhere(r#"{"kind": "muon"}"#, 0.02),
            [9e-16, 1e-15, 9e-16, 7e-16, 9e-16, 9e-16],
            [2e-16, 7e-16],
        ),
        way(
            "Muon beside AdamW",
            stack("muon")?.adamw_lr(0.01),
            [7e-16, 3.7e-2, 7e-16, 9e-16, 1e-15, 4e-16],
            [9.7e-2, 1.9e-1],
        ),
        way("symmetric", stack("symmetric")?, [4e-16, 9e-16, 7e-16, 9e-16, 9e-16, 9e-16], [7e-17, 2e-16]),
    ])
}

/// What training from renamed weights changes, and how far mean units drift.
struct Trajectories {
    losses: [f64; RENAMED.len()],
    drifts: [f64; 2],
}

impl Trajectories {
    fn of(builder: &Layerwise, device: &Device) -> Result<Self, LayerwiseError> {
        let order: Vec<usize> = (0..VOCABULARY).collect();
        let start = Toy::new(device);
        let trained = start.clone().trained(builder, &order)?;
        let loss = trained.loss(STEPS, &order).into_scalar::<f64>();
        let mut losses = [0.0; RENAMED.len()];
        for (apart, (_, renamed)) in losses.iter_mut().zip(RENAMED) {
            let order = if matches!(renamed, Renamed::Tokens) { shuffled(VOCABULARY) } else { order.clone() };
            let other = start.renamed(renamed).trained(builder, &order)?;
            *apart = (other.loss(STEPS, &order).into_scalar::<f64>() - loss).abs();
        }
        let drifts = [(&trained.head, &start.head), (&trained.router, &start.router)];
        Ok(Self { losses, drifts: drifts.map(|(now, before)| drift(now.val() - before.val())) })
    }
}

/// Of a change `[inputs, units]`.
fn drift(change: Tensor<2>) -> f64 {
    let units = change.dims()[1] as f64;
    let mean = change.clone().mean_dim(1).square().sum().sqrt().into_scalar::<f64>();
    mean * units.sqrt() / change.square().sum().sqrt().into_scalar::<f64>()
}

/// The network.
#[derive(Module, Debug)]
struct Toy {
    embedding: Param<Tensor<2>>,
    gate: Param<Tensor<2>>,
    up: Param<Tensor<2>>,
    down: Param<Tensor<2>>,
    router: Param<Tensor<2>>,
    expert_gate: Param<Tensor<3>>,
    expert_up: Param<Tensor<3>>,
    expert_down: Param<Tensor<3>>,
    head: Param<Tensor<2>>,
}

const ROLES: [(&str, Role); 9] = [
    ("embedding", Role::Embedding),
    ("gate", Role::Gate),
    ("up", Role::Up),
    ("down", Role::Down),
    ("router", Role::Router),
    ("expert_gate", Role::ExpertGate),
    ("expert_up", Role::ExpertUp),
    ("expert_down", Role::ExpertDown),
    ("head", Role::Head),
];

impl Toy {
    fn new(device: &Device) -> Self {
        let matrix = |shape: [usize; 2], seed: u64| {
            Param::from_tensor(gaussian(shape, (1.0 / shape[0] as f64).sqrt(), 100 + seed, device))
        };
        let experts = |[inputs, outputs]: [usize; 2], seed: u64| {
            let std = (1.0 / inputs as f64).sqrt();
            Param::from_tensor(
                gaussian([EXPERTS * inputs, outputs], std, 100 + seed, device).reshape([EXPERTS, inputs, outputs]),
            )
        };
        Self {
            embedding: Param::from_tensor(gaussian([VOCABULARY, STREAM], 1.0, 100, device)),
            gate: matrix([STREAM, NEURONS], 1),
            up: matrix([STREAM, NEURONS], 2),
            down: matrix([NEURONS, STREAM], 3),
            router: matrix([STREAM, EXPERTS], 4),
            expert_gate: experts([STREAM, NEURONS], 5),
            expert_up: experts([STREAM, NEURONS], 6),
            expert_down: experts([NEURONS, STREAM], 7),
            head: matrix([STREAM, VOCABULARY], 8),
        }
    }

    /// After all steps; token k of the data is called `order[k]`.
    fn trained(self, builder: &Layerwise, order: &[usize]) -> Result<Self, LayerwiseError> {
        let assigned = ROLES.into_iter().fold(builder.clone(), |builder, (path, role)| builder.assign(path, role));
        let (mut toy, mut optimizer) = (self.clone(), assigned.build(&self)?);
        for step in 0..STEPS {
            let gradients = GradientsParams::from_grads(toy.loss(step, order).backward(), &toy);
            toy = optimizer.try_step(1.0, toy, gradients)?;
        }
        Ok(toy)
    }

    /// Cross-entropy of the next tokens in the batch of a step.
    fn loss(&self, step: u64, order: &[usize]) -> Tensor<1> {
        let device = self.head.val().device();
        let token = |i: u64| splitmix64(1000 * step + i) % VOCABULARY as u64;
        let next = |i: u64| (3 * token(i) + 1 + splitmix64(7 + 1000 * step + i) % 2) % VOCABULARY as u64;
        let rows = |of: &dyn Fn(u64) -> u64| {
            let mut rows = vec![0.0; TOKENS * VOCABULARY];
            (0..TOKENS).for_each(|i| rows[i * VOCABULARY + order[of(i as u64) as usize]] = 1.0);
            tensor(rows, [TOKENS, VOCABULARY], &device)
        };
        let x = rows(&token).matmul(self.embedding.val());
        let n = normed(&x);
        let hidden = silu(n.clone().matmul(self.gate.val())) * n.matmul(self.up.val());
        let x = x + hidden.matmul(self.down.val());
        let x = x.clone() + self.experts(normed(&x));
        -(log_softmax(normed(&x).matmul(self.head.val()), 1) * rows(&next)).sum() / TOKENS as f64
    }

    /// The used experts of each token, weighted by their shares of the router's softmax.
    fn experts(&self, n: Tensor<2>) -> Tensor<2> {
        let shares = softmax(n.clone().matmul(self.router.val()), 1);
        let used = shares.clone() * used(&shares);
        let weights = used.clone() / used.sum_dim(1);
        let n: Tensor<3> = n.unsqueeze_dim::<3>(0).repeat_dim(0, EXPERTS);
        let hidden = silu(n.clone().matmul(self.expert_gate.val())) * n.matmul(self.expert_up.val());
        let outputs = hidden.matmul(self.expert_down.val());
        let weights: Tensor<3> = weights.transpose().unsqueeze_dim(2);
        (outputs * weights).sum_dim(0).squeeze_dim(0)
    }

    /// The same network under another name.
    fn renamed(&self, renamed: Renamed) -> Self {
        let (old, device) = (self.clone(), self.head.val().inner().device());
        let by = |size: usize| permutation(&shuffled(size), &device);
        match renamed {
            Renamed::Tokens => {
                let p = by(VOCABULARY);
                Self { embedding: left(&p.clone().transpose(), &self.embedding), head: right(&self.head, &p), ..old }
            }
            Renamed::Stream => {
                let r = rotation(&device);
                let back = r.clone().transpose();
                Self {
                    embedding: right(&self.embedding, &r),
                    gate: left(&back, &self.gate),
                    up: left(&back, &self.up),
                    down: right(&self.down, &r),
                    router: left(&back, &self.router),
                    expert_gate: left(&back, &self.expert_gate),
                    expert_up: left(&back, &self.expert_up),
                    expert_down: right(&self.expert_down, &r),
                    head: left(&back, &self.head),
                }
            }
            Renamed::Neurons => {
                let p = by(NEURONS);
                let back = p.clone().transpose();
                Self {
                    gate: right(&self.gate, &p),
                    up: right(&self.up, &p),
                    down: left(&back, &self.down),
                    expert_gate: right(&self.expert_gate, &p),
                    expert_up: right(&self.expert_up, &p),
                    expert_down: left(&back, &self.expert_down),
                    ..old
                }
            }
            Renamed::Experts => {
                let order = shuffled(EXPERTS);
                let mut new = old;
                new.router = right(&self.router, &permutation(&order, &device));
                for stack in [&mut new.expert_gate, &mut new.expert_up, &mut new.expert_down] {
                    *stack = reordered(stack, &order);
                }
                new
            }
            Renamed::Head => Self { head: shifted(&self.head), ..old },
            Renamed::Router => Self { router: shifted(&self.router), ..old },
        }
    }
}

/// Root mean square 1 per token, without gains; Burn's norm computes in f32.
fn normed(x: &Tensor<2>) -> Tensor<2> {
    x.clone() / (x.clone().square().mean_dim(1) + 1e-6).sqrt()
}

/// 1 for the experts with the largest shares of each token, else 0.
fn used(shares: &Tensor<2>) -> Tensor<2> {
    let mut used = values(shares);
    for row in used.chunks_mut(EXPERTS) {
        let mut sorted = row.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        row.iter_mut().for_each(|share| *share = f64::from(u8::from(*share >= sorted[USED - 1])));
    }
    tensor(used, shares.dims(), &shares.device())
}

/// 0 to `size - 1` in another order, for sizes that 3 does not divide.
fn shuffled(size: usize) -> Vec<usize> {
    (0..size).map(|k| (3 * k + 2) % size).collect()
}

/// Row k has its 1 in column `order[k]`.
fn permutation(order: &[usize], device: &Device) -> Tensor<2> {
    let size = order.len();
    let entry = |k: usize| f64::from(u8::from(order[k / size] == k % size));
    tensor((0..size * size).map(entry).collect(), [size, size], device)
}

/// The product of two reflections.
fn rotation(device: &Device) -> Tensor<2> {
    let reflection = |seed: u64| {
        let v: Vec<f64> = (0..STREAM as u64).map(|i| normal(200 + seed, i)).collect();
        let square: f64 = v.iter().map(|v| v * v).sum();
        let entry = |k: usize| {
            let (i, j) = (k / STREAM, k % STREAM);
            f64::from(u8::from(i == j)) - 2.0 * v[i] * v[j] / square
        };
        tensor((0..STREAM * STREAM).map(entry).collect(), [STREAM, STREAM], device)
    };
    reflection(1).matmul(reflection(2))
}

fn replaced<const D: usize>(param: &Param<Tensor<D>>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_inner(f(param.val().inner())))
}

/// `matrix W`, of every matrix of a stack.
fn left<const D: usize>(matrix: &Tensor<2>, param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
    replaced(param, |weights| stacked(matrix, &weights).matmul(weights))
}

/// `W matrix`
fn right<const D: usize>(param: &Param<Tensor<D>>, matrix: &Tensor<2>) -> Param<Tensor<D>> {
    replaced(param, |weights| {
        let matrix = stacked(matrix, &weights);
        weights.matmul(matrix)
    })
}

/// The matrix, once for each of a stack.
fn stacked<const D: usize>(matrix: &Tensor<2>, weights: &Tensor<D>) -> Tensor<D> {
    let count: usize = weights.dims()[..D - 2].iter().product();
    let (entries, [rows, columns]) = (values(matrix), matrix.dims());
    let mut shape = weights.dims();
    (shape[D - 2], shape[D - 1]) = (rows, columns);
    Tensor::from_data(TensorData::new(entries.repeat(count), shape), (&weights.device(), DType::F64))
}

/// Matrix k of a stack at place `order[k]`.
fn reordered(stack: &Param<Tensor<3>>, order: &[usize]) -> Param<Tensor<3>> {
    replaced(stack, |weights| {
        let mut places: Vec<(usize, usize)> = order.iter().copied().zip(0..).collect();
        places.sort_unstable();
        Tensor::cat(places.into_iter().map(|(_, k)| weights.clone().narrow(0, k, 1)).collect(), 0)
    })
}

/// One vector added to all units.
fn shifted(matrix: &Param<Tensor<2>>) -> Param<Tensor<2>> {
    replaced(matrix, |weights| {
        let vector = gaussian([weights.dims()[0], 1], 1.0, 300, &weights.device());
        weights + vector
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_network_has_the_same_loss_and_other_weights() {
        let toy = Toy::new(&Device::flex().autodiff());
        let order: Vec<usize> = (0..VOCABULARY).collect();
        let loss = toy.loss(0, &order).into_scalar::<f64>();
        assert!((1.0..6.0).contains(&loss), "{loss}");
        for (name, renamed) in RENAMED {
            let other = toy.renamed(renamed);
            let order = if matches!(renamed, Renamed::Tokens) { shuffled(VOCABULARY) } else { order.clone() };
            let apart = (other.loss(0, &order).into_scalar::<f64>() - loss).abs();
            assert!(apart < 1e-14, "{name}: {apart}");
            let of = |toy: &Toy| [&toy.head, &toy.gate, &toy.router].map(|param| values(&param.val()));
            assert_ne!(of(&other), of(&toy), "{name}");
        }
    }

    #[test]
    fn a_wrong_symmetry_is_a_miss() {
        assert_eq!(judge(String::new(), 1e-13, 1e-16).passed, Some(true));
        assert_eq!(judge(String::new(), 1e-11, 1e-16).passed, Some(false));
        assert_eq!(judge(String::new(), 1e-4, 0.04).passed, Some(false));
        assert_eq!(judge(String::new(), f64::NAN, 0.04).passed, Some(false));
        assert_eq!(judge(String::new(), f64::NAN, 1e-16).passed, Some(false));
    }
}
