//! The energy of smoothed Muon (arXiv 2605.23871).
//!
//! With U = h(M), where h takes a singular value s to s / √(s² + l²), the direction is the gradient of ψ(M) = Σ √(s² + l²) - l, and
//!
//! ```text
//! H = J(W) + Σ lr scale / (1-μ) ψ(M)
//! ```
//!
//! cannot rise in the limit of small steps: a step turns lr scale ⟨h(M), M⟩ of it into nothing.

use std::iter::Sum;

use super::memory::MOMENTUM;
use super::preconditioner::GRADIENT_MOMENT;
use super::{Memory, MomentumForm, Pipeline, Smoothing};
use crate::matrix::{Reading, singular_values};

/// What the momentum of some parameters adds to the loss, and how much of both is lost in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Energy {
    /// `Σ lr scale / (1-μ) ψ(M)`, M the average of gradients after the last step.
    pub kinetic: f64,
    /// `Σ lr scale ⟨h(M), M⟩`, of the last step.
    pub dissipated: f64,
}

impl Sum for Energy {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            kinetic: sum.kinetic + part.kinetic,
            dissipated: sum.dissipated + part.dissipated,
        })
    }
}

impl Energy {
    /// ψ and ⟨h(M), M⟩ of a matrix with these singular values.
    fn of(singular: &[f64], smoothing: Smoothing) -> Self {
        let level = smoothing.level(singular);
        let of = |s: &f64| match s.hypot(level) {
            0.0 => Self::default(),
            root => Self { kinetic: root - level, dissipated: s * s / root },
        };
        singular.iter().map(of).sum()
    }
}

impl Pipeline {
    /// An option of a rule with an energy with which it has none, and the value with which it has.
    pub(crate) fn option_without_energy(&self) -> Option<(&'static str, &'static str)> {
        let has_moment = self.memories().iter().any(|kept| kept.name == GRADIENT_MOMENT);
        let options = [
            (self.momentum().is_none(), ("momentum 0", "a momentum above 0")),
            (self.decay().rate != 0.0, ("a weight decay", "weight_decay = 0")),
            (self.norm_control().is_some(), ("a norm_control", "no norm_control")),
            (has_moment, ("a second_moment", "no second_moment")),
        ];
        options.into_iter().find(|(is_set, _)| *is_set).map(|(_, option)| option)
    }

    /// The energy of one parameter after a step with this learning rate, and this momentum if it is not that of the rule.
    pub(crate) fn energy(
        &self,
        smoothing: Smoothing,
        reading: &Reading,
        memory: &Memory,
        lr: f64,
        momentum: Option<f64>,
    ) -> Energy {
        let sections = reading.sections();
        if !sections.is_empty() {
            let memories = memory.clone().sections(sections.len());
            let parts = sections.iter().zip(&memories);
            return parts.map(|(part, memory)| self.energy(smoothing, &part.reading, memory, lr, momentum)).sum();
        }
        let (Some(own), Some(buffer)) = (self.momentum(), memory.get(MOMENTUM)) else { return Energy::default() };
        let left = 1.0 - momentum.unwrap_or(own.factor);
        let matrices = reading.split(buffer.clone().reshape(reading.stored));
        let size = lr * self.scale().factor(matrices.outputs(), matrices.inputs());
        // The buffer in the units of an average, where ψ is as many times smaller.
        let share = if own.form == MomentumForm::HeavyBall { left } else { 1.0 };
        let singular = singular_values(&matrices.into_tensor().into_data());
        let Energy { kinetic, dissipated } = singular.iter().map(|singular| Energy::of(singular, smoothing)).sum();
        Energy { kinetic: size * share / left * kinetic, dissipated: size * share * dissipated }
    }
}
