//! The state of one parameter and its record.
//!
//! The record is written by hand: the derive of Burn 0.22 rebuilds tensors in the device's default
//! dtype, so f64 and half-precision runs could not resume.

use burn::optim::{RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor, TensorData};

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
}

const STEP: &str = "step";
const FORM: &str = "form";
const MOMENTUM: &str = "momentum";
const SECOND_MOMENT: &str = "second_moment";

impl<const D: usize> State<D> {
    /// The same state on another device.
    pub fn to_device(self, device: &Device) -> Self {
        let moved = |tensor: Option<Tensor<D>>| tensor.map(|tensor| tensor.to_device(device));
        Self { momentum: moved(self.momentum), second_moment: moved(self.second_moment), ..self }
    }
}

impl<const D: usize> RecordState for State<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, STEP, self.step.into());
        out.push_scalar(prefix, FORM, (self.form as u64).into());
        for (name, tensor) in [(MOMENTUM, &self.momentum), (SECOND_MOMENT, &self.second_moment)] {
            if let Some(tensor) = tensor {
                out.push_tensor(prefix, name, tensor.to_data());
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
        let load = |data: TensorData| {
            let dtype = data.dtype();
            (data.rank() == D).then(|| Tensor::from_data(data, (device, dtype)))
        };
        let momentum = src.take_tensor(prefix, MOMENTUM);
        let second_moment = src.take_tensor(prefix, SECOND_MOMENT);
        Some(Self {
            step,
            form,
            momentum: match momentum {
                Some(data) => Some(load(data)?),
                None => None,
            },
            second_moment: match second_moment {
                Some(data) => Some(load(data)?),
                None => None,
            },
        })
    }
}
