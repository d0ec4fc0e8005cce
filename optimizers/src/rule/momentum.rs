//! Momentum in the three forms that programs use.

use burn::tensor::Tensor;

use super::{Memory, MomentumForm};
use crate::flex::in_place;

/// Momentum: its factor, its form, and whether it looks ahead.
///
/// | form | buffer | direction | with `nesterov` |
/// |---|---|---|---|
/// | `ema` | M ← μ M + (1-μ) G | M | (1-μ) G + μ M |
/// | `heavy_ball` | M ← μ M + G | M | G + μ M |
/// | `ema_debiased` | M ← μ M + (1-μ) G | M / (1-μᵗ) | (1-μ) G / (1-μᵗ) + μ M / (1-μᵗ⁺¹) |
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
    /// Adds a gradient to the buffer of this name and returns the direction of the step; `scheduled` is the factor of this step,
    /// if it is another one.
    pub(crate) fn advance(
        &self,
        scheduled: Option<f64>,
        buffer: &'static str,
        grad: Tensor<3>,
        memory: &mut Memory,
    ) -> Tensor<3> {
        let recorded = std::mem::replace(&mut memory.form, self.form);
        if self.factor == 0.0 {
            memory.forget(buffer);
            return grad;
        }
        let now = Self { factor: scheduled.unwrap_or(self.factor), ..*self };
        let old = memory.take(buffer, grad.dims()).map(|old| (old, now.factor * now.conversion(recorded)));
        let (direction, new) = now.blend(grad, old, memory.step);
        memory.keep(buffer, new);
        direction
    }

    /// The direction d that a rule works on, in symbols.
    pub(crate) fn formula(&self) -> &'static str {
        match (self.factor == 0.0, self.form, self.nesterov) {
            (true, ..) => "d = G",
            (false, MomentumForm::Ema, false) => "d = M ← μ M + (1-μ) G",
            (false, MomentumForm::Ema, true) => "M ← μ M + (1-μ) G, d = (1-μ) G + μ M",
            (false, MomentumForm::HeavyBall, false) => "d = M ← μ M + G",
            (false, MomentumForm::HeavyBall, true) => "M ← μ M + G, d = G + μ M",
            (false, MomentumForm::EmaDebiased, false) => "M ← μ M + (1-μ) G, d = M / (1-μᵗ)",
            (false, MomentumForm::EmaDebiased, true) => "M ← μ M + (1-μ) G, d = (1-μ) G / (1-μᵗ) + μ M / (1-μᵗ⁺¹)",
        }
    }

    /// The factor of a new gradient.
    fn fresh(&self) -> f64 {
        if self.form == MomentumForm::HeavyBall { 1.0 } else { 1.0 - self.factor }
    }

    /// Direction and buffer after a gradient; the old buffer comes with its factor.
    fn blend(&self, grad: Tensor<3>, old: Option<(Tensor<3>, f64)>, step: u64) -> (Tensor<3>, Tensor<3>) {
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

    /// The same in one pass over memory, if the tensors allow it, with bit-identical results.
    #[allow(clippy::result_large_err, reason = "an `Err` returns the arguments, it is not a failure")]
    fn blend_in_place(
        &self,
        grad: Tensor<3>,
        old: Tensor<3>,
        factor: f64,
        step: u64,
    ) -> Result<(Tensor<3>, Tensor<3>), (Tensor<3>, Tensor<3>)> {
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
    fn look(&self, grad: Tensor<3>, buffer: Tensor<3>, step: u64) -> Tensor<3> {
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

    /// The factor that removes the bias towards zero of an average over this many steps.
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

    const BUFFER: &str = "momentum";

    fn number(value: f64) -> Tensor<3> {
        Tensor::from_floats([[[value]]], &Device::flex())
    }

    fn run(form: MomentumForm, grads: &[f64]) -> f64 {
        let momentum = Momentum { factor: 0.9, form, nesterov: true };
        let mut memory = Memory::default();
        let mut direction = 0.0;
        for (step, g) in (1..).zip(grads) {
            memory = memory.with_step(step);
            direction = momentum.advance(None, BUFFER, number(*g), &mut memory).into_scalar::<f64>();
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
                Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([1, 200, 200])
            };
            let values = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
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
        let (mut a, mut b) = (Memory::default(), Memory::default());
        for (i, g) in grads.into_iter().enumerate() {
            ema.advance(None, BUFFER, number(g), &mut a);
            let switched = if i < 2 { heavy } else { ema };
            switched.advance(None, BUFFER, number(g), &mut b);
        }
        let value = |memory: Memory| memory.get(BUFFER).unwrap().clone().into_scalar::<f64>();
        let (a, b) = (value(a), value(b));
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}
