//! The loss of a model on batches, and a decoder's validation loss.

use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_datasets::{Batch, ByteLengths, TextData, Tokens, last_window, validation_batches, validation_windows};
use polaron_models::{LanguageModel, RouterMetrics};

use crate::error::Error;
use crate::host::ranks::{Crew, in_turn};
use crate::host::workers::Workers;
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

/// The training loss of a batch, without its gradient, as the sum of those of these parts (first row, number). The model must be free
/// of automatic differentiation (`model.valid()`) and live on `device`.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn training_loss<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    parts: Vec<(usize, usize)>,
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
    workers.run(parts.into_iter().map(share).collect()).into_iter().sum()
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

/// Measures `windows` evenly spaced windows among the non-overlapping ones of a text (0 means all); nothing depends on who shares
/// the work. `model` must be free of automatic differentiation (`model.valid()`) and live on `device`. None when
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
    crew: Crew<'_>,
    stop: impl Fn() -> bool + Sync,
) -> Result<Option<Measured>, Error> {
    let Span { tokens, context, .. } = *span;
    let rows = (TOKENS_PER_BATCH / context.max(1)).max(1);
    let all = validation_windows(tokens.len(), context);
    let windows = usize::try_from(windows).ok().filter(|windows| (1..all).contains(windows)).unwrap_or(all);
    let batches = || validation_batches(tokens, context, windows, rows);
    let (workers, (rank, ranks)) = (crew.workers.count(), crew.place());
    let tasks = (0..workers).map(|worker| {
        let (model, stop) = (model.clone(), &stop);
        // Every n-th batch of those of this process, to be added up in the order of the batches.
        move || {
            let mine = batches().skip(rank + ranks * worker).step_by(ranks * workers);
            let scored =
                mine.map(|batch| if stop() { Ok(None) } else { score(&model, span, &batch, device).map(Some) });
            scored.take_while(|scored| !matches!(scored, Ok(None))).collect::<Result<Option<Vec<_>>, Error>>()
        }
    });
    let found = crew.workers.run(tasks.collect()).into_iter().collect::<Result<Option<Vec<Vec<_>>>, Error>>()?;
    let Some(found) = found else { return Ok(None) };
    let scored = crew.all(in_turn(found))?;
    // A worker that was asked to stop has fewer.
    if scored.len() < batches().count() {
        return Ok(None);
    }
    let mut measured = Measured::default();
    batches().zip(scored).for_each(|(batch, scored)| measured.add(&batch, scored));
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
    let mut measured = measure(model, span, 0, device, Crew::alone(workers), || false)?.unwrap_or_default();
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
    crew: Crew<'_>,
    stop: impl Fn() -> bool + Sync,
) -> Result<Option<Validation>, Error> {
    let lengths = data.tokenizer.byte_lengths();
    let span = Span { tokens: &data.valid, lengths: lengths.as_ref(), context: model.context() };
    let measured = measure(model, &span, windows, device, crew, stop)?.filter(|measured| measured.windows > 0);
    let all = validation_windows(data.valid.len(), model.context()) as u64;
    Ok(measured.map(|measured| Validation {
        loss: measured.loss(),
        bits_per_byte: measured.bits_per_byte(),
        accuracy: None,
        windows: (measured.windows < all).then_some(measured.windows),
        router: RouterReport::of_batches(&measured.routers),
    }))
}
