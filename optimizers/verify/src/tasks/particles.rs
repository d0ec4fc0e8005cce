//! The energy of smoothed Muon on many particles, whose mean is what is judged (arXiv 2605.23871; problem and constants ours).
//!
//! ```text
//! f(x) = 1/N Σ_j a_jᵀ tanh(W_j x)        R = ½ mean over the data of (f(x) - y)²
//! ```
//!
//! A particle is a pair (a, W), and moves along the gradient of `N R`. With momentum factor `1 - dt` and learning rate `dt`, the
//! energy `H = R + 1/N Σ_j ψ(momentum of a_j) + ψ(momentum of W_j)` cannot rise in the limit of small steps, and what it loses is
//! `Σ dt/N ⟨h(M), M⟩`, up to an error of first order in dt.

use burn::tensor::{Device, Tensor};
use polaron::ConfigError;

use super::problem::{Finding, Setting, TaskError, Trained, gaussian, scalar};
use super::quadratic::{dissipation, momentum_of, potential, smoothed};

const PARTICLES: usize = 8;
const HIDDEN: usize = 4;
const INPUTS: usize = 6;
const SAMPLES: usize = 32;
/// Until the particles nearly rest.
const TIME: f64 = 10.0;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let mut findings = Vec::new();
    let mut before: Option<f64> = None;
    let smallest = if setting.quick { 0.025 } else { 0.0125 };
    for dt in [0.1, 0.05, 0.025, 0.0125].into_iter().filter(|dt| *dt >= smallest) {
        let Course { rises, steps, residual, fell } = Particles::new(dt, setting.device)?.course(dt, TIME);
        let what = format!("dt {dt}: steps on which the energy rises");
        findings.push(Finding::judged(what, format!("{rises} of {steps}"), "0", rises == 0));
        // The balance is of first order at least (here the energy has nearly come to rest, which leaves the second); 10 % for the
        // higher orders.
        let halves = before.is_none_or(|before| residual < 0.55 * before);
        let what = format!("dt {dt}: what the balance leaves open, share of the energy spent");
        findings.push(Finding::judged(what, format!("{:.3} %", 100.0 * residual), "at most halves with dt", halves));
        let what = format!("dt {dt}: loss at the end over that at the start");
        findings.push(Finding::judged(what, format!("{fell:.3}"), "below 0.5", fell < 0.5));
        before = Some(residual);
    }
    Ok(findings)
}

/// What happened to the energy.
struct Course {
    rises: usize,
    steps: usize,
    /// The part of the energy spent that the dissipation does not explain.
    residual: f64,
    /// Last loss over first.
    fell: f64,
}

/// All particles, and the data.
struct Particles {
    outer: Vec<Trained>,
    inner: Vec<Trained>,
    inputs: Tensor<2>,
    targets: Tensor<2>,
}

impl Particles {
    fn new(dt: f64, device: &Device) -> Result<Self, ConfigError> {
        let config = smoothed(1.0 - dt);
        let trained = |shape: [usize; 2], seed: u64| Trained::new(&config, gaussian(shape, 0.5, seed, device));
        let each = |shape: [usize; 2], first: u64| {
            (0..PARTICLES as u64).map(|j| trained(shape, first + j)).collect::<Result<Vec<_>, _>>()
        };
        let inputs = gaussian([INPUTS, SAMPLES], 1.0, 1, device);
        // A teacher of the same kind, with one particle.
        let teacher = gaussian([HIDDEN, INPUTS], 0.5, 2, device).matmul(inputs.clone()).tanh();
        let targets = gaussian([1, HIDDEN], 0.5, 3, device).matmul(teacher);
        Ok(Self { outer: each([1, HIDDEN], 100)?, inner: each([HIDDEN, INPUTS], 200)?, inputs, targets })
    }

    fn hidden(&self, j: usize) -> Tensor<2> {
        self.inner[j].weights.clone().matmul(self.inputs.clone()).tanh()
    }

    /// f - y
    fn errors(&self) -> Tensor<2> {
        let outputs = (0..PARTICLES).map(|j| self.outer[j].weights.clone().matmul(self.hidden(j)));
        let sum = outputs.reduce(|sum, output| sum + output);
        sum.map_or_else(|| self.targets.clone().neg(), |sum| sum / PARTICLES as f64 - self.targets.clone())
    }

    fn loss(&self) -> f64 {
        0.5 * scalar(self.errors().square()) / SAMPLES as f64
    }

    /// Gradients of N R by a and W of every particle.
    fn gradients(&self) -> Vec<[Tensor<2>; 2]> {
        let errors = self.errors() / SAMPLES as f64;
        let of = |j: usize| {
            let hidden = self.hidden(j);
            let back = self.outer[j].weights.clone().transpose().matmul(errors.clone());
            let by_inner = (back * (hidden.clone().square().neg() + 1.0)).matmul(self.inputs.clone().transpose());
            [errors.clone().matmul(hidden.transpose()), by_inner]
        };
        (0..PARTICLES).map(of).collect()
    }

    fn step(&mut self, dt: f64) {
        for (j, [by_outer, by_inner]) in self.gradients().into_iter().enumerate() {
            self.outer[j].step(dt, by_outer);
            self.inner[j].step(dt, by_inner);
        }
    }

    /// The mean over the particles of a function of their momenta.
    fn mean(&self, of: fn(&Tensor<2>) -> f64) -> f64 {
        let each = self.outer.iter().chain(&self.inner).map(|trained| of(&momentum_of(trained)));
        each.sum::<f64>() / PARTICLES as f64
    }

    fn course(mut self, dt: f64, time: f64) -> Course {
        let steps = (time / dt).round() as usize;
        let (start, mut rises, mut spent) = (self.loss(), 0, 0.0);
        let mut energy = start;
        for _ in 0..steps {
            self.step(dt);
            let now = self.loss() + self.mean(potential);
            // 1e-12: rounding of the sums
            rises += usize::from(now > energy + 1e-12);
            spent += dt * self.mean(dissipation);
            energy = now;
        }
        Course {
            rises,
            steps,
            residual: ((start - energy) - spent).abs() / (start - energy),
            fell: self.loss() / start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        let loss = |moved: f64| {
            let mut particles = Particles::new(0.1, &Device::flex()).unwrap();
            let [by_outer, by_inner] = particles.gradients().swap_remove(3);
            particles.outer[3].weights = particles.outer[3].weights.clone() + by_outer * moved;
            particles.inner[3].weights = particles.inner[3].weights.clone() + by_inner * moved;
            PARTICLES as f64 * particles.loss()
        };
        let gradients = Particles::new(0.1, &Device::flex()).unwrap().gradients().swap_remove(3);
        let squares: f64 = gradients.into_iter().map(|gradient| scalar(gradient.square())).sum();
        let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        assert!((slope / squares - 1.0).abs() < 1e-6, "{slope} {squares}");
    }

    /// At rest the balance closes by more than one order; while the particles move it is of first order.
    #[test]
    fn while_the_particles_move_the_balance_is_of_first_order() {
        let residual = |dt| Particles::new(dt, &Device::flex()).unwrap().course(dt, 1.0).residual;
        let halved = residual(0.01) / residual(0.02);
        assert!((0.45..0.55).contains(&halved), "{halved}");
    }
}
