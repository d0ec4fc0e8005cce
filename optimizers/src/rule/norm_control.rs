//! The key `norm_control`: steps that depend on the Frobenius norms ‖W‖ of the weights and ‖U‖ of the update, of every
//! single matrix (every expert, every block). U has its shape scale; W is before the step.
//!
//! ```text
//! hyperball      N = W - lr ‖W‖ U / max(‖U‖, 1e-10),   W ← ‖W‖ N / max(‖N‖, 1e-10)            ‖W‖ stays constant
//! radial_brake   W' = W - lr U,   W ← W' t/‖W'‖,   t = ‖W‖ + s (‖W'‖ - ‖W‖)
//!                s = outward if ‖W'‖ > ‖W‖, else inward
//! relative       U ← U ‖W‖/‖U‖,   0 if either norm is below 1e-15                             a step is a share lr of W
//! floor          U ← U ratio ‖W‖/‖U‖   if ‖U‖ < ratio ‖W‖
//! ```
//!
//! Weight decay: hyperball allows none. The brake acts on what the update changes, after the decay: its W is then the decayed
//! one. With the others the weights decay as without them.
//!
//! Sources: hyperball and floor are steps of records of modded-nanogpt's third track (MuonH, AdamH), the others hooks of
//! NVIDIA's Emerging-Optimizers.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Decay, Rates};
use crate::matrix::{divide_or_zero, frobenius_norm};
use crate::setting::{ConfigError, Given, Numbers, Setting, check_keys, read_number, take_tag};

/// Norms that hyperball divides by are at least this.
const SMALLEST_RADIUS: f64 = 1e-10;
/// Below this norm of weights or update, `relative` moves nothing.
const SMALLEST_NORM: f64 = 1e-15;

/// How a step depends on the norms of weights and update. Serialised as `{"method": "radial_brake", "outward": 0.5, "inward": 1.0}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", tag = "method", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NormControl {
    /// The norm of the weights stays what it is, and a step moves them by the share lr of it. Needs weights that are not
    /// zero, and no weight decay.
    Hyperball,
    /// Changes of the norm of the weights are multiplied.
    RadialBrake {
        /// Factor of a growth, from 0 to 1, default 0.5.
        outward: f64,
        /// Factor of a loss, from 0 to 1, default 1.
        inward: f64,
    },
    /// The update is as large as the weights. Needs weights that are not zero.
    Relative,
    /// The update is at least a share of the weights.
    Floor {
        /// The share, at least 0, default 0.35.
        ratio: f64,
    },
}

impl NormControl {
    /// The names of the methods.
    pub const METHODS: [&'static str; 4] = ["hyperball", "radial_brake", "relative", "floor"];

    /// The name of the method.
    pub fn name(&self) -> &'static str {
        let [hyperball, radial_brake, relative, floor] = Self::METHODS;
        match self {
            NormControl::Hyperball => hyperball,
            NormControl::RadialBrake { .. } => radial_brake,
            NormControl::Relative => relative,
            NormControl::Floor { .. } => floor,
        }
    }

    /// The norm that a matrix must exceed: one that is zero would stay so.
    pub(crate) fn least_norm(&self) -> Option<f64> {
        match self {
            NormControl::Hyperball => Some(SMALLEST_RADIUS),
            NormControl::Relative => Some(SMALLEST_NORM),
            NormControl::RadialBrake { .. } | NormControl::Floor { .. } => None,
        }
    }

    /// Whether the size of an update depends on that of the weights.
    pub(crate) fn follows_weights(&self) -> bool {
        !matches!(self, NormControl::RadialBrake { .. })
    }

    /// The method with its numbers, for plans.
    pub(super) fn label(&self) -> String {
        match self {
            NormControl::RadialBrake { outward, inward } => format!("radial_brake {outward} {inward}"),
            NormControl::Floor { ratio } => format!("floor {ratio}"),
            NormControl::Hyperball | NormControl::Relative => self.name().to_string(),
        }
    }

    /// What it does, in symbols.
    pub(super) fn formula(&self) -> String {
        match self {
            NormControl::Hyperball => "W ← ‖W‖ N/‖N‖, N = W - lr ‖W‖ U/‖U‖".into(),
            NormControl::RadialBrake { outward, inward } => {
                format!("growth of ‖W‖ times {outward}, loss times {inward}")
            }
            NormControl::Relative => "times ‖W‖/‖U‖".into(),
            NormControl::Floor { ratio } => format!("times {ratio} ‖W‖/‖U‖ if that is above 1"),
        }
    }

    /// Operations for one matrix.
    pub(super) fn cost(&self) -> &'static str {
        match self {
            NormControl::Hyperball => " + 9 mn",
            NormControl::RadialBrake { .. } => " + 5 mn",
            NormControl::Relative | NormControl::Floor { .. } => " + 6 mn",
        }
    }

    /// The weights of a stack of matrices after a step.
    pub(super) fn step(&self, weights: Tensor<3>, update: Tensor<3>, decay: Decay, rates: Rates) -> Tensor<3> {
        match *self {
            NormControl::Hyperball => on_hyperball(weights, update, rates.lr),
            NormControl::RadialBrake { outward, inward } => {
                let kept = decay.kept(weights, &update, rates);
                let before = frobenius_norm(kept.clone());
                let moved = kept - update * rates.lr;
                let after = frobenius_norm(moved.clone());
                let change = after.clone() - before.clone();
                let target = before + change.clone().clamp_min(0.0) * outward + change.clamp_max(0.0) * inward;
                moved * divide_or_zero(target, after)
            }
            NormControl::Relative => decay.update(weights.clone(), as_large(weights, update), rates),
            NormControl::Floor { ratio } => decay.update(weights.clone(), at_least(weights, update, ratio), rates),
        }
    }
}

/// The weights turned towards the update, with the norm that they had.
fn on_hyperball(weights: Tensor<3>, update: Tensor<3>, lr: f64) -> Tensor<3> {
    let norm = |x: &Tensor<3>| frobenius_norm(x.clone()).clamp_min(SMALLEST_RADIUS);
    let radius = frobenius_norm(weights.clone());
    let unit = update.clone() / norm(&update);
    let moved = weights - unit * (radius.clone() * lr);
    let reached = norm(&moved);
    moved * (radius / reached)
}

/// The update with the norm of the weights.
fn as_large(weights: Tensor<3>, update: Tensor<3>) -> Tensor<3> {
    let [wanted, norm] = [weights, update.clone()].map(frobenius_norm);
    let nothing = wanted.clone().lower_scalar(SMALLEST_NORM).bool_or(norm.clone().lower_scalar(SMALLEST_NORM));
    // Multiplied by 0 rather than replaced by it, so that a NaN stays one.
    divide_or_zero(update, norm) * wanted.mask_fill(nothing, 0.0)
}

/// The update with at least this share of the norm of the weights.
fn at_least(weights: Tensor<3>, update: Tensor<3>, ratio: f64) -> Tensor<3> {
    let (least, norm) = (frobenius_norm(weights) * ratio, frobenius_norm(update.clone()));
    let short = norm.clone().lower(least.clone()).expand(update.dims());
    let lifted = divide_or_zero(update.clone(), norm) * least;
    update.mask_where(short, lifted)
}

impl TryFrom<Given> for NormControl {
    type Error = ConfigError;

    fn try_from(Given(mut map): Given) -> Result<Self, ConfigError> {
        let method = take_tag(&mut map, "method", "norm_control method", &Self::METHODS)?;
        let number = |key, default| read_number(&map, "norm_control", key, default);
        let check = |valid: &[&str]| check_keys(&map, valid, &method);
        match method.as_str() {
            "radial_brake" => {
                check(&["outward", "inward"])?;
                Ok(NormControl::RadialBrake { outward: number("outward", 0.5)?, inward: number("inward", 1.0)? })
            }
            "floor" => {
                check(&["ratio"])?;
                Ok(NormControl::Floor { ratio: number("ratio", 0.35)? })
            }
            "relative" => check(&[]).map(|()| NormControl::Relative),
            _ => check(&[]).map(|()| NormControl::Hyperball),
        }
    }
}

impl Setting for NormControl {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        let factor = Numbers::from_to(0.0, 1.0);
        match self {
            NormControl::RadialBrake { outward, inward } => {
                outward.check(&format!("{key}.outward"), &factor)?;
                inward.check(&format!("{key}.inward"), &factor)
            }
            NormControl::Floor { ratio } => ratio.check(&format!("{key}.ratio"), &Numbers::SIZE),
            NormControl::Hyperball | NormControl::Relative => Ok(()),
        }
    }

    /// Every method with its defaults, a brake that acts both ways, a floor that is above most updates.
    fn choices(_range: &()) -> Vec<Value> {
        let others = [
            json!({"method": "radial_brake", "outward": 0.0, "inward": 0.5}),
            json!({"method": "floor", "ratio": 100.0}),
        ];
        Self::METHODS.iter().map(|method| json!({"method": method})).chain(others).collect()
    }
}
