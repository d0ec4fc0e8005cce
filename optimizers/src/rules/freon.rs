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
//! **When**: to study the spectrum's exponent; c > 1/2 gives weak directions the larger step, and
//! occasionally huge steps to square, nearly singular matrices, hence the ridge. Both methods run on the host:
//! on a GPU this is a round trip for every matrix. The iteration needs c as a fraction.
//!
//! **Claimed** (paper's abstract): the best exponent is above 1/2. The paper's coefficients, ridge
//! and learning rates were not available to us; ours are stated here.

use std::fmt;

use faer::Mat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::matrix::{
    Matrix, RationalStep, Scaled, map_on_host, map_singular_values, rational_power, rational_schedule,
};
use crate::rule::{About, Cost, Direction, Gain, Kind, Pipeline, StackRow, SymmetryRow, follows_rank, kind_settings};
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
        /// Singular value decomposition.
        #[default]
        Svd = "svd",
        /// Rational iteration in f64, see [`rational_schedule`].
        Rational = "rational",
    }
}

kind_settings! {
    /// Settings of [`Freon`].
    pub struct FreonConfig {
        momentum: 0.95, Ema, nesterov: true, scale: Original;
        /// The exponent, from 0 to 1: a number or an exact fraction.
        c, with_c: Exponent = Exponent::Fraction([2, 3]);
        /// Share of ‖M‖_F² added to the Gram matrix, from 0 to 1; the rational method needs 1e-14.
        ridge, with_ridge: f64 = 1e-6, in Numbers::from_to(0.0, 1.0);
        /// The size of the update.
        normalize, with_normalize: FreonNormalize = FreonNormalize::MeanSchatten;
        /// How the power is computed.
        method, with_method: FreonMethod = FreonMethod::Svd;
        /// Steps of the rational iteration, whose lower bound is the ridge; from 1 to 20.
        steps, with_steps: usize = 4, in 1..=20;
    }
}

impl Kind for FreonConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.rule())
    }

    fn about(&self) -> About {
        let size = match self.normalize {
            FreonNormalize::MeanSchatten => "mean Schatten norm 1",
            FreonNormalize::Rms => "root mean square singular value 1",
            FreonNormalize::None => "as it is",
        };
        let (work, method) = match self.method {
            FreonMethod::Svd => (String::new(), "svd".to_string()),
            FreonMethod::Rational => (format!("{} QR steps in f64", self.steps), format!("rational{}", self.steps)),
        };
        About {
            formula: self.formula(&format!("U = (d dᵀ + ridge ‖d‖² I)^(-c) d, {size}, c = {}", self.c)),
            source: "arXiv 2605.11181",
            cost: Cost::host(work),
            detail: format!("c {}, {method}", self.c),
            stack: StackRow::new(0.02, 0.01, "Freon for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("freon", "", SymmetryRow::SPECTRAL, 0),
                SymmetryRow::new("freon, rational", r#"{"method":"rational"}"#, SymmetryRow::SPECTRAL, 0),
            ],
            gain: match self.normalize {
                FreonNormalize::MeanSchatten | FreonNormalize::None if self.c.value() == 0.5 => Ok(Gain::ORTHOGONAL),
                _ => follows_rank!("set c=[1, 2] and normalize=mean_schatten, or choose muon"),
            },
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let c = self.c.value();
        if self.method == FreonMethod::Rational {
            self.ridge.check("freon.ridge (rational)", &Numbers::from_to(1e-14, 1.0))?;
            if self.c.fraction().is_none() {
                let message = format!("must be a fraction [a, b] with b up to 64 for the rational method, got {c}");
                return Err(ConfigError::value("freon.c", message));
            }
        }
        Ok(())
    }
}

impl FreonConfig {
    fn rule(&self) -> Freon {
        let [a, b] = match self.c.fraction() {
            // The iteration works on a factor of A, which takes half of b.
            Some([a, b]) if b % 2 == 1 => [2 * a, 2 * b],
            Some(even) => even,
            None => [1, 2],
        };
        let schedule = match self.method {
            FreonMethod::Svd => Vec::new(),
            FreonMethod::Rational => rational_schedule(self.ridge, b, self.steps),
        };
        Freon { config: self.clone(), fraction: [a, b], schedule }
    }
}

/// The direction of Freon.
#[derive(Clone, Debug)]
pub struct Freon {
    config: FreonConfig,
    /// c as a fraction with even denominator; used by the rational method.
    fraction: [u32; 2],
    /// Coefficients of the rational method.
    schedule: Vec<RationalStep>,
}

impl Direction for Freon {
    fn direction(&self, momentum: Matrix) -> Matrix {
        momentum.map(|m| match self.config.method {
            FreonMethod::Svd => map_singular_values(m, |_, s| self.map(s)),
            FreonMethod::Rational => map_on_host(m, |_, matrix| self.iterate(matrix)),
        })
    }
}

impl Freon {
    /// New singular values; `s` is not all zero.
    fn map(&self, s: &[f64]) -> Vec<f64> {
        let (c, ridge) = (self.config.c.value(), self.config.ridge);
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
        let factor = self.factor(z, norm, powers.iter().map(|d| d * d).sum(), s.len());
        powers.into_iter().map(|power| power * factor).collect()
    }

    /// The factor of `A^(-c) M` for the matrix scaled to norm 1.
    fn factor(&self, z: f64, norm: f64, square: f64, rank: usize) -> f64 {
        let c = self.config.c.value();
        match self.config.normalize {
            FreonNormalize::MeanSchatten => z.powf(2.0 * c - 1.0),
            FreonNormalize::Rms => (rank as f64 / square).sqrt(),
            FreonNormalize::None => norm.powf(1.0 - 2.0 * c),
        }
    }

    /// One matrix by the rational iteration.
    fn iterate(&self, matrix: Scaled<'_>) -> Mat<f64> {
        let Scaled { unit, largest } = matrix;
        let norm = unit.norm_l2();
        let tall = unit.nrows() > unit.ncols();
        let short = if tall { unit.transpose() } else { unit };
        let power = self.scaled_power(&(short * faer::Scale(1.0 / norm)), norm * largest);
        if tall { power.transpose().to_owned() } else { power }
    }

    /// `factor · A^(-c) X` for a matrix of norm 1 with the short side first.
    fn scaled_power(&self, x: &Mat<f64>, norm: f64) -> Mat<f64> {
        let (c, ridge, rank) = (self.config.c.value(), self.config.ridge, x.nrows());
        let [a, b] = self.fraction;
        if a == 0 {
            // c = 0: D₀ = X, and tr A = ‖X‖² + r ridge.
            let z = ((1.0 + rank as f64 * ridge) / rank as f64).sqrt();
            return faer::Scale(self.factor(z, norm, 1.0, rank)) * x;
        }
        let power = rational_power(x.as_ref(), a, b, ridge, &self.schedule);
        let z = match a == b {
            true => (power.log_determinant / (2.0 * rank as f64)).exp(),
            false => {
                // tr A^(1-c) = <D₀, X> + ridge tr A^(-c): the share of the ridge must be included.
                let trace = inner(&power.product, x) + ridge * power.trace;
                (trace / rank as f64).powf(1.0 / (2.0 - 2.0 * c))
            }
        };
        let square = inner(&power.product, &power.product);
        faer::Scale(self.factor(z, norm, square, rank)) * &power.product
    }
}

fn inner(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    (0..x.ncols()).flat_map(|j| (0..x.nrows()).map(move |i| x[(i, j)] * y[(i, j)])).sum()
}

#[cfg(test)]
#[path = "freon_tests.rs"]
mod tests;
