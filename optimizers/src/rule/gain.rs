//! How the effect of one update grows with the width of a network, at a fixed learning rate.
//!
//! The width rules muP keep the best learning rate constant by dividing it by the growth of its effect. The effect is
//! the change of activations: `U x` for an input x with entries of size 1 that the update was computed from.

/// The size of the entries of `U x`, as powers of m outputs and n inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Power of m.
    pub outputs: f64,
    /// Power of n.
    pub inputs: f64,
}

impl Gain {
    /// Entries of size 1 that add up: AdamW.
    pub const ENTRYWISE: Self = Self { outputs: 0.0, inputs: 1.0 };
    /// Singular values of size 1: Muon.
    pub const ORTHOGONAL: Self = Self { outputs: -0.5, inputs: 0.5 };
    /// Rows of norm 1: one per output unit.
    pub const OUTPUT_UNITS: Self = Self { outputs: 0.0, inputs: 0.5 };
    /// Columns of norm 1: one per input unit.
    pub const INPUT_UNITS: Self = Self { outputs: -0.5, inputs: 1.0 };

    /// The gain of the same update times powers of m and n.
    pub const fn times(self, outputs: f64, inputs: f64) -> Self {
        Self { outputs: self.outputs + outputs, inputs: self.inputs + inputs }
    }
}
