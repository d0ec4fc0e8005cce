//! Orthogonalisation: the polar factor `U Vᵀ` of `M = U diag(s) Vᵀ`, exactly or by a polynomial.
//!
//! Polynomial methods normalise `X = M / (norm_factor ‖M‖_F + eps)` and repeat, for each `(a, b, c)`,
//!
//! ```text
//! A = X Xᵀ (on the short side),   X ← a X + (b A + c A²) X
//! ```
//!
//! which sends every singular value through `p(s) = a s + b s³ + c s⁵`. All of them are rotation
//! and transpose equivariant, so they run on the stored orientation.
//!
//! Where one side is more than 1.5 times the other, the steps are multiplied up on the Gram matrix, and X is multiplied
//! once every two or more steps:
//!
//! ```text
//! A = X Xᵀ, Q = I;   for each step: P = a I + b A + c A²,  Q ← P Q,  A ← P A P;   X ← Q X
//! ```
//!
//! The same up to rounding, with 28 r³ + 8 r²R instead of 10 r³ + 20 r²R operations for five steps. With the feature
//! `flex`, plain f32 and f64 tensors of Burn's CPU backend are iterated on in place.
//!
//! | method | map on [1e-3, 1] | source |
//! |---|---|---|
//! | `newton_schulz` (5 steps) | into [0.47, 1.21] | Keller Jordan, Muon, 2024 |
//! | `polar_express` (5 steps) | into [0.85, 1.15] | arXiv 2505.16932, safety factor 1.02 |
//! | `polynomial` | as given | |
//! | `svd` | exactly 1 | |

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::exact::map_singular_values;
use super::norms::frobenius_norm;
use super::one_sided::identity_like;
use crate::config::{ConfigError, check_keys, take_tag};
use crate::setting::{Given, Numbers, Setting};

/// Newton–Schulz quintic of Muon (Keller Jordan 2024).
pub const NEWTON_SCHULZ: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Polar Express (arXiv 2505.16932), five steps: lower bound 1e-3, cushion 0.02, safety factor 1.02.
pub const POLAR_EXPRESS: [[f64; 3]; 5] = [
    [8.156554524902461, -22.48329292557795, 15.878769915207462],
    [4.042929935166739, -2.808917465908714, 0.5000178451051316],
    [3.8916678022926607, -2.772484153217685, 0.5060648178503393],
    [3.285753657755655, -2.3681294933425376, 0.46449024233003106],
    [2.3465413258596377, -1.7097828382687081, 0.42323551169305323],
];

/// Every Polar Express step after the fifth.
pub const POLAR_EXPRESS_LIMIT: [f64; 3] = [1.875, -1.25, 0.375];

/// The safety factor by which Polar Express divides its input.
const POLAR_EXPRESS_NORM_FACTOR: f64 = 1.02;

/// How the polar factor is computed. Serialised as `{"method": "newton_schulz", "steps": 5, "eps": 1e-7}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", tag = "method", rename_all = "snake_case")]
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
        /// Number of steps, at least 1; the first five have coefficients of their own.
        steps: usize,
        /// Added to 1.02 times the Frobenius norm.
        eps: f64,
    },
    /// Any odd quintic schedule; refused if it leaves [0, 2] on the singular values that can occur.
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
        /// Relative cut-off below which a direction counts as noise and gives 0.
        rcond: f64,
    },
}

impl Default for Polar {
    fn default() -> Self {
        Polar::NewtonSchulz { steps: 5, eps: 1e-7 }
    }
}

impl TryFrom<Given> for Polar {
    type Error = ConfigError;

    fn try_from(Given(map): Given) -> Result<Self, ConfigError> {
        Self::try_from(map)
    }
}

impl Setting for Polar {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.validate().map_err(|error| within(key, error))
    }

    /// Every method as it is by default, and without its eps or cut-off.
    fn choices(_range: &()) -> Vec<Value> {
        let method = |name: &&str| match *name {
            "polynomial" => json!({"method": name, "coefficients": vec![[2.0, -1.5, 0.5]; 12], "norm_factor": 1.5}),
            _ => json!({"method": name}),
        };
        Self::METHODS.iter().map(method).flat_map(with_and_without_eps).collect()
    }
}

/// A method, and what is left of it without the numbers that keep small matrices small.
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

/// The error of a method, whose keys begin with `polar`, as that of the key that holds the method.
pub(super) fn within(key: &str, error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Value { key: inner, message } => {
            let inner = inner.strip_prefix("polar").unwrap_or(&inner);
            ConfigError::Value { key: format!("{key}{inner}"), message }
        }
        other => other,
    }
}

impl TryFrom<Map<String, Value>> for Polar {
    type Error = ConfigError;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, ConfigError> {
        let method = take_tag(&mut map, "method", "polar method", &Self::METHODS)?;
        let polar = match method.as_str() {
            "newton_schulz" => {
                check_keys(&map, &["steps", "eps"], &method)?;
                Polar::NewtonSchulz { steps: key(&map, "steps", Some(5))?, eps: key(&map, "eps", Some(1e-7))? }
            }
            "polar_express" => {
                check_keys(&map, &["steps", "eps"], &method)?;
                Polar::PolarExpress { steps: key(&map, "steps", Some(5))?, eps: key(&map, "eps", Some(1e-6))? }
            }
            "polynomial" => {
                check_keys(&map, &["coefficients", "norm_factor", "eps"], &method)?;
                Polar::Polynomial {
                    coefficients: key(&map, "coefficients", None)?,
                    norm_factor: key(&map, "norm_factor", Some(1.0))?,
                    eps: key(&map, "eps", Some(1e-7))?,
                }
            }
            _ => {
                check_keys(&map, &["rcond"], &method)?;
                Polar::Svd { rcond: key(&map, "rcond", Some(1e-5))? }
            }
        };
        Ok(polar)
    }
}

/// The value of a key, or its default; a required key has none.
pub(super) fn key<T: serde::de::DeserializeOwned>(
    map: &Map<String, Value>,
    name: &str,
    default: Option<T>,
) -> Result<T, ConfigError> {
    match (map.get(name), default) {
        (Some(value), _) => serde_json::from_value(value.clone())
            .map_err(|error| ConfigError::Value { key: format!("polar.{name}"), message: error.to_string() }),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(ConfigError::Value { key: format!("polar.{name}"), message: "is required".into() }),
    }
}

impl Polar {
    /// The names of the methods.
    pub const METHODS: [&'static str; 4] = ["newton_schulz", "polar_express", "polynomial", "svd"];

    /// Polar factor of every matrix of a stack `[batch, a, b]`, in either orientation.
    ///
    /// A zero matrix gives zero, also with `eps` 0. The input is not modified.
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

    /// Short name for plans, for example `newton_schulz5`.
    pub fn label(&self) -> String {
        match self {
            Polar::NewtonSchulz { steps, .. } => format!("newton_schulz{steps}"),
            Polar::PolarExpress { steps, .. } => format!("polar_express{steps}"),
            Polar::Polynomial { coefficients, .. } => format!("polynomial{}", coefficients.len()),
            Polar::Svd { .. } => "svd".into(),
        }
    }

    /// Refuses what cannot work: no steps, negative eps, a polynomial that amplifies or flips directions.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let bad = |key: &str, message: String| Err(ConfigError::Value { key: format!("polar.{key}"), message });
        match self {
            Polar::NewtonSchulz { steps, eps } | Polar::PolarExpress { steps, eps } => {
                steps.check("polar.steps", &(1..=99))?;
                eps.check("polar.eps", &Numbers::SIZE)?;
            }
            Polar::Svd { rcond } => {
                rcond.check("polar.rcond", &Numbers::FACTOR)?;
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

/// A singular value that can occur, and its image outside [0, 2], if there is one.
///
/// Checked on 4000 points from 1e-3 to 1.01, each divided by the norm factor: a rank-one matrix
/// normalised in low precision reaches slightly more than 1.
fn first_unsafe_value(coefficients: &[[f64; 3]], norm_factor: f64) -> Option<(f64, f64)> {
    let (low, high) = (1e-3_f64, 1.01_f64);
    (0..4000)
        .map(|i| low * (high / low).powf(i as f64 / 3999.0) / norm_factor)
        .map(|s| (s, scalar_map(coefficients, s)))
        .find(|(_, p)| !(0.0..=2.0).contains(p))
}

/// What a schedule does to one singular value `s`: the composition of `a s + b s³ + c s⁵`.
///
/// ```
/// // five Newton–Schulz steps send 0.1 to 0.7121…
/// let p = polaron::matrix::scalar_map(&[polaron::matrix::NEWTON_SCHULZ; 5], 0.1);
/// assert!((p - 0.7121200817).abs() < 1e-9);
/// ```
pub fn scalar_map(coefficients: &[[f64; 3]], s: f64) -> f64 {
    coefficients.iter().fold(s, |s, [a, b, c]| s * (a + s * s * (b + c * s * s)))
}

/// The polynomial iteration of the module's front page on every matrix of a stack `[batch, a, b]`.
pub fn polar_polynomial(stack: Tensor<3>, coefficients: &[[f64; 3]], norm_factor: f64, eps: f64) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let iteration = Iteration::new(coefficients, [height, width], stack.dtype(), norm_factor, eps);
    #[cfg(feature = "flex")]
    let stack = match super::host::run(stack, &iteration) {
        Ok(done) => return done,
        Err(stack) => stack,
    };
    on_device(stack, &iteration)
}

/// A polynomial iteration on matrices of one shape.
pub(super) struct Iteration<'a> {
    /// The steps; what is in one segment is multiplied up on the Gram matrix.
    pub segments: Vec<&'a [[f64; 3]]>,
    pub norm_factor: f64,
    pub eps: f64,
}

/// A matrix that is longer than this times its short side is cheaper to iterate on by its Gram matrix.
const GRAM_ASPECT: f64 = 1.5;

/// How much rounding errors of the Gram matrix may grow before it is formed anew.
///
/// A step multiplies small eigenvalues, and errors beside them, by a². Up to here the result is as near to the exact
/// iteration as the plain loop's, for condition numbers of 1e12 too, and singular values keep their bounds if the device
/// multiplies in TF32. Without a limit, five steps of Polar Express in TF32 reach singular values of 5 and 22.
const GRAM_GROWTH: f64 = 200.0;

impl<'a> Iteration<'a> {
    pub fn new(
        coefficients: &'a [[f64; 3]],
        shape: [usize; 2],
        dtype: DType,
        norm_factor: f64,
        eps: f64,
    ) -> Iteration<'a> {
        let (short, long) = (shape[0].min(shape[1]) as f64, shape[0].max(shape[1]) as f64);
        // Half precision is used up by the growth of a single step.
        let gram = long > GRAM_ASPECT * short && matches!(dtype, DType::F32 | DType::F64);
        let mut growth = 1.0;
        let segments = coefficients.chunk_by(|[a, ..], _| {
            growth *= a * a;
            let together = gram && growth <= GRAM_GROWTH;
            if !together {
                growth = 1.0;
            }
            together
        });
        Self { segments: segments.collect(), norm_factor, eps }
    }
}

/// The iteration in Burn's operations.
pub(super) fn on_device(stack: Tensor<3>, iteration: &Iteration<'_>) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let mut norm = frobenius_norm(stack.clone()) * iteration.norm_factor + iteration.eps;
    if iteration.eps == 0.0 {
        // 0 / 0 must be 0: a zero matrix has no direction to keep.
        norm = norm.clone().mask_fill(norm.equal_scalar(0.0), 1.0);
    }
    let mut x = stack / norm;
    for steps in &iteration.segments {
        let transposed = x.clone().swap_dims(1, 2);
        let wide = height <= width;
        let gram = if wide { x.clone().matmul(transposed) } else { transposed.matmul(x.clone()) };
        let multiplied = |factor: Tensor<3>, x: Tensor<3>| if wide { factor.matmul(x) } else { x.matmul(factor) };
        x = match **steps {
            // without an identity matrix: on a GPU every operation is a launch
            [[a, b, c]] => multiplied(powers(gram, b, c), x.clone()) + x * a,
            _ => multiplied(composed(gram, steps), x),
        };
    }
    x
}

/// `b A + c A²`
fn powers(gram: Tensor<3>, b: f64, c: f64) -> Tensor<3> {
    gram.clone().matmul(gram.clone()) * c + gram * b
}

/// The product of the steps' polynomials `a I + b A + c A²`, each of the Gram matrix that the iterate has then.
fn composed(mut gram: Tensor<3>, steps: &[[f64; 3]]) -> Tensor<3> {
    let identity = identity_like(&gram);
    let mut total: Option<Tensor<3>> = None;
    for (index, &[a, b, c]) in steps.iter().enumerate() {
        let step = powers(gram.clone(), b, c) + identity.clone() * a;
        if index + 1 < steps.len() {
            gram = step.clone().matmul(gram.matmul(step.clone()));
        }
        total = Some(match total {
            Some(total) => step.matmul(total),
            None => step,
        });
    }
    total.unwrap_or(identity)
}

/// Exact polar factor `Σ u_i v_iᵀ` over the singular values above `rcond` times the largest; the others give 0.
///
/// The decomposition is a host round trip in the precision of the tensor. A matrix with a NaN or an
/// infinity has no decomposition and gives NaN.
pub fn polar_svd(stack: Tensor<3>, rcond: f64) -> Tensor<3> {
    map_singular_values(stack, |_, s| {
        let cut_off = rcond * s.first().copied().unwrap_or(0.0);
        s.iter().map(|s| f64::from(u8::from(*s > cut_off))).collect()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    use crate::random::tests::numbers;

    /// Inputs and outputs of the published maps, f64.
    const INPUTS: [f64; 7] = [1e-3, 1e-2, 0.1, 0.3, 0.5, 0.9, 1.0];
    const NEWTON_SCHULZ_5: [f64; 7] =
        [0.4705439512, 0.6989170633, 0.7121200817, 1.0795922929, 0.7654385305, 0.6820106703, 0.6964364095];
    const POLAR_EXPRESS_5: [f64; 7] =
        [0.8588726435, 1.0271101784, 1.0591611380, 0.9831419530, 0.9106108757, 0.8749216556, 0.8591289631];

    fn diagonal(values: &[f64], dtype: DType) -> Tensor<3> {
        let n = values.len();
        let data: Vec<f64> = (0..n * n).map(|k| if k / n == k % n { values[k / n] } else { 0.0 }).collect();
        let data = TensorData::new(data, [1, n, n]).convert_dtype(dtype);
        Tensor::from_data(data, (&Device::flex(), dtype))
    }

    pub fn values(tensor: Tensor<3>) -> Vec<f64> {
        tensor.into_data().convert::<f64>().iter::<f64>().collect()
    }

    /// What the iteration makes of diag(INPUTS), with a norm factor that undoes the normalisation.
    fn mapped(schedule: &[[f64; 3]], dtype: DType) -> Vec<f64> {
        let norm = INPUTS.iter().map(|s| s * s).sum::<f64>().sqrt();
        let out = values(polar_polynomial(diagonal(&INPUTS, dtype), schedule, 1.0 / norm, 0.0));
        (0..INPUTS.len()).map(|i| out[i * INPUTS.len() + i]).collect()
    }

    #[test]
    fn schedules_map_singular_values_as_published() {
        let express = Polar::PolarExpress { steps: 5, eps: 0.0 }.schedule();
        // The published digits end at 1e-10. In f32 Polar Express cancels terms of 8, 22 and 16 in
        // its first step, which costs more digits than Newton–Schulz loses.
        for (schedule, expected, f32_tolerance) in
            [(vec![NEWTON_SCHULZ; 5], NEWTON_SCHULZ_5, 2e-6), (express, POLAR_EXPRESS_5, 1e-5)]
        {
            for (s, want) in INPUTS.into_iter().zip(expected) {
                assert!((scalar_map(&schedule, s) - want).abs() < 1e-9, "{s}");
            }
            for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, f32_tolerance)] {
                for (got, want) in mapped(&schedule, dtype).into_iter().zip(expected) {
                    assert!((got - want).abs() < tolerance, "{dtype:?}: {got} instead of {want}");
                }
            }
        }
    }

    /// A matrix `[1, short, long]` with these singular values.
    fn with_spectrum(spectrum: &[f64], long: usize) -> Tensor<3> {
        map_singular_values(numbers([1, spectrum.len(), long], 3, DType::F64), |_, _| spectrum.to_vec())
    }

    /// The singular values of 16 directions, from 1 down to 1 / `condition`.
    fn falling(condition: f64) -> Vec<f64> {
        (0..16).map(|i| condition.powf(-f64::from(i) / 15.0)).collect()
    }

    #[test]
    fn the_gram_form_gives_what_the_plain_loop_gives() {
        let stable = vec![[2.0, -1.5, 0.5]; 12];
        let schedules = [vec![NEWTON_SCHULZ; 5], POLAR_EXPRESS.to_vec(), stable, vec![[1.5, -0.5, 0.0]; 9]];
        for (schedule, long) in schedules.iter().flat_map(|schedule| [16, 32, 64, 128].map(|long| (schedule, long))) {
            for (condition, dtype, tolerance) in
                [(1e1, DType::F64, 1e-12), (1e6, DType::F64, 1e-12), (1e1, DType::F32, 1e-4), (1e6, DType::F32, 1e-4)]
            {
                let exact = with_spectrum(&falling(condition), long);
                let plain = Iteration { segments: schedule.chunks(1).collect(), norm_factor: 1.02, eps: 0.0 };
                let want = values(on_device(exact.clone(), &plain));
                let gram = Iteration::new(schedule, [16, long], dtype, 1.02, 0.0);
                assert_eq!(gram.segments.len() < schedule.len(), long > 16);
                let x = exact.cast(dtype);
                for got in [on_device(x.clone(), &gram), on_device(x.swap_dims(1, 2), &gram).swap_dims(1, 2)] {
                    for (got, want) in values(got).into_iter().zip(&want) {
                        let at = format!("{dtype:?}, {long}, condition {condition}, {} steps", schedule.len());
                        assert!((got - want).abs() < tolerance, "{at}: {got} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_gram_matrix_is_formed_anew_before_rounding_errors_have_grown() {
        let lengths = |schedule: &[[f64; 3]], shape, dtype| -> Vec<usize> {
            Iteration::new(schedule, shape, dtype, 1.0, 0.0).segments.iter().map(|steps| steps.len()).collect()
        };
        let stable = [[2.0, -1.5, 0.5]; 12];
        assert_eq!(lengths(&POLAR_EXPRESS, [128, 384], DType::F32), [2, 3]);
        assert_eq!(lengths(&[NEWTON_SCHULZ; 5], [384, 128], DType::F64), [3, 2]);
        assert_eq!(lengths(&stable, [384, 128], DType::F32), [4, 4, 4]);
        assert_eq!(lengths(&stable, [192, 128], DType::F32), [1; 12]);
        assert_eq!(lengths(&stable, [384, 128], DType::BF16), [1; 12]);
    }

    #[test]
    fn the_bands_of_five_steps_are_as_documented() {
        let grid = || (0..=20_000).map(|i| 1e-3_f64.powf(1.0 - f64::from(i) / 20_000.0));
        let band = |schedule: &[[f64; 3]]| {
            grid().map(|s| scalar_map(schedule, s)).fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p), h.max(p)))
        };
        let (low, high) = band(&[NEWTON_SCHULZ; 5]);
        assert!((low - 0.470544).abs() < 1e-5 && (high - 1.202369).abs() < 1e-5, "{low} {high}");
        let (low, high) = band(&POLAR_EXPRESS);
        assert!((low - 0.858873).abs() < 1e-5 && (high - 1.141127).abs() < 1e-5, "{low} {high}");
    }

    #[test]
    fn unsafe_schedules_are_refused_with_the_singular_value_that_breaks_them() {
        let aol_old = vec![
            [4.0098, -7.0585, 2.4635],
            [3.4585, -5.5479, 2.5959],
            [2.7573, -3.2939, 1.4254],
            [2.7215, -3.0494, 1.3169],
        ];
        let cans = vec![
            [8.4703, -25.1081, 18.6293],
            [4.1828, -3.1087, 0.5806],
            [3.9619, -2.9541, 0.5630],
            [3.2866, -2.4647, 0.5074],
            [2.2737, -1.6447, 0.4162],
        ];
        for coefficients in [aol_old, cans] {
            let polar = Polar::Polynomial { coefficients, norm_factor: 1.0, eps: 1e-7 };
            let message = polar.validate().unwrap_err().to_string();
            assert!(message.contains("outside [0, 2]"), "{message}");
        }
        let stable = Polar::Polynomial { coefficients: vec![[2.0, -1.5, 0.5]; 12], norm_factor: 1.0, eps: 1e-7 };
        assert!(stable.validate().is_ok());
    }

    #[test]
    fn a_zero_matrix_gives_zero_by_every_method() {
        let zero = Tensor::<3>::zeros([2, 3, 5], &Device::flex());
        for polar in [
            Polar::NewtonSchulz { steps: 5, eps: 0.0 },
            Polar::PolarExpress { steps: 5, eps: 1e-6 },
            Polar::Svd { rcond: 1e-5 },
        ] {
            assert!(values(polar.apply(zero.clone())).into_iter().all(|v| v == 0.0), "{polar:?}");
        }
    }

    #[test]
    fn a_stack_gives_what_its_matrices_give_one_by_one() {
        let stack = numbers([3, 4, 6], 1, DType::F32);
        for polar in [Polar::default(), Polar::Svd { rcond: 1e-5 }] {
            let whole = values(polar.apply(stack.clone()));
            let parts: Vec<f64> = (0..3).flat_map(|i| values(polar.apply(stack.clone().narrow(0, i, 1)))).collect();
            assert_eq!(whole, parts, "{polar:?}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest_valid_one() {
        let error = serde_json::from_str::<Polar>(r#"{"method": "newton_schulz", "stepz": 5}"#).unwrap_err();
        assert!(error.to_string().contains("\"stepz\", did you mean \"steps\""), "{error}");
        let error = serde_json::from_str::<Polar>(r#"{"method": "newton_shulz"}"#).unwrap_err();
        assert!(error.to_string().contains("did you mean \"newton_schulz\""), "{error}");
    }
}
