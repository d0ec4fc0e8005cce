//! MuonEq (arXiv 2603.28254): normalise output or input units to equal norm, then orthogonalise.
//!
//! ```text
//! r_i = Σ_j d_ij²  (output unit i),   c_j = Σ_i d_ij²  (input unit j),   both of the same direction d
//! output: Y_ij = d_ij (r_i + e)^x        input: Y_ij = d_ij (c_j + e)^x        both: the product of the two factors
//! U = scale · polar(Y)                   x = exponent = -1/2
//! ```
//!
//! **Singular values**: all about 1, as with Muon; what changes is the matrix whose polar factor is
//! taken. Badly scaled units no longer hide part of the spectrum from the polynomial, which reaches
//! only singular values above about 1.5e-3 of the norm. `output` is the paper's "rows", `input` its
//! "columns". `both` with exponent -1/2 is of degree -1 in the gradient (for huge gradients the
//! `eps` of the polynomial dominates); -1/4 makes it scale-free.
//!
//! **When**: instead of Muon, if output units of the gradient differ in size (mostly tall
//! matrices). Extra cost over Muon: 3 mn multiply-adds, 6 mn with `both`.
//!
//! **Claimed** (paper, 1B parameters, 21B tokens, loss read off a figure): 0.016 to 0.029 below Muon
//! at the same learning rate.

use burn::tensor::Tensor;

use crate::matrix::{Axis, EpsMode, InRange, divide_or_zero, frobenius_norm, power, unit_sums};
use crate::rule::{
    About, Gain, Kind, Memory, Pipeline, Polar, Rule, StackRow, Stage, SymmetryRow, Update, kind_settings,
};
use crate::setting::{Numbers, choice};

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
    }
}

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
        };
        About {
            formula: self.formula(&format!("U = polar(Y), Y_ij = d_ij {units}, x = {}", self.exponent)),
            source: "arXiv 2603.28254",
            cost: self.polar.cost(extra),
            detail: format!("{}, {}", self.equilibrate.name(), self.polar.label()),
            stack: StackRow::new(0.01, 0.01, "MuonEq for the matrices, AdamW for the rest"),
            symmetries: vec![
                SymmetryRow::new("muon_eq output", "", SymmetryRow::OUTPUT_UNITS, 0),
                SymmetryRow::new("muon_eq input", r#"{"equilibrate":"input"}"#, SymmetryRow::INPUT_UNITS, 0),
            ],
            gain: Ok(Gain::ORTHOGONAL),
        }
    }
}

impl MuonEqConfig {
    /// The axes whose units are scaled in a step.
    fn axes(&self, step: u64) -> &'static [Axis] {
        let only_output = self.phase.is_some_and(|phase| step >= phase);
        match self.equilibrate {
            Equilibrate::Output => &[Axis::Output],
            Equilibrate::Input => &[Axis::Input],
            Equilibrate::Both if only_output => &[Axis::Output],
            Equilibrate::Both => &[Axis::Output, Axis::Input],
        }
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
        let axes = self.axes(number);
        let stack = momentum.tensor().clone();
        let range = match self.eps_mode {
            EpsMode::Absolute if self.eps > 1e-30 => InRange::large_matrices(stack),
            _ => InRange::matrices(stack),
        };
        let matrix = momentum.map(|_| range.stack.clone());
        let factors: Vec<Tensor<3>> = axes.iter().map(|axis| self.factor(unit_sums(&matrix, *axis), &range)).collect();
        let equilibrated = matrix.map(|m| factors.into_iter().fold(m, |m, factor| m * factor));
        let restored = equilibrated.map(|y| self.in_its_units(y, &range, axes.len()));
        restored.map(|y| self.polar.apply(y)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    use crate::matrix::{Layout, Matrix};

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
            .with_polar(Polar::NewtonSchulz { steps: 5, eps: 0.0 });
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

    #[test]
    fn after_its_phase_both_becomes_output() {
        same(&direction(Equilibrate::Both, Some(3), 2), &BOTH);
        same(&direction(Equilibrate::Both, Some(3), 3), &OUTPUT);
    }
}
