//! Burn's own optimizers on the reference vectors: which cases they can express, which agree, and why the others differ. With
//! `--nocapture` it prints their rows of docs/CONFORMANCE.md.
//!
//! In f32, the type of Burn's settings. Muon is given matrices as `Linear` stores them, `[in, out]`; a stack or the blocks of
//! one are parameters of their own, as the vectors define them.

use std::collections::BTreeMap;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, AdjustLrFn, MuonConfig, Optimizer, SgdConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::matrix::{Layout, Matrix, Placement};
use polaron::rule::Polar;
use polaron_verify::vectors::{BUILT_IN, VectorCase, VectorFile};
use serde_json::{Map, Value};

const SHAPE: &str = "its scale is that of the stored shape, [in, out]";
const EPS: &str = "max(‖M‖, eps) for ‖M‖ + eps";
const ZERO: &str = "0/0 for a zero matrix with eps 0";

/// The settings of a case; what stands in the way of expressing it is an error.
struct Keys(Map<String, Value>);

impl Keys {
    fn of(case: &VectorCase) -> Self {
        let Ok(Value::Object(keys)) = serde_json::to_value(&case.optimizer) else { panic!("{}: no object", case.name) };
        Self(keys)
    }

    fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().expect("a number")
    }

    fn is(&self, key: &str) -> bool {
        self.0[key].as_bool().expect("a flag")
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().expect("a text")
    }

    /// Refuses options that Burn's optimizers do not have.
    fn without_options(&self) -> Result<(), String> {
        let options = ["norm_control", "second_moment"];
        options.into_iter().find(|key| self.0.contains_key(*key)).map_or(Ok(()), |key| Err(key.into()))
    }

    /// The decay that is multiplied with the rate, which is constant.
    fn decay(&self, case: &VectorCase) -> f32 {
        let independent = self.0.get("decay").is_some_and(|form| form == "independent");
        (self.number("weight_decay") / if independent { case.lr } else { 1.0 }) as f32
    }

    fn momentum(&self) -> MomentumConfig {
        MomentumConfig { momentum: self.number("momentum"), dampening: 0.0, nesterov: self.is("nesterov") }
    }
}

/// A value in f32 on the CPU, as a stack of matrices.
fn stack(values: &[f64], shape: &[usize]) -> Tensor<3> {
    let shape = match *shape {
        [n] => [1, 1, n],
        [a, b] => [1, a, b],
        [e, a, b] => [e, a, b],
        _ => panic!("rank 1 to 3"),
    };
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(DType::F32);
    Tensor::from_data(data, (&Device::flex(), DType::F32))
}

/// The largest difference of an entry after any step; infinite if one is not a number.
fn difference(case: &VectorCase, after: &[Tensor<3>]) -> f64 {
    let expected = case.expected.as_ref().expect("expected values");
    let pairs = after.iter().zip(expected).flat_map(|(got, expected)| {
        let got: Vec<f64> = got.to_data().convert_dtype(DType::F64).iter().collect();
        got.into_iter().zip(expected.clone())
    });
    pairs.fold(0.0, |worst, (got, wanted)| if got.is_nan() { f64::INFINITY } else { worst.max((got - wanted).abs()) })
}

/// The furthest that an entry is from where it began, or the largest entry if none moves: the scale of differences.
fn movement(case: &VectorCase) -> f64 {
    let start = &case.parameter.data;
    let moved = case.expected.iter().flatten().flat_map(|x| x.iter().zip(start).map(|(x, start)| (x - start).abs()));
    let moved = moved.fold(0.0, f64::max);
    if moved > 0.0 { moved } else { start.iter().fold(0.0, |largest, x| largest.max(x.abs())) }
}

/// A whole parameter with an optimizer of single entries.
fn entrywise(case: &VectorCase, optimizer: &impl Optimizer) -> Judged {
    let shape = &case.parameter.shape;
    let (mut parameter, mut state, mut after) = (stack(&case.parameter.data, shape), None, Vec::new());
    for gradient in &case.gradients {
        (parameter, state) = optimizer.step(case.lr, parameter, stack(gradient, shape), state);
        after.push(parameter.clone());
    }
    Judged::new(case, difference(case, &after))
}

/// One thing changed of how Burn's Muon is run, which is why a case differs if it then agrees.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// The matrices are stored `[out, in]`.
    Turned,
    /// Its eps is the norm of what is orthogonalised plus that of the case, so that it divides by this.
    Added,
    /// Its eps is above 0.
    AboveZero,
}

/// Burn's Muon on every matrix of the case.
fn muon(case: &VectorCase, config: &MuonConfig, momentum: &MomentumConfig, eps: f64, changes: &[Change]) -> f64 {
    let placement = Placement { blocks: case.blocks, ..Placement::new(case.layout) };
    let stored = if changes.contains(&Change::Turned) { Layout::OutIn } else { Layout::InOut };
    let turn = |x: Tensor<3>| if case.layout == stored { x } else { x.swap_dims(1, 2) };
    let whole = stack(&case.parameter.data, &case.parameter.shape);
    let matrices = |x: Tensor<3>| -> Vec<Tensor<2>> {
        turn(placement.split(x).into_tensor()).iter_dim(0).map(|matrix| matrix.squeeze_dim(0)).collect()
    };
    let mut parameters = matrices(whole.clone());
    let mut states = vec![None; parameters.len()];
    let mut sums: Vec<Tensor<2>> = parameters.iter().map(Tensor::zeros_like).collect();
    let mut after = Vec::new();
    for gradient in &case.gradients {
        let gradients = matrices(stack(gradient, &case.parameter.shape));
        for (i, gradient) in gradients.into_iter().enumerate() {
            sums[i] = sums[i].clone() * momentum.momentum + gradient.clone();
            let ahead = || gradient.clone() + sums[i].clone() * momentum.momentum;
            let direction = if momentum.nesterov { ahead() } else { sums[i].clone() };
            let norm: f64 = direction.square().sum().sqrt().into_scalar();
            let eps = match changes {
                _ if changes.contains(&Change::Added) => norm + eps,
                _ if changes.contains(&Change::AboveZero) => 1e-30,
                _ => eps,
            };
            let optimizer = config.clone().with_epsilon(eps as f32).build();
            let (parameter, state) = optimizer.step(case.lr, parameters[i].clone(), gradient, states[i].take());
            (parameters[i], states[i]) = (parameter, state);
        }
        let joined = Matrix::new(turn(Tensor::stack(parameters.clone(), 0)), case.layout);
        after.push(placement.join(joined, whole.dims()));
    }
    difference(case, &after)
}

fn judge_muon(case: &VectorCase, keys: &Keys) -> Result<Judged, String> {
    let polar = &keys.0["polar"];
    let method = polar["method"].as_str().expect("a method");
    if polar.get("norm").is_some() || polar.get("precondition").is_some() {
        return Err("another norm".into());
    }
    if !["newton_schulz", "polynomial"].contains(&method) {
        return Err(format!("polar = {method}"));
    }
    if polar.get("norm_factor").is_some_and(|factor| *factor != 1.0) {
        return Err("norm_factor".into());
    }
    let rows = serde_json::from_value::<Polar>(polar.clone()).expect("a method").schedule();
    if rows.iter().any(|row| *row != rows[0]) {
        return Err("coefficients that change from step to step".into());
    }
    if keys.is("cautious") {
        return Err("cautious".into());
    }
    if case.blocks.is_some_and(|blocks| blocks.are_unequal()) {
        return Err("parts of different sizes".into());
    }
    let adjust = match keys.text("scale") {
        "original" => AdjustLrFn::Original,
        "match_rms_adamw" => AdjustLrFn::MatchRmsAdamW,
        other => return Err(format!("scale = {other}")),
    };
    let (momentum, eps) = (keys.momentum(), polar["eps"].as_f64().expect("a number"));
    // A sum is 1/(1-μ) times the average, which only eps sees; without momentum every form is the gradient.
    let eps = match keys.text("momentum_form") {
        _ if momentum.momentum == 0.0 => eps,
        "heavy_ball" => eps,
        "ema" => eps / (1.0 - momentum.momentum),
        other => return Err(format!("momentum_form = {other}")),
    };
    let [a, b, c] = rows[0].map(|x| x as f32);
    let decay = WeightDecayConfig { penalty: keys.decay(case) };
    let config = MuonConfig::new().with_momentum(momentum.clone()).with_weight_decay(Some(decay));
    let config = config.with_ns_coefficients((a, b, c)).with_ns_steps(rows.len()).with_adjust_lr_fn(adjust);
    let run = |set: &[(Change, &str)]| {
        let changes: Vec<Change> = set.iter().map(|(change, _)| *change).collect();
        muon(case, &config, &momentum, eps, &changes)
    };
    let turned = (Change::Turned, SHAPE);
    let other = if eps == 0.0 { (Change::AboveZero, ZERO) } else { (Change::Added, EPS) };
    let sets: [&[(Change, &'static str)]; 4] = [&[], &[turned], &[other], &[turned, other]];
    let enough = sets.into_iter().find(|set| run(set) <= case.tolerance.f32_max_abs).unwrap_or_default();
    // The part of a reason is what is left without its change.
    let without = |reason: &str| run(&enough.iter().filter(|(_, why)| *why != reason).copied().collect::<Vec<_>>());
    let reasons = enough.iter().map(|(_, why)| (*why, without(why) / movement(case))).collect();
    Ok(Judged { reasons, ..Judged::new(case, run(&[])) })
}

fn judge_adamw(case: &VectorCase, keys: &Keys) -> Result<Judged, String> {
    let config = AdamWConfig::new().with_beta_1(keys.number("beta1") as f32).with_beta_2(keys.number("beta2") as f32);
    let config = config.with_epsilon(keys.number("eps") as f32).with_weight_decay(keys.decay(case));
    Ok(entrywise(case, &config.with_cautious_weight_decay(keys.is("cautious")).build()))
}

fn judge_adam(case: &VectorCase, keys: &Keys) -> Result<Judged, String> {
    if keys.number("weight_decay") != 0.0 {
        return Err("weight_decay, which is added to the gradient there".into());
    }
    let config = AdamConfig::new().with_beta_1(keys.number("beta1") as f32).with_beta_2(keys.number("beta2") as f32);
    Ok(entrywise(case, &config.with_epsilon(keys.number("eps") as f32).build()))
}

fn judge_sgd(case: &VectorCase, keys: &Keys) -> Result<Judged, String> {
    if keys.number("weight_decay") != 0.0 {
        return Err("weight_decay, which is added to the gradient there".into());
    }
    let momentum = Some(keys.momentum()).filter(|momentum| momentum.momentum != 0.0);
    if momentum.is_some() && keys.text("momentum_form") != "heavy_ball" {
        return Err(format!("momentum_form = {}", keys.text("momentum_form")));
    }
    Ok(entrywise(case, &SgdConfig::new().with_momentum(momentum).build()))
}

/// A case that can be expressed.
struct Judged {
    agrees: bool,
    /// In units of the movement.
    difference: f64,
    /// Why it differs, and the part of each; none if no change that was tried makes it agree.
    reasons: Vec<(&'static str, f64)>,
}

impl Judged {
    fn new(case: &VectorCase, off: f64) -> Self {
        let agrees = off <= case.tolerance.f32_max_abs;
        Self { agrees, difference: off / movement(case), reasons: Vec::new() }
    }
}

type Judge = fn(&VectorCase, &Keys) -> Result<Judged, String>;

/// Every case of the kind, judged, or what stands in the way.
fn judged(kind: &str, judge: Judge) -> Vec<(String, Result<Judged, String>)> {
    let files = BUILT_IN.iter().map(|(name, text)| (name, VectorFile::parse(text).expect("a vector file")));
    let cases = files
        .filter(|(_, file)| file.kind == kind)
        .flat_map(|(name, file)| file.cases.into_iter().map(move |case| (format!("{name} \"{}\"", case.name), case)));
    let judge = |case: &VectorCase| {
        let keys = Keys::of(case);
        keys.without_options().and_then(|()| judge(case, &keys))
    };
    cases.map(|(name, case)| (name, judge(&case))).collect()
}

/// The largest finite difference, and how many are not finite.
fn size(differences: &[f64]) -> String {
    let infinite = differences.iter().filter(|difference| difference.is_infinite()).count();
    let worst = differences.iter().filter(|difference| difference.is_finite()).fold(0.0_f64, |a, b| a.max(*b));
    match (worst, infinite) {
        (0.0, 0) => String::new(),
        (worst, 0) => format!("{worst:.1e}"),
        (0.0, infinite) => format!("{infinite} not finite"),
        (worst, infinite) => format!("{worst:.1e}, {infinite} not finite"),
    }
}

/// A row of docs/CONFORMANCE.md, and what is not expressible.
fn print(optimizer: &str, kind: &str, results: &[(String, Result<Judged, String>)]) {
    let (mut inexpressible, mut reasons) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, Vec<f64>>::new());
    for (_, result) in results {
        match result {
            Err(reason) => *inexpressible.entry(reason).or_default() += 1,
            Ok(judged) => judged.reasons.iter().for_each(|(why, part)| reasons.entry(why).or_default().push(*part)),
        }
    }
    let expressed: Vec<&Judged> = results.iter().filter_map(|(_, result)| result.as_ref().ok()).collect();
    let differing: Vec<f64> = expressed.iter().filter(|case| !case.agrees).map(|case| case.difference).collect();
    let why: Vec<String> =
        reasons.iter().map(|(why, parts)| format!("{why} ({}, {})", parts.len(), size(parts))).collect();
    let counts = format!("{} | {} | {}", expressed.len(), expressed.len() - differing.len(), differing.len());
    println!(
        "\n| Burn 0.22.1 | `{optimizer}` | `{kind}` | f32 | {counts} | {} | {} |",
        size(&differing),
        why.join("; ")
    );
    let inexpressible: Vec<String> =
        inexpressible.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
    println!("* Burn, `{optimizer}`, {} cases: {}", results.len() - expressed.len(), inexpressible.join(", "));
}

#[test]
fn burns_adamw_adam_and_sgd_agree_on_every_case_that_they_can_express() {
    let optimizers: [(&str, &str, Judge); 3] =
        [("AdamW", "adamw", judge_adamw), ("Adam", "adamw", judge_adam), ("Sgd", "sgd", judge_sgd)];
    for (optimizer, kind, judge) in optimizers {
        let results = judged(kind, judge);
        print(optimizer, kind, &results);
        let expressed = results.iter().filter_map(|(name, result)| Some((name, result.as_ref().ok()?)));
        assert!(expressed.clone().count() >= 12, "{optimizer}");
        for (name, case) in expressed {
            assert!(case.agrees, "{optimizer}, {name}: {:e}", case.difference);
        }
    }
}

#[test]
fn burns_muon_differs_only_by_its_shape_scale_and_its_eps() {
    let results = judged("muon", judge_muon);
    print("Muon", "muon", &results);
    let expressed = results.iter().filter_map(|(name, result)| Some((name, result.as_ref().ok()?)));
    for (name, case) in expressed.clone() {
        assert!(case.agrees || !case.reasons.is_empty(), "{name}: {:e}, not explained", case.difference);
    }
    let by =
        |reason: &str| expressed.clone().filter(|(_, case)| case.reasons.iter().any(|(why, _)| *why == reason)).count();
    assert!(by(SHAPE) > 30 && by(EPS) >= 1 && by(ZERO) >= 1, "{} {} {}", by(SHAPE), by(EPS), by(ZERO));
    assert!(expressed.filter(|(_, case)| case.agrees).count() > 15);
}
