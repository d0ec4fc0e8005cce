//! Batches on the device, and the validation loss.

use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_datasets::{Batch, validation_batches};
use polaron_models::LanguageModel;

use crate::error::Error;

/// Tokens of one validation batch: large enough to keep all cores busy, small enough for the caches and for memory.
const TOKENS_PER_BATCH: usize = 2048;

/// The rows `first..first + rows` of a batch as input and target tensors `[rows, context]`.
pub fn tensors(batch: &Batch, first: usize, rows: usize, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let tensor = |tokens: &[i32]| {
        let part = tokens.iter().skip(first * batch.context).take(rows * batch.context).copied().collect::<Vec<i32>>();
        Tensor::from_data(TensorData::new(part, [rows, batch.context]), device)
    };
    (tensor(&batch.inputs), tensor(&batch.targets))
}

/// A loss tensor as a number on the host.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn to_host(loss: Tensor<1>, doing: &'static str) -> Result<f64, Error> {
    let failed = |message: String| Error::DeviceFailed { doing, message };
    loss.try_into_scalar::<f32>().map(f64::from).map_err(|error| failed(crate::error::one_line(&error.to_string())))
}

/// Mean cross-entropy in nats per token over all non-overlapping windows of `tokens`. `model` must be free of automatic
/// differentiation (`model.valid()`) and live on `device`. None when `stop` asked to leave off, or without any window.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn validation_loss(
    model: &LanguageModel,
    tokens: &[u32],
    device: &Device,
    stop: impl Fn() -> bool,
) -> Result<Option<f64>, Error> {
    let context = model.context();
    let rows = (TOKENS_PER_BATCH / context.max(1)).max(1);
    let (mut sum, mut count) = (0.0_f64, 0_usize);
    for batch in validation_batches(tokens, context, rows) {
        if stop() {
            return Ok(None);
        }
        let (inputs, targets) = tensors(&batch, 0, batch.rows, device);
        let size = batch.rows * batch.context;
        sum += to_host(model.loss(inputs, targets), "validating")? * size as f64;
        count += size;
    }
    Ok((count > 0).then(|| sum / count as f64))
}
