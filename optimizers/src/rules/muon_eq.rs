//! MuonEq (arXiv 2603.28254): normalise output or input units to equal norm, then orthogonalise.
//!
//! ```text
//! r_i = Σ_j d_ij²  (output unit i),   c_j = Σ_i d_ij²  (input unit j),   both of the same direction d
//! output: Y_ij = d_ij (r_i + e)^x        input: Y_ij = d_ij (c_j + e)^x        both: the product of the two factors
//! U = scale · polar(Y)                   x = exponent = -1/2
//! longer: output if m > n, input if m < n, and Y = d for a square matrix
//! iterations: U = polar(Y), then each time but the first Y_i ← Y_i ((min(m, n)/units) / max(‖u_i‖², 1e-14))^damping, U = polar(Y)
//! ```
//!
//! **Singular values**: all about 1, as with Muon; what changes is the matrix whose polar factor is
//! taken. Badly scaled units no longer hide part of the spectrum from the polynomial, which reaches
//! only singular values above about 1.5e-3 of the norm. `output` is the paper's "rows", `input` its
//! "columns". `both` with exponent -1/2 is of degree -1 in the gradient (for huge gradients the
//! `eps` of the polynomial dominates); -1/4 makes it scale-free.
//!
//! `longer` with two iterations is Aurora (github.com/tilde-research/aurora-release): on the longer axis the units of a polar
//! factor differ in norm, and the second pass makes them more alike. Each iteration costs a polar factor. A `clip` limits
//! the first factors only; `both` has no iterations.
//!
//! **When**: instead of Muon, if output units of the gradient differ in size (mostly tall
//! matrices). Extra cost over Muon: 3 mn multiply-adds, 6 mn with `both`.
//!
//! **Claimed** (paper, 1B parameters, 21B tokens, loss read off a figure): 0.016 to 0.029 below Muon
//! at the same learning rate.

use std::cmp::Ordering;

use burn::tensor::Tensor;

use crate::matrix::{Axis, EpsMode, InRange, Matrix, divide_or_zero, frobenius_norm, power, unit_sums};
use crate::rule::{
    About, Gain, Kind, Memory, Pipeline, Polar, Rule, StackRow, Stage, SymmetryRow, Update, kind_settings,
};
use crate::setting::{ConfigError, Numbers, choice};

choice! {
    /// Which units are normalised to equal norm.
    #[derive(Default)]
    pub enum Equilibrate {
        /// Output units (the paper's rows).
        #[default]
        #[serde(alias = "rows")]
        Output = "output",
        /// Input units (the paper's columns).
        #[serde(alias = "columns")]
        Input = "input",
        /// Both at once, from the sums of the same matrix.
        Both = "both",
        /// The units of the longer axis; a square matrix is not equilibrated.
        Longer = "longer",
    }
}

/// As in Aurora.
const DAMPING: f64 = 0.5;

/// The least squared norm of a unit of a polar factor, as in Aurora.
const LEAST: f64 = 1e-14;

kind_settings! {
    /// Settings of MuonEq, and the rule itself.
    pub struct MuonEqConfig {
        momentum: 0.95, HeavyBall, nesterov: true, scale: MatchRmsAdamw;
        /// Which units are normalised to equal norm.
        equilibrate, with_equilibrate: Equilibrate = Equilibrate::Output;
        /// Power of the units' sums of squares.
        exponent, with_exponent: f64 = -0.5, in Numbers::from_to(-1.0, 0.0);
        /// Added to the sums of squares, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// Whether `eps` is measured in the mean sum of squares.
        eps_mode, with_eps_mode: EpsMode = EpsMode::Relative;
        /// Limits every factor to `[1/clip, clip]`, at least 1.
        clip, with_clip: Option<f64> = None, in Numbers::from_to(1.0, 1e30);
        /// With `both`: from this step on (the first is 1) only `output`.
        phase, with_phase: Option<u64> = None, in 1..=u64::MAX;
        /// How often the result is orthogonalised; after each but the last time the units of the polar factor decide how
        /// the matrix is equilibrated once more.
        iterations, with_iterations: usize = 1, in 1..=99;
        /// How far an iteration goes, from 0 to 1.
        damping, with_damping: f64 = DAMPING, in Numbers::from_to(0.0, 1.0);
        /// How the result is orthogonalised.
        polar, with_polar: Polar = Polar::default();
    }
}

impl Kind for MuonEqConfig {
    fn pipeline(&self) -> Pipeline {
        self.assemble(self.clone())
    }

    fn about(&self) -> About {
        let (units, extra) = match self.equilibrate {
            Equilibrate::Output => ("(Σ_j d_ij²)^x", " + 3 mn"),
            Equilibrate::Input => ("(Σ_i d_ij²)^x", " + 3 mn"),
            Equilibrate::Both => ("(Σ_j d_ij²)^x (Σ_i d_ij²)^x", " + 6 mn"),
            Equilibrate::Longer => ("(Σ d²)^x over the units of the longer axis", " + 3 mn"),
        };
        let (again, times) = match self.iterations {
            1 => (String::new(), String::new()),
            count => (
                format!(", {} times more Y_i ← Y_i ((r/units)/‖u_i‖²)^{}, u = polar(Y)", count - 1, self.damping),
                format!(" × {count}"),
            ),
        };
        About {
            formula: self.formula(&format!("U = polar(Y), Y_ij = d_ij {units}, x = {}{again}", self.exponent)),
            source: "arXiv 2603.28254",
            cost: self.polar.cost(extra).times(self.iterations),
            detail: format!("{}{times}, {}", self.equilibrate.name(), self.polar.label()),
            stack: StackRow::new(0.01, 0.01, "MuonEq for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("muon_eq output", "", SymmetryRow::OUTPUT_UNITS, 0),
                SymmetryRow::new("muon_eq input", r#"{"equilibrate":"input"}"#, SymmetryRow::INPUT_UNITS, 0),
                SymmetryRow::new("muon_eq longer", r#"{"equilibrate":"longer"}"#, SymmetryRow::EITHER_UNITS, 0),
                SymmetryRow::new(
                    "muon_eq aurora",
                    r#"{"equilibrate":"longer","iterations":2}"#,
                    SymmetryRow::EITHER_UNITS,
                    0,
                ),
            ],
            gain: Ok(Gain::ORTHOGONAL),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| Err(ConfigError::value(format!("muon_eq.{key}"), message));
        if self.iterations > 1 && self.equilibrate == Equilibrate::Both {
            return refuse("iterations", "must be 1 with equilibrate = \"both\"; choose longer, output or input");
        }
        if self.iterations == 1 && self.damping != DAMPING {
            return refuse("damping", "has no effect with iterations = 1; set iterations = 2, or remove it");
        }
        Ok(())
    }
}

impl MuonEqConfig {
    /// The axes whose units are scaled in a step, for a matrix of this shape.
    fn axes(&self, step: u64, matrix: &Matrix) -> &'static [Axis] {
        let only_output = self.phase.is_some_and(|phase| step >= phase);
        match self.equilibrate {
            Equilibrate::Output => &[Axis::Output],
            Equilibrate::Input => &[Axis::Input],
            Equilibrate::Both if only_output => &[Axis::Output],
            Equilibrate::Both => &[Axis::Output, Axis::Input],
            Equilibrate::Longer => match matrix.outputs().cmp(&matrix.inputs()) {
                Ordering::Greater => &[Axis::Output],
                Ordering::Less => &[Axis::Input],
                Ordering::Equal => &[],
            },
        }
    }

    /// The factor of every unit along `axis` that brings the units of this polar factor nearer to equal norm.
    fn correction(&self, polar: &Matrix, axis: Axis) -> Tensor<3> {
        let wanted = polar.rank() as f64 / polar.size(axis) as f64;
        power(unit_sums(polar, axis).clamp_min(LEAST).recip() * wanted, self.damping)
    }

    /// `(sum + e)^exponent`, for the matrix scaled into range unless there is a `clip`; 1 for units that are zero and stay
    /// zero.
    fn factor(&self, sums: Tensor<3>, range: &InRange) -> Tensor<3> {
        let MuonEqConfig { exponent, eps, eps_mode, clip, .. } = *self;
        let shift = match eps_mode {
            EpsMode::Relative => eps_mode.shift(eps, &sums),
            EpsMode::Absolute => range.by_factor(|factor| eps * factor * factor),
        };
        let total = sums + shift;
        let zero = total.clone().equal_scalar(0.0);
        let total = total.mask_fill(zero, 1.0);
        let factor = power(total, exponent);
        match clip {
            Some(clip) => (factor * range.by_factor(|moved| moved.powf(-2.0 * exponent))).clamp(1.0 / clip, clip),
            None => factor,
        }
    }

    /// `Y` of the formulas in step `step` (the first is 1): the matrices whose polar factors the rule takes, each up to a positive
    /// factor.
    pub fn equilibrated(&self, matrix: Matrix, step: u64) -> Matrix {
        match self.axes(step, &matrix) {
            [] => matrix,
            axes => self.balanced(matrix, axes).0,
        }
    }

    /// The same, and how the matrix was scaled into range before.
    fn balanced(&self, matrix: Matrix, axes: &[Axis]) -> (Matrix, InRange) {
        let stack = matrix.tensor().clone();
        let range = match self.eps_mode {
            EpsMode::Absolute if self.eps > 1e-30 => InRange::large_matrices(stack),
            _ => InRange::matrices(stack),
        };
        let matrix = matrix.map(|_| range.stack.clone());
        let factors: Vec<Tensor<3>> = axes.iter().map(|axis| self.factor(unit_sums(&matrix, *axis), &range)).collect();
        (matrix.map(|m| factors.into_iter().fold(m, |m, factor| m * factor)), range)
    }

    /// The equilibrated matrix in its true scale: if gradients of 1e30 make it tiny, the `eps` of the polynomial dominates
    /// and the update becomes small.
    fn in_its_units(&self, y: Tensor<3>, range: &InRange, axes: usize) -> Tensor<3> {
        let degree = match self.clip {
            Some(_) => 1.0,
            None => 1.0 + 2.0 * self.exponent * axes as f64,
        };
        if degree == 0.0 || self.polar.is_scale_free() {
            return y;
        }
        let norm = frobenius_norm(y.clone());
        let true_norm = (norm.clone() * range.by_factor(|moved| moved.powf(-degree))).clamp_max(1e30);
        divide_or_zero(y, norm) * true_norm
    }
}

impl Rule for MuonEqConfig {
    fn advance(&self, Stage { matrix: momentum, number, .. }: Stage, _memory: &mut Memory) -> Update {
        let axes = self.axes(number, &momentum);
        if axes.is_empty() {
            return self.polar.apply(momentum).into();
        }
        let (mut equilibrated, range) = self.balanced(momentum, axes);
        let polar = |y: Matrix| self.polar.apply(y.map(|y| self.in_its_units(y, &range, axes.len())));
        let mut direction = polar(equilibrated.clone());
        for _ in 1..self.iterations {
            let correction = self.correction(&direction, axes[0]);
            equilibrated = equilibrated.map(|y| y * correction);
            direction = polar(equilibrated.clone());
        }
        direction.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    use crate::matrix::{Layout, Norm};

    /// Published example, output × input, f64.
    const G: [f64; 12] = [1., -2., 3., 0.5, 0.01, 0.02, -0.03, 0.04, 5., 4., -1., 2.];
    const OUTPUT: [f64; 12] = [
        0.10850511,
        -0.53618377,
        0.60486891,
        0.28346289,
        -0.04221724,
        0.05647304,
        -0.49131426,
        0.99126709,
        0.72643253,
        0.66094027,
        -0.09262594,
        -0.07910446,
    ];
    const BOTH: [f64; 12] = [
        0.13559869,
        -0.32737156,
        0.67524191,
        0.20826194,
        -0.01928231,
        0.10791149,
        -0.44182190,
        0.93020894,
        0.56701783,
        0.48610747,
        -0.05727762,
        0.26868109,
    ];

    fn direction(equilibrate: Equilibrate, phase: Option<u64>, step: u64) -> Vec<f64> {
        let config = MuonEqConfig::new()
            .with_equilibrate(equilibrate)
            .with_eps_mode(EpsMode::Absolute)
            .with_phase(phase)
            .with_polar(Polar::NewtonSchulz { steps: 5, eps: 0.0, norm: Norm::Frobenius });
        let x = Tensor::from_data(TensorData::new(G.to_vec(), [1, 3, 4]), (&Device::flex(), DType::F64));
        let stage = Stage::new(Matrix::new(x, Layout::OutIn)).with_number(step);
        let update = config.advance(stage, &mut Memory::default());
        update.direction.into_tensor().into_data().iter::<f64>().collect()
    }

    fn same(got: &[f64], want: &[f64]) {
        // the published values have eight digits
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-8), "{got:?}");
    }

    #[test]
    fn the_published_example_comes_out() {
        same(&direction(Equilibrate::Output, None, 1), &OUTPUT);
        same(&direction(Equilibrate::Both, None, 1), &BOTH);
    }

    /// 4 × 3, the transpose of a published example.
    const TALL: [f64; 12] = [1., 0., 4., 2., 3., -1., 0., -2., 1., -1., 1., 2.];

    /// The squared norms of the units of the longer axis.
    fn units_after(iterations: usize, layout: Layout) -> Vec<f64> {
        let x = Tensor::from_data(TensorData::new(TALL.to_vec(), [1, 4, 3]), (&Device::flex(), DType::F64));
        let config = MuonEqConfig::new()
            .with_equilibrate(Equilibrate::Longer)
            .with_iterations(iterations)
            .with_eps(0.0)
            .with_polar(Polar::Svd { rcond: 1e-5 });
        // The units are outputs in one layout and inputs in the other.
        let update = config.advance(Stage::new(Matrix::new(x, layout)), &mut Memory::default());
        update.direction.into_tensor().square().sum_dim(2).into_data().iter::<f64>().collect()
    }

    #[test]
    fn on_the_longer_axis_iterations_make_the_units_of_the_polar_factor_alike() {
        for layout in [Layout::OutIn, Layout::InOut] {
            for (iterations, want) in [
                (1, [0.7815884477, 0.748778934, 0.612975154, 0.8566574644]),
                (2, [0.7625260202, 0.738319136, 0.6699771494, 0.8291776944]),
            ] {
                let got = units_after(iterations, layout);
                assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-9), "{iterations}: {got:?}");
            }
            // the limit: the sum is the rank
            let got = units_after(60, layout);
            assert!(got.iter().all(|g| (g - 0.75).abs() < 1e-6), "{got:?}");
        }
    }

    #[test]
    fn a_square_matrix_has_no_longer_axis_and_moves_as_by_muon() {
        let x = crate::setting::numbers([2, 5, 5], 3, DType::F64);
        let config = MuonEqConfig::new().with_equilibrate(Equilibrate::Longer).with_iterations(3);
        let stage = Stage::new(Matrix::new(x.clone(), Layout::InOut));
        let got = config.advance(stage, &mut Memory::default()).direction;
        let want = config.polar.apply(Matrix::new(x, Layout::InOut));
        assert_eq!(got.into_tensor().into_data(), want.into_tensor().into_data());
    }

    #[test]
    fn keys_of_iterations_without_an_effect_are_refused() {
        let refused = |config: MuonEqConfig, key: &str| {
            let error = config.check().expect_err("refused").to_string();
            assert!(error.starts_with(key), "{error}");
        };
        let config = MuonEqConfig::new().with_iterations(2);
        assert!(config.check().is_ok());
        refused(config.with_equilibrate(Equilibrate::Both), "muon_eq.iterations: must be 1");
        refused(MuonEqConfig::new().with_damping(0.25), "muon_eq.damping: has no effect");
    }

    #[test]
    fn after_its_phase_both_becomes_output() {
        same(&direction(Equilibrate::Both, Some(3), 2), &BOTH);
        same(&direction(Equilibrate::Both, Some(3), 3), &OUTPUT);
    }
}
