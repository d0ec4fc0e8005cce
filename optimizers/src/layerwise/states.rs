//! States in a record: reading those of one parameter, and whether they fit it.
//!
//! The expected form of a state is found by a step on a parameter of zeros, which works for every optimizer.

use std::collections::BTreeMap;

use burn::optim::{DynOptimizer, DynState, StateSink, StateSource};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{DType, Device, Tensor};

use super::{AnyOptimizer, RecordError};
use crate::matrix::Reading;
use crate::rule::{At, Memory, Pipeline, Rates};
use crate::visit::Form;

/// Buffers by name.
type Buffers = BTreeMap<String, (Vec<usize>, DType)>;

/// Reads the memory of a rule of this crate for one parameter.
///
/// # Errors
/// If the state is incomplete, or a buffer has another shape or element type than a step leaves.
pub(crate) fn read_memory(
    pipeline: &Pipeline,
    reading: &Reading,
    path: &str,
    form: &Form,
    source: &mut StateSource,
    device: &Device,
) -> Result<Memory, RecordError> {
    let Some((mut memory, shape)) = Memory::unflatten(form.shape.len(), path, source, device) else {
        return Err(incomplete(path, form));
    };
    pipeline.adopt_first_version(reading, &mut memory);
    let stored = memory.forms(shape.as_deref().unwrap_or(&form.shape));
    let expected = |lr| {
        let zeros = || Tensor::<3>::zeros(reading.stored, (&device.clone().without_autodiff(), form.dtype));
        let mut memory = Memory::default();
        let at = At {
            rates: Rates::constant(lr),
            momentum: None,
            decays: &[(0, pipeline.decay())],
            progress: 0.0,
            streams: &[0],
            projection: None,
        };
        pipeline.advance(reading, zeros(), zeros(), &mut memory, at);
        memory.forms(&form.shape)
    };
    compare(path, &stored, expected)?;
    Ok(memory)
}

/// Reads the state of one parameter under another Burn optimizer.
///
/// # Errors
/// As [`read_memory`].
pub(crate) fn read_state(
    optimizer: &AnyOptimizer,
    path: &str,
    form: &Form,
    source: &mut StateSource,
    device: &Device,
) -> Result<DynState, RecordError> {
    let optimizer = optimizer.optimizer.as_ref();
    let Some(state) = optimizer.state_unflatten(form.shape.len(), path, source, device) else {
        return Err(incomplete(path, form));
    };
    compare(path, &buffers(optimizer, Some(&state)), |lr| {
        buffers(optimizer, step_of_zeros(optimizer, form, lr, device).as_ref())
    })?;
    Ok(state)
}

fn incomplete(path: &str, form: &Form) -> RecordError {
    RecordError::Incomplete { path: path.to_string(), parameter: form.to_string() }
}

/// Compares the buffers of a record with those after a step with a given learning rate.
fn compare(path: &str, stored: &Buffers, expected: impl Fn(f64) -> Buffers) -> Result<(), RecordError> {
    let after_a_step = expected(1.0);
    for (name, (shape, dtype)) in stored {
        if let Some((wanted, wanted_dtype)) = after_a_step.get(name)
            && (shape, dtype) != (wanted, wanted_dtype)
        {
            return Err(RecordError::Buffer {
                path: path.to_string(),
                name: name.clone(),
                was: format!("{shape:?} of {dtype:?}"),
                is: format!("{wanted:?} of {wanted_dtype:?}"),
            });
        }
    }
    let missing = |expected: &Buffers| expected.keys().find(|name| !stored.contains_key(*name)).cloned();
    if missing(&after_a_step).is_some()
        // A step with learning rate 0 may leave fewer buffers.
        && let Some(name) = missing(&expected(0.0))
    {
        return Err(RecordError::Missing { path: path.to_string(), name });
    }
    Ok(())
}

fn buffers(optimizer: &dyn DynOptimizer, state: Option<&DynState>) -> Buffers {
    let mut sink = StateSink::default();
    if let Some(state) = state {
        optimizer.state_flatten("", state, &mut sink);
    }
    sink.tensors.into_iter().map(|(name, data)| (name, (data.shape().to_vec(), data.dtype()))).collect()
}

fn step_of_zeros(optimizer: &dyn DynOptimizer, form: &Form, lr: f64, device: &Device) -> Option<DynState> {
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

/// An optimizer of the plain Burn form that knows its parameter and checks the states that Burn loads.
#[derive(Clone)]
pub(crate) struct OfParameter {
    pub optimizer: AnyOptimizer,
    pub path: String,
    pub form: Form,
}

impl OfParameter {
    fn read(&self, prefix: &str, source: &mut StateSource, device: &Device) -> Result<DynState, RecordError> {
        let Some(pipeline) = &self.optimizer.rule else {
            return read_state(&self.optimizer, prefix, &self.form, source, device);
        };
        let incomplete = || incomplete(prefix, &self.form);
        let reading = pipeline.reading(&self.form.shape).map_err(|_| incomplete())?;
        let memory = read_memory(pipeline, &reading, prefix, &self.form, source, device)?;
        let mut sink = StateSink::default();
        memory.flatten(&self.form.shape, prefix, &mut sink);
        let mut source = StateSource::new(sink.scalars.into_iter().collect());
        sink.tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
        let rank = self.form.shape.len();
        self.optimizer.optimizer.state_unflatten(rank, prefix, &mut source, device).ok_or_else(incomplete)
    }
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
        self.optimizer.optimizer.step_dyn(rank, lr, tensor, grad, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.optimizer.optimizer.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.optimizer.optimizer.state_flatten(prefix, state, out)
    }

    /// # Panics
    /// If the state does not fit: Burn reads `None` as "no state" and would continue without an error.
    fn state_unflatten(&self, _rank: usize, prefix: &str, src: &mut StateSource, device: &Device) -> Option<DynState> {
        Some(self.read(prefix, src, device).unwrap_or_else(|error| panic!("{}", error.at(&self.path))))
    }
}
