//! How a polar factor is computed, as a setting.
//!
//! | method | map on [1e-3, 1] | source |
//! |---|---|---|
//! | `newton_schulz` (5 steps) | into [0.47, 1.21] | Keller Jordan, Muon, 2024 |
//! | `polar_express` (5 steps) | into [0.85, 1.15] | arXiv 2505.16932, safety factor 1.02 |
//! | `polynomial` | as given | |
//! | `svd` | exactly 1 | |

use burn::tensor::Tensor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Cost;
use crate::matrix::{
    NEWTON_SCHULZ, POLAR_EXPRESS, POLAR_EXPRESS_LIMIT, POLAR_EXPRESS_NORM_FACTOR, first_unsafe_value, polar_polynomial,
    polar_svd,
};
use crate::setting::{ConfigError, Given, Numbers, Setting, check_keys, take_tag};

/// How the polar factor is computed. Serialised as `{"method": "newton_schulz", "steps": 5, "eps": 1e-7}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", tag = "method", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Polar {
    /// `steps` (default 5) times the quintic of Muon, `eps` (default 1e-7) added to the norm.
    NewtonSchulz {
        /// Number of steps, at least 1.
        steps: usize,
        /// Added to the Frobenius norm.
        eps: f64,
    },
    /// Polar Express with safety factor 1.02; `steps` 5, `eps` 1e-6.
    PolarExpress {
        /// Number of steps, at least 1; each of the first five has its own coefficients.
        steps: usize,
        /// Added to 1.02 times the Frobenius norm.
        eps: f64,
    },
    /// Any odd quintic schedule; refused if it maps a singular value that can occur outside [0, 2].
    Polynomial {
        /// One `[a, b, c]` per step.
        coefficients: Vec<[f64; 3]>,
        /// Factor of the Frobenius norm, default 1.
        norm_factor: f64,
        /// Added to the norm, default 1e-7.
        eps: f64,
    },
    /// Exact, by a host SVD, over the singular values above `rcond` (default 1e-5) times the largest.
    Svd {
        /// Relative cut-off below which a direction counts as noise and becomes 0.
        rcond: f64,
    },
}

impl Default for Polar {
    fn default() -> Self {
        Polar::NewtonSchulz { steps: 5, eps: 1e-7 }
    }
}

impl Setting for Polar {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.validate().map_err(|error| within(key, error))
    }

    /// Every method with its defaults, and with eps or cut-off 0.
    fn choices(_range: &()) -> Vec<Value> {
        let method = |name: &&str| match *name {
            "polynomial" => json!({"method": name, "coefficients": vec![[2.0, -1.5, 0.5]; 12], "norm_factor": 1.5}),
            _ => json!({"method": name}),
        };
        Self::METHODS.iter().map(method).flat_map(with_and_without_eps).collect()
    }
}

/// A method, and the same method with eps or cut-off 0.
fn with_and_without_eps(method: Value) -> Vec<Value> {
    let mut bare = method.clone();
    let Ok(Value::Object(all)) = serde_json::from_value::<Polar>(method.clone()).and_then(serde_json::to_value) else {
        return vec![method];
    };
    for key in ["eps", "rcond"].into_iter().filter(|key| all.contains_key(*key)) {
        bare[key] = 0.0.into();
    }
    vec![method, bare]
}

/// Refuses a method that decomposes on the host if the program was built without it.
pub(super) fn check_exact(method: &str) -> Result<(), ConfigError> {
    if cfg!(feature = "exact") {
        return Ok(());
    }
    let message =
        format!("{method} needs the feature `exact` of the crate polaron; without it, choose a polynomial method");
    Err(ConfigError::value("polar.method", message))
}

/// The error of a method, whose keys begin with `polar`, under the key that holds the method.
pub(super) fn within(key: &str, error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Value { key: inner, message } => {
            let inner = inner.strip_prefix("polar").unwrap_or(&inner);
            ConfigError::value(format!("{key}{inner}"), message)
        }
        other => other,
    }
}

impl TryFrom<Given> for Polar {
    type Error = ConfigError;

    fn try_from(Given(mut map): Given) -> Result<Self, ConfigError> {
        let method = take_tag(&mut map, "method", "polar method", &Self::METHODS)?;
        let keys = Keys(&map);
        match method.as_str() {
            "newton_schulz" => {
                keys.check(&["steps", "eps"], &method)?;
                Ok(Polar::NewtonSchulz { steps: keys.get("steps", Some(5))?, eps: keys.get("eps", Some(1e-7))? })
            }
            "polar_express" => {
                keys.check(&["steps", "eps"], &method)?;
                Ok(Polar::PolarExpress { steps: keys.get("steps", Some(5))?, eps: keys.get("eps", Some(1e-6))? })
            }
            "polynomial" => {
                keys.check(&["coefficients", "norm_factor", "eps"], &method)?;
                let (norm_factor, eps) = (keys.get("norm_factor", Some(1.0))?, keys.get("eps", Some(1e-7))?);
                Ok(Polar::Polynomial { coefficients: keys.get("coefficients", None)?, norm_factor, eps })
            }
            _ => {
                keys.check(&["rcond"], &method)?;
                Ok(Polar::Svd { rcond: keys.get("rcond", Some(1e-5))? })
            }
        }
    }
}

/// The keys of a method.
pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl Keys<'_> {
    pub fn check(&self, valid: &[&str], method: &str) -> Result<(), ConfigError> {
        check_keys(self.0, valid, method)
    }

    /// The value of a key, or its default; a required key has none.
    pub fn get<T: DeserializeOwned>(&self, name: &str, default: Option<T>) -> Result<T, ConfigError> {
        let fail = |message: String| Err(ConfigError::value(format!("polar.{name}"), message));
        match (self.0.get(name), default) {
            (Some(value), _) => T::deserialize(value).or_else(|error| fail(error.to_string())),
            (None, Some(default)) => Ok(default),
            (None, None) => fail("is required".into()),
        }
    }
}

impl Polar {
    /// The names of the methods.
    pub const METHODS: [&'static str; 4] = ["newton_schulz", "polar_express", "polynomial", "svd"];

    /// Polar factor of every matrix of a stack `[batch, a, b]`, in either orientation.
    ///
    /// A zero matrix returns zero, even with `eps` 0. The input is not modified.
    pub fn apply(&self, stack: Tensor<3>) -> Tensor<3> {
        match self {
            Polar::Svd { rcond } => polar_svd(stack, *rcond),
            Polar::NewtonSchulz { eps, .. } => polar_polynomial(stack, &self.schedule(), 1.0, *eps),
            Polar::PolarExpress { eps, .. } => {
                polar_polynomial(stack, &self.schedule(), POLAR_EXPRESS_NORM_FACTOR, *eps)
            }
            Polar::Polynomial { coefficients, norm_factor, eps } => {
                polar_polynomial(stack, coefficients, *norm_factor, *eps)
            }
        }
    }

    /// The coefficients of every step; empty for `svd`.
    pub fn schedule(&self) -> Vec<[f64; 3]> {
        match self {
            Polar::NewtonSchulz { steps, .. } => vec![NEWTON_SCHULZ; *steps],
            Polar::PolarExpress { steps, .. } => {
                POLAR_EXPRESS.into_iter().chain(std::iter::repeat(POLAR_EXPRESS_LIMIT)).take(*steps).collect()
            }
            Polar::Polynomial { coefficients, .. } => coefficients.clone(),
            Polar::Svd { .. } => Vec::new(),
        }
    }

    /// Whether the result does not depend on the size of the matrix.
    pub(crate) fn is_scale_free(&self) -> bool {
        match self {
            Polar::NewtonSchulz { eps, .. } | Polar::PolarExpress { eps, .. } | Polar::Polynomial { eps, .. } => {
                *eps == 0.0
            }
            Polar::Svd { .. } => true,
        }
    }

    /// Work for one matrix, followed by more work.
    pub(crate) fn cost(&self, more: &str) -> Cost {
        match self.schedule().len() {
            0 => Cost::host(more.trim_start_matches(" + ")),
            steps => {
                let products = [4 * steps, 2 * steps];
                let [mixed, cubes] = products;
                Cost::device(format!("{mixed} r²R + {cubes} r³{more} (r = min(m, n), R = max(m, n))"))
                    .with_products(products)
            }
        }
    }

    /// Short name for plans, for example `newton_schulz5`.
    pub fn label(&self) -> String {
        match self {
            Polar::NewtonSchulz { steps, .. } => format!("newton_schulz{steps}"),
            Polar::PolarExpress { steps, .. } => format!("polar_express{steps}"),
            Polar::Polynomial { coefficients, .. } => format!("polynomial{}", coefficients.len()),
            Polar::Svd { .. } => "svd".into(),
        }
    }

    /// Refuses values that cannot work: no steps, negative eps, a polynomial that amplifies or flips directions.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, message: String| Err(ConfigError::value(format!("polar.{key}"), message));
        match self {
            Polar::NewtonSchulz { steps, eps } | Polar::PolarExpress { steps, eps } => {
                steps.check("polar.steps", &(1..=99))?;
                eps.check("polar.eps", &Numbers::SIZE)?;
            }
            Polar::Svd { rcond } => {
                rcond.check("polar.rcond", &Numbers::FACTOR)?;
                check_exact("svd")?;
            }
            Polar::Polynomial { coefficients, norm_factor, eps } => {
                eps.check("polar.eps", &Numbers::SIZE)?;
                norm_factor.check("polar.norm_factor", &Numbers::from_to(1.0, 1e6))?;
                if coefficients.is_empty() {
                    return bad("coefficients", "must hold at least one [a, b, c]".into());
                }
                if let Some((s, p)) = first_unsafe_value(coefficients, *norm_factor) {
                    return bad(
                        "coefficients",
                        format!(
                            "map the singular value {s:.4} to {p:.3e}, outside [0, 2]: the schedule would amplify or flip \
                             directions; use a safer list or a larger norm_factor"
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "polar_tests.rs"]
mod tests;
