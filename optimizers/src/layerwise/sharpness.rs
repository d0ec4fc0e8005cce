//! The largest curvature of a loss.

use burn::module::Module;
use burn::tensor::Tensor;
use polaron_common::splitmix64;

use super::objective::{Objective, mean_gradient, product, reach};
use super::{LayerwiseError, LayerwiseOptimizer};
use crate::wrappers::{Copies, Trained};

/// Domain of the random start.
const SEED: u64 = 0x5348_4152;

impl LayerwiseOptimizer {
    /// The sharpness: the largest eigenvalue, by magnitude, of the Hessian of the objective with respect to the trained parameters,
    /// by this many power iterations from a fixed random vector. Gradient descent with rate lr is stable along a direction up to
    /// a curvature of 2 / lr. `None` where the gradient does not change along the vector, or all weights are zero.
    ///
    /// Every iteration takes 2 gradients of the objective.
    ///
    /// # Errors
    /// Those of the objective; and if the model is no longer the one that the plan was made for.
    pub fn sharpness<M: Module, O: Objective<M>>(
        &self,
        model: &M,
        iterations: usize,
        objective: &mut O,
    ) -> Result<Option<f64>, O::Error> {
        let trained = self.trained(model);
        let weights = trained.copies(model).map_err(LayerwiseError::from)?;
        let h = reach(&weights) * norm(&weights);
        let (mut vector, mut sharpness) = (random_like(&weights, &trained), None);
        for _ in 0..iterations {
            let length = norm(&vector);
            if h * length == 0.0 {
                return Ok(None);
            }
            let mut gradient_at = |t: f64| {
                let moved = trained.change(model.clone(), |number, values| match vector.get(number) {
                    Some(vector) => values + vector * (t / length),
                    None => values,
                });
                mean_gradient(&trained, &moved.map_err(LayerwiseError::from)?, objective)
            };
            let (ahead, behind) = (gradient_at(h)?, gradient_at(-h)?);
            let (mut next, mut along) = (Copies::of(&trained), 0.0);
            for (number, vector) in vector.iter() {
                let (Some(ahead), Some(behind)) = (ahead.get(number), behind.get(number)) else { continue };
                let curved = (ahead - behind) * (0.5 / h);
                along += product(vector.clone(), curved.clone());
                next.put(number, curved);
            }
            (vector, sharpness) = (next, Some(along / length));
        }
        Ok(sharpness)
    }
}

fn norm(of: &Copies) -> f64 {
    of.iter().map(|(_, values)| product(values.clone(), values.clone())).sum::<f64>().sqrt()
}

/// A vector of independent uniform numbers.
fn random_like(weights: &Copies, trained: &Trained) -> Copies {
    let mut random = Copies::of(trained);
    for (number, values) in weights.iter() {
        let bits = |i: usize| splitmix64(SEED << 32 ^ (number as u64) << 40 ^ i as u64) >> 11;
        let uniform = (0..values.dims()[0]).map(|i| bits(i) as f64 / 2f64.powi(52) - 1.0);
        let data = burn::tensor::TensorData::from(uniform.collect::<Vec<f64>>().as_slice());
        random.put(number, Tensor::from_data(data.convert_dtype(values.dtype()), (&values.device(), values.dtype())));
    }
    random
}
