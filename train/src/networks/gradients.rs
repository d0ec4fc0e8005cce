//! The gradient of a batch: which rows are computed together, on which threads, and in which order the parts are added.

use std::ops::Range;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use polaron_models::{LargestLogits, TrainingLoss};

use crate::error::Error;
use crate::host::tree::{Node, Sums};
use crate::host::workers::{Workers, shares};
use crate::networks::evaluate::to_host;
use crate::networks::family::Family;

/// How the gradient of a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backward {
    /// Micro-batches of consecutive rows.
    pub parts: usize,
    /// Parts of a micro-batch that are computed on one thread each and added in an order of their own; 0 for one part a thread.
    pub grains: usize,
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

impl Backward {
    /// First row and number of rows of every grain of a batch of so many rows.
    pub fn leaves(&self, rows: usize) -> Vec<(usize, usize)> {
        let part =
            |(first, rows)| shares(rows, self.grains).into_iter().map(move |(offset, rows)| (first + offset, rows));
        shares(rows, self.parts).into_iter().flat_map(part).collect()
    }
}

/// Gradient of the training loss and mean cross-entropy of a batch, split into micro-batches of consecutive rows, each of them
/// split into grains, or among the workers. Every loss is weighted by its share of the rows, so that the sum is that of the whole
/// batch; it is always summed in the same order. A logit is the largest of all rows.
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
    match how.grains {
        0 => by_workers::<F>(model, batch, how, device, workers),
        _ => {
            let leaves = how.leaves(F::rows(batch)).len();
            let sums = sums_of_grains::<F>(model, batch, how, 0..leaves, device, workers)?;
            sums.total().ok_or_else(|| Error::Usage("a batch needs rows".into()))
        }
    }
}

/// The sums of some grains of a batch, as far as a tree over all of them adds them up. They do not depend on the number of workers.
///
/// # Errors
///
/// [`Error::DeviceFailed`].
pub fn sums_of_grains<F: Family>(
    model: &F::Network,
    batch: &F::Batch<'_>,
    how: Backward,
    grains: Range<usize>,
    device: &Device,
    workers: &Workers,
) -> Result<Sums<Passed>, Error> {
    let leaves = how.leaves(F::rows(batch));
    let add = |left, right| add(model, left, right);
    let shares = shares(grains.len(), workers.count());
    let alone = shares.len() == 1;
    let tasks = shares.into_iter().map(|(first, count)| {
        let model = if alone { model.clone() } else { model.clone().fork(device) };
        let (mine, leaves, add) = (grains.start + first..grains.start + first + count, &leaves, &add);
        move || {
            let mut sums = Sums::new(leaves.len());
            for leaf in mine {
                sums.push(Node::leaf(leaf), backward::<F>(&model, batch, leaves[leaf], how, device)?, add);
            }
            Ok::<_, Error>(sums)
        }
    });
    let mut all = Sums::new(leaves.len());
    for sums in workers.run(tasks.collect()) {
        all.append(sums?, &add);
    }
    Ok(all)
}

/// The sum of what two parts of a batch give.
fn add<M: Module>(model: &M, left: Passed, right: Passed) -> Passed {
    let mut accumulator = GradientsAccumulator::new();
    accumulator.accumulate(model, left.grads);
    accumulator.accumulate(model, right.grads);
    let mut logits = left.logits;
    raise(&mut logits, right.logits);
    Passed { grads: accumulator.grads(), loss: left.loss + right.loss, logits }
}

/// The gradient of a batch whose micro-batches are split among the workers, and added one after another.
fn by_workers<F: Family>(
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
pub fn raise(largest: &mut Vec<Vec<f32>>, logits: Vec<Vec<f32>>) {
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
