//! Whether the state in a record fits the parameter that it is for.

use std::collections::BTreeMap;

use burn::optim::{DynOptimizer, DynState, StateSink, StateSource};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{DType, Device, Tensor};

use super::check::Form;
use super::{AnyOptimizer, LayerwiseError};

/// Reads the state of one parameter out of a record.
///
/// What the state must look like is found by a step of a parameter of zeros, so that it holds for every optimizer.
///
/// # Errors
/// If the state is incomplete, or a buffer has another shape or element type than a step leaves.
pub(crate) fn read_state(
    optimizer: &AnyOptimizer,
    path: &str,
    form: &Form,
    prefix: &str,
    source: &mut StateSource,
    device: &Device,
) -> Result<DynState, LayerwiseError> {
    let fail = |message: String| Err(LayerwiseError::Record(message));
    let Some(state) = optimizer.state_unflatten(form.shape.len(), prefix, source, device) else {
        return fail(format!("the state of \"{path}\" is incomplete or of another rank than its {form}"));
    };
    let stored = buffers(optimizer, Some(state.clone()));
    let expected = buffers(optimizer, step_of_zeros(optimizer, form, 1.0, device));
    for (name, (shape, dtype)) in &stored {
        if let Some((wanted, wanted_dtype)) = expected.get(name)
            && (shape, dtype) != (wanted, wanted_dtype)
        {
            return fail(format!(
                "the {name} of \"{path}\" has {shape:?} of {dtype:?} and must have {wanted:?} of {wanted_dtype:?}: it was \
                 written for a parameter of another shape or element type, or with other blocks or another axis"
            ));
        }
    }
    let missing = |expected: &Buffers| expected.keys().find(|name| !stored.contains_key(*name)).cloned();
    if missing(&expected).is_some()
        // A step that moves nothing may leave less.
        && let Some(name) = missing(&buffers(optimizer, step_of_zeros(optimizer, form, 0.0, device)))
    {
        return fail(format!(
            "the state of \"{path}\" has no {name}: it was written with other settings, or is damaged"
        ));
    }
    Ok(state)
}

type Buffers = BTreeMap<String, (Vec<usize>, DType)>;

fn buffers(optimizer: &AnyOptimizer, state: Option<DynState>) -> Buffers {
    let mut sink = StateSink::default();
    if let Some(state) = &state {
        optimizer.state_flatten("", state, &mut sink);
    }
    sink.tensors.into_iter().map(|(name, data)| (name, (data.shape().to_vec(), data.dtype()))).collect()
}

fn step_of_zeros(optimizer: &AnyOptimizer, form: &Form, lr: f64, device: &Device) -> Option<DynState> {
    let (weights, grad) = (zeros(form, device)?, zeros(form, device)?);
    optimizer.step_dyn(form.shape.len(), lr, weights, grad, None).1
}

fn zeros(form: &Form, device: &Device) -> Option<BridgeTensor> {
    fn of<const D: usize>(form: &Form, device: &Device) -> Option<BridgeTensor> {
        let shape: [usize; D] = form.shape.clone().try_into().ok()?;
        Some(Tensor::<D>::zeros(shape, (device, form.dtype)).into_bridge())
    }
    let device = &device.clone().without_autodiff();
    match form.shape.len() {
        1 => of::<1>(form, device),
        2 => of::<2>(form, device),
        3 => of::<3>(form, device),
        4 => of::<4>(form, device),
        5 => of::<5>(form, device),
        6 => of::<6>(form, device),
        _ => None,
    }
}

/// An optimizer of the plain Burn form, which knows its parameter and looks at the states that Burn gives it.
#[derive(Clone)]
pub(crate) struct OfParameter {
    pub optimizer: AnyOptimizer,
    pub path: String,
    pub form: Form,
}

impl DynOptimizer for OfParameter {
    fn step_dyn(
        &self,
        rank: usize,
        lr: f64,
        tensor: BridgeTensor,
        grad: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        self.optimizer.step_dyn(rank, lr, tensor, grad, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.optimizer.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.optimizer.state_flatten(prefix, state, out)
    }

    /// # Panics
    /// If the state does not fit: Burn takes `None` for "no state" and would go on without a word.
    fn state_unflatten(&self, _rank: usize, prefix: &str, src: &mut StateSource, device: &Device) -> Option<DynState> {
        match read_state(&self.optimizer, &self.path, &self.form, prefix, src, device) {
            Ok(state) => Some(state),
            Err(error) => panic!("{error}"),
        }
    }
}
