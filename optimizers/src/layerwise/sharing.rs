//! Several processes that train one model together: each holds gradients and states of some of the parameters, the owner's part,
//! and all of them hold the weights. How they exchange numbers is the caller's matter.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::gradients;
use super::{LayerwiseError, LayerwiseOptimizer, LayerwiseRecord, ParameterUpdate, RecordError, frozen};

impl LayerwiseOptimizer {
    /// [`clip`](Self::clip) for a process that holds the gradients of some of the parameters. `exchange` gets a slot for every
    /// parameter, in the order of the plan, in which those with a gradient here have a number; it fills in the numbers of the
    /// others from their owners, and leaves out those that have no gradient anywhere. Norm and factor are then to the bit those of one
    /// process that holds all gradients. It is called once, and twice more if squares are out of the range of f32.
    ///
    /// # Panics
    /// As [`clip`](Self::clip).
    pub fn clip_shared<M: Module>(
        &self,
        module: &M,
        grads: GradientsParams,
        mut exchange: impl FnMut(&mut [Option<f64>]),
    ) -> (GradientsParams, f64) {
        super::optimizer::or_panic(self.planned.check_step(module, &grads));
        let grads = frozen::remove(&self.frozen, module, grads);
        let norm = gradients::norm(|measure| {
            let mut slots = vec![None; self.planned.names.len()];
            for (position, number) in gradients::measured(module, &grads, measure) {
                slots[position] = Some(number);
            }
            exchange(&mut slots);
            self.in_one_tensor(module, &slots)
        });
        (self.clip_by(module, grads, norm), norm)
    }

    /// The numbers in the precision in which one process measures them.
    fn in_one_tensor<M: Module>(&self, module: &M, slots: &[Option<f64>]) -> Option<Tensor<1>> {
        let found: Vec<f64> = slots.iter().flatten().copied().collect();
        let device = module.devices().into_iter().next().filter(|_| !found.is_empty())?;
        let mut with_gradient = self.planned.forms.iter().zip(slots).filter(|(_, slot)| slot.is_some());
        let dtype = if with_gradient.any(|(form, _)| form.dtype == DType::F64) { DType::F64 } else { DType::F32 };
        Some(Tensor::from_data(found.as_slice(), (&device.inner(), dtype)))
    }

    /// [`apply_with`](Self::apply_with) for a process that updates the parameters whose gradients it holds: `share` gets the
    /// module with their new weights and returns it with those of all parameters. What goes around the steps
    /// ([`Layerwise::wrapper`](crate::Layerwise::wrapper)) sees the whole module, on every process.
    ///
    /// # Errors
    /// Those of `share`, and a model that is no longer the one of the wrapper.
    ///
    /// # Panics
    /// As [`apply_with`](Self::apply_with).
    pub fn apply_shared<M: Module, E: From<LayerwiseError>>(
        &mut self,
        factor: f64,
        module: M,
        grads: GradientsParams,
        run: impl FnOnce(&mut [ParameterUpdate<'_>]),
        share: impl FnOnce(M) -> Result<M, E>,
    ) -> Result<M, E> {
        super::optimizer::or_panic(self.check(factor, &module, &grads));
        self.update(factor, module, grads, run, share)
    }
}

impl LayerwiseRecord {
    /// The same with the states of those parameters only for whose paths `keep` holds; the others are as if they had never been
    /// stepped. What wrappers keep stays.
    #[must_use]
    pub fn with_states_of(mut self, keep: impl Fn(&str) -> bool) -> Self {
        let others: Vec<String> = self.with_state.iter().filter(|path| !keep(path)).cloned().collect();
        others.iter().for_each(|path| self.forget(path));
        self
    }

    /// Adds the states of another record, of other parameters of the same model.
    ///
    /// # Errors
    /// If both have a state of one parameter. Nothing is changed then.
    pub fn merge(&mut self, other: Self) -> Result<(), LayerwiseError> {
        if let Some(path) = self.with_state.intersection(&other.with_state).next() {
            return Err(RecordError::Twice { path: path.clone() }.into());
        }
        self.tensors.extend(other.tensors);
        self.scalars.extend(other.scalars);
        self.memories.extend(other.memories);
        self.with_state.extend(other.with_state);
        Ok(())
    }
}
