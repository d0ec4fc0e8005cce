//! `polaron inspect --delta`: the strongest directions of what a run has changed, as `project` of a rule reads them.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use polaron::Layerwise;
use polaron::Roles;
use polaron::matrix::{Axis, Layout};
use polaron_common::{Align, table};
use polaron_datasets::Tokenizer;
use polaron_models::{NamedTensor, load_named, merged, to_named};
use polaron_verify::inspect::Directions;

use crate::error::Error;
use crate::host::device;
use crate::host::progress::say;
use crate::networks::family::Family;
use crate::networks::registry::ForFamily;
use crate::run::prepare::with_adapters;
use crate::settings::config::Config;
use crate::store::files::write_atomically;
use crate::store::tensors;
use crate::store::weights::{Purpose, Weights};

/// How many directions of a matrix by default.
pub const RANK: usize = 8;

/// The format of the file, in its metadata.
const FORMAT: &str = "polaron-directions-1";

/// The table of the changes from the weights in the folder `base` to those of the run in `path`, and the file of their first
/// `rank` directions, if one is asked for.
///
/// # Errors
///
/// No such weights, other parameters or shapes, no change at all, a file that cannot be written.
pub fn of(base: &Path, path: &Path, rank: usize, out: Option<&Path>) -> Result<String, Error> {
    if rank == 0 {
        return Err(Error::Usage("--rank must be at least 1".into()));
    }
    let [before, after] = [base, path].map(|path| -> Result<(Stored, u64), Error> {
        let Weights { config, tensors, tokenizer, notes, step, .. } = Weights::read(path, None, Purpose::Evaluation)?;
        notes.iter().for_each(|note| say(&format!("note: {note}")));
        Ok((config.model.with(Merged { config: &config, tensors, tokenizer })?, step))
    });
    let ((before, first), (after, last)) = (before?, after?);
    check_same(&before, &after, base, path)?;
    let changes: Vec<Change> =
        before.tensors.iter().zip(&after.tensors).filter_map(|(a, b)| Change::between(a, b, &after, rank)).collect();
    if changes.iter().all(|change| change.tensors.is_empty()) {
        return Err(Error::Usage(format!(
            "no matrix of `{}` differs from that of `{}`",
            path.display(),
            base.display()
        )));
    }
    let mut rows = vec![HEAD.map(String::from)];
    rows.extend(changes.iter().map(Change::row));
    let align = [Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Left];
    let mut said = format!("{}\n{NOTE}\n", table(rows, &align));
    said += &format!("From step {first} of `{}` to step {last} of `{}`.\n", base.display(), path.display());
    if let Some(out) = out {
        let kept: Vec<NamedTensor> = changes.into_iter().flat_map(|change| change.tensors).collect();
        let facts =
            [("format", FORMAT.to_string()), ("base", base.display().to_string()), ("run", path.display().to_string())];
        let facts: BTreeMap<String, String> = facts.map(|(key, value)| (key.to_string(), value)).into();
        let bytes = tensors::to_bytes(&kept, &facts).map_err(|error| Error::Usage(error.to_string()))?;
        write_atomically(out, &bytes)?;
        let shown = out.display();
        said += &format!(
            "wrote {shown}: in a rule of the optimizer, project = {{ input = \"{shown}\" }} keeps what its matrices make of these inputs\n"
        );
    }
    Ok(said)
}

const HEAD: [&str; 6] = ["matrix", "change", "of weights", "directions", "energy", "of each"];

const NOTE: &str = "change: Frobenius norm of the difference of the weights, adapters merged; of weights: its share of the norm of the \
    base's; directions: how many of the first singular vectors are kept; energy: their share of the squared singular values, all \
    together and one by one, largest first. Of several matrices (experts), means.";

/// The weights of a model, adapters merged, and how its matrices are stored.
struct Stored {
    tensors: Vec<NamedTensor>,
    layouts: BTreeMap<String, Layout>,
}

/// Weights whose model is to be put together.
struct Merged<'a> {
    config: &'a Config,
    tensors: Vec<NamedTensor>,
    tokenizer: Option<Tokenizer>,
}

impl ForFamily for Merged<'_> {
    type Output = Result<Stored, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let Self { config, tensors, tokenizer } = self;
        let sizes = settings.stored_sizes(&tensors, tokenizer.as_ref())?;
        let device = device::open(device::default_name())?;
        let fresh = with_adapters(config, settings.outline(sizes, &device)?)?;
        let model = merged(load_named(fresh, tensors, &device)?);
        let plan = Layerwise::adamw().hints(model.roles()).plan(&model)?;
        let layouts = plan.entries().iter().map(|entry| (entry.path.clone(), entry.placement.layout)).collect();
        Ok(Stored { tensors: to_named(&model), layouts })
    }
}

/// Refuses weights of two models.
fn check_same(before: &Stored, after: &Stored, base: &Path, path: &Path) -> Result<(), Error> {
    let forms = |stored: &Stored| -> BTreeMap<String, Vec<usize>> {
        stored.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.data.shape().to_vec())).collect()
    };
    let (before, after) = (forms(before), forms(after));
    let other = before.keys().chain(after.keys()).find(|name| before.get(*name) != after.get(*name));
    let Some(name) = other else { return Ok(()) };
    let shape = |forms: &BTreeMap<String, Vec<usize>>| {
        forms.get(name).map_or_else(|| "is not there".into(), |shape| format!("has the shape {shape:?}"))
    };
    Err(Error::Usage(format!(
        "--delta needs weights of one model, but `{name}` {} in `{}` and {} in `{}`",
        shape(&before),
        base.display(),
        shape(&after),
        path.display()
    )))
}

/// The change of one parameter.
struct Change {
    name: String,
    norm: f64,
    /// Of the norm of the base; None where that is 0.
    share: Option<f64>,
    /// The shares of the energy of its directions.
    shares: Vec<f64>,
    /// Its directions as `project` reads them; none where nothing changed.
    tensors: Vec<NamedTensor>,
}

impl Change {
    /// None for vectors.
    fn between(before: &NamedTensor, after: &NamedTensor, stored: &Stored, rank: usize) -> Option<Self> {
        let shape = after.data.shape().to_vec();
        let &[.., height, width] = shape.as_slice() else { return None };
        let layout = *stored.layouts.get(&after.name)?;
        let old: Vec<f64> = before.data.iter::<f64>().collect();
        let difference: Vec<f64> = after.data.iter::<f64>().zip(&old).map(|(a, b)| a - b).collect();
        let found = Directions::of(&TensorData::new(difference, shape), rank.min(height.max(width) - 1))?;
        // Matrices of a stack have as many as the one with the fewest.
        let kept = found.iter().map(|found| found.shares.len()).min().unwrap_or_default();
        let norm = found.iter().map(|found| found.norm.powi(2)).sum::<f64>().sqrt();
        let whole = old.iter().map(|entry| entry * entry).sum::<f64>().sqrt();
        let mean = |at: usize| found.iter().map(|found| found.shares[at]).sum::<f64>() / found.len() as f64;
        let sides = [(0, height), (1, width)].map(|(position, size)| {
            let axis = if (layout == Layout::InOut) == (position == 0) { Axis::Input } else { Axis::Output };
            let vectors = |found: &Directions| if position == 0 { found.rows.clone() } else { found.columns.clone() };
            // One fewer than its features at most: something must be left to train.
            side(&after.name, axis, found.iter().map(vectors), [size, kept.min(size - 1)])
        });
        Some(Self {
            name: after.name.clone(),
            norm: norm / (found.len() as f64).sqrt(),
            share: (whole > 0.0).then(|| norm / whole),
            shares: (0..kept).map(mean).collect(),
            tensors: sides.into_iter().flatten().collect(),
        })
    }

    fn row(&self) -> [String; 6] {
        let share = self.share.map_or_else(|| "from zero".into(), |share| format!("{:.3} %", 100.0 * share));
        if self.tensors.is_empty() {
            return [self.name.clone(), "none".into(), String::new(), "0".into(), String::new(), String::new()];
        }
        let each: Vec<String> = self.shares.iter().map(|share| format!("{share:.3}")).collect();
        let together: f64 = self.shares.iter().sum();
        [
            self.name.clone(),
            format!("{:.3e}", self.norm),
            share,
            self.shares.len().to_string(),
            format!("{together:.3}"),
            each.join(" "),
        ]
    }
}

/// The first directions of an axis, `[features, directions]`, or `[E, features, directions]` of a stack; None without any.
fn side(
    name: &str,
    axis: Axis,
    vectors: impl ExactSizeIterator<Item = Vec<Vec<f64>>>,
    [features, kept]: [usize; 2],
) -> Option<NamedTensor> {
    let count = vectors.len();
    let by_rows = |vectors: Vec<Vec<f64>>| -> Vec<f64> {
        (0..features).flat_map(|row| vectors[..kept].iter().map(move |vector| vector[row])).collect()
    };
    let values: Vec<f64> = vectors.flat_map(by_rows).collect();
    let shape = if count == 1 { vec![features, kept] } else { vec![count, features, kept] };
    let data = TensorData::new(values, shape).convert_dtype(DType::F32);
    (kept > 0).then(|| NamedTensor { name: format!("{name}.{}", axis.name()), data })
}
