//! What the next step would do: measured along its direction, before it is made (arXiv 2605.11181).

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::GradientsParams;
use serde::{Deserialize, Serialize};

use super::objective::{Objective, mean_gradient, product, reach};
use super::{LayerwiseError, LayerwiseOptimizer, gradients};
use crate::setting::choice;
use crate::wrappers::{Copies, Trained};

choice! {
    /// Which parameters of a model are probed together. All others stay where they are.
    #[derive(Default)]
    pub enum ProbeGroups {
        /// Those of one role; those without a role are called `other`.
        #[default]
        Roles = "roles",
        /// All trained ones.
        All = "all",
        /// Each tensor by itself.
        Tensors = "tensors",
    }
}

/// What the next step would do to the loss f of an [`Objective`], by a group of parameters.
///
/// With the weights W before the step and W' after it (without weight decay), the direction is D = (W - W') / lr. G is the
/// gradient of f, G̃ that of the step's batch (clipped, as the rules see it), H the Hessian of f. Every product is over the
/// parameters of the group. A number that does not exist, or is not finite because f is not at W - lr D, is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Probe {
    /// The group: a role, `all`, or the path of a parameter.
    pub group: String,
    /// The learning rate of this step. `None` where parameters of the group have several: D is then the step itself, and the
    /// best rate a multiple of it.
    pub lr: Option<f64>,
    /// ⟨G, D⟩ / ⟨G̃, D⟩: which part of the promised decrease is one of f. `None` if the batch's gradient is orthogonal to D.
    pub alignment: Option<f64>,
    /// ⟨G̃, D⟩² / ⟨D, H D⟩, the descent potential. `None` without positive curvature.
    pub potential: Option<f64>,
    /// ⟨G, D⟩: the decrease of f per unit of learning rate, at its start.
    pub slope: Option<f64>,
    /// ⟨D, H D⟩, from gradients at W ± h D.
    pub curvature: Option<f64>,
    /// ⟨G, D⟩ / ⟨D, H D⟩: the rate with the largest decrease, as far as f is quadratic along D. `None` without positive
    /// curvature.
    pub best_lr: Option<f64>,
    /// The learning rate over the best one; 2 is where a quadratic f stops falling. `None` without a best one.
    pub lr_ratio: Option<f64>,
    /// ⟨G, D⟩² / (2 ⟨D, H D⟩): that largest decrease. `None` without positive curvature.
    pub best_decrease: Option<f64>,
    /// f(W) - f(W - lr D): the decrease by this step.
    pub decrease: Option<f64>,
    /// The same as a share of the largest one.
    pub efficiency: Option<f64>,
    /// ⟨G, D⟩² / (‖D‖² ‖G̃ - G‖²): the slope beside the noise of the batch. `None` without noise.
    pub snr: Option<f64>,
}

/// The products of which a [`Probe`] is made.
#[derive(Clone, Copy, Debug, Default)]
struct Products {
    /// ⟨G, D⟩
    slope: f64,
    /// ⟨G̃, D⟩
    promised: f64,
    /// ⟨D, H D⟩
    curvature: f64,
    /// ‖D‖
    direction: f64,
    /// ‖G̃‖
    gradient: f64,
    /// ‖G̃ - G‖
    noise: f64,
    /// f(W) - f(W - lr D)
    decrease: f64,
}

impl Probe {
    fn of(group: String, rate: Rate, products: Products) -> Self {
        let Products { slope, promised, curvature, direction, gradient, noise, decrease } = products;
        let known = |value: f64| value.is_finite().then_some(value);
        let curved = |value: f64| known(value).filter(|_| curvature > 0.0);
        let best_lr = curved(slope / curvature);
        let best_decrease = curved(slope * slope / (2.0 * curvature));
        Self {
            group,
            lr: rate.shared,
            alignment: known(slope / promised).filter(|_| promised.abs() > 1e-12 * gradient * direction),
            potential: curved(promised * promised / curvature),
            slope: known(slope),
            curvature: known(curvature),
            best_lr,
            lr_ratio: best_lr.and_then(|best| known(rate.of_direction / best)),
            best_decrease,
            decrease: known(decrease),
            efficiency: best_decrease.and_then(|best| known(decrease / best)),
            snr: known((slope / direction / noise).powi(2)).filter(|_| noise > 0.0 && direction > 0.0),
        }
    }
}

/// The learning rate of a group.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// If it is one.
    shared: Option<f64>,
    /// What D is multiplied by in this step: the same, or 1.
    of_direction: f64,
}

impl LayerwiseOptimizer {
    /// Measures the next step of every group without making it: neither the model nor this optimizer changes. Call it between
    /// [`clip`](Self::clip) and [`apply`](Self::apply), with what `apply` will be given. Groups whose learning rate is 0 have no
    /// direction and are left out.
    ///
    /// Steps are measured without weight decay and without a wrapper; an optimizer of your own is measured as it is. The
    /// curvature is `(⟨∇f(W + h D), D⟩ - ⟨∇f(W - h D), D⟩) / 2h` with h D of 1e-2 the norm of the group's weights (in f64 1e-4 of
    /// it; of the step itself where they are zero). Where a step moves weights in f32 by less than 1e-4 of their size, the
    /// rounding of the weights shows in D.
    ///
    /// Takes 1 gradient of the objective, and for every group 2 gradients and 1 loss.
    ///
    /// # Errors
    /// Those of [`try_step`](Self::try_step), but for gradients that are not finite; and those of the objective.
    pub fn probe<M: Module, O: Objective<M>>(
        &self,
        factor: f64,
        model: &M,
        grads: &GradientsParams,
        groups: ProbeGroups,
        objective: &mut O,
    ) -> Result<Vec<Probe>, O::Error> {
        let weights = Weights::of(self, factor, model, grads)?;
        let average = mean_gradient(&weights.trained, model, objective)?;
        let before = objective.mean_loss(model)?;
        let mut probes = Vec::new();
        for (group, members) in weights.groups(self, groups) {
            let Some(rate) = weights.rate(&members) else { continue };
            let direction = Direction { weights: &weights, members: &members, scale: 1.0 / rate.of_direction };
            probes.push(direction.probe(group, rate, model, &average, before, objective)?);
        }
        Ok(probes)
    }
}

/// The learning rates of the next step, of every parameter that is not frozen.
fn rates(optimizer: &LayerwiseOptimizer, factor: f64) -> Vec<f64> {
    let (groups, when) = optimizer.groups_at(factor);
    let rates = groups.iter().flat_map(|group| group.members.iter().map(|number| (*number, group.lr_at(&when))));
    rates.collect::<BTreeMap<usize, f64>>().into_values().collect()
}

/// The trained parameters, the step that would be made, and the gradient it is made from, all flat.
struct Weights {
    trained: Trained,
    values: Copies,
    /// W - W'
    step: Copies,
    /// G̃
    gradient: Copies,
    /// The learning rate of every parameter.
    rates: Vec<f64>,
}

impl Weights {
    fn of<M: Module>(
        optimizer: &LayerwiseOptimizer,
        factor: f64,
        model: &M,
        grads: &GradientsParams,
    ) -> Result<Self, LayerwiseError> {
        let trained = optimizer.trained(model);
        let after = optimizer.bare().try_update(factor, model.clone(), gradients::copy(model, grads))?;
        let values = trained.copies(model)?;
        let mut step = trained.copies(&after)?;
        for number in 0..trained.len() {
            if let (Some(before), Some(after)) = (values.get(number), step.take(number)) {
                step.put(number, before - after);
            }
        }
        let gradient = trained.gradients(model, grads)?;
        Ok(Self { rates: rates(optimizer, factor), trained, values, step, gradient })
    }

    /// Names and members of the groups, in the order of the model.
    fn groups(&self, optimizer: &LayerwiseOptimizer, groups: ProbeGroups) -> Vec<(String, Vec<usize>)> {
        let (mut names, mut members): (Vec<String>, BTreeMap<String, Vec<usize>>) = Default::default();
        for (number, entry) in optimizer.plan().entries().iter().filter(|entry| !entry.is_frozen()).enumerate() {
            let name = match groups {
                ProbeGroups::All => "all".to_string(),
                ProbeGroups::Tensors => entry.path.clone(),
                ProbeGroups::Roles => entry.role.map_or_else(|| "other".to_string(), |role| role.name().to_string()),
            };
            if !members.contains_key(&name) {
                names.push(name.clone());
            }
            members.entry(name).or_default().push(number);
        }
        names.into_iter().filter_map(|name| members.remove_entry(&name)).collect()
    }

    /// `None` if nothing of it moves.
    fn rate(&self, members: &[usize]) -> Option<Rate> {
        let mut rates = members.iter().map(|number| self.rates[*number]);
        let first = rates.next()?;
        match rates.all(|rate| rate == first) {
            true if first == 0.0 => None,
            true => Some(Rate { shared: Some(first), of_direction: first }),
            false => Some(Rate { shared: None, of_direction: 1.0 }),
        }
    }
}

/// D of a group: the step times a scale.
struct Direction<'a> {
    weights: &'a Weights,
    members: &'a [usize],
    scale: f64,
}

impl Direction<'_> {
    fn probe<M: Module, O: Objective<M>>(
        &self,
        group: String,
        rate: Rate,
        model: &M,
        average: &Copies,
        before: f64,
        objective: &mut O,
    ) -> Result<Probe, O::Error> {
        let Weights { trained, gradient, step, values, .. } = self.weights;
        let along =
            |gradient: &Copies| self.scale * self.sum(|number| Some(product(gradient.get(number)?, step.get(number)?)));
        let norm = |of: &Copies| self.sum(|number| Some(product(of.get(number)?, of.get(number)?))).sqrt();
        let noise = |number: usize| {
            let noise = gradient.get(number)? - average.get(number)?;
            Some(product(noise.clone(), noise))
        };
        let (direction, size) = (self.scale * norm(step), norm(values));
        let mut products = Products {
            slope: along(average),
            promised: along(gradient),
            direction,
            gradient: norm(gradient),
            noise: self.sum(noise).sqrt(),
            ..Products::default()
        };
        if direction > 0.0 {
            let h = if size > 0.0 { reach(values) * size / direction } else { rate.of_direction };
            let mut slope_at = |t: f64| -> Result<f64, O::Error> {
                Ok(along(&mean_gradient(trained, &self.moved(model, t)?, objective)?))
            };
            products.curvature = (slope_at(h)? - slope_at(-h)?) / (2.0 * h);
            products.decrease = before - objective.mean_loss(&self.moved(model, -rate.of_direction)?)?;
        }
        Ok(Probe::of(group, rate, products))
    }

    /// The model at W + t D.
    fn moved<M: Module>(&self, model: &M, t: f64) -> Result<M, LayerwiseError> {
        let Weights { trained, step, .. } = self.weights;
        let moved = trained.change(model.clone(), |number, values| match step.get(number) {
            Some(step) if self.members.contains(&number) => values + step * (t * self.scale),
            _ => values,
        });
        Ok(moved?)
    }

    /// The sum over the members that have the number.
    fn sum(&self, of: impl Fn(usize) -> Option<f64>) -> f64 {
        self.members.iter().filter_map(|number| of(*number)).sum()
    }
}
