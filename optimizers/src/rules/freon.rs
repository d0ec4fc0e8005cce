//! Freon (arXiv 2605.11181): a power of the singular values.
//!
//! ```text
//! ν = ‖M‖_F,  A = M Mᵀ + ridge ν² I (short side),  r = min(m, n)
//! D₀ = A^(-c) M,                                     singular values s (s² + ridge ν²)^(-c) ≈ s^(1-2c)
//! mean_schatten: D = z^(2c-1) D₀,  z = (tr A^(1-c) / r)^(1/(2-2c));   c = 1: z = exp(log det A / 2r)
//! rms: D = D₀ √r / ‖D₀‖_F        none: D = D₀        U = scale · D
//! ```
//!
//! **Singular values** of D relative to that of the mean one, `(s/mean)^(1-2c)`:
//!
//! | c | s = 0.1 | 0.5 | 1 | 2 | 10 | name |
//! |---|---|---|---|---|---|---|
//! | 0 | 0.10 | 0.50 | 1 | 2.00 | 10.0 | normalised SGD |
//! | 1/4 | 0.32 | 0.71 | 1 | 1.41 | 3.16 | between SGD and Muon |
//! | 1/2 | 1 | 1 | 1 | 1 | 1 | exact Muon |
//! | 2/3 (default) | 2.15 | 1.26 | 1 | 0.79 | 0.46 | inverted spectrum |
//! | 1 | 10.0 | 2.00 | 1 | 0.50 | 0.10 | transposed pseudo-inverse |
//!
//! **When**: in place of Muon, at Muon's price; c > 1/2 gives weak directions the larger step, and occasionally huge steps
//! to square, nearly singular matrices, hence the ridge.
//!
//! **Methods** (`method`); r is the shorter side of the matrix, R the longer:
//!
//! | | c | computed | error of D | cost |
//! |---|---|---|---|---|
//! | `polynomial` (default) | 0.4 to 0.8 | on the device, without waiting for it | about 1 %, at most 2 %; for c = 0.8 at most 3 %, and 5 % where all singular values are equal | 2 products of r²R and 16 of r³, 13 of them squares |
//! | `svd` | 0 to 1 | on the host in f64: on a GPU a round trip for every matrix | none | a decomposition |
//! | `rational` | a fraction | on the host in f64 | rounding | `steps` + 1 QR decompositions of twice the size |
//!
//! The last two need the feature `exact`. Rows and columns are exact by every method. `polynomial` treats singular values
//! below 1e-3 of the Frobenius norm as if `ridge` were about 1e-6 even where it is smaller, and f32 resolves no smaller
//! ones. Weights in half precision are updated in f32, as always. A device that rounds the factors of f32 products to TF32
//! stays finite, with errors of 2 to 6 % on momenta of trained models, and of up to half for matrices of low rank; a
//! `ridge` of 1e-5 or 1e-4 brings that down to 1 to 8 %.
//!
//! **Moving exponent** (DynMuon, arXiv 2605.17109): with `c_start`, the exponent moves from there to `c` while the share q
//! of training passes `c_switch`:
//!
//! ```text
//! c(q) = c + (c_start - c) / (1 + exp((q - c_switch) / c_width))
//! ```
//!
//! DynMuon is `c_start = 3/8`, `c = 5/8` with the default switch and width, 0.04: 0.44 at the start, 1/2 after 4 % of the
//! steps, 0.62 after 20 %. In a loop of your own, set the share before every step with
//! [`LayerwiseOptimizer::set_progress`](crate::LayerwiseOptimizer::set_progress); where nobody sets it, it is 0.
//!
//! **Claimed** (paper's abstract): the best exponent is above 1/2. The paper's coefficients, ridge and learning rates were
//! not available to us; ours are stated here.

use std::fmt;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::matrix::{inverse_power, map_by_rational_power, map_singular_values};
use crate::power::{EXPONENTS, InversePower, PowerSize};
use crate::rule::{
    About, Cost, Gain, Kind, Memory, Pipeline, Rule, StackRow, Stage, SymmetryRow, Update, check_exact, follows_rank,
    kind_settings,
};
use crate::setting::{ConfigError, Numbers, Setting, choice};

/// The exponent c of `(M Mᵀ)^(-c) M`: a number, or an exact fraction `[a, b]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exponent {
    /// a/b
    Fraction([u32; 2]),
    /// A number.
    Number(f64),
}

/// Largest denominator when a number is converted to a fraction.
const LARGEST_DENOMINATOR: u32 = 64;

impl Setting for Exponent {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.value().check(key, &Numbers::from_to(0.0, 1.0))
    }

    fn choices(_range: &()) -> Vec<Value> {
        vec![json!(0.0), json!([1, 4]), json!(0.5), json!([3, 4]), json!(1.0)]
    }
}

impl fmt::Display for Exponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exponent::Fraction([a, b]) => write!(f, "{a}/{b}"),
            Exponent::Number(c) => write!(f, "{c}"),
        }
    }
}

impl Exponent {
    /// The value.
    pub fn value(self) -> f64 {
        match self {
            Exponent::Fraction([a, b]) => f64::from(a) / f64::from(b),
            Exponent::Number(c) => c,
        }
    }

    /// Numerator and denominator, if it is a fraction with a denominator of at most 64.
    fn fraction(self) -> Option<[u32; 2]> {
        let c = self.value();
        (1..=LARGEST_DENOMINATOR)
            .map(|b| [(c * f64::from(b)).round() as u32, b])
            .find(|[a, b]| (f64::from(*a) / f64::from(*b) - c).abs() < 1e-14)
    }
}

choice! {
    /// The size of Freon's update.
    #[derive(Default)]
    pub enum FreonNormalize {
        /// By the mean Schatten norm of order 2 - 2c: the paper.
        #[default]
        MeanSchatten = "mean_schatten",
        /// Root mean square singular value 1: learning rates carry over between exponents.
        Rms = "rms",
        /// None: the update depends on the gradient's size.
        None = "none",
    }
}

choice! {
    /// How `A^(-c) M` is computed.
    #[derive(Default)]
    pub enum FreonMethod {
        /// Products of matrices, for c from 0.4 to 0.8.
        #[default]
        Polynomial = "polynomial",
        /// Singular value decomposition.
        Svd = "svd",
        /// Rational iteration in f64, see [`rational_schedule`](crate::matrix::rational_schedule).
        Rational = "rational",
    }
}

kind_settings! {
    /// Settings of Freon, and the rule itself.
    pub struct FreonConfig {
        momentum: 0.95, Ema, nesterov: true, scale: Original;
        /// The exponent, from 0 to 1: a number or an exact fraction.
        c, with_c: Exponent = Exponent::Fraction([2, 3]);
        /// The exponent before the switch; absent: always `c`.
        c_start, with_c_start: Option<Exponent> = None;
        /// The share of training at which the exponent is half-way from `c_start` to `c`; 0.04 if absent.
        c_switch, with_c_switch: Option<f64> = None, in Numbers::from_to(0.0, 1.0);
        /// How gradual that is: from one such share of training before the switch to one after it, the exponent goes about
        /// half of the way; 0.04 if absent.
        c_width, with_c_width: Option<f64> = None, in Numbers::from_to(1e-3, 1.0);
        /// Share of ‖M‖_F² added to the Gram matrix, from 0 to 1; the rational method needs 1e-14.
        ridge, with_ridge: f64 = 1e-6, in Numbers::from_to(0.0, 1.0);
        /// The size of the update.
        normalize, with_normalize: FreonNormalize = FreonNormalize::MeanSchatten;
        /// How the power is computed.
        method, with_method: FreonMethod = FreonMethod::Polynomial;
        /// Steps of the rational iteration, whose lower bound is the ridge; from 1 to 20.
        steps, with_steps: usize = 4, in 1..=20;
    }
}

impl Kind for FreonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn exact_method(&self) -> Option<(&'static str, Value)> {
        Some(("method", json!("svd")))
    }

    fn about(&self) -> About {
        let size = match self.normalize {
            FreonNormalize::MeanSchatten => "mean Schatten norm 1",
            FreonNormalize::Rms => "root mean square singular value 1",
            FreonNormalize::None => "as it is",
        };
        let (cost, method) = match self.method {
            FreonMethod::Polynomial => {
                let work = "4 r²R + 32 r³ (r = min(m, n), R = max(m, n))";
                (Cost::device(work).with_products([4, 32]), "polynomial".to_string())
            }
            FreonMethod::Svd => (Cost::host(""), "svd".to_string()),
            FreonMethod::Rational => {
                (Cost::host(format!("{} QR steps in f64", self.steps)), format!("rational{}", self.steps))
            }
        };
        let c = match self.c_start {
            None => format!("c {}", self.c),
            Some(start) => format!("c {start} → {}", self.c),
        };
        About {
            formula: self.formula(&format!("U = (d dᵀ + ridge ‖d‖² I)^(-c) d, {size}, {}", c.replacen(' ', " = ", 1))),
            source: "arXiv 2605.11181",
            cost,
            detail: format!("{c}, {method}"),
            stack: StackRow::new(0.02, 0.01, "Freon for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("freon", "", SymmetryRow::SPECTRAL, 0),
                #[cfg(feature = "exact")]
                SymmetryRow::new("freon, svd", r#"{"method":"svd"}"#, SymmetryRow::SPECTRAL, 0),
                #[cfg(feature = "exact")]
                SymmetryRow::new("freon, rational", r#"{"method":"rational"}"#, SymmetryRow::SPECTRAL, 0),
            ],
            gain: match self.normalize {
                FreonNormalize::MeanSchatten | FreonNormalize::None if self.is_muon() => Ok(Gain::ORTHOGONAL),
                _ => follows_rank!("set c=[1, 2] and normalize=mean_schatten, or choose muon"),
            },
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let unused = [("c_switch", self.c_switch), ("c_width", self.c_width)];
        if let (None, Some((key, _))) = (self.c_start, unused.iter().find(|(_, value)| value.is_some())) {
            let message = "moves the exponent, but there is no c_start to move it from: set c_start, or leave it out";
            return Err(ConfigError::value(format!("freon.{key}"), message));
        }
        match self.method {
            FreonMethod::Polynomial => self.check_polynomial(),
            FreonMethod::Svd => check_exact("freon.method", "svd"),
            FreonMethod::Rational => self.check_rational(),
        }
    }
}

impl FreonConfig {
    /// The exponent at this share of training.
    fn exponent(&self, progress: f64) -> f64 {
        let c = self.c.value();
        let Some(start) = self.c_start else { return c };
        let (switch, width) = (self.c_switch.unwrap_or(0.04), self.c_width.unwrap_or(0.04));
        c + (start.value() - c) / (1.0 + ((progress - switch) / width).exp())
    }

    /// Whether it is the exact Muon throughout.
    fn is_muon(&self) -> bool {
        self.c.value() == 0.5 && self.c_start.is_none_or(|start| start.value() == 0.5)
    }

    fn check_polynomial(&self) -> Result<(), ConfigError> {
        // The exponent moves in one direction, so the ends of training have its extremes.
        let [low, high] = EXPONENTS;
        let outside = [0.0, 1.0].into_iter().find(|share| !(low..=high).contains(&self.exponent(*share)));
        let Some(share) = outside else { return Ok(()) };
        let c = self.exponent(share);
        let (key, what) = match self.c_start {
            None => ("freon.c", format!("got {c}")),
            Some(_) => ("freon.c_start", format!("but c would be {c:.4} at {} % of training", 100.0 * share)),
        };
        let advice = "set method=svd for any other (feature `exact`)";
        Err(ConfigError::value(
            key,
            format!("the polynomial method has exponents from {low} to {high}, {what}: {advice}"),
        ))
    }

    fn check_rational(&self) -> Result<(), ConfigError> {
        check_exact("freon.method", "rational")?;
        self.ridge.check("freon.ridge (rational)", &Numbers::from_to(1e-14, 1.0))?;
        if self.c_start.is_some() {
            let message = "the rational method has a fixed exponent: set method=polynomial or method=svd";
            return Err(ConfigError::value("freon.c_start", message));
        }
        if self.c.fraction().is_none() {
            let c = self.c.value();
            let message = format!("must be a fraction [a, b] with b up to 64 for the rational method, got {c}");
            return Err(ConfigError::value("freon.c", message));
        }
        Ok(())
    }
}

impl Rule for FreonConfig {
    fn advance(&self, stage: Stage, _memory: &mut Memory) -> Update {
        let c = self.exponent(stage.progress);
        stage.matrix.map(|m| self.apply(m, c)).into()
    }
}

impl FreonConfig {
    fn apply(&self, m: Tensor<3>, c: f64) -> Tensor<3> {
        match self.method {
            FreonMethod::Polynomial => {
                let size = match self.normalize {
                    FreonNormalize::MeanSchatten => PowerSize::MeanSchatten,
                    FreonNormalize::Rms => PowerSize::Rms,
                    FreonNormalize::None => PowerSize::Own,
                };
                inverse_power(m, &InversePower::new(c, self.ridge, size))
            }
            FreonMethod::Svd => map_singular_values(m, |_, s| self.map(s, c)),
            FreonMethod::Rational => {
                let fraction = self.c.fraction().unwrap_or([1, 2]);
                let factor = |z: f64, norm: f64, square: f64, rank: usize| self.factor(c, z, norm, square, rank);
                map_by_rational_power(m, fraction, self.ridge, self.steps, factor)
            }
        }
    }

    /// New singular values; `s` is not all zero.
    fn map(&self, s: &[f64], c: f64) -> Vec<f64> {
        let ridge = self.ridge;
        let norm = s.iter().map(|s| s * s).sum::<f64>().sqrt();
        // Without a ridge, singular values below 1e-12 of the norm have no direction.
        let rooted: Vec<Option<f64>> =
            s.iter().map(|s| Some(((s / norm).powi(2) + ridge).sqrt()).filter(|root| *root > 1e-12)).collect();
        let powers: Vec<f64> =
            s.iter().zip(&rooted).map(|(s, root)| root.map_or(0.0, |root| s / norm * root.powf(-2.0 * c))).collect();
        let mean =
            |f: &dyn Fn(f64) -> f64| rooted.iter().map(|root| f(root.unwrap_or(1.0))).sum::<f64>() / s.len() as f64;
        let z = match c {
            1.0 => mean(&f64::ln).exp(),
            _ => mean(&|root| root.powf(2.0 - 2.0 * c)).powf(1.0 / (2.0 - 2.0 * c)),
        };
        let factor = self.factor(c, z, norm, powers.iter().map(|d| d * d).sum(), s.len());
        powers.into_iter().map(|power| power * factor).collect()
    }

    /// The factor of `A^(-c) M` for the matrix scaled to norm 1, whose squared norm is `square`.
    fn factor(&self, c: f64, z: f64, norm: f64, square: f64, rank: usize) -> f64 {
        match self.normalize {
            FreonNormalize::MeanSchatten => z.powf(2.0 * c - 1.0),
            FreonNormalize::Rms => (rank as f64 / square).sqrt(),
            FreonNormalize::None => norm.powf(1.0 - 2.0 * c),
        }
    }
}

#[cfg(test)]
#[path = "freon_tests.rs"]
mod tests;
