//! Momentum in the three forms that programs use.
//!
//! | form | buffer | direction | with `nesterov` |
//! |---|---|---|---|
//! | `ema` | M ← μ M + (1-μ) G | M | (1-μ) G + μ M |
//! | `heavy_ball` | M ← μ M + G | M | G + μ M |
//! | `ema_debiased` | M ← μ M + (1-μ) G | M / (1-μᵗ) | (1-μ) G / (1-μᵗ) + μ M / (1-μᵗ⁺¹) |

use burn::tensor::Tensor;

use super::State;
#[cfg(feature = "flex")]
use crate::host::in_place;
use crate::setting::choice;

choice! {
    /// How the momentum buffer is formed; see the table of the module.
    #[derive(Default)]
    pub enum MomentumForm {
        /// Exponential moving average.
        #[default]
        Ema,
        /// Sum with decay; the buffer is 1/(1-μ) times as large.
        HeavyBall,
        /// Average without the bias towards zero of the first steps.
        EmaDebiased,
    }
}

/// Momentum: its factor, its form, and whether it looks ahead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// μ in [0, 1); 0 keeps no buffer.
    pub factor: f64,
    /// How the buffer is formed.
    pub form: MomentumForm,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

impl Default for Momentum {
    /// μ 0.95, exponential moving average, no look-ahead.
    fn default() -> Self {
        Self { factor: 0.95, form: MomentumForm::Ema, nesterov: false }
    }
}

impl Momentum {
    /// Takes in a gradient: the direction of this step, and the state after it.
    pub fn advance<const D: usize>(&self, grad: Tensor<D>, state: Option<State<D>>) -> (Tensor<D>, State<D>) {
        let state = state.unwrap_or_default();
        let step = state.step + 1;
        let mu = self.factor;
        if mu == 0.0 {
            return (grad, State { step, form: self.form, ..State::default() });
        }
        let old = state.momentum.map(|old| (old, mu * self.conversion(state.form)));
        let (direction, buffer) = self.blend(grad, old, step);
        (direction, State { step, form: self.form, momentum: Some(buffer), ..State::default() })
    }

    /// The factor of a gradient that comes in.
    fn fresh(&self) -> f64 {
        if self.form == MomentumForm::HeavyBall { 1.0 } else { 1.0 - self.factor }
    }

    /// Direction and buffer after a gradient; the old buffer comes with its factor.
    fn blend<const D: usize>(
        &self,
        grad: Tensor<D>,
        old: Option<(Tensor<D>, f64)>,
        step: u64,
    ) -> (Tensor<D>, Tensor<D>) {
        #[cfg(feature = "flex")]
        let (grad, old) = match old {
            Some((old, factor)) => match self.blend_in_place(grad, old, factor, step) {
                Ok(done) => return done,
                Err((grad, old)) => (grad, Some((old, factor))),
            },
            None => (grad, None),
        };
        let fresh = self.fresh();
        let grad = if fresh == 1.0 { grad } else { grad * fresh };
        let buffer = match old {
            Some((old, factor)) => old * factor + grad.clone(),
            None => grad.clone(),
        };
        (self.look(grad, buffer.clone(), step), buffer)
    }

    /// The same in one pass over memory, where the tensors allow it, and to the same bit.
    #[cfg(feature = "flex")]
    #[allow(clippy::result_large_err, reason = "an `Err` gives the arguments back, it is no failure")]
    fn blend_in_place<const D: usize>(
        &self,
        grad: Tensor<D>,
        old: Tensor<D>,
        factor: f64,
        step: u64,
    ) -> Result<(Tensor<D>, Tensor<D>), (Tensor<D>, Tensor<D>)> {
        let (fresh, factor, nesterov) = (self.fresh() as f32, factor as f32, self.nesterov);
        let now = self.debias(step) as f32;
        let ahead = (self.factor * self.debias(step + 1)) as f32;
        let done = in_place(
            [grad, old],
            #[inline(always)]
            |[grad, buffer]| {
                for (g, m) in grad.iter_mut().zip(buffer) {
                    let new = *g * fresh;
                    *m = *m * factor + new;
                    *g = if nesterov { new * now + *m * ahead } else { *m * now };
                }
            },
        );
        done.map(|[grad, buffer]| (grad, buffer)).map_err(|[grad, old]| (grad, old))
    }

    /// The direction from the weighted gradient and the new buffer.
    fn look<const D: usize>(&self, grad: Tensor<D>, buffer: Tensor<D>, step: u64) -> Tensor<D> {
        match self.nesterov {
            true => {
                let now = self.debias(step);
                let grad = if now == 1.0 { grad } else { grad * now };
                grad + buffer * (self.factor * self.debias(step + 1))
            }
            false if self.form == MomentumForm::EmaDebiased => buffer * self.debias(step),
            false => buffer,
        }
    }

    /// What frees the average of so many steps from its bias towards zero.
    fn debias(&self, step: u64) -> f64 {
        match self.form {
            MomentumForm::EmaDebiased => 1.0 / (1.0 - self.factor.powf(step as f64)),
            _ => 1.0,
        }
    }

    /// Factor that turns a buffer recorded in another form into one of this form.
    fn conversion(&self, recorded: MomentumForm) -> f64 {
        let heavy = MomentumForm::HeavyBall;
        match (recorded == heavy, self.form == heavy) {
            (true, false) => 1.0 - self.factor,
            (false, true) => 1.0 / (1.0 - self.factor),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn run(form: MomentumForm, grads: &[f64]) -> f64 {
        let momentum = Momentum { factor: 0.9, form, nesterov: true };
        let mut state = None;
        let mut direction = 0.0;
        for g in grads {
            let grad = Tensor::<1>::from_floats([*g], &Device::flex());
            let (d, s) = momentum.advance(grad, state);
            direction = d.into_scalar::<f64>();
            state = Some(s);
        }
        direction
    }

    #[test]
    fn average_and_heavy_ball_differ_only_by_a_factor() {
        let grads = [1.0, -0.5, 2.0, 0.25];
        let ratio = run(MomentumForm::Ema, &grads) / run(MomentumForm::HeavyBall, &grads);
        // 1 - 0.9, to f32 rounding
        assert!((ratio - 0.1).abs() < 1e-6, "{ratio}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn a_step_in_place_is_the_same_to_the_bit() {
        let forms = [MomentumForm::Ema, MomentumForm::HeavyBall, MomentumForm::EmaDebiased];
        for (form, nesterov) in forms.into_iter().flat_map(|form| [(form, false), (form, true)]) {
            let momentum = Momentum { factor: 0.95, form, nesterov };
            let entries = |seed: usize| (0..40_000).map(move |i| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0);
            let tensor = |seed| {
                let values: Vec<f32> = entries(seed).collect();
                Tensor::<1>::from_floats(values.as_slice(), &Device::flex())
            };
            let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
            let (direction, buffer) = momentum.blend_in_place(tensor(1), tensor(2), 0.9, 3).expect("plain tensors");
            // An autodiff tensor takes Burn's operations.
            let [grad, old] = [tensor(1), tensor(2)].map(Tensor::from_inner);
            assert!(momentum.blend_in_place(grad.clone(), old.clone(), 0.9, 3).is_err());
            let (expected_direction, expected_buffer) = momentum.blend(grad, Some((old, 0.9)), 3);
            assert_eq!(values(direction), values(expected_direction.inner()), "{form:?} {nesterov}");
            assert_eq!(values(buffer), values(expected_buffer.inner()), "{form:?} {nesterov}");
        }
    }

    #[test]
    fn a_buffer_recorded_in_another_form_is_converted() {
        let grads = [1.0, -0.5, 2.0];
        let heavy = Momentum { factor: 0.9, form: MomentumForm::HeavyBall, nesterov: false };
        let ema = Momentum { form: MomentumForm::Ema, ..heavy };
        let (mut a, mut b) = (None, None);
        for (i, g) in grads.into_iter().enumerate() {
            let grad = Tensor::<1>::from_floats([g], &Device::flex());
            a = Some(ema.advance(grad.clone(), a).1);
            let switched = if i < 2 { heavy } else { ema };
            b = Some(switched.advance(grad, b).1);
        }
        let value = |s: Option<State<1>>| s.unwrap().momentum.unwrap().into_scalar::<f64>();
        let (a, b) = (value(a), value(b));
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}
