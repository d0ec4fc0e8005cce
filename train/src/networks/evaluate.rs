//! What a model computes from batches: gradients, and a decoder's validation loss.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_datasets::{Batch, ByteLengths, TextData, Tokens, last_window, validation_batches, validation_windows};
use polaron_models::{LanguageModel, LargestLogits, RouterMetrics, TrainingLoss};

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

/// How the gradient of a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backward {
    /// Micro-batches of consecutive rows.
    pub parts: usize,
    /// Whether activations are computed again, not kept, where the family can.
    pub recompute: bool,
    /// Whether the attention logits are measured.
    pub logits: bool,
}

/// What a forward and backward pass gives.
#[derive(Debug)]
pub struct Passed {
    /// Gradient of the training loss.
    pub grads: GradientsParams,
    /// Mean cross-entropy.
    pub loss: f64,
    /// The largest attention logit of every head of every layer, if they are measured.
    pub logits: Vec<Vec<f32>>,
}

/// Gradient of the training loss and mean cross-entropy of a batch, split into micro-batches of consecutive rows, each of them
/// split among the workers. Every loss is weighted by its share of the rows, so that the sum is that of the whole batch; it is
/// always summed in the same order. A logit is the largest of all rows.
///
/// `device` is the model's device with automatic differentiation.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn gradients<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    how: Backward,
    device: &Device,
    workers: &Workers,
) -> Result<Passed, Error> {
    let (mut accumulator, mut total, mut largest) = (GradientsAccumulator::new(), 0.0, Vec::new());
    let parts = shares(F::rows(batch), how.parts);
    let whole = parts.len() == 1;
    for (first, rows) in parts {
        let shares = shares(rows, workers.count());
        let alone = shares.len() == 1;
        let tasks = shares.into_iter().map(|(offset, rows)| {
            // A separate graph for every worker: graphs that share parameters would wait for each other.
            let model = if alone { model.clone() } else { model.clone().fork(device) };
            move || backward::<F>(&model, batch, (first + offset, rows), how, device)
        });
        for result in workers.run(tasks.collect()) {
            let passed = result?;
            // There is nothing to add; accumulating would visit every parameter needlessly.
            if whole && alone {
                return Ok(passed);
            }
            accumulator.accumulate(model, passed.grads);
            total += passed.loss;
            raise(&mut largest, passed.logits);
        }
    }
    Ok(Passed { grads: accumulator.grads(), loss: total, logits: largest })
}

/// Raises the largest logits of every head to those of more rows.
fn raise(largest: &mut Vec<Vec<f32>>, logits: Vec<Vec<f32>>) {
    if largest.is_empty() {
        *largest = logits;
        return;
    }
    for (largest, logit) in largest.iter_mut().flatten().zip(logits.into_iter().flatten()) {
        *largest = largest.max(logit);
    }
}

/// Gradient of the training loss and cross-entropy of some rows, both weighted by their share of the batch.
fn backward<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    rows: (usize, usize),
    how: Backward,
    device: &Device,
) -> Result<Passed, Error> {
    let weight = rows.1 as f64 / F::rows(batch) as f64;
    let share = |loss: Tensor<1>| if weight < 1.0 { loss.mul_scalar(weight) } else { loss };
    let mut logits = LargestLogits::default();
    let mut asked = how.logits.then_some(&mut logits);
    let recomputed = match how.recompute {
        true => F::recomputed_gradients(model, batch, rows, weight, device, asked.as_deref_mut()),
        false => None,
    };
    let (grads, cross_entropy) = recomputed.unwrap_or_else(|| {
        let TrainingLoss { total, cross_entropy } = F::loss(model, batch, rows, device, asked);
        (GradientsParams::from_grads(share(total).backward(), model), cross_entropy.inner())
    });
    let (loss, logits) = read(share(cross_entropy), logits.layers())?;
    Ok(Passed { grads, loss, logits })
}

/// The training loss of a batch, without its gradient. The model must be free of automatic differentiation (`model.valid()`) and
/// live on `device`.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn training_loss<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    device: &Device,
    workers: &Workers,
) -> Result<f64, Error> {
    let whole = F::rows(batch);
    let share = |(first, rows): (usize, usize)| {
        move || {
            let loss = F::loss(model, batch, (first, rows), device, None).total;
            Ok(to_host(loss, "probing")? * rows as f64 / whole as f64)
        }
    };
    workers.run(shares(whole, workers.count()).into_iter().map(share).collect()).into_iter().sum()
}

/// A loss and the logits of every layer as numbers on the host. They are read together: a device is waited for once.
fn read(loss: Tensor<1>, layers: Vec<Tensor<1>>) -> Result<(f64, Vec<Vec<f32>>), Error> {
    if layers.is_empty() {
        return Ok((to_host(loss, "training")?, Vec::new()));
    }
    let heads: Vec<usize> = layers.iter().map(|layer| layer.dims()[0]).collect();
    let numbers = Tensor::cat([vec![loss], layers].concat(), 0).try_into_data();
    let numbers: Vec<f32> = numbers.map_err(Error::device_failed("training"))?.iter::<f32>().collect();
    let (loss, mut rest) = numbers.split_at(1);
    let layers = heads.into_iter().map(|heads| {
        let (layer, behind) = rest.split_at(heads);
        rest = behind;
        layer.to_vec()
    });
    let layers = layers.collect();
    Ok((f64::from(loss[0]), layers))
}

/// Tokens of a text, and the windows in which a model predicts them.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The tokens.
    pub tokens: &'a Tokens,
    /// The bytes of each token, if the tokenizer knows them.
    pub lengths: Option<&'a ByteLengths>,
    /// Tokens of a window; at most the context of the model.
    pub context: usize,
}

/// What was measured over some tokens.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Windows in which they were predicted.
    pub windows: u64,
    /// Predicted tokens.
    pub tokens: u64,
    /// Sum of their cross-entropies, in nats.
    pub nats: f64,
    /// Bytes of their text; None where the tokenizer does not know them.
    pub bytes: Option<u64>,
    /// The metrics of every router, for every batch.
    routers: Vec<Vec<RouterMetrics>>,
}

impl Measured {
    /// Mean cross-entropy in nats per token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// The cross-entropy in bits per byte of text, which compares models with different tokenizers: nats per token / ln 2 ×
    /// tokens / bytes.
    pub fn bits_per_byte(&self) -> Option<f64> {
        let bytes = self.bytes.filter(|bytes| *bytes > 0)?;
        Some(self.nats / std::f64::consts::LN_2 / bytes as f64)
    }

    fn add(&mut self, batch: &Batch<'_>, (nats, bytes, routers): Scored) {
        self.windows += batch.rows() as u64;
        self.tokens += (batch.rows() * batch.context()) as u64;
        self.nats += nats;
        self.bytes = bytes.map(|bytes| self.bytes.unwrap_or_default() + bytes);
        self.routers.push(routers);
    }
}

/// What a batch adds: the sum of its cross-entropies, bytes, and the metrics of every router.
type Scored = (f64, Option<u64>, Vec<RouterMetrics>);

fn score(model: &LanguageModel, span: &Span<'_>, batch: &Batch<'_>, device: &Device) -> Result<Scored, Error> {
    let (inputs, targets) = tensors(batch, (0, batch.rows()), device);
    let (loss, routers) = model.loss_and_routers(inputs, targets);
    let nats = to_host(loss, "validating")? * (batch.rows() * batch.context()) as f64;
    Ok((nats, span.lengths.map(|lengths| batch.target_bytes(lengths)), routers))
}

/// Measures `windows` evenly spaced windows among the non-overlapping ones of a text (0 means all); nothing depends on the
/// number of workers. `model` must be free of automatic differentiation (`model.valid()`) and live on `device`. None when
/// `stop` asks to stop.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn measure(
    model: &LanguageModel,
    span: &Span<'_>,
    windows: u64,
    device: &Device,
    workers: &Workers,
    stop: impl Fn() -> bool + Sync,
) -> Result<Option<Measured>, Error> {
    let Span { tokens, context, .. } = *span;
    let rows = (TOKENS_PER_BATCH / context.max(1)).max(1);
    let all = validation_windows(tokens.len(), context);
    let windows = usize::try_from(windows).ok().filter(|windows| (1..all).contains(windows)).unwrap_or(all);
    let batches = || validation_batches(tokens, context, windows, rows);
    let tasks = (0..workers.count()).map(|worker| {
        let (model, stop) = (model.clone(), &stop);
        // Every n-th batch, to be added up in the order of the batches.
        move || {
            let mine = batches().skip(worker).step_by(workers.count());
            let scored =
                mine.map(|batch| if stop() { Ok(None) } else { score(&model, span, &batch, device).map(Some) });
            scored.take_while(|scored| !matches!(scored, Ok(None))).collect::<Result<Option<Vec<_>>, Error>>()
        }
    });
    let found = workers.run(tasks.collect()).into_iter().collect::<Result<Option<Vec<Vec<_>>>, Error>>()?;
    let Some(found) = found else { return Ok(None) };
    let mut measured = Measured::default();
    for (index, batch) in batches().enumerate() {
        let scored = found.get(index % found.len()).and_then(|scored| scored.get(index / found.len()));
        // A worker that was asked to stop has fewer.
        let Some(scored) = scored else { return Ok(None) };
        measured.add(&batch, scored.clone());
    }
    Ok(Some(measured))
}

/// Measures all of a text: every token but the first is predicted once, in the non-overlapping windows of [`measure`] and in a
/// shorter one of the tokens that these leave.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn measure_all(
    model: &LanguageModel,
    span: &Span<'_>,
    device: &Device,
    workers: &Workers,
) -> Result<Measured, Error> {
    let mut measured = measure(model, span, 0, device, workers, || false)?.unwrap_or_default();
    if let Some(batch) = last_window(span.tokens, span.context) {
        let scored = workers.alone(|| score(model, span, &batch, device))?;
        measured.add(&batch, scored);
    }
    Ok(measured)
}

/// The validation loss, as [`measure`] measures it; None also without any window.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn validation(
    model: &LanguageModel,
    data: &TextData,
    windows: u64,
    device: &Device,
    workers: &Workers,
    stop: impl Fn() -> bool + Sync,
) -> Result<Option<Validation>, Error> {
    let lengths = data.tokenizer.byte_lengths();
    let span = Span { tokens: &data.valid, lengths: lengths.as_ref(), context: model.context() };
    let measured = measure(model, &span, windows, device, workers, stop)?.filter(|measured| measured.windows > 0);
    let all = validation_windows(data.valid.len(), model.context()) as u64;
    Ok(measured.map(|measured| Validation {
        loss: measured.loss(),
        bits_per_byte: measured.bits_per_byte(),
        accuracy: None,
        windows: (measured.windows < all).then_some(measured.windows),
        router: RouterReport::of_batches(&measured.routers),
    }))
}
