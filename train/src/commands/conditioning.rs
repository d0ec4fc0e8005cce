//! `polaron inspect --conditioning`: what the equilibrations of MuonEq would change in the matrices of a run.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::layerwise::{Plan, PlanEntry};
use polaron::matrix::Matrix;
use polaron::{LayerwiseRecord, Role};
use polaron_common::{Align, table};
use polaron_verify::inspect::{Conditioning, Equilibrated, conditioning};

use crate::error::Error;
use crate::host::device;
use crate::networks::family::Family;
use crate::networks::registry::ForFamily;
use crate::run::prepare::outline;
use crate::store::weights::{Purpose, Weights};

/// The table of a run.
///
/// # Errors
///
/// A folder without such a run, or one whose newest checkpoint has no momentum of a matrix.
pub fn of(path: &Path) -> Result<String, Error> {
    let weights = Weights::read(path, None, Purpose::Training)?;
    let shown = path.display();
    if weights.optimizer.is_empty() {
        return Err(Error::Usage(format!("`{shown}` holds no optimizer states, whose momentum --conditioning reads")));
    }
    let record = LayerwiseRecord::from_safetensors(&weights.optimizer)?;
    let plan = weights.config.model.with(Planned(&weights))?;
    let device = device::open(device::default_name())?;
    let hidden = plan.entries().iter().filter(|entry| !entry.role.is_some_and(is_outside));
    let momenta = hidden.filter_map(|entry| {
        let momentum = record.tensors().get(&format!("{}.momentum", entry.path))?;
        Some((entry, matrices(entry, momentum, &device)?))
    });
    let (mut rows, mut all) = (vec![HEAD.map(String::from)], Vec::new());
    for (entry, matrix) in momenta {
        let count = matrix.tensor().dims()[0];
        let name = if count > 1 { format!("{} ({count} matrices)", entry.path) } else { entry.path.clone() };
        match conditioning(&matrix) {
            Some(modes) => {
                rows.extend(named(&name, &modes));
                all.push(modes);
            }
            None => rows.push([&name, "", "zero", "", "", "", ""].map(String::from)),
        }
    }
    if rows.len() == 1 {
        let step = weights.step;
        return Err(Error::Usage(format!(
            "the checkpoint of step {step} in `{shown}` holds no momentum of a matrix: --conditioning needs a run of at least one \
             step by a rule with a momentum, such as muon"
        )));
    }
    rows.extend(means(&all));
    let align = [Align::Left, Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right];
    Ok(format!("{}\n{NOTE}\n", table(rows, &align)) + &format!("Step {} of `{shown}`.\n", weights.step))
}

const HEAD: [&str; 7] = ["matrix G", "equilibrated", "stable rank", "condition", "below", "NS error", "cosine"];

const NOTE: &str = "G is the momentum in the optimizer record of the checkpoint: the gradients of a stored run are not stored, so \
    that the look-ahead of Nesterov, which a step works on, is not known. Y is G with its units brought to equal norm as by muon_eq \
    with its defaults.\nstable rank, condition: of Y; below: share of its singular values below 0.0015 of its norm, which five \
    Newton–Schulz steps do not reach; NS error: norm of NS(Y) - polar(Y) over √r; cosine: <polar(Y), polar(G)> / r, what is left \
    of Muon's direction. Of several matrices, the means.";

fn is_outside(role: Role) -> bool {
    Role::EDGES.contains(&role) || Role::VECTORS.contains(&role)
}

/// The rows of a matrix.
fn named<'a>(name: &'a str, modes: &'a [Equilibrated]) -> impl Iterator<Item = [String; 7]> + 'a {
    modes.iter().enumerate().map(move |(at, mode)| row(if at == 0 { name } else { "" }, mode))
}

/// The rows of the means over several matrices; none for a single one.
fn means(all: &[[Equilibrated; 4]]) -> Vec<[String; 7]> {
    let mean = |at: usize| {
        let numbers: Vec<Conditioning> = all.iter().map(|modes| modes[at].numbers).collect();
        Some(Equilibrated { mode: all.first()?[at].mode, numbers: Conditioning::mean(&numbers)? })
    };
    let modes: Vec<Equilibrated> = (0..4).filter(|_| all.len() > 1).filter_map(mean).collect();
    named(&format!("mean of {}", all.len()), &modes).collect()
}

fn row(name: &str, measured: &Equilibrated) -> [String; 7] {
    let Conditioning { stable_rank, condition, below, error, cosine } = measured.numbers;
    [
        name.into(),
        measured.mode.into(),
        format!("{stable_rank:.2}"),
        condition.map_or_else(|| "singular".into(), |condition| format!("{condition:.3e}")),
        format!("{below:.3}"),
        format!("{error:.3}"),
        format!("{cosine:.3}"),
    ]
}

/// The momentum as a stack of matrices, as the rule reads it; None for a tensor that is neither a matrix nor such a stack.
fn matrices(entry: &PlanEntry, momentum: &TensorData, device: &Device) -> Option<Matrix> {
    let stack = match *momentum.shape().as_slice() {
        [count, a, b] => [count, a, b],
        [a, b] => [1, a, b],
        _ => return None,
    };
    let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let entries: Vec<f64> = momentum.iter::<f64>().collect();
    let data = TensorData::new(entries, stack).convert_dtype(dtype);
    Some(Matrix::new(Tensor::from_data(data, (device, dtype)), entry.placement.layout))
}

/// The plan of the optimizer of stored weights.
struct Planned<'a>(&'a Weights);

impl ForFamily for Planned<'_> {
    type Output = Result<Plan, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let Self(Weights { config, tensors, tokenizer, .. }) = self;
        outline(config, settings, settings.stored_sizes(tensors, tokenizer.as_ref())?)
    }
}
