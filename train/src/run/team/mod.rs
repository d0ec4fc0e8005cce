//! Several processes that train one model: who updates which parameter, and what they send each other in a step.

mod agreement;
mod flat;
mod owners;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use polaron::layerwise::Plan;
use polaron::{LayerwiseOptimizer, LayerwiseRecord};
use serde::{Deserialize, Serialize};

pub use agreement::{Digest, agree, agree_on_start};
pub use owners::owners;

use crate::error::{Error, RanksError};
use crate::host::interrupt;
use crate::host::ranks::{Ranks, starts, tell};
use crate::host::tree::{Node, Sums, nodes_of};
use crate::host::workers::{Workers, shares};
use crate::networks::family::Family;
use crate::networks::gradients::{Backward, Passed, raise, sums_of_grains};
use crate::settings::config::Config;

/// The processes of a run, seen by one of them.
#[derive(Debug)]
pub struct Team<'a> {
    ranks: &'a dyn Ranks,
    /// The paths of all parameters, in the order of the plan.
    paths: Vec<String>,
    /// The rank that updates each of them; None for frozen ones.
    owners: Vec<Option<usize>>,
    /// How many numbers each of them has.
    lengths: Vec<usize>,
    /// Whether a rank was asked to stop before the last step.
    interrupted: Cell<bool>,
}

/// What a rank tells the others in every step.
#[derive(Serialize, Deserialize)]
struct Told {
    /// The losses of its nodes.
    losses: Vec<f64>,
    logits: Vec<Vec<f32>>,
    /// Which parameters have a gradient.
    present: Vec<bool>,
    interrupted: bool,
}

impl<'a> Team<'a> {
    /// The processes that share the parameters of a plan.
    ///
    /// # Errors
    ///
    /// [`RanksError`] for fewer grains than processes, and for what only a single process can measure.
    pub fn new(ranks: &'a dyn Ranks, config: &Config, plan: &Plan) -> Result<Self, RanksError> {
        let train = &config.train;
        let grains = train.grains * train.accumulation;
        if grains < ranks.count() {
            return Err(RanksError::Grains { ranks: ranks.count(), grains });
        }
        let measured = [
            ("train.probe_every", train.probe_every),
            ("train.sharpness_every", train.sharpness_every),
            ("train.energy_every", train.energy_every),
        ];
        if let Some((key, _)) = measured.into_iter().find(|(_, every)| *every > 0) {
            return Err(RanksError::Alone { key });
        }
        let entries = plan.entries();
        Ok(Self {
            ranks,
            paths: entries.iter().map(|entry| entry.path.clone()).collect(),
            owners: owners(plan, ranks.count()),
            lengths: entries.iter().map(|entry| entry.count()).collect(),
            interrupted: Cell::new(false),
        })
    }

    /// What each rank updates, as tables.
    pub fn table(&self, plan: &Plan) -> String {
        owners::table(plan, &self.owners, self.ranks.count())
    }

    /// The processes.
    pub fn ranks(&self) -> &'a dyn Ranks {
        self.ranks
    }

    /// Whether this process writes the files of the run.
    pub fn leads(&self) -> bool {
        self.ranks.leads()
    }

    /// Whether a rank was asked to stop before the last step: all of them know it after the same one.
    pub fn interrupted(&self) -> bool {
        self.interrupted.get()
    }

    /// The grains of a batch that a rank computes.
    fn grains(&self, rank: usize, leaves: usize) -> Range<usize> {
        let (first, count) = shares(leaves, self.ranks.count()).get(rank).copied().unwrap_or_default();
        first..first + count
    }

    fn owned(&self, rank: usize) -> impl Fn(usize) -> bool {
        move |parameter| self.owners[parameter] == Some(rank)
    }

    /// Loss and logits of the batch, and the gradients of the parameters that this process updates, to the bit those of one process
    /// with as many grains. Where the loss is not finite, the gradients are those of the own grains.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`], [`RanksError::Message`].
    pub fn gradients<F: Family>(
        &self,
        model: &F::Network,
        batch: &F::Batch<'_>,
        how: Backward,
        device: &Device,
        workers: &Workers,
    ) -> Result<Passed, Error> {
        let (count, rank) = (self.ranks.count(), self.ranks.rank());
        let leaves = how.leaves(F::rows(batch)).len();
        let sums = sums_of_grains::<F>(model, batch, how, self.grains(rank, leaves), device, workers)?;
        let mut mine = sums.into_values();
        let told = tell(self.ranks, &self.told(model, &mine))?;
        self.interrupted.set(told.iter().any(|told| told.interrupted));
        let mut logits = Vec::new();
        told.iter().for_each(|told| raise(&mut logits, told.logits.clone()));
        let nodes: Vec<_> = (0..count).map(|rank| nodes_of(self.grains(rank, leaves), leaves)).collect();
        let mut losses = Sums::new(leaves);
        for (node, loss) in nodes.iter().flatten().zip(told.iter().flat_map(|told| &told.losses)) {
            losses.push(*node, *loss, &|left, right| left + right);
        }
        let loss = losses.total().unwrap_or(f64::NAN);
        if !loss.is_finite() {
            let bad = mine.iter().position(|part| !part.loss.is_finite()).unwrap_or_default();
            return Ok(Passed { grads: mine.swap_remove(bad).grads, loss, logits });
        }
        let present = |parameter: usize| told.iter().any(|told| told.present[parameter]);
        let grads = self.exchange(model, mine, &nodes, leaves, present)?;
        Ok(Passed { grads, loss, logits })
    }

    fn told<M: Module>(&self, model: &M, mine: &[Passed]) -> Told {
        let mut logits = Vec::new();
        mine.iter().for_each(|part| raise(&mut logits, part.logits.clone()));
        let mut present = vec![false; self.paths.len()];
        mine.iter().for_each(|part| flat::mark_present(model, &part.grads, &mut present));
        let losses = mine.iter().map(|part| part.loss).collect();
        Told { losses, logits, present, interrupted: interrupt::requested() }
    }

    /// Sends the sums of the own nodes to the owners of their parameters, and adds up what comes for the own ones.
    fn exchange<M: Module>(
        &self,
        model: &M,
        mine: Vec<Passed>,
        nodes: &[Vec<Node>],
        leaves: usize,
        present: impl Fn(usize) -> bool,
    ) -> Result<GradientsParams, Error> {
        let (count, rank) = (self.ranks.count(), self.ranks.rank());
        let sent = |parameter: usize| present(parameter).then(|| self.owners[parameter]).flatten();
        let length = |owner: usize| -> usize {
            let lengths = self.lengths.iter().enumerate().filter(|(parameter, _)| sent(*parameter) == Some(owner));
            lengths.map(|(_, length)| length).sum()
        };
        let per_node: Vec<usize> = (0..count).map(length).collect();
        let counts: Vec<usize> = per_node.iter().map(|length| mine.len() * length).collect();
        let mut outgoing = flat::Rows::new(&counts);
        for part in mine {
            flat::read_gradients(model, part.grads, &self.lengths, sent, &mut outgoing)?;
        }
        let own = per_node[rank];
        let received: Vec<usize> = nodes.iter().map(|nodes| nodes.len() * own).collect();
        let incoming = self.ranks.exchange(&outgoing.into_numbers(), &counts, &received);
        if own == 0 {
            return Ok(GradientsParams::new());
        }
        let mut sums = Sums::new(leaves);
        for (node, values) in nodes.iter().flatten().zip(incoming.chunks_exact(own)) {
            sums.push(*node, values.to_vec(), &add);
        }
        let total = sums.total().unwrap_or_default();
        Ok(flat::gradients(model, &total, |parameter| sent(parameter) == Some(rank)))
    }

    /// Clips the own gradients by the norm of all; see [`LayerwiseOptimizer::clip_shared`].
    ///
    /// # Errors
    ///
    /// [`RanksError::Message`].
    pub fn clip<M: Module>(
        &self,
        optimizer: &LayerwiseOptimizer,
        model: &M,
        grads: GradientsParams,
    ) -> Result<(GradientsParams, f64), Error> {
        let mut failed = None;
        let clipped = optimizer.clip_shared(model, grads, |slots| match tell(self.ranks, &slots.to_vec()) {
            Ok(told) => {
                let owner = |parameter: usize| told.get(self.owners[parameter]?)?.get(parameter).copied().flatten();
                slots.iter_mut().enumerate().for_each(|(parameter, slot)| *slot = owner(parameter));
            }
            Err(error) => failed = Some(error),
        });
        failed.map_or(Ok(clipped), Err)
    }

    /// The model with the weights of all parameters, given those that this process has updated.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`].
    pub fn weights<M: Module>(&self, model: M) -> Result<M, Error> {
        let (count, rank) = (self.ranks.count(), self.ranks.rank());
        let own = flat::read_weights(&model, self.owned(rank))?;
        let length =
            |owner| self.lengths.iter().enumerate().filter(|(at, _)| self.owned(owner)(*at)).map(|(_, l)| l).sum();
        let counts: Vec<usize> = (0..count).map(length).collect();
        let all = self.ranks.gather(&own, &counts);
        Ok(flat::set_weights(model, &all, starts(&counts), |at| self.owners[at].filter(|owner| *owner != rank)))
    }

    /// The first parameter whose gradient is not finite on any rank, in the order of the plan.
    ///
    /// # Errors
    ///
    /// [`RanksError::Message`].
    pub fn first_non_finite<M: Module>(&self, model: &M, grads: &GradientsParams) -> Result<Option<String>, Error> {
        let told = tell(self.ranks, &polaron::first_non_finite(model, grads))?;
        Ok(self.paths.iter().find(|path| told.iter().flatten().any(|bad| bad == *path)).cloned())
    }

    /// The record of all states on the process that leads; None on the others.
    ///
    /// # Errors
    ///
    /// A record that cannot be stored or read.
    pub fn record(&self, optimizer: &LayerwiseOptimizer) -> Result<Option<LayerwiseRecord>, Error> {
        let own = optimizer.to_record();
        let bytes = if self.leads() { Vec::new() } else { own.to_safetensors()? };
        let others = self.ranks.collect_bytes(&bytes);
        if !self.leads() {
            return Ok(None);
        }
        let mut all = own;
        for bytes in others.into_iter().filter(|bytes| !bytes.is_empty()) {
            all.merge(LayerwiseRecord::from_safetensors(&bytes)?)?;
        }
        Ok(Some(all))
    }

    /// The part of a record that this process needs: the states of its own parameters.
    pub fn own_part(&self, record: LayerwiseRecord) -> LayerwiseRecord {
        let rank = self.ranks.rank();
        let own = self.paths.iter().zip(&self.owners).filter(|(_, owner)| **owner == Some(rank));
        let own: BTreeSet<&str> = own.map(|(path, _)| path.as_str()).collect();
        record.with_states_of(|path| own.contains(path))
    }
}

/// Entry by entry.
fn add(mut left: Vec<f32>, right: Vec<f32>) -> Vec<f32> {
    left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
    left
}
