//! The key `second_moment`: what a rule works on is divided by the root of an average of squared gradients (Muon²,
//! arXiv 2604.09967).
//!
//! ```text
//! v ← β v + (1-β) G²   (entrywise, from 0; G the gradient before the momentum, no bias correction),   d ← d / (√v + eps)
//! ```
//!
//! d is the direction of the momentum, with its look-ahead; if the rule works on gradients and the momentum averages its
//! directions, d is the gradient. Blocks and experts do not matter to v, which has the shape of the parameter.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Memory, SecondMoment};
use crate::matrix::divide_or_zero;
use crate::setting::{ConfigError, Given, Numbers, Setting, check_keys, read_number};

/// The name of v in records; rules have second moments of their own.
pub(super) const GRADIENT_MOMENT: &str = "gradient_second_moment";

/// Divides directions by the root of an average of squared gradients. Serialised as `{"beta": 0.95, "eps": 1e-10}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given")]
pub struct Preconditioner {
    /// Decay of the average, in [0, 1).
    pub beta: f64,
    /// Added to the root, at least 0; an entry whose root and `eps` are 0 is not divided.
    pub eps: f64,
}

impl Default for Preconditioner {
    /// β 0.95, eps 1e-10.
    fn default() -> Self {
        Self { beta: 0.95, eps: 1e-10 }
    }
}

impl TryFrom<Given> for Preconditioner {
    type Error = ConfigError;

    fn try_from(Given(map): Given) -> Result<Self, ConfigError> {
        const OWNER: &str = "second_moment";
        check_keys(&map, &["beta", "eps"], OWNER)?;
        let Self { beta, eps } = Self::default();
        Ok(Self { beta: read_number(&map, OWNER, "beta", beta)?, eps: read_number(&map, OWNER, "eps", eps)? })
    }
}

impl Setting for Preconditioner {
    type Range = ();

    fn check(&self, key: &str, _range: &()) -> Result<(), ConfigError> {
        self.beta.check(&format!("{key}.beta"), &Numbers::FACTOR)?;
        self.eps.check(&format!("{key}.eps"), &Numbers::SIZE)
    }

    /// The defaults, no average, no eps.
    fn choices(_range: &()) -> Vec<Value> {
        vec![json!({}), json!({"beta": 0.0}), json!({"eps": 0.0})]
    }
}

impl Preconditioner {
    /// The direction after the division; adds the gradient, in the shape in which the parameter is read, to the average.
    pub(super) fn divide(&self, direction: Tensor<3>, gradient: Tensor<3>, memory: &mut Memory) -> Tensor<3> {
        let moment = SecondMoment::new(self.beta, self.eps);
        let shape = gradient.dims();
        memory.like = Some(shape);
        let second = moment.advance(memory.take(GRADIENT_MOMENT, shape), gradient);
        memory.keep(GRADIENT_MOMENT, second.clone());
        divide_or_zero(direction, moment.root(second, 1.0) + self.eps)
    }

    /// What it does, in symbols.
    pub(super) fn formula(&self) -> String {
        let Self { beta, eps } = self;
        format!("with d/(√v + {eps}) for d, v ← {beta} v + (1 - {beta}) G²")
    }
}
