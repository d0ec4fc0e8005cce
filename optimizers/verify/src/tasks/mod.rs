//! Tasks with known answers: the results of an optimizer can be compared with a formula or with
//! figures that another program measured.
//!
//! | task | what is known | source |
//! |---|---|---|
//! | `quadratic` | smoothed Muon's energy never rises; its balance closes with the step size | arXiv 2605.23871 |
//! | `particles` | the same where only the mean of many particles is judged | arXiv 2605.23871 |
//! | `nonsmooth` | exact Muon never moves the trace, the usual polynomial runs away | arXiv 2605.08980 |
//! | `memory` | facts that one step stores: Muon beats SGD by one power of the width, and uses larger batches | arXiv 2603.26554 |
//! | `recall` | pairs that a matrix or two layers can store, and how alike their scores become | arXiv 2605.10795 |
//! | `factorisation` | when each eigenvalue is learned; Muon learns the smallest first | arXiv 2605.28613 |
//! | `denoising` | to which digit a factorisation of a noisy matrix removes noise, and when | arXiv 2605.28613 |
//! | `federation` | eight clients with an adapter: means of products, the way to the optimum, the size of noise | arXiv 2505.12805 |
//! | `layer_peeled` | the optimum to thirteen digits; logits are circulant | arXiv 2605.12756 |
//! | `random_features` | the best step of Muon is the nuclear norm over a trace | arXiv 2605.11181 |
//! | `lr_transfer` | under muP the best learning rate does not depend on the width | arXiv 2512.05620 |
//! | `coordinates` | where learning rates follow the width, a layer's change does not depend on it | arXiv 2203.03466 |
//! | `symmetry` | rules with the symmetry of their parameters learn the same from renamed weights | arXiv 2605.18106 |
//! | `spike` | a teacher's direction appears in the spectrum and is lost again | arXiv 2604.18450 |
//! | `xor` | from which signal strength a kernel sees the classes | arXiv 2605.29669 |
//!
//! Predictions and tolerances of our own are marked as such.

mod coordinates;
mod denoising;
mod factorisation;
mod federation;
mod layer_peeled;
mod lr_transfer;
mod memory;
mod nonsmooth;
mod particles;
pub(crate) mod problem;
mod quadratic;
mod random_features;
mod recall;
mod spike;
mod symmetry;
mod xor;

pub use problem::{Finding, Setting, TaskError};

type Run = fn(&Setting<'_>) -> Result<Vec<Finding>, TaskError>;

/// A task by name.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Name on the command line.
    pub name: &'static str,
    /// Its description in one line.
    pub about: &'static str,
    /// Why it has no place for the optimizer of a setting; `None` if it runs that as well.
    pub takes_none: Option<&'static str>,
    run: Run,
}

const fn task(name: &'static str, about: &'static str, run: Run) -> Task {
    Task { name, about, takes_none: None, run }
}

/// Every task.
pub const TASKS: &[Task] = &[
    task("quadratic", "energy of smoothed Muon on a matrix quadratic", quadratic::run).without_optimizer(OWN_ENERGY),
    task("particles", "energy of smoothed Muon on particles of which the mean is judged", particles::run)
        .without_optimizer(OWN_ENERGY),
    task("nonsmooth", "the 2 × 2 function on which exact Muon stalls", nonsmooth::run),
    task(
        "memory",
        "facts that associative memory recalls after one step, from a batch, and after sixteen steps",
        memory::run,
    ),
    task("recall", "pairs that one matrix or two layers can be trained to recall", recall::run),
    task(
        "factorisation",
        "the order and the times in which a deep factorisation learns eigenvalues",
        factorisation::run,
    ),
    task("denoising", "how near a deep factorisation of a noisy matrix comes to the clean one", denoising::run),
    task("federation", "clients that train an adapter together, re-factorised every round", federation::run),
    task("layer_peeled", "an exactly solvable softmax problem with circulant logits", layer_peeled::run),
    task("random_features", "the best step size on a random-feature quadratic", random_features::run),
    task(
        "coordinates",
        "how far layers move at several widths, where learning rates follow the width",
        coordinates::run,
    ),
    task("symmetry", "whether training from renamed weights learns the same", symmetry::run),
    task("lr_transfer", "best learning rates of networks of several widths, with and without muP", lr_transfer::run)
        .without_optimizer(
            "it compares the width rules of AdamW and Muon; `coordinates` checks those of any optimizer in seconds",
        ),
    task("spike", "a teacher's direction that appears in the spectrum and vanishes", spike::run)
        .without_optimizer("its weights follow the formula of gradient flow; leave the optimizer out"),
    task("xor", "whether the top eigenvectors of a kernel see an XOR problem", xor::run)
        .without_optimizer("its weights are random and not trained; leave the optimizer out"),
];

const OWN_ENERGY: &str = "the energy that it follows is that of smoothed Muon; leave the optimizer out";

impl Task {
    const fn without_optimizer(self, reason: &'static str) -> Self {
        Self { takes_none: Some(reason), ..self }
    }

    /// The task of a name.
    pub fn find(name: &str) -> Option<&'static Task> {
        TASKS.iter().find(|task| task.name == name)
    }

    /// Runs it.
    ///
    /// # Errors
    /// If the optimizer of the setting is not valid, or the task has no place for it.
    pub fn run(&self, setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
        match (self.takes_none, &setting.optimizer) {
            (Some(reason), Some(_)) => Err(TaskError::TakesNone { task: self.name, reason }),
            _ => (self.run)(setting),
        }
    }
}
