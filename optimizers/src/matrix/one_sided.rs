//! One-sided inverse roots: `(X Xᵀ + e I)^(-1/2) X` or `X (Xᵀ X + e I)^(-1/2)`.
//!
//! Both sides are the same function `s → s / √(s² + e)` of the singular values, so the smaller Gram
//! matrix serves either; only the size of a relative `e` depends on the side.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::exact::map_singular_values;
use super::norms::{divide_or_zero, frobenius_norm, hypotenuse};
use super::polar::{key, within};
use super::{Axis, EpsMode, Matrix, POLAR_EXPRESS_LIMIT, Polar};
use crate::config::{ConfigError, check_keys, take_tag};
use crate::setting::{Given, Setting};

/// Polar Express without a safety factor (arXiv 2505.16932, the paper's own list, but for its last row).
const POLAR_EXPRESS_PAPER: [[f64; 3]; 7] = [
    [8.28721201814563, -23.595886519098837, 17.300387312530933],
    [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
    [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
    [3.3184196573706015, -2.488488024314874, 0.51004894012372],
    [2.300652019954817, -1.6689039845747493, 0.4188073119525673],
    [1.891301407787398, -1.2679958271945868, 0.37680408948524835],
    [1.8750014808534479, -1.2500016453999487, 0.3750001645474248],
];

/// By which the coefficients of the coupled iteration allow the spectrum to be larger than 1.
const SAFETY: f64 = 1.05;

/// How a one-sided root is computed. The methods of [`Polar`] are allowed too; they give the
/// two-sided polar factor and ignore side and ridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", tag = "method", rename_all = "snake_case")]
pub enum OneSided {
    /// Exact, on the host.
    #[default]
    GramEigh,
    /// Coupled Polar Express iteration on the Gram matrix (reference code of arXiv 2605.18106).
    ///
    /// Singular values of the result lie in [.85, 1.12] for condition numbers up to 100.
    GramPolarExpress {
        /// Number of steps, default 5.
        steps: usize,
    },
    /// The two-sided polar factor.
    #[serde(untagged)]
    Polar(Polar),
}

impl TryFrom<Given> for OneSided {
    type Error = ConfigError;

    fn try_from(Given(map): Given) -> Result<Self, ConfigError> {
        Self::try_from(map)
    }
}

impl Setting for OneSided {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.validate().map_err(|error| within(key, error))
    }

    fn choices(range: &()) -> Vec<Value> {
        let gram = Self::GRAM.iter().map(|method| json!({"method": method}));
        gram.chain(Polar::choices(range)).collect()
    }
}

impl TryFrom<Map<String, Value>> for OneSided {
    type Error = ConfigError;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, ConfigError> {
        let methods = [Self::GRAM.as_slice(), Polar::METHODS.as_slice()].concat();
        let tagged = map.clone();
        match take_tag(&mut map, "method", "polar method", &methods)?.as_str() {
            "gram_eigh" => {
                check_keys(&map, &[], "gram_eigh")?;
                Ok(OneSided::GramEigh)
            }
            "gram_polar_express" => {
                check_keys(&map, &["steps"], "gram_polar_express")?;
                Ok(OneSided::GramPolarExpress { steps: key(&map, "steps", Some(5))? })
            }
            _ => Polar::try_from(tagged).map(OneSided::Polar),
        }
    }
}

impl OneSided {
    /// The methods that are no [`Polar`].
    const GRAM: [&'static str; 2] = ["gram_eigh", "gram_polar_express"];

    /// Short name for plans.
    pub fn label(&self) -> String {
        match self {
            OneSided::GramEigh => "exact root".into(),
            OneSided::GramPolarExpress { steps } => format!("gram_polar_express{steps}"),
            OneSided::Polar(polar) => polar.label(),
        }
    }

    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            OneSided::GramPolarExpress { steps } => steps.check("polar.steps", &(1..=99)),
            OneSided::Polar(polar) => polar.validate(),
            OneSided::GramEigh => Ok(()),
        }
    }

    /// The root on `side` of every matrix; `e` is `eps`, or `eps` times the mean eigenvalue of the
    /// Gram matrix of that side. A zero matrix gives zero.
    pub fn apply(&self, matrix: Matrix, side: Axis, eps: f64, mode: EpsMode) -> Matrix {
        let size = match side {
            Axis::Output => matrix.outputs(),
            Axis::Input => matrix.inputs(),
        };
        match self {
            OneSided::GramEigh => matrix.map(|x| gram_root(x, size, eps, mode)),
            OneSided::GramPolarExpress { steps } => matrix.map(|x| coupled_root(x, size, eps, mode, *steps)),
            OneSided::Polar(polar) => matrix.map(|x| polar.apply(x)),
        }
    }
}

/// Exactly `s → s / √(s² + e)`.
fn gram_root(stack: Tensor<3>, size: usize, eps: f64, mode: EpsMode) -> Tensor<3> {
    map_singular_values(stack, |_, s| {
        let shift = match mode {
            EpsMode::Absolute => eps,
            EpsMode::Relative => eps * s.iter().map(|s| s * s).sum::<f64>() / size as f64,
        };
        s.iter().map(|s| if *s == 0.0 { 0.0 } else { s / (s * s + shift).sqrt() }).collect()
    })
}

/// `A^(-1/2) X` on the short side, `A = X Xᵀ + e I`, by the coupled iteration
///
/// ```text
/// Y = A / α, Z = I, α = 1.02 ‖A‖_F + e
/// R = sym(I - Z Y),  T = (a+b+c) I - (b+2c) R + c R²,  Y ← Y T,  Z ← T Z;   result Z X / √α
/// ```
///
/// `size` is that of the Gram matrix the rule speaks of: its norm counts `e` once for every one of
/// its eigenvalues, also those that the short side does not have.
fn coupled_root(stack: Tensor<3>, size: usize, eps: f64, mode: EpsMode, steps: usize) -> Tensor<3> {
    let [_, height, width] = stack.dims();
    let tall = height > width;
    // Normalised first: the Gram matrix of gradients of 1e12 and its square do not fit into f32. The ridge of 1e-30 does
    // not either where it is measured in their norm, so an absolute one takes part in the normalisation.
    let norm = frobenius_norm(stack.clone());
    let (norm, shift) = match mode {
        EpsMode::Relative => {
            let shift = norm.full_like(eps / size as f64);
            (norm, shift)
        }
        EpsMode::Absolute => {
            let root = norm.full_like(eps.sqrt());
            let norm = hypotenuse(norm, root.clone());
            (norm.clone(), divide_or_zero(root, norm).square())
        }
    };
    let x = divide_or_zero(stack, norm);
    let transposed = x.clone().swap_dims(1, 2);
    let gram = if tall { transposed.matmul(x.clone()) } else { x.clone().matmul(transposed) };
    let root = inverse_square_root(gram, shift, size, steps);
    if tall { x.matmul(root) } else { root.matmul(x) }
}

fn inverse_square_root(gram: Tensor<3>, shift: Tensor<3>, size: usize, steps: usize) -> Tensor<3> {
    let short = gram.dims()[1];
    let eye = identity_like(&gram);
    let gram = gram + shift.clone() * eye.clone();
    let missing = size.saturating_sub(short) as f64;
    let norm = (frobenius_norm(gram.clone()).square() + shift.clone().square() * missing).sqrt();
    let alpha = norm * 1.02 + shift;
    let zero = alpha.clone().equal_scalar(0.0);
    let alpha = alpha.mask_fill(zero, 1.0);
    let (mut y, mut z) = (gram / alpha.clone(), eye.clone());
    for [a, b, c] in coupled_schedule(steps) {
        let residual = eye.clone() - z.clone().matmul(y.clone());
        let residual = (residual.clone() + residual.swap_dims(1, 2)) * 0.5;
        let square = residual.clone().matmul(residual.clone());
        let t = eye.clone() * (a + b + c) - residual * (b + 2.0 * c) + square * c;
        y = y.matmul(t.clone());
        z = t.matmul(z);
    }
    z / alpha.sqrt()
}

fn coupled_schedule(steps: usize) -> impl Iterator<Item = [f64; 3]> {
    let safe = |[a, b, c]: [f64; 3]| [a / SAFETY, b / SAFETY.powi(3), c / SAFETY.powi(5)];
    POLAR_EXPRESS_PAPER.into_iter().map(safe).chain(std::iter::repeat(POLAR_EXPRESS_LIMIT)).take(steps)
}

/// The identity, in the shape and dtype of a stack of square matrices.
pub(crate) fn identity_like(stack: &Tensor<3>) -> Tensor<3> {
    let [batch, size, _] = stack.dims();
    let eye = Tensor::<2>::eye(size, &stack.device()).cast(stack.dtype());
    eye.unsqueeze::<3>().expand([batch, size, size])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device};

    use crate::matrix::Layout;
    use crate::random::tests::numbers;

    fn random(shape: [usize; 3]) -> Matrix {
        Matrix::new(numbers(shape, 1, DType::F64), Layout::OutIn)
    }

    fn largest(x: Tensor<3>) -> f64 {
        x.abs().max().into_scalar()
    }

    #[test]
    fn the_iteration_is_near_the_exact_root_on_both_sides() {
        for shape in [[2, 6, 9], [2, 9, 6], [1, 5, 5]] {
            for side in [Axis::Output, Axis::Input] {
                let x = random(shape);
                let exact = OneSided::GramEigh.apply(x.clone(), side, 1e-8, EpsMode::Relative).into_tensor();
                let steps = OneSided::GramPolarExpress { steps: 12 };
                let near = steps.apply(x, side, 1e-8, EpsMode::Relative).into_tensor();
                // converged: what is left is the rounding of the coupled form
                assert!(largest(exact - near) < 1e-6, "{shape:?} {side:?}");
            }
        }
    }

    #[test]
    fn a_zero_matrix_gives_zero_by_every_method() {
        let zero = Matrix::new(Tensor::zeros([2, 3, 5], &Device::flex()), Layout::InOut);
        for method in [OneSided::GramEigh, OneSided::GramPolarExpress { steps: 5 }, OneSided::Polar(Polar::default())] {
            for mode in [EpsMode::Relative, EpsMode::Absolute] {
                let root = method.apply(zero.clone(), Axis::Output, 1e-8, mode);
                assert_eq!(largest(root.into_tensor()), 0.0, "{method:?} {mode:?}");
            }
        }
    }

    #[test]
    fn methods_round_trip_and_slips_name_the_nearest() {
        for text in [
            r#"{"method":"gram_eigh"}"#,
            r#"{"method":"gram_polar_express","steps":4}"#,
            r#"{"method":"newton_schulz","steps":5,"eps":1e-7}"#,
        ] {
            let method: OneSided = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&method).unwrap(), text);
        }
        let error = serde_json::from_str::<OneSided>(r#"{"method": "gram_eig"}"#).unwrap_err().to_string();
        assert!(error.contains("did you mean \"gram_eigh\""), "{error}");
        assert!(serde_json::from_str::<OneSided>(r#"{"method": "gram_eigh", "steps": 3}"#).is_err());
    }
}
