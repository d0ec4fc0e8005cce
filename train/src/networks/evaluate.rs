//! What a model computes from batches: gradients, and a decoder's validation loss.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_datasets::{Batch, Tokens, validation_batches, validation_windows};
use polaron_models::{LanguageModel, TrainingLoss};

use crate::error::Error;
use crate::host::workers::{Workers, shares};
use crate::networks::family::{Family, Validation};
use crate::networks::routers::RouterReport;

/// Tokens of one validation batch: large enough for efficient operations, small enough for the caches and for memory.
const TOKENS_PER_BATCH: usize = 1024;

/// Some rows (first, number) of a batch as input and target tensors `[rows, context]`.
pub fn tensors(batch: &Batch<'_>, (first, rows): (usize, usize), device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let tensor = |tokens: Vec<i32>| Tensor::from_data(TensorData::new(tokens, [rows, batch.context()]), device);
    (tensor(batch.inputs(first..first + rows)), tensor(batch.targets(first..first + rows)))
}

/// A loss tensor as a number on the host.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn to_host(loss: Tensor<1>, doing: &'static str) -> Result<f64, Error> {
    loss.try_into_scalar::<f32>().map(f64::from).map_err(Error::device_failed(doing))
}

/// Gradient of the training loss and mean cross-entropy of a batch, split into `parts` micro-batches of consecutive rows,
/// each of them split among the workers. Every loss is weighted by its share of the rows, so that the sum is that of the
/// whole batch; it is always summed in the same order.
///
/// `device` is the model's device with automatic differentiation.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn gradients<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    parts: usize,
    device: &Device,
    workers: &Workers,
) -> Result<(GradientsParams, f64), Error> {
    let (mut accumulator, mut total) = (GradientsAccumulator::new(), 0.0);
    let parts = shares(F::rows(batch), parts);
    let whole = parts.len() == 1;
    for (first, rows) in parts {
        let shares = shares(rows, workers.count());
        let alone = shares.len() == 1;
        let tasks = shares.into_iter().map(|(offset, rows)| {
            // A separate graph for every worker: graphs that share parameters would wait for each other.
            let model = if alone { model.clone() } else { model.clone().fork(device) };
            move || backward::<F>(&model, batch, (first + offset, rows), device)
        });
        for result in workers.run(tasks.collect()) {
            let (grads, loss) = result?;
            // There is nothing to add; accumulating would visit every parameter needlessly.
            if whole && alone {
                return Ok((grads, loss));
            }
            accumulator.accumulate(model, grads);
            total += loss;
        }
    }
    Ok((accumulator.grads(), total))
}

/// Gradient of the training loss and cross-entropy of some rows, both weighted by their share of the batch.
fn backward<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    rows: (usize, usize),
    device: &Device,
) -> Result<(GradientsParams, f64), Error> {
    let TrainingLoss { total, cross_entropy } = F::loss(model, batch, rows, device);
    let all = F::rows(batch);
    let share = |loss: Tensor<1>| if rows.1 < all { loss.mul_scalar(rows.1 as f64 / all as f64) } else { loss };
    let grads = GradientsParams::from_grads(share(total).backward(), model);
    Ok((grads, to_host(share(cross_entropy).inner(), "training")?))
}

/// Mean cross-entropy in nats per token, and the metrics of the routers, over `windows` evenly spaced windows among the
/// non-overlapping ones of `tokens` (0 means all); neither depends on the number of workers. `model` must be free of
/// automatic differentiation (`model.valid()`) and live on `device`. None when `stop` asks to stop, or without any window.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn validation(
    model: &LanguageModel,
    tokens: &Tokens,
    windows: u64,
    device: &Device,
    workers: &Workers,
    stop: impl Fn() -> bool + Sync,
) -> Result<Option<Validation>, Error> {
    let context = model.context();
    let rows = (TOKENS_PER_BATCH / context.max(1)).max(1);
    let all = validation_windows(tokens.len(), context);
    let windows = usize::try_from(windows).ok().filter(|windows| (1..all).contains(windows)).unwrap_or(all);
    let tasks = (0..workers.count()).map(|worker| {
        let (model, stop) = (model.clone(), &stop);
        // Every n-th batch, each with its sum of losses, to be added up in the order of the batches.
        move || {
            let mine = validation_batches(tokens, context, windows, rows).skip(worker).step_by(workers.count());
            let loss = |batch: Batch<'_>| {
                if stop() {
                    return Ok(None);
                }
                let (inputs, targets) = tensors(&batch, (0, batch.rows()), device);
                let (loss, routers) = model.loss_and_routers(inputs, targets);
                Ok(Some((to_host(loss, "validating")? * (batch.rows() * context) as f64, routers)))
            };
            mine.map(loss).take_while(|loss| !matches!(loss, Ok(None))).collect::<Result<Option<Vec<_>>, Error>>()
        }
    });
    let found = workers.run(tasks.collect()).into_iter().collect::<Result<Option<Vec<Vec<_>>>, Error>>()?;
    let Some(found) = found else { return Ok(None) };
    let in_order = (0..windows.div_ceil(rows)).map(|index| found.get(index % found.len())?.get(index / found.len()));
    let Some(batches) = in_order.collect::<Option<Vec<_>>>().filter(|batches| !batches.is_empty()) else {
        return Ok(None);
    };
    let loss = batches.iter().map(|(loss, _)| loss).sum::<f64>() / (windows * context) as f64;
    let routers: Vec<_> = batches.into_iter().map(|(_, routers)| routers.clone()).collect();
    let router = RouterReport::of_batches(&routers);
    Ok(Some(Validation { loss, accuracy: None, windows: (windows < all).then_some(windows as u64), router }))
}
