//! Ready-made stacks: the optimizer of each role.
//!
//! | stack | matrices of the blocks | embeddings, head, router | gains, biases (no decay unless `adamw.decay_vectors`) |
//! |---|---|---|---|
//! | `adamw`, `sgd` | the kind | the kind, without `norm_control` | the same |
//! | any matrix kind, for example `muon` | the kind | AdamW | AdamW |
//! | `symmetric` | Muon, per head in attention; `hybrid` as MuonEq, or as published, for gate, up, down | `row_norm`, centred for head and router | AdamW |
//! | `scion` | `scion` spectral | `scion` for units or signs | AdamW |
//!
//! The authors of Scion use it for gains and biases as well; in a configuration of that stack:
//!
//! ```toml
//! [[optimizer.rule]]
//! role = ["gain", "bias"]
//! kind = "scion"
//! lmo = "input_norm"
//! radius = 8.0
//! ```

use serde_json::{Map, Value};

use super::config::{self, SYMMETRIC};
use super::{AdamWPart, LayerwiseConfig, LayerwiseError, Role, Rule};
use crate::matrix::{Axis, EpsMode, Layout, Norm};
use crate::rule::{MomentumForm, OneSided, Polar, Scale};
use crate::rules::hybrid::{HybridOrder, Nu};
use crate::rules::scion::Lmo;
use crate::rules::{AdamWConfig, HybridConfig, MuonConfig, OptimizerConfig, RowNormConfig, ScionConfig};
use crate::setting::ConfigError;

impl LayerwiseConfig {
    /// The rules of the stack, then the user's, in order of rising precedence.
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, LayerwiseError> {
        self.check_rates()?;
        let mut rules = of_stack(self)?;
        for (i, table) in self.rule.iter().enumerate() {
            rules.push(Rule::from_table(table, i + 1)?);
        }
        Ok(rules)
    }

    /// AdamW with the betas and the eps of the `adamw` part.
    fn adamw_rule(&self, weight_decay: f64) -> OptimizerConfig {
        let AdamWPart { beta1, beta2, eps, .. } = self.adamw;
        AdamWConfig { beta1, beta2, eps, weight_decay, ..AdamWConfig::new() }.into()
    }
}

/// The rules of a stack, in order of rising precedence.
fn of_stack(config: &LayerwiseConfig) -> Result<Vec<Rule>, LayerwiseError> {
    let main = main_rule(config)?;
    let rules = match config.stack.as_str() {
        SYMMETRIC => symmetric(config, main),
        "scion" => scion(config, main),
        _ if main.pipeline().is_entrywise() => everywhere(config, main)?,
        _ => beside_adamw(config, main)?,
    };
    Ok(rules.into_iter().map(Rule::optional).collect())
}

/// The configuration of the main rule: the kind's defaults, the decay, then the keys of `matrix`.
fn main_rule(config: &LayerwiseConfig) -> Result<OptimizerConfig, LayerwiseError> {
    config::find(&config.stack)?;
    if config.published && config.stack != SYMMETRIC {
        let message = format!("exists in the stack {SYMMETRIC} only, not in {}: leave it out", config.stack);
        return Err(ConfigError::value("optimizer.published", message).into());
    }
    let base = match config.stack.as_str() {
        SYMMETRIC => published_muon().into(),
        "adamw" => config.adamw_rule(0.0),
        "scion" => ScionConfig::new().with_radius(SCION_RADIUS).into(),
        kind => OptimizerConfig::of_kind(kind)?,
    };
    let decay = Map::from_iter([("weight_decay".to_string(), Value::from(config.weight_decay))]);
    let merged = base.merge(&decay)?.merge(&config.matrix)?;
    if merged.kind() != base.kind() {
        let message = "cannot change the kind; choose another stack or add a rule";
        return Err(ConfigError::value("optimizer.matrix", message).into());
    }
    Ok(merged)
}

/// An entrywise kind for everything; the norms of the matrices of the blocks alone are controlled.
fn everywhere(config: &LayerwiseConfig, main: OptimizerConfig) -> Result<Vec<Rule>, LayerwiseError> {
    if let Some(ratio) = config.adamw.lr_ratio {
        let message =
            format!("is {ratio}, but the stack {} has one learning rate for everything: leave it out", config.stack);
        return Err(ConfigError::value("adamw.lr_ratio", message).into());
    }
    let edges = main.merge(&Map::from_iter([("norm_control".to_string(), Value::Null)]))?;
    let vectors = match config.adamw.decay_vectors {
        true => edges.clone(),
        false => edges.merge(&Map::from_iter([("weight_decay".to_string(), Value::from(0.0))]))?,
    };
    Ok(vec![Rule::roles(Role::MATRICES, main), Rule::roles(Role::EDGES, edges), Rule::roles(Role::VECTORS, vectors)])
}

fn beside_adamw(config: &LayerwiseConfig, main: OptimizerConfig) -> Result<Vec<Rule>, LayerwiseError> {
    let edges = config.adamw_rule(config.adamw.weight_decay);
    let mut rules = vec![
        Rule::roles(Role::MATRICES, main.clone()),
        Rule::roles(Role::EDGES, edges).with_lr(config.adamw.rate(config.lr)),
        vectors_by_adamw(config),
    ];
    // Units are neurons: outputs of most matrices, inputs of down and output projections (arXiv 2605.18106).
    if main.settings().axis_follows_role() && !config.matrix.contains_key("axis") {
        let inputs = main.merge(&Map::from_iter([("axis".to_string(), Value::from(Axis::Input.name()))]))?;
        rules.push(Rule::roles([Role::Down, Role::ExpertDown, Role::AttentionOutput], inputs));
    }
    Ok(rules)
}

fn vectors_by_adamw(config: &LayerwiseConfig) -> Rule {
    let decay = if config.adamw.decay_vectors { config.adamw.weight_decay } else { 0.0 };
    Rule::roles(Role::VECTORS, config.adamw_rule(decay)).with_lr(config.adamw.rate(config.lr))
}

/// Muon with the settings of arXiv 2605.18106.
fn published_muon() -> MuonConfig {
    MuonConfig::new().with_momentum_form(MomentumForm::HeavyBall).with_polar(Polar::PolarExpress {
        steps: 5,
        eps: 1e-6,
        norm: Norm::Frobenius,
    })
}

/// The layerwise assignment of arXiv 2605.18106.
///
/// Unless it is asked for as published, it differs in one point: the hybrid rule of gate, up and down has alpha 0 and Muon's
/// shape scale, so that all matrices of a block can share one learning rate. That is, term by term, `muon_eq` with the average
/// of gradients as momentum and without Nesterov's look-ahead. The published rule takes steps of the nuclear norm over the
/// Frobenius norm, about 0.85 times the root of the rank.
fn symmetric(config: &LayerwiseConfig, muon: OptimizerConfig) -> Vec<Rule> {
    let edges = config.edges.clone().unwrap_or_default();
    let neurons = |axis| {
        let hybrid = HybridConfig::new()
            .with_order(HybridOrder::NormThenPolar)
            .with_axis(axis)
            .with_weight_decay(config.weight_decay)
            .with_polar(OneSided::Polar(Polar::PolarExpress { steps: 5, eps: 1e-6, norm: Norm::Frobenius }));
        match config.published {
            true => hybrid.with_nu(Nu::NuclearOverFro).with_eps_mode(EpsMode::Absolute),
            false => hybrid.with_alpha(0.0).with_scale(Scale::Original),
        }
    };
    let units = |axis, centered| RowNormConfig::new().with_axis(axis).with_centered(centered);
    let experts = [Role::ExpertGate, Role::ExpertUp, Role::ExpertDown];
    let whole = [&[Role::Hidden, Role::Kernel], experts.as_slice(), &Role::ADAPTERS].concat();
    let heads = [Role::AttentionQuery, Role::AttentionKey, Role::AttentionValue, Role::AttentionOutput];
    vec![
        Rule::roles(whole, muon.clone()),
        Rule::roles(heads, muon).per_head(),
        Rule::roles([Role::Gate, Role::Up], neurons(Axis::Output)),
        Rule::roles([Role::Down], neurons(Axis::Input)),
        // A tied embedding is not centred: its gradient as an embedding has a mean.
        Rule::roles([Role::Embedding, Role::TiedEmbedding], units(Axis::Input, false)).with_rate(edges.embedding()),
        Rule::roles([Role::Head], units(Axis::Output, true)).with_rate(edges.head()),
        Rule::roles([Role::Router], units(Axis::Output, true)).with_rate(edges.router()),
        vectors_by_adamw(config),
    ]
}

/// Radii of the authors' language-model runs.
const SCION_RADIUS: f64 = 50.0;
const SCION_SIGN_RADIUS: f64 = 3000.0;

/// The norm balls of arXiv 2502.07529; `matrix` changes the spectral one.
fn scion(config: &LayerwiseConfig, spectral: OptimizerConfig) -> Vec<Rule> {
    let tokens = ScionConfig::new().with_lmo(Lmo::InputNorm).with_radius(SCION_RADIUS);
    let logits = ScionConfig::new().with_lmo(Lmo::Sign).with_radius(SCION_SIGN_RADIUS);
    vec![
        Rule::roles(Role::MATRICES, spectral),
        Rule::roles([Role::Embedding], tokens),
        Rule::roles([Role::Head, Role::Router], logits.clone()),
        // As a head its axes are swapped: tokens are outputs.
        Rule::roles([Role::TiedEmbedding], logits).with_layout(Layout::OutIn),
        vectors_by_adamw(config),
    ]
}
