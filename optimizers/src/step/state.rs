//! The state of one parameter and its record.
//!
//! The record is written by hand: the derive of Burn 0.22 rebuilds tensors in the device's default
//! dtype, so f64 and half-precision runs could not resume.

use burn::optim::{RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor};

use super::MomentumForm;

/// What an optimizer remembers about one parameter of rank `D`.
#[derive(Clone, Debug, Default)]
pub struct State<const D: usize> {
    /// Steps taken.
    pub step: u64,
    /// The form in which `momentum` was accumulated.
    pub form: MomentumForm,
    /// First moment or momentum buffer, shaped and stored like the parameter.
    pub momentum: Option<Tensor<D>>,
    /// Second moment, shaped and stored like the parameter.
    pub second_moment: Option<Tensor<D>>,
    /// What a [`StatefulDirection`](crate::direction::StatefulDirection) remembers, as a stack of matrices.
    pub memory: Option<Tensor<3>>,
}

const STEP: &str = "step";
const FORM: &str = "form";
const MOMENTUM: &str = "momentum";
const SECOND_MOMENT: &str = "second_moment";
const MEMORY: &str = "memory";

impl<const D: usize> State<D> {
    /// The state of a step of `tensor`.
    ///
    /// # Panics
    /// If it is that of a parameter of another shape: broadcasting would go on with wrong numbers.
    pub(crate) fn of(state: Option<Self>, tensor: &Tensor<D>) -> Option<Self> {
        let buffers = state.iter().flat_map(|state| [&state.momentum, &state.second_moment]).flatten();
        for buffer in buffers {
            let (was, is) = (buffer.dims(), tensor.dims());
            assert!(was == is, "the state was written for a parameter of shape {was:?}, this one has {is:?}");
        }
        state
    }

    /// The same state on another device.
    pub fn to_device(self, device: &Device) -> Self {
        Self {
            momentum: self.momentum.map(|tensor| tensor.to_device(device)),
            second_moment: self.second_moment.map(|tensor| tensor.to_device(device)),
            memory: self.memory.map(|tensor| tensor.to_device(device)),
            ..self
        }
    }
}

impl<const D: usize> RecordState for State<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, STEP, self.step.into());
        out.push_scalar(prefix, FORM, (self.form as u64).into());
        let tensors = [
            (MOMENTUM, self.momentum.as_ref().map(Tensor::to_data)),
            (SECOND_MOMENT, self.second_moment.as_ref().map(Tensor::to_data)),
            (MEMORY, self.memory.as_ref().map(Tensor::to_data)),
        ];
        for (name, data) in tensors {
            if let Some(data) = data {
                out.push_tensor(prefix, name, data);
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let step = u64::try_from(src.take_scalar(prefix, STEP)?).ok()?;
        let form = match u64::try_from(src.take_scalar(prefix, FORM)?).ok()? {
            0 => MomentumForm::Ema,
            1 => MomentumForm::HeavyBall,
            2 => MomentumForm::EmaDebiased,
            _ => return None,
        };
        Some(Self {
            step,
            form,
            momentum: take(prefix, MOMENTUM, src, device).ok()?,
            second_moment: take(prefix, SECOND_MOMENT, src, device).ok()?,
            memory: take(prefix, MEMORY, src, device).ok()?,
        })
    }
}

/// A tensor of the record does not have the rank it must have.
struct WrongRank;

/// The tensor of a name in its own dtype, if the record has it.
fn take<const D: usize>(
    prefix: &str,
    name: &str,
    src: &mut StateSource,
    device: &Device,
) -> Result<Option<Tensor<D>>, WrongRank> {
    let Some(data) = src.take_tensor(prefix, name) else {
        return Ok(None);
    };
    let dtype = data.dtype();
    // A state is no part of an autodiff graph: as in a run that was not interrupted, where it comes from gradients.
    let device = device.clone().without_autodiff();
    if data.rank() == D { Ok(Some(Tensor::from_data(data, (&device, dtype)))) } else { Err(WrongRank) }
}
