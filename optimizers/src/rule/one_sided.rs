//! How a one-sided inverse root is computed, as a setting.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::polar::{Keys, check_exact, within};
use super::{Cost, Polar};
use crate::matrix::{Axis, EpsMode, Matrix, appended_root, coupled_root, gram_root, root_level};
use crate::setting::{ConfigError, Given, Setting, take_tag};

/// How a one-sided root is computed. The methods of [`Polar`] are allowed too; they compute the
/// two-sided polar factor and ignore side and ridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", tag = "method", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OneSided {
    /// Products only and as good as exact: the first columns of the polar factor of `[X | √e I]` by the ten steps of
    /// [`Polar::Converged`]. In f32 within 0.03 % of `gram_eigh`, on spectra with a condition number of 1e6 or not of full rank
    /// within 1.5 %, for `eps` from 1e-8 on.
    #[default]
    ConvergedRoot,
    /// Exact, on the host.
    GramEigh,
    /// Coupled Polar Express iteration on the Gram matrix (reference code of arXiv 2605.18106).
    ///
    /// Singular values of the result lie in [.85, 1.12] for condition numbers up to 100, in [.65, 1.12] up to 1e3. A Gram matrix
    /// of f32 knows singular values above 3e-4 of the largest only, so that more steps do not help beyond.
    GramPolarExpress {
        /// Number of steps, default 5.
        steps: usize,
    },
    /// The two-sided polar factor.
    #[serde(untagged)]
    Polar(Polar),
}

impl Setting for OneSided {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.validate().map_err(|error| within(key, error))
    }

    fn choices(range: &()) -> Vec<Value> {
        let roots = Self::ROOTS.iter().map(|method| json!({"method": method}));
        roots.chain(Polar::choices(range)).collect()
    }
}

impl TryFrom<Given> for OneSided {
    type Error = ConfigError;

    fn try_from(Given(map): Given) -> Result<Self, ConfigError> {
        let methods = [Self::ROOTS.as_slice(), Polar::METHODS.as_slice()].concat();
        let mut own = map.clone();
        let method = take_tag(&mut own, "method", "polar method", &methods)?;
        let keys = Keys(&own);
        match method.as_str() {
            "converged_root" => keys.check(&[], &method).map(|()| OneSided::ConvergedRoot),
            "gram_eigh" => keys.check(&[], &method).map(|()| OneSided::GramEigh),
            "gram_polar_express" => {
                keys.check(&["steps"], &method)?;
                Ok(OneSided::GramPolarExpress { steps: keys.get("steps", Some(5))? })
            }
            _ => Polar::try_from(Given(map)).map(OneSided::Polar),
        }
    }
}

impl OneSided {
    /// The methods that are not in [`Polar`].
    const ROOTS: [&'static str; 3] = ["converged_root", "gram_eigh", "gram_polar_express"];

    /// Short name for plans.
    pub fn label(&self) -> String {
        match self {
            OneSided::ConvergedRoot => "converged root".into(),
            OneSided::GramEigh => "exact root".into(),
            OneSided::GramPolarExpress { steps } => format!("gram_polar_express{steps}"),
            OneSided::Polar(polar) => polar.label(),
        }
    }

    /// Work for one matrix, followed by more work.
    pub(crate) fn cost(&self, more: &str) -> Cost {
        match self {
            OneSided::ConvergedRoot => Polar::Converged.cost_appended(more),
            OneSided::GramEigh => Cost::host(more.trim_start_matches(" + ")),
            // Two products of the short side n per matrix, and four of n × n in every step.
            OneSided::GramPolarExpress { steps } => {
                let cubes = 8 * steps + 2;
                Cost::device(format!("4 mn² + {cubes} n³{more}")).with_products([4, cubes])
            }
            OneSided::Polar(polar) => polar.cost(more),
        }
    }

    /// Refuses values that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            OneSided::GramPolarExpress { steps } => steps.check("polar.steps", &(1..=99)),
            OneSided::Polar(polar) => polar.validate(),
            OneSided::ConvergedRoot => Ok(()),
            OneSided::GramEigh => check_exact("polar.method", "gram_eigh"),
        }
    }

    /// The root on `side` of every matrix; `e` is `eps`, or `eps` times the mean eigenvalue of the
    /// Gram matrix of that side. A zero matrix returns zero.
    pub fn apply(&self, matrix: Matrix, side: Axis, eps: f64, mode: EpsMode) -> Matrix {
        let size = matrix.size(side);
        match self {
            OneSided::ConvergedRoot if eps == 0.0 => Polar::Converged.apply(matrix),
            OneSided::ConvergedRoot => {
                let level = root_level(matrix.tensor(), size, eps, mode);
                appended_root(matrix, level, |longer| Polar::Converged.apply(longer))
            }
            OneSided::GramEigh => matrix.map(|x| gram_root(x, size, eps, mode)),
            OneSided::GramPolarExpress { steps } => matrix.map(|x| coupled_root(x, size, eps, mode, *steps)),
            OneSided::Polar(polar) => polar.apply(matrix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, Tensor};

    use crate::matrix::Layout;
    use crate::setting::numbers;

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
        for method in [
            OneSided::ConvergedRoot,
            OneSided::GramEigh,
            OneSided::GramPolarExpress { steps: 5 },
            OneSided::Polar(Polar::default()),
        ] {
            for mode in [EpsMode::Relative, EpsMode::Absolute] {
                let root = method.apply(zero.clone(), Axis::Output, 1e-8, mode);
                assert_eq!(largest(root.into_tensor()), 0.0, "{method:?} {mode:?}");
            }
        }
    }

    #[test]
    fn methods_round_trip_and_slips_name_the_nearest() {
        for text in [
            r#"{"method":"converged_root"}"#,
            r#"{"method":"gram_eigh"}"#,
            r#"{"method":"gram_polar_express","steps":4}"#,
            r#"{"method":"newton_schulz","steps":5,"eps":1e-7}"#,
        ] {
            let method: OneSided = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&method).unwrap(), text);
        }
        let error = serde_json::from_str::<OneSided>(r#"{"method": "gram_eig"}"#).unwrap_err().to_string();
        assert!(error.contains("did you mean `gram_eigh`"), "{error}");
        assert!(serde_json::from_str::<OneSided>(r#"{"method": "gram_eigh", "steps": 3}"#).is_err());
    }
}
