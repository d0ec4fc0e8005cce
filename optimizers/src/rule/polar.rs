//! How a polar factor is computed, as a setting.
//!
//! | method | keys and defaults | map on [1e-3, 1] | source |
//! |---|---|---|---|
//! | `newton_schulz` | `steps` 5, `eps` 1e-7 | into [0.47, 1.21] | Keller Jordan, Muon, 2024 |
//! | `polar_express` | `steps` 5, `eps` 1e-6 | into [0.85, 1.15] | arXiv 2505.16932, safety factor 1.02 |
//! | `minimax` | `steps` 4 (or 3) | [4e-3, 1] into [0.86, 1.13] (or [1e-2, 1] into [0.72, 1.27]) | composed as `polar_express` |
//! | `converged` | | 1 ± 2e-7 on [1.02e-5, 1], in ten steps | composed as `polar_express` |
//! | `polynomial` | `coefficients`, `norm_factor` 1, `eps` 1e-7 | as given | |
//! | `svd` | `rcond` 1e-5 | exactly 1 | |
//!
//! A polynomial reaches singular values above about 1e-3 of the norm by which the matrix is divided, so a smaller norm
//! leaves fewer directions behind. `newton_schulz`, `polar_express` and `polynomial` take one of
//!
//! | key | the matrix is divided by |
//! |---|---|
//! | none, or `norm = "frobenius"` | `factor ‖M‖_F + eps` |
//! | `norm = "schatten4"` | `factor (Σ s⁴)^¼`, 1.5 to 3 times smaller; `minimax` has no other norm |
//! | `precondition = "aol"` | every unit of the shorter side by its own factor, see [`Norm::Aol`] |
//!
//! Under the last two `eps` has no effect: it cancels. `aol` is a preconditioner: the polar factor is that of another matrix,
//! and no longer rotates with the units of the shorter side.
//!
//! ```
//! use polaron::rule::Polar;
//!
//! let short: Polar = serde_json::from_str(r#"{"method": "minimax", "steps": 3}"#)?;
//! assert_eq!(short.label(), "minimax3");
//! let named: Polar = serde_json::from_str(r#"{"method": "polynomial", "coefficients": "aol", "precondition": "aol"}"#)?;
//! assert_eq!(named.schedule().len(), 4);
//! # Ok::<(), serde_json::Error>(())
//! ```

use burn::tensor::Tensor;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Cost;
use super::coefficients::{CoefficientList, Coefficients};
use crate::matrix::{
    Axis, CONVERGED, MINIMAX_3, MINIMAX_4, MINIMAX_NORM_FACTOR, Matrix, NEWTON_SCHULZ, Norm, Normalisation,
    POLAR_EXPRESS, POLAR_EXPRESS_LIMIT, POLAR_EXPRESS_NORM_FACTOR, first_unsafe_value, polar_polynomial, polar_svd,
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
        /// The norm by which the matrix is divided first.
        #[serde(flatten)]
        norm: Norm,
    },
    /// Polar Express with safety factor 1.02; `steps` 5, `eps` 1e-6.
    PolarExpress {
        /// Number of steps, at least 1; each of the first five has its own coefficients.
        steps: usize,
        /// Added to 1.02 times the Frobenius norm.
        eps: f64,
        /// The norm by which the matrix is divided first.
        #[serde(flatten)]
        norm: Norm,
    },
    /// As good as five steps of Newton–Schulz in four, or nearly as good in three: quintics for singular values above 4e-3,
    /// or 1e-2, of the Schatten-4 norm, by which the matrix is divided.
    Minimax {
        /// Number of steps, 4 (default) or 3.
        steps: usize,
    },
    /// Any odd quintic schedule; refused if it maps a singular value that can occur outside [0, 2].
    Polynomial {
        /// The name of a published list, or one `[a, b, c]` per step.
        coefficients: Coefficients,
        /// Factor of the norm, default 1 (1.01 for `cubic5`).
        norm_factor: f64,
        /// Added to the norm, default 1e-7.
        eps: f64,
        /// The norm by which the matrix is divided first.
        #[serde(flatten)]
        norm: Norm,
    },
    /// Products only and as good as exact: ten quintics ([`CONVERGED`](crate::matrix::CONVERGED)) after which every singular
    /// value above 1e-5 of the Frobenius norm is 1 up to rounding. Below, values fall to 0 in proportion: 0.3 at 1e-6, 0.03 at
    /// 1e-7, where f32 has only rounding errors; `svd` sets all of those to 0. Twice the products of the five steps of Muon.
    Converged,
    /// Exact, by a host SVD, over the singular values above `rcond` (default 1e-5) times the largest.
    Svd {
        /// Relative cut-off below which a direction counts as noise and becomes 0.
        rcond: f64,
    },
}

impl Default for Polar {
    fn default() -> Self {
        Polar::NewtonSchulz { steps: 5, eps: 1e-7, norm: Norm::Frobenius }
    }
}

impl Setting for Polar {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.validate().map_err(|error| within(key, error))
    }

    /// Every method with its defaults, and with eps or cut-off 0; every norm, and every list of coefficients.
    fn choices(_range: &()) -> Vec<Value> {
        let method = |name: &&str| match *name {
            "polynomial" => json!({"method": name, "coefficients": vec![[2.0, -1.5, 0.5]; 12], "norm_factor": 1.5}),
            _ => json!({"method": name}),
        };
        let named = |schedule: &CoefficientList| json!({"method": "polynomial", "coefficients": schedule.name()});
        let of_norms = [
            json!({"method": "minimax", "steps": 3}),
            json!({"method": "newton_schulz", "norm": "schatten4"}),
            json!({"method": "polar_express", "norm": "schatten4", "eps": 0.0}),
            json!({"method": "newton_schulz", "precondition": "aol"}),
            json!({"method": "polynomial", "coefficients": "aol", "precondition": "aol"}),
        ];
        let methods = Self::METHODS.iter().map(method).flat_map(with_and_without_eps);
        methods.chain(CoefficientList::ALL.iter().map(named)).chain(of_norms).collect()
    }
}

/// A method, and, if it has an eps or a cut-off, the same method with 0.
fn with_and_without_eps(method: Value) -> Vec<Value> {
    let all = serde_json::from_value::<Polar>(method.clone()).and_then(serde_json::to_value).unwrap_or_default();
    let key = ["eps", "rcond"].into_iter().find(|key| all.get(key).is_some());
    let bare = key.map(|key| {
        let mut bare = method.clone();
        bare[key] = 0.0.into();
        bare
    });
    [method].into_iter().chain(bare).collect()
}

/// Refuses a method that decomposes on the host if the program was built without it.
pub(crate) fn check_exact(key: &str, method: &str) -> Result<(), ConfigError> {
    if cfg!(feature = "exact") {
        return Ok(());
    }
    let message =
        format!("{method} needs the feature `exact` of the crate polaron; without it, choose a polynomial method");
    Err(ConfigError::value(key, message))
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
                keys.check(&["steps", "eps", "norm", "precondition"], &method)?;
                let (steps, eps) = (keys.get("steps", Some(5))?, keys.get("eps", Some(1e-7))?);
                Ok(Polar::NewtonSchulz { steps, eps, norm: keys.norm()? })
            }
            "polar_express" => {
                keys.check(&["steps", "eps", "norm", "precondition"], &method)?;
                let (steps, eps) = (keys.get("steps", Some(5))?, keys.get("eps", Some(1e-6))?);
                Ok(Polar::PolarExpress { steps, eps, norm: keys.norm()? })
            }
            "minimax" => {
                keys.check(&["steps"], &method)?;
                Ok(Polar::Minimax { steps: keys.get("steps", Some(4))? })
            }
            "polynomial" => {
                keys.check(&["coefficients", "norm_factor", "eps", "norm", "precondition"], &method)?;
                let coefficients = keys.coefficients()?;
                let factor = match &coefficients {
                    Coefficients::Named(schedule) => schedule.norm_factor(),
                    Coefficients::Given(_) => 1.0,
                };
                let (norm_factor, eps) = (keys.get("norm_factor", Some(factor))?, keys.get("eps", Some(1e-7))?);
                Ok(Polar::Polynomial { coefficients, norm_factor, eps, norm: keys.norm()? })
            }
            "converged" => keys.check(&[], &method).map(|()| Polar::Converged),
            _ => {
                keys.check(&["rcond"], &method)?;
                Ok(Polar::Svd { rcond: keys.get("rcond", Some(1e-5))? })
            }
        }
    }
}

/// The norms by their names, each under its key; the first is the default and not written.
const NORMS: [(&str, &str, Norm); 3] = [
    ("norm", "frobenius", Norm::Frobenius),
    ("norm", "schatten4", Norm::Schatten4),
    ("precondition", "aol", Norm::Aol),
];

/// As a key beside those of the method.
impl Serialize for Norm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, name, _) in NORMS.iter().skip(1).filter(|(_, _, norm)| norm == self) {
            map.serialize_entry(key, name)?;
        }
        map.end()
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

    /// What `norm` or `precondition` says.
    fn norm(&self) -> Result<Norm, ConfigError> {
        let (key, name) = match ["norm", "precondition"].map(|key| self.0.get(key)) {
            [None, None] => return Ok(Norm::default()),
            [Some(name), None] => ("norm", name),
            [None, Some(name)] => ("precondition", name),
            [Some(_), Some(_)] => {
                let message = "takes the place of the norm; remove `precondition` or `norm`";
                return Err(ConfigError::value("polar.precondition", message));
            }
        };
        let known = NORMS.iter().filter(|(of, _, _)| *of == key);
        match known.clone().find(|(_, known, _)| *known == name) {
            Some((_, _, norm)) => Ok(*norm),
            None => Err(ConfigError::Name {
                what: if key == "norm" { "polar norm" } else { "polar precondition" },
                name: name.as_str().map_or_else(|| name.to_string(), str::to_string),
                valid: known.map(|(_, known, _)| *known).collect(),
            }),
        }
    }

    /// A list, or the name of one.
    fn coefficients(&self) -> Result<Coefficients, ConfigError> {
        let valid: Vec<&str> = CoefficientList::ALL.iter().map(|schedule| schedule.name()).collect();
        match self.0.get("coefficients") {
            Some(Value::String(name)) => {
                let known = CoefficientList::ALL.into_iter().find(|schedule| schedule.name() == name);
                let unknown = || ConfigError::Name { what: "list of coefficients", name: name.clone(), valid };
                known.map(Coefficients::Named).ok_or_else(unknown)
            }
            Some(_) => self.get("coefficients", None).map(Coefficients::Given),
            None => {
                let message = format!("is required: one [a, b, c] per step, or one of {}", valid.join(", "));
                Err(ConfigError::value("polar.coefficients", message))
            }
        }
    }
}

impl Polar {
    /// The names of the methods.
    pub const METHODS: [&'static str; 6] =
        ["newton_schulz", "polar_express", "minimax", "polynomial", "converged", "svd"];

    /// Polar factor of every matrix of a stack.
    ///
    /// A zero matrix returns zero, even with `eps` 0.
    pub fn apply(&self, matrix: Matrix) -> Matrix {
        if let Polar::Svd { rcond } = self {
            return matrix.map(|x| polar_svd(x, *rcond));
        }
        let normalisation = self.normalisation();
        // The units of a square matrix are its outputs in both layouts.
        let turned =
            normalisation.norm == Norm::Aol && matrix.outputs() == matrix.inputs() && matrix.dim(Axis::Output) == 2;
        let polar = |x: Tensor<3>| polar_polynomial(x, &self.schedule(), normalisation);
        matrix.map(|x| if turned { polar(x.swap_dims(1, 2)).swap_dims(1, 2) } else { polar(x) })
    }

    /// What is done before the steps.
    fn normalisation(&self) -> Normalisation {
        let (norm, factor, eps) = match *self {
            Polar::NewtonSchulz { eps, norm, .. } => (norm, 1.0, eps),
            Polar::PolarExpress { eps, norm, .. } => (norm, POLAR_EXPRESS_NORM_FACTOR, eps),
            Polar::Minimax { .. } => (Norm::Schatten4, MINIMAX_NORM_FACTOR, 0.0),
            Polar::Converged => (Norm::Frobenius, POLAR_EXPRESS_NORM_FACTOR, 0.0),
            Polar::Polynomial { norm_factor, eps, norm, .. } => (norm, norm_factor, eps),
            Polar::Svd { .. } => (Norm::Frobenius, 1.0, 0.0),
        };
        Normalisation { norm, factor, eps }
    }

    /// The coefficients of every step; empty for `svd`.
    pub fn schedule(&self) -> Vec<[f64; 3]> {
        match self {
            Polar::NewtonSchulz { steps, .. } => vec![NEWTON_SCHULZ; *steps],
            Polar::PolarExpress { steps, .. } => {
                POLAR_EXPRESS.into_iter().chain(std::iter::repeat(POLAR_EXPRESS_LIMIT)).take(*steps).collect()
            }
            Polar::Minimax { steps: 3 } => MINIMAX_3.to_vec(),
            Polar::Minimax { .. } => MINIMAX_4.to_vec(),
            Polar::Polynomial { coefficients, .. } => coefficients.rows(),
            Polar::Converged => CONVERGED.to_vec(),
            Polar::Svd { .. } => Vec::new(),
        }
    }

    /// Whether the result does not depend on the size of the matrix.
    pub(crate) fn is_scale_free(&self) -> bool {
        let Normalisation { norm, eps, .. } = self.normalisation();
        norm != Norm::Frobenius || eps == 0.0
    }

    /// Work for one matrix, followed by more work.
    pub(crate) fn cost(&self, more: &str) -> Cost {
        self.cost_of(0, more)
    }

    /// Work for one matrix that is made longer by its short side, as by [`appended_root`](crate::matrix::appended_root).
    pub(crate) fn cost_appended(&self, more: &str) -> Cost {
        self.cost_of(1, more)
    }

    /// Work for one matrix that is longer by this many of its short sides.
    fn cost_of(&self, longer: usize, more: &str) -> Cost {
        let schedule = self.schedule();
        if schedule.is_empty() {
            return Cost::host(more.trim_start_matches(" + "));
        }
        // Without a fifth power the Gram matrix is not squared.
        let squares = schedule.iter().filter(|[_, _, c]| *c != 0.0).count();
        let (mixed, cubes) = (4 * schedule.len(), 2 * squares + longer * 4 * schedule.len());
        let of_short_sides = if cubes == 0 { String::new() } else { format!(" + {cubes} r³") };
        Cost::device(format!("{mixed} r²R{of_short_sides}{more} (r = min(m, n), R = max(m, n))"))
            .with_products([mixed, cubes])
    }

    /// Short name for plans, for example `newton_schulz5`.
    pub fn label(&self) -> String {
        let steps = match self {
            Polar::NewtonSchulz { steps, .. } => format!("newton_schulz{steps}"),
            Polar::PolarExpress { steps, .. } => format!("polar_express{steps}"),
            Polar::Minimax { steps } => return format!("minimax{steps}"),
            Polar::Polynomial { coefficients: Coefficients::Named(schedule), .. } => schedule.name().to_string(),
            Polar::Polynomial { coefficients: Coefficients::Given(rows), .. } => format!("polynomial{}", rows.len()),
            Polar::Converged => return "converged".into(),
            Polar::Svd { .. } => "svd".into(),
        };
        let norm = match self.normalisation().norm {
            Norm::Frobenius => "",
            Norm::Schatten4 => " over schatten4",
            Norm::Aol => " after aol scaling",
        };
        format!("{steps}{norm}")
    }

    /// Refuses values that cannot work: no steps, negative eps, a polynomial that amplifies or flips directions.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, message: String| Err(ConfigError::value(format!("polar.{key}"), message));
        match self {
            Polar::NewtonSchulz { steps, eps, .. } | Polar::PolarExpress { steps, eps, .. } => {
                steps.check("polar.steps", &(1..=99))?;
                eps.check("polar.eps", &Numbers::SIZE)?;
            }
            Polar::Converged => {}
            Polar::Svd { rcond } => {
                rcond.check("polar.rcond", &Numbers::FACTOR)?;
                check_exact("polar.method", "svd")?;
            }
            Polar::Minimax { steps } => steps.check("polar.steps", &(3..=4))?,
            Polar::Polynomial { coefficients, norm_factor, eps, .. } => {
                let coefficients = coefficients.rows();
                eps.check("polar.eps", &Numbers::SIZE)?;
                norm_factor.check("polar.norm_factor", &Numbers::from_to(1.0, 1e6))?;
                if coefficients.is_empty() {
                    return bad("coefficients", "must hold at least one [a, b, c]".into());
                }
                if let Some((s, p)) = first_unsafe_value(&coefficients, *norm_factor) {
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
