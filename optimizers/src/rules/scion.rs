//! Scion (arXiv 2502.07529): the linear minimisation oracle of a norm ball.
//!
//! ```text
//! spectral:     lmo(d) = scale · polar(d)                 (scale: spectral √(m/n); input layers: original)
//! sign:         lmo(d) = sign(d) / n
//! plain_sign:   lmo(d) = sign(d)
//! output_norm:  d_i / (√n ‖d_i‖ + eps)                    for every output unit i
//! input_norm:   d_j / (‖d_j‖/√m + eps)                    for every input unit j
//! U = radius · lmo(d);   constrained: W ← (1 - lr) W - lr U, which keeps W inside the ball
//! ```
//!
//! A vector is a matrix from one input: `input_norm` is the authors' BiasRMS, d / rms(d), and signs are ±1.
//!
//! `momentum` is the usual factor; the authors' key is one minus it (their 0.1 is our 0.9).
//!
//! **Singular values**: about √(m/n) for `spectral`; the other oracles bound entries or units.
//!
//! **When**: for networks in which every layer has its own norm, so that learning rates transfer between
//! widths: `spectral` for hidden layers, `input_norm` for embeddings, `sign` or `output_norm` for heads, `input_norm` for
//! gains and biases. Cost: Muon's for `spectral`, 3 to 8 mn for the others; one buffer.
//!
//! The authors begin with weights on the surface of the ball. [`LayerwiseOptimizer::onto_balls`] scales any first weights
//! onto it.
//!
//! [`LayerwiseOptimizer::onto_balls`]: crate::LayerwiseOptimizer::onto_balls
//!
//! **Claimed** (paper): better than Adam at GPT-2 sizes without any AdamW part, learning rates that
//! transfer across width.

use burn::tensor::Tensor;

use crate::matrix::{Axis, Matrix, divide_or_zero, sign, spectral_norm, unit_norms};
use crate::rule::{
    About, Cost, Decay, DecayForm, Gain, Kind, Memory, Pipeline, Polar, Rule, Scale, StackRow, Stage, SymmetryRow,
    Update, kind_settings,
};
use crate::setting::{ConfigError, Numbers, choice};

choice! {
    /// The norm ball over which the update is the minimiser.
    #[derive(Default)]
    pub enum Lmo {
        /// Largest singular value.
        #[default]
        Spectral = "spectral",
        /// Largest entry, times the number of inputs.
        Sign = "sign",
        /// Largest entry.
        PlainSign = "plain_sign",
        /// Largest output unit.
        OutputNorm = "output_norm",
        /// Largest input unit.
        InputNorm = "input_norm",
    }
}

kind_settings! {
    /// Settings of Scion, and the rule itself.
    pub struct ScionConfig {
        momentum: 0.9, Ema, nesterov: false, scale: Spectral;
        /// The norm ball.
        lmo, with_lmo: Lmo = Lmo::Spectral;
        /// Its radius, at least 0.
        radius, with_radius: f64 = 1.0, in Numbers::SIZE;
        /// Keep the weights inside the ball: they decay at the rate `lr`, and `weight_decay` must be 0.
        constrained, with_constrained: bool = true;
        /// Added to the norms of units, at least 0.
        eps, with_eps: f64 = 1e-8, in Numbers::SIZE;
        /// How the momentum is orthogonalised, for `spectral`.
        polar, with_polar: Polar = Polar::default();
    }
}

impl Kind for ScionConfig {
    fn pipeline(&self) -> Pipeline {
        let mut pipeline = self.assemble(self.clone());
        if self.lmo != Lmo::Spectral {
            pipeline = pipeline.with_scale(Scale::None);
        }
        if self.constrained { pipeline.with_decay(Decay { rate: 1.0, ..self.decay() }) } else { pipeline }
    }

    fn about(&self) -> About {
        let (lmo, cost, gain) = match self.lmo {
            Lmo::Spectral => ("polar(d)", self.polar.cost(""), Gain::ORTHOGONAL),
            Lmo::Sign => ("sign(d)/n", Cost::device("3 mn"), Gain::ENTRYWISE.times(0.0, -1.0)),
            Lmo::PlainSign => ("sign(d)", Cost::device("2 mn"), Gain::ENTRYWISE),
            Lmo::OutputNorm => {
                ("d_i / (√n ‖d_i‖), i output units", Cost::device("8 mn"), Gain::OUTPUT_UNITS.times(0.0, -0.5))
            }
            Lmo::InputNorm => {
                ("√m d_j / ‖d_j‖, j input units", Cost::device("8 mn"), Gain::INPUT_UNITS.times(0.5, 0.0))
            }
        };
        let (decay, constrained) =
            if self.constrained { ("W ← (1 - lr) W - lr U, ", "") } else { ("", ", unconstrained") };
        let about = "norm balls for every matrix, AdamW for gains and biases (arXiv 2502.07529)";
        About {
            formula: self.formula(&format!("{decay}U = {} · {lmo}", self.radius)),
            source: "arXiv 2502.07529",
            cost,
            detail: format!("{}, radius {}{constrained}", self.lmo.name(), self.radius),
            stack: StackRow::new(2.5e-4, 0.0, about),
            symmetries: vec![
                SymmetryRow::new("scion spectral", "", SymmetryRow::SPECTRAL, 0),
                SymmetryRow::new("scion sign", r#"{"lmo":"sign"}"#, SymmetryRow::ENTRIES, 0),
                SymmetryRow::new("scion plain_sign", r#"{"lmo":"plain_sign"}"#, SymmetryRow::ENTRIES, 0),
                SymmetryRow::new("scion output_norm", r#"{"lmo":"output_norm"}"#, SymmetryRow::OUTPUT_UNITS, 0),
                SymmetryRow::new("scion input_norm", r#"{"lmo":"input_norm"}"#, SymmetryRow::INPUT_UNITS, 0),
            ],
            gain: Ok(gain),
        }
    }

    fn fixes_units(&self) -> bool {
        self.lmo != Lmo::Spectral
    }

    fn decays_by_rate(&self) -> bool {
        self.constrained
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.constrained && self.weight_decay != 0.0 {
            let message =
                format!("must be 0 with constrained = true, which decays by itself; got {}", self.weight_decay);
            return Err(ConfigError::value("scion.weight_decay", message));
        }
        if let Some(control) = self.norm_control.filter(|_| self.constrained) {
            let name = control.name();
            let message = format!(
                "must be absent with constrained = true, as both decide how large the weights are; for {name} set \
                 constrained = false"
            );
            return Err(ConfigError::value("scion.norm_control", message));
        }
        if self.constrained && self.decay != DecayForm::Coupled {
            let message = "must be coupled with constrained = true, which decays at the learning rate; for independent decay \
                           set constrained = false and a weight_decay";
            return Err(ConfigError::value("scion.decay", message));
        }
        Ok(())
    }
}

impl Rule for ScionConfig {
    fn advance(&self, stage: Stage, _memory: &mut Memory) -> Update {
        self.minimiser(stage.matrix).into()
    }

    fn takes_vectors(&self) -> bool {
        true
    }

    fn onto_ball(&self, weights: Matrix) -> Option<Matrix> {
        let norm = self.norm(&weights);
        Some(weights.map(|w| divide_or_zero(w, norm) * self.radius))
    }
}

impl ScionConfig {
    /// The norm of every matrix whose ball of radius 1 holds the minimisers, `[batch, 1, 1]`.
    fn norm(&self, weights: &Matrix) -> Tensor<3> {
        let (m, n) = (weights.outputs(), weights.inputs());
        let largest = |x: Tensor<3>| x.max_abs_dim(2).max_abs_dim(1);
        let (norm, factor) = match self.lmo {
            Lmo::Spectral => (spectral_norm(weights.tensor().clone()), 1.0 / self.scale.factor(m, n)),
            Lmo::Sign => (largest(weights.tensor().clone()), n as f64),
            Lmo::PlainSign => (largest(weights.tensor().clone()), 1.0),
            Lmo::OutputNorm => (largest(unit_norms(weights, Axis::Output)), (n as f64).sqrt()),
            Lmo::InputNorm => (largest(unit_norms(weights, Axis::Input)), 1.0 / (m as f64).sqrt()),
        };
        norm * factor
    }

    fn minimiser(&self, momentum: Matrix) -> Matrix {
        let ScionConfig { lmo, radius, eps, .. } = *self;
        let (m, n) = (momentum.outputs() as f64, momentum.inputs() as f64);
        let norms = |axis: Axis, factor: f64| unit_norms(&momentum, axis) * factor + eps;
        let norms = match lmo {
            Lmo::OutputNorm => Some(norms(Axis::Output, n.sqrt())),
            Lmo::InputNorm => Some(norms(Axis::Input, 1.0 / m.sqrt())),
            Lmo::Spectral | Lmo::Sign | Lmo::PlainSign => None,
        };
        let minimiser = match (lmo, norms) {
            (Lmo::Sign, _) => momentum.map(|d| sign(d) / n),
            (Lmo::PlainSign, _) => momentum.map(sign),
            (_, Some(norms)) => momentum.map(|d| divide_or_zero(d, norms)),
            (_, None) => self.polar.apply(momentum),
        };
        if radius == 1.0 { minimiser } else { minimiser.map(|d| d * radius) }
    }
}
