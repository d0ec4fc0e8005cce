//! The width rules muP: how learning rates follow the width of a network.

use super::Role;
use crate::rule::Gain;
use crate::rules::OptimizerConfig;

impl OptimizerConfig {
    /// The power of the width by which the effect of one update grows at a fixed learning rate: muP multiplies the rate of
    /// a parameter of this role by `width^-exponent`. `shape` is `[outputs, inputs]` of the matrix that the rule works on.
    ///
    /// ```
    /// use polaron::{OptimizerConfig, Role};
    /// let exponent = |kind, role| OptimizerConfig::of_kind(kind).unwrap().width_exponent(role, [64, 64]);
    /// assert_eq!(exponent("adamw", Role::Up), Ok(1.0));
    /// assert_eq!(exponent("muon", Role::Up), Ok(0.0));
    /// assert_eq!(exponent("adamuon", Role::Up), Ok(0.5));
    /// assert!(exponent("ssd", Role::Up).is_err());
    /// ```
    ///
    /// # Errors
    /// Why no such rule is known, and which settings have one.
    pub fn width_exponent(&self, role: Role, shape: [usize; 2]) -> Result<f64, &'static str> {
        if self.settings().fixes_units() && Role::MATRICES.contains(&role) {
            return Err(
                "how far units or signs of fixed size move a hidden layer depends on the number of tokens in a batch as well: \
                        choose muon or adamuon for hidden matrices, and use it for embedding, head and router only",
            );
        }
        if self.pipeline().norm_control().is_some_and(|control| control.follows_weights()) {
            return Err(
                "its norm_control makes updates as large as the weights, whose size at the start follows the width in its own \
                        way: choose radial_brake, or set no norm_control",
            );
        }
        let exponent = exponent(role, self.gain(shape)?)?;
        if exponent != 0.0 && self.settings().decays_by_rate() {
            return Err(
                "its weights decay by the learning rate itself (`constrained`), which therefore cannot follow the \
                        width: set constrained=false, or choose adamw for this parameter",
            );
        }
        Ok(exponent)
    }
}

/// The power of the width with which the effect of an update with this gain grows for a parameter of this role, in a
/// network whose logits are divided by the width. Embeddings read one row, so only their outputs count.
fn exponent(role: Role, gain: Gain) -> Result<f64, &'static str> {
    match role {
        Role::Embedding => Ok(gain.outputs),
        Role::Head => Ok(gain.inputs - 1.0),
        Role::Router => Ok(gain.inputs),
        // Both uses of the table must agree.
        Role::TiedEmbedding if gain == Gain::ENTRYWISE => Ok(0.0),
        Role::TiedEmbedding if gain == Gain::INPUT_UNITS || gain == Gain::ORTHOGONAL => Ok(-0.5),
        Role::TiedEmbedding => {
            Err("as an embedding and as a head it would need different learning rates: choose adamw or row_norm")
        }
        // The rank does not grow with the width.
        Role::LoraA if gain == Gain::ENTRYWISE => Ok(gain.inputs),
        Role::LoraB if gain == Gain::ENTRYWISE => Ok(gain.outputs),
        Role::LoraA | Role::LoraB => Err("only entrywise updates have one for the factors of an adapter: choose adamw"),
        Role::Depthwise | Role::Gain | Role::Bias => Ok(0.0),
        _ => Ok(gain.outputs + gain.inputs),
    }
}
