//! Parameters whose basis was changed, and states that follow them.

use std::collections::BTreeMap;

use burn::tensor::{Device, TensorData};

use super::{LayerwiseError, LayerwiseOptimizer, LayerwiseRecord, PlanEntry};
use crate::wrappers::WrapperRecord;

/// A parameter `[r, n]`, or a stack `[batch, r, n]`, that was replaced by `rotation` times itself, for example by the
/// re-factorisation of an adapter.
#[derive(Clone, Debug)]
pub struct BasisChange {
    /// Path of the parameter.
    pub path: String,
    /// `[batch, r, r]`, an orthogonal matrix for every matrix of the parameter.
    pub rotation: TensorData,
}

impl LayerwiseOptimizer {
    /// Lets the states follow parameters whose basis was changed since the last step.
    ///
    /// A momentum turns with its parameter, and so do the copies of a wrapper: they are sums of gradients or of weights. A second
    /// moment, and whatever else is known of single entries or rows, has no other basis, so the state of such a rule begins
    /// anew, step count included, as in the first step of a training; [`PlanEntry::turns`] tells which. Waits for the device.
    ///
    /// # Errors
    /// If a parameter is not in the plan, its rule keeps directions of it, or its rotation does not fit it. Nothing is changed then.
    pub fn change_basis(&mut self, changes: &[BasisChange], device: &Device) -> Result<(), LayerwiseError> {
        let mut record = self.to_record();
        for change in changes {
            let Some(entry) = self.plan().entries().iter().find(|entry| entry.path == change.path) else {
                return Err(change.misfit("it is not in the plan"));
            };
            if entry.projection.is_some() {
                return Err(change.misfit("its rule keeps directions of it (project), which another basis would turn"));
            }
            change.check(&entry.shape)?;
            match entry.turns() {
                true => change.turn(&mut record.tensors)?,
                false => record.forget(&change.path),
            }
            record.wrappers.values_mut().try_for_each(|wrapper| wrapper.change_basis(change))?;
        }
        self.load_record(record, device)
    }
}

impl PlanEntry {
    /// Whether its state follows a change of the parameter's basis: of what is kept between steps, only a momentum does.
    pub fn turns(&self) -> bool {
        let in_parts = self.placement.blocks.is_some();
        !in_parts && self.optimizer.pipeline().is_some_and(|pipeline| pipeline.keeps_only_momentum())
    }
}

impl LayerwiseRecord {
    /// Removes the state of a parameter, as if it had never been stepped.
    pub(super) fn forget(&mut self, path: &str) {
        let of = |name: &String| !name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.tensors.retain(|name, _| of(name));
        self.scalars.retain(|name, _| of(name));
        self.memories.remove(path);
        self.with_state.remove(path);
    }
}

impl WrapperRecord {
    /// Turns the copies of a parameter whose basis was changed.
    ///
    /// # Errors
    /// If the rotation does not fit them.
    pub fn change_basis(&mut self, change: &BasisChange) -> Result<(), LayerwiseError> {
        change.turn(&mut self.tensors)
    }
}

impl BasisChange {
    fn misfit(&self, reason: impl Into<String>) -> LayerwiseError {
        LayerwiseError::Basis { path: self.path.clone(), reason: reason.into() }
    }

    /// Refuses a rotation that does not fit a parameter of this shape.
    fn check(&self, shape: &[usize]) -> Result<(), LayerwiseError> {
        let fitting = match *shape {
            [rank, _] => Some([1, rank, rank]),
            [batch, rank, _] => Some([batch, rank, rank]),
            _ => None,
        };
        let rotation = self.rotation.shape().to_vec();
        match fitting.is_some_and(|fitting| fitting[..] == rotation) {
            true => Ok(()),
            false => {
                Err(self.misfit(format!("rotations of shape {rotation:?} do not fit a tensor of shape {shape:?}")))
            }
        }
    }

    /// Multiplies the tensors that are called `<path>.<name>` by the rotation.
    fn turn(&self, tensors: &mut BTreeMap<String, TensorData>) -> Result<(), LayerwiseError> {
        let own = |name: &String| name.rsplit_once('.').is_some_and(|(path, _)| path == self.path);
        for (_, data) in tensors.iter_mut().filter(|(name, _)| own(name)) {
            self.check(data.shape())?;
            *data = product(&self.rotation, data);
        }
        Ok(())
    }
}

/// `rotation · data` for every matrix, computed in f64 and rounded once.
fn product(rotation: &TensorData, data: &TensorData) -> TensorData {
    let (rank, width) = (rotation.shape()[2], data.shape()[data.shape().len() - 1]);
    let (turns, values): (Vec<f64>, Vec<f64>) = (rotation.iter().collect(), data.iter().collect());
    let rows = turns.chunks_exact(rank * rank).zip(values.chunks_exact(rank * width)).flat_map(|(turn, old)| {
        turn.chunks_exact(rank).flat_map(move |row| {
            let entry =
                move |column| row.iter().zip(old[column..].iter().step_by(width)).map(|(q, x)| q * x).sum::<f64>();
            (0..width).map(entry)
        })
    });
    TensorData::new(rows.collect::<Vec<f64>>(), data.shape().to_vec()).convert_dtype(data.dtype())
}
