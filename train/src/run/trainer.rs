//! The training loop: what happens in a step, and when a run validates, saves and ends.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use polaron::LayerwiseOptimizer;
use polaron::layerwise::{Objective, ParameterUpdate, ScheduleRule};
use polaron::wrappers::Moment;
use polaron_models::to_named;

use crate::error::{Diverged, Error};
use crate::host::progress::{Progress, StepReport};
use crate::host::ranks::Crew;
use crate::host::workers::Workers;
use crate::host::{interrupt, memory, watchdog};
use crate::networks::family::{Family, Validation};
use crate::networks::gradients::{self, Backward, Passed};
use crate::run::averaging::Averaging;
use crate::run::energy::EnergyRecords;
use crate::run::probing::ProbeBatches;
use crate::run::refactoring::refactor_if_due;
use crate::run::saved::{Saved, complete};
use crate::run::spectra::Spectra;
use crate::run::team::Team;
use crate::run::validations::Validations;
use crate::settings::config::Config;
use crate::store::checkpoint::{Store, TrainerState};
use crate::store::log::Log;
use crate::store::metrics::{End, Event};
use crate::store::tensors;

/// Power iterations for the largest curvature.
const SHARPNESS_ITERATIONS: usize = 12;

/// Everything a run needs except its model: the optimizer step takes the model by value, so that nothing else holds its
/// tensors and they can be updated in place.
#[derive(Debug)]
pub struct Session<'a, F: Family> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// Its section about the model.
    pub settings: &'a F,
    /// What it trains and validates on.
    pub data: &'a F::Data,
    /// The plain device; training uses its autodiff form.
    pub device: Device,
    /// The workers that compute the parts of a batch.
    pub workers: Workers,
    /// The processes that train this model together; None for a single one.
    pub team: Option<Team<'a>>,
    /// Rules and states.
    pub optimizer: LayerwiseOptimizer,
    /// The average of the weights that is evaluated, if there is one.
    pub averaging: Option<Averaging>,
    /// The training state so far.
    pub state: TrainerState,
    /// Checkpoints of the run.
    pub store: Store,
    /// Whether there is a checkpoint.
    pub is_saved: bool,
    /// `metrics.jsonl` and other logs.
    pub log: Log,
    /// Validation losses so far.
    pub validations: Validations,
    /// The newest spectra in `metrics.jsonl`.
    pub spectra: Spectra,
    /// The newest energy in `metrics.jsonl`.
    pub energy: EnergyRecords,
}

/// How a session ended, if not with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// A signal asked the run to stop; everything is saved.
    Interrupted,
}

impl<F: Family> Session<'_, F> {
    /// Takes over what the events of a resumed run say.
    pub fn remember(&mut self, events: &[Event]) {
        self.validations = Validations::of(events);
        self.spectra.at = events.iter().rev().find_map(|event| match event {
            Event::Spectra { step, .. } => Some(*step),
            _ => None,
        });
        self.energy = EnergyRecords::of(events);
    }

    /// Trains to the last step, or until a signal asks the run to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] if a value is non-finite, a failing device, a file that cannot be written. The checkpoints
    /// written so far are left unchanged.
    pub fn run(&mut self, model: F::Network) -> Result<(F::Network, Ending), Error> {
        match self.train(model) {
            Ok((model, ending)) => {
                let status = if ending == Ending::Finished { "finished" } else { "interrupted" };
                self.end(status, None)?;
                Ok((model, ending))
            }
            Err(Error::Diverged(diverged)) => {
                self.end("diverged", Some(diverged.to_string()))?;
                Err(diverged.into())
            }
            Err(error) => Err(error),
        }
    }

    fn train(&mut self, mut model: F::Network) -> Result<(F::Network, Ending), Error> {
        if !self.is_saved {
            self.save(&model)?;
        }
        let steps = self.config.train.steps;
        let (first, before) = (self.state.step, self.state.seconds);
        let (every, tokens) = (self.config.train.log_every, self.config.tokens_per_step());
        let progress = Progress::start(first, steps, every, tokens, self.config.model.unit().many);
        loop {
            watchdog::beat();
            self.validate_if_due(&model)?;
            self.record_spectra_if_due(&model)?;
            self.record_energy_if_due(&model)?;
            // Processes of one run stop after the same step.
            let interrupted = self.team.as_ref().map_or_else(interrupt::requested, Team::interrupted);
            if self.state.step > first && (interrupted || self.save_is_due()) {
                self.save(&model)?;
            }
            let validated = !self.validation_is_due();
            if self.state.step == steps && validated {
                return Ok((model, Ending::Finished));
            }
            if interrupted {
                return Ok((model, Ending::Interrupted));
            }
            let loss;
            (model, loss) = self.step(model)?;
            let (step, lr) = (self.state.step, self.lr_of(self.state.step - 1));
            progress.step(StepReport { step, loss, lr, session_seconds: self.state.seconds - before });
        }
    }

    /// One optimizer step. Returns the updated model and the loss before the update.
    fn step(&mut self, model: F::Network) -> Result<(F::Network, f64), Error> {
        let start = Instant::now();
        let step = self.state.step;
        let train = &self.config.train;
        let batch = self.settings.batch(self.data, train.data_seed, train.batch, step)?;
        let training_device = self.device.clone().autodiff();
        let factor = self.config.lr_factor(step);
        let steps = self.config.schedule_steps();
        self.optimizer.set_step(step, steps)?;
        let model = self.optimizer.before_forward(factor, model)?;
        let recorded = self.config.records_logits(step + 1);
        let logits = recorded || self.config.optimizer.qk_clip.is_some();
        let backward = Backward { parts: train.accumulation, grains: train.grains, recompute: train.recompute, logits };
        let workers = &self.workers;
        let passed = match &self.team {
            None => gradients::gradients::<F>(&model, &batch, backward, &training_device, workers)?,
            Some(team) => team.gradients::<F>(&model, &batch, backward, &training_device, workers)?,
        };
        let Passed { grads, loss, logits } = passed;
        if !loss.is_finite() {
            return Err(self.diverged(&format!("the loss is {loss}"), &model, &grads)?);
        }
        let optimizing = Instant::now();
        let (grads, grad_norm) = match &self.team {
            None => self.optimizer.clip(&model, grads),
            Some(team) => team.clip(&self.optimizer, &model, grads)?,
        };
        if !grad_norm.is_finite() {
            return Err(self.diverged(&format!("the gradient norm is {grad_norm}"), &model, &grads)?);
        }
        let probing = Instant::now();
        let measured = self.measure(factor, &model, &grads)?;
        let probing = probing.elapsed().as_secs_f64();
        let run = |updates: &mut [ParameterUpdate<'_>]| {
            // The largest first, so that no worker starts it when the others have finished.
            updates.sort_by_key(|update| Reverse(update.elements()));
            self.workers.each(updates.iter_mut(), ParameterUpdate::run);
        };
        let share = |model| match &self.team {
            None => Ok(model),
            Some(team) => team.weights(model),
        };
        let mut model = self.optimizer.apply_shared(factor, model, grads, run, share)?;
        let heads = F::head_logits(&model, &logits);
        let clipped;
        (model, clipped) = self.optimizer.clip_heads(model, &heads)?;
        if let Some(averaging) = &mut self.averaging {
            let progress = (step as f64 / steps as f64).min(1.0);
            model = averaging.after_step(model, step + 1, Moment { factor, progress })?;
        }
        let (optimizer, averaging) = (&mut self.optimizer, self.averaging.as_mut());
        model = refactor_if_due(self.config, step + 1, model, optimizer, averaging, &self.device)?;
        self.device.sync().map_err(Error::device_failed("updating the weights"))?;
        self.state.step += 1;
        self.state.tokens += self.config.tokens_per_step();
        self.state.optimizer_seconds += optimizing.elapsed().as_secs_f64() - probing;
        self.state.seconds += start.elapsed().as_secs_f64() - probing;
        let TrainerState { tokens, seconds, optimizer_seconds, .. } = self.state;
        let lr = factor * self.config.optimizer.lr;
        let (factors, momentum) = self.own_schedules(step, steps);
        let (step, grad_norm) = (self.state.step, Some(grad_norm));
        let train = Event::Train { step, loss, lr, tokens, grad_norm, seconds, optimizer_seconds, factors, momentum };
        self.log.write(&train)?;
        if recorded {
            let clipped = self.config.optimizer.qk_clip.map(|_| clipped);
            self.log.write(&Event::Heads { step, largest: logits, clipped })?;
        }
        for event in &measured {
            self.log.write(event)?;
        }
        Ok((model, loss))
    }

    /// What is measured before the step that these gradients make, if it is due: nothing changes by it.
    fn measure(&self, factor: f64, model: &F::Network, grads: &GradientsParams) -> Result<Vec<Event>, Error> {
        let step = self.state.step + 1;
        let (probes, sharpness) = (self.config.probes(step), self.config.measures_sharpness(step));
        let mut events = Vec::new();
        if !probes && !sharpness {
            return Ok(events);
        }
        let mut batches = ProbeBatches::of(self.config, self.settings, self.data, &self.device, &self.workers)?;
        if probes {
            let groups = self.config.train.probe_groups;
            let probes = self.optimizer.probe(factor, model, grads, groups, &mut batches)?;
            events.extend(probes.into_iter().map(|probe| Event::Probe { step, probe }));
        }
        if sharpness {
            let sharpness = self.optimizer.sharpness(model, SHARPNESS_ITERATIONS, &mut batches)?;
            let stable_below = Some(2.0 / (factor * self.config.optimizer.lr)).filter(|edge| edge.is_finite());
            events.push(Event::Sharpness { step, sharpness, stable_below });
        }
        Ok(events)
    }

    fn record_energy_if_due(&mut self, model: &F::Network) -> Result<(), Error> {
        let step = self.state.step;
        if !self.config.records_energy(step) || self.energy.holds(step) {
            return Ok(());
        }
        // That of the step that led here.
        let made = step.saturating_sub(1);
        self.optimizer.set_step(made, self.config.schedule_steps())?;
        let energy = self.optimizer.energy(self.config.lr_factor(made))?;
        let mut batches = ProbeBatches::of(self.config, self.settings, self.data, &self.device, &self.workers)?;
        let event = self.energy.add(step, batches.mean_loss(model)?, energy);
        Ok(self.log.write(&event)?)
    }

    /// Factors of the schedules for part of the parameters in the step with index `step` (from 0), and the momentum if it has a
    /// schedule.
    fn own_schedules(&self, step: u64, steps: u64) -> (BTreeMap<String, f64>, Option<f64>) {
        let plan = self.optimizer.plan();
        let factor = |rule: &ScheduleRule| (rule.name(), rule.schedule().factor(step, steps));
        let momentum = plan.momentum().map(|momentum| momentum.factor(step, steps));
        (plan.schedules().iter().map(factor).collect(), momentum)
    }

    /// Learning rate of the main rule in the step with index `step` (from 0).
    fn lr_of(&self, step: u64) -> f64 {
        self.config.lr_factor(step) * self.config.optimizer.lr
    }

    fn diverged(&self, what: &str, model: &F::Network, grads: &GradientsParams) -> Result<Error, Error> {
        let first = match &self.team {
            None => polaron::first_non_finite(model, grads),
            Some(team) => team.first_non_finite(model, grads)?,
        };
        let place = match first {
            Some(path) => format!("{what}, and the first non-finite gradient is that of `{path}`"),
            None => format!("{what}, although every gradient is finite"),
        };
        Ok(self.divergence(place))
    }

    /// Whether this process writes the files of the run.
    pub fn leads(&self) -> bool {
        self.team.as_ref().is_none_or(Team::leads)
    }

    fn divergence(&self, what: String) -> Error {
        let checkpoint = self.store.steps().last().copied().unwrap_or_default();
        Diverged { step: self.state.step + 1, what, checkpoint, lr: self.lr_of(self.state.step) }.into()
    }

    fn validation_is_due(&self) -> bool {
        let (step, train) = (self.state.step, &self.config.train);
        let planned = match step {
            0 => train.valid_at_start,
            _ => step == train.steps || is_multiple(step, train.valid_every),
        };
        // A run that was interrupted between step and validation resumes with the validation.
        planned && self.validations.last.is_none_or(|(last, _)| last != step)
    }

    fn validate_if_due(&mut self, model: &F::Network) -> Result<(), Error> {
        if !self.validation_is_due() {
            return Ok(());
        }
        let plain = model.valid();
        // Processes of one run cannot stop alone.
        let alone = self.team.is_none();
        let stop = &move || {
            watchdog::beat();
            alone && interrupt::requested()
        };
        let crew = Crew { workers: &self.workers, ranks: self.team.as_ref().map(Team::ranks) };
        let train = &self.config.train;
        // What training changes is the difference between the first and the last validation.
        let trained = self.state.step == 0 && !train.init.is_empty();
        let at_end = self.state.step == train.steps;
        let windows = if trained || at_end { train.valid_windows_end } else { train.valid_windows };
        let validate = |model| F::validation(model, self.data, windows, &self.device, crew, stop);
        let evaluated = self.evaluation_weights(&plain)?;
        let Some(validation) = validate(evaluated.as_ref().unwrap_or(&plain))? else { return Ok(()) };
        let trained_loss = match evaluated {
            None => None,
            Some(_) => match validate(&plain)? {
                Some(validation) => Some(validation.loss),
                None => return Ok(()),
            },
        };
        let Validation { loss, bits_per_byte, accuracy, windows, .. } = validation;
        if let Some(loss) = [Some(loss), trained_loss].into_iter().flatten().find(|loss| !loss.is_finite()) {
            return Err(self.divergence(format!("the validation loss after step {} is {loss}", self.state.step)));
        }
        let TrainerState { step, tokens, seconds, .. } = self.state;
        self.validations.add(step, &validation);
        let router = validation.router;
        let valid =
            Event::Valid { step, loss, tokens, seconds, bits_per_byte, accuracy, windows, trained_loss, router };
        self.log.write(&valid)?;
        let bits = bits_per_byte.map(|bits| format!("  {bits:.4} bits per byte")).unwrap_or_default();
        let accuracy = accuracy.map(|share| format!("  accuracy {:.2} %", 100.0 * share)).unwrap_or_default();
        let trained = trained_loss.map(|loss| format!("  of the trained weights {loss:.4}")).unwrap_or_default();
        let steps = self.config.train.steps;
        crate::host::progress::say(&format!("step {step}/{steps}  validation loss {loss:.4}{bits}{accuracy}{trained}"));
        Ok(())
    }

    /// The weights to evaluate and to use, given the trained ones; None where they are the same.
    ///
    /// # Errors
    ///
    /// A model that is not the one of the optimizer.
    pub fn evaluation_weights(&self, model: &F::Network) -> Result<Option<F::Network>, Error> {
        match &self.averaging {
            Some(averaging) => averaging.evaluation_weights(model),
            None if self.optimizer.has_evaluation_weights() => {
                Ok(Some(self.optimizer.evaluation_weights(model.clone())?))
            }
            None => Ok(None),
        }
    }

    fn record_spectra_if_due(&mut self, model: &F::Network) -> Result<(), Error> {
        let (step, train) = (self.state.step, &self.config.train);
        let planned = train.spectra_every > 0 && (step.is_multiple_of(train.spectra_every) || step == train.steps);
        // A run that was interrupted at this step may have recorded them already.
        let recorded = self.spectra.at == Some(step);
        if !self.leads() || !planned || (recorded && self.spectra.compares_with(step)) {
            return Ok(());
        }
        let matrices = self.spectra.record(step, &to_named(model), &self.workers);
        if !recorded {
            self.log.write(&Event::Spectra { step, matrices })?;
            self.spectra.at = Some(step);
        }
        Ok(())
    }

    fn save_is_due(&self) -> bool {
        self.state.step == self.config.train.steps || is_multiple(self.state.step, self.config.train.checkpoint_every)
    }

    /// Writes a checkpoint of the current step. Non-finite weights are not written: the last good checkpoint is worth
    /// more.
    fn save(&self, model: &F::Network) -> Result<(), Error> {
        if let Some(name) = tensors::first_non_finite(&to_named(model)).map(String::from) {
            return Err(self.divergence(format!("after step {} the weights `{name}` are not finite", self.state.step)));
        }
        let gathered = self.team.as_ref().map(|team| team.record(&self.optimizer)).transpose()?.flatten();
        if !self.leads() {
            return Ok(());
        }
        self.log.sync()?;
        let trainer = TrainerState { config: self.config.to_toml()?, ..self.state.clone() };
        let evaluation = self.evaluation_weights(model)?;
        let (optimizer, averaging, spectra) = (&self.optimizer, self.averaging.as_ref(), &self.spectra);
        let gathered = gathered.map(|record| complete(record, averaging, spectra));
        let checkpoint = Saved { model, evaluation, optimizer, gathered, averaging, spectra, trainer };
        Ok(self.store.write(&checkpoint, self.config.train.keep)?)
    }

    /// The last event.
    fn end(&mut self, status: &str, reason: Option<String>) -> Result<(), Error> {
        let Validations { last, best, .. } = self.validations;
        let TrainerState { step, tokens, seconds, optimizer_seconds, .. } = self.state;
        let end = End {
            status: status.into(),
            step,
            valid_loss: last.map(|(_, loss)| loss),
            best_valid_loss: best.map(|(_, loss)| loss),
            best_step: best.map(|(step, _)| step),
            tokens,
            seconds,
            optimizer_seconds,
            peak_memory_bytes: memory::peak_bytes(),
            reason,
        };
        self.log.write(&Event::End(end))?;
        Ok(self.log.sync()?)
    }
}

fn is_multiple(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
