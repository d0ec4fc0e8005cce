//! Spectra of a model's weights, and how they change, recorded during training if `train.spectra_every` is set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use burn::tensor::TensorData;
use polaron::layerwise::Plan;
use polaron::wrappers::WrapperRecord;
use polaron_models::NamedTensor;
use polaron_verify::inspect::{Bulk, Change, Leading, Overlap, Spectrum};

use crate::host::workers::Workers;
use crate::store::metrics::MatrixSpectrum;

/// What the record of an optimizer calls the copies.
pub const KIND: &str = "spectra";

/// What the next record of a run is compared with.
#[derive(Debug, Default)]
pub struct Spectra {
    /// The step of the newest record in `metrics.jsonl`.
    pub at: Option<u64>,
    /// Matrices that never change, by path: without copies.
    frozen: BTreeSet<String>,
    /// By `<path>.<name>`: the matrices and the scales of their bulks at step 0; the step, the matrices and their first singular
    /// vectors of the newest record.
    copies: BTreeMap<String, TensorData>,
}

const FIRST: &str = "first";
const FIRST_SIGMA: &str = "first_sigma";
const LAST: &str = "last";
const LAST_STEP: &str = "last_step";
const LAST_ROWS: &str = "last_rows";
const LAST_COLUMNS: &str = "last_columns";

/// A matrix at a step, and the copies that the next record needs of it.
type Recorded = (MatrixSpectrum, Vec<(String, TensorData)>);

impl Spectra {
    /// How many copies of the trained matrices there are: those of step 0 and of the newest record.
    pub const COPIES: usize = 2;

    /// Without copies: of a run that begins, or whose checkpoint has none.
    pub fn new(plan: &Plan) -> Self {
        let frozen = plan.entries().iter().filter(|entry| entry.is_frozen()).map(|entry| entry.path.clone());
        Self { at: None, frozen: frozen.collect(), copies: BTreeMap::new() }
    }

    /// Takes over the copies in a checkpoint.
    pub fn load_record(&mut self, record: WrapperRecord) {
        self.copies = record.into_tensors();
    }

    /// The copies, for a checkpoint; None if there are none.
    pub fn to_record(&self) -> Option<WrapperRecord> {
        (!self.copies.is_empty()).then(|| WrapperRecord::new(KIND, self.copies.clone()))
    }

    /// Whether the copies are those of `step`. They are not where a run was killed between the record of a step and its checkpoint,
    /// or between the first checkpoint and its record.
    pub fn compares_with(&self, step: u64) -> bool {
        let copied = |(name, data): (&String, &TensorData)| {
            let is_step = name.rsplit_once('.').is_some_and(|(_, kind)| kind == LAST_STEP);
            is_step.then(|| data.iter::<f64>().next()).flatten()
        };
        self.copies.iter().filter_map(copied).reduce(f64::max) == Some(step as f64)
    }

    /// The spectra of all matrices among the weights after `step` steps, in the order of the model, but for those with
    /// non-finite values.
    pub fn record(&mut self, step: u64, weights: &[NamedTensor], workers: &Workers) -> Vec<MatrixSpectrum> {
        let mut found: Vec<Option<Recorded>> = weights.iter().map(|_| None).collect();
        let places: Vec<Mutex<&mut Option<Recorded>>> = found.iter_mut().map(Mutex::new).collect();
        workers.each(weights.iter().zip(&places), |(tensor, place)| {
            **place.lock().unwrap_or_else(PoisonError::into_inner) = self.of_tensor(step, tensor);
        });
        drop(places);
        let kept = |(matrix, copies)| {
            self.copies.extend::<Vec<_>>(copies);
            matrix
        };
        found.into_iter().flatten().map(kept).collect()
    }

    fn of_tensor(&self, step: u64, tensor: &NamedTensor) -> Option<Recorded> {
        let NamedTensor { name, data } = tensor;
        let &[.., height, width] = data.shape().as_slice() else { return None };
        let matrices = Leading::of(data)?;
        let spectra = matrices.iter().map(|matrix| Spectrum::of(&matrix.values)).collect::<Option<Vec<Spectrum>>>()?;
        let bulks = matrices.iter().map(|matrix| Bulk::of(&matrix.values, [height, width]));
        let bulks = bulks.collect::<Option<Vec<Bulk>>>();
        let spectrum = mean(&spectra)?;
        let bulk = bulks.as_ref().and_then(|bulks| Bulk::mean(bulks));
        let join = |of: fn(&Leading) -> &[f64]| matrices.iter().flat_map(of).copied().collect::<Vec<f64>>();
        let (rows, columns) = (join(|matrix| &matrix.rows), join(|matrix| &matrix.columns));
        let sigmas: Vec<f64> = bulks.unwrap_or_default().iter().map(|bulk| bulk.sigma).collect();
        let key = |kind: &str| format!("{name}.{kind}");
        let before = |kind: &str| self.copies.get(&key(kind));
        let has_direction = matrices.iter().all(|matrix| matrix.values[0] > 0.0);
        let overlap = |vectors: &[f64], kind| squared_cosine(vectors, before(kind)?, matrices.len());
        let overlaps = overlap(&rows, LAST_ROWS).zip(overlap(&columns, LAST_COLUMNS)).filter(|_| has_direction);
        let matrix = MatrixSpectrum {
            name: name.clone(),
            frozen: self.frozen.contains(name),
            spectrum,
            bulk,
            bulk_scale: ratio(&sigmas, before(FIRST_SIGMA)),
            overlap: overlaps.map(|(rows, columns)| Overlap { rows, columns }),
            since_last: before(LAST).and_then(|before| Change::between(before, data)),
            since_start: before(FIRST).and_then(|before| Change::between(before, data)),
        };
        if matrix.frozen {
            return Some((matrix, Vec::new()));
        }
        let list = |values: Vec<f64>| {
            let length = values.len();
            TensorData::new(values, [length])
        };
        let mut copies = vec![
            (key(LAST), data.clone()),
            (key(LAST_STEP), list(vec![step as f64])),
            (key(LAST_ROWS), list(rows)),
            (key(LAST_COLUMNS), list(columns)),
        ];
        if step == 0 {
            copies.extend([(key(FIRST), data.clone()), (key(FIRST_SIGMA), list(sigmas))]);
        }
        Some((matrix, copies))
    }
}

/// The mean of `now / before`; None without numbers, or where one was 0.
fn ratio(now: &[f64], before: Option<&TensorData>) -> Option<f64> {
    let before: Vec<f64> = before?.iter::<f64>().collect();
    let comparable = !now.is_empty() && now.len() == before.len() && before.iter().all(|sigma| *sigma > 0.0);
    comparable.then(|| now.iter().zip(&before).map(|(now, before)| now / before).sum::<f64>() / now.len() as f64)
}

/// The mean over `count` vectors, one after the other, of the squared cosine with what they were.
fn squared_cosine(vectors: &[f64], before: &TensorData, count: usize) -> Option<f64> {
    let before: Vec<f64> = before.iter::<f64>().collect();
    if vectors.len() != before.len() || count == 0 {
        return None;
    }
    let length = vectors.len() / count;
    let cosine = |(now, before): (&[f64], &[f64])| now.iter().zip(before).map(|(a, b)| a * b).sum::<f64>().powi(2);
    Some(vectors.chunks(length).zip(before.chunks(length)).map(cosine).sum::<f64>() / count as f64)
}

/// The mean of each number over the spectra; None if there are no spectra.
fn mean(spectra: &[Spectrum]) -> Option<Spectrum> {
    let mean = |of: fn(&Spectrum) -> f64| spectra.iter().map(of).sum::<f64>() / spectra.len() as f64;
    // Where one has no such number, their mean has none.
    let known = |of: fn(&Spectrum) -> Option<f64>| {
        let sum: Option<f64> = spectra.iter().map(of).sum();
        Some(sum? / spectra.len() as f64)
    };
    (!spectra.is_empty()).then(|| Spectrum {
        largest: mean(|s| s.largest),
        smallest: mean(|s| s.smallest),
        stable_rank: mean(|s| s.stable_rank),
        entropy_rank: mean(|s| s.entropy_rank),
        roy_vetterli_rank: known(|s| s.roy_vetterli_rank),
        nuclear_rank: known(|s| s.nuclear_rank),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, values: Vec<f32>, shape: &[usize]) -> NamedTensor {
        NamedTensor { name: name.into(), data: TensorData::new(values, shape.to_vec()) }
    }

    #[test]
    fn every_matrix_has_a_spectrum_however_many_workers_compute_it() {
        let weights = [
            tensor("a", vec![3.0, 0.0, 0.0, 4.0], &[2, 2]),
            tensor("gain", vec![1.0; 4], &[4]),
            tensor("experts", vec![1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0], &[2, 2, 2]),
            tensor("broken", vec![f32::NAN; 4], &[2, 2]),
        ];
        let of = |workers| Spectra::default().record(0, &weights, &Workers::new(workers).unwrap());
        let spectra = of(1);
        assert_eq!(spectra.iter().map(|matrix| matrix.name.as_str()).collect::<Vec<_>>(), ["a", "experts"]);
        let [a, experts] = [0, 1].map(|index| spectra[index].spectrum);
        assert!((a.largest - 4.0).abs() < 1e-12 && (a.smallest - 3.0).abs() < 1e-12, "{a:?}");
        // The first expert uses two of two directions, the second one of two.
        assert!((experts.stable_rank - 1.5).abs() < 1e-12 && (experts.largest - 1.5).abs() < 1e-12, "{experts:?}");
        assert_eq!(of(3), spectra);
    }

    #[test]
    fn a_record_tells_what_changed_since_the_last_one_and_since_the_start() {
        let workers = Workers::new(1).unwrap();
        let mut recorder = Spectra { frozen: BTreeSet::from(["still".into()]), ..Spectra::default() };
        let mut at = |step, entries: [f32; 4]| {
            let weights = [tensor("a", entries.to_vec(), &[2, 2]), tensor("still", vec![1.0, 0.0, 0.0, 2.0], &[2, 2])];
            // Through a checkpoint each time.
            let record = recorder.to_record();
            recorder.copies.clear();
            record.into_iter().for_each(|record| recorder.load_record(record));
            recorder.record(step, &weights, &workers)
        };
        let [a, still] = &at(0, [4.0, 0.0, 0.0, 3.0])[..] else { panic!("two matrices") };
        assert_eq!((a.bulk_scale, a.overlap, a.since_last, a.since_start), (None, None, None, None));
        assert!(still.frozen && still.bulk.is_some() && still.bulk_scale.is_none());
        // Twice as large, in the same directions.
        let a = &at(10, [8.0, 0.0, 0.0, 6.0])[0];
        assert!((a.bulk_scale.unwrap() - 2.0).abs() < 1e-12, "{a:?}");
        assert_eq!(a.since_last, a.since_start);
        assert!((a.since_start.unwrap().norm - 4.0).abs() < 1e-12, "{a:?}");
        let overlap = a.overlap.unwrap();
        assert!((overlap.rows - 1.0).abs() < 1e-12 && (overlap.columns - 1.0).abs() < 1e-12, "{a:?}");
        // The second direction grows beyond the first: one direction changes, and the first vectors are others.
        let [a, still] = &at(20, [8.0, 0.0, 0.0, 12.0])[..] else { panic!("two matrices") };
        let (last, start) = (a.since_last.unwrap(), a.since_start.unwrap());
        assert!((last.norm - 6.0).abs() < 1e-12 && (last.stable_rank.unwrap() - 1.0).abs() < 1e-12, "{a:?}");
        assert!((start.norm - 9.0).abs() < 1e-12, "{a:?}");
        assert!(a.overlap.unwrap().rows < 1e-12 && a.overlap.unwrap().columns < 1e-12, "{a:?}");
        assert_eq!((still.overlap, still.since_last, still.since_start), (None, None, None));
    }

    #[test]
    fn a_run_whose_first_record_is_later_has_no_change_since_step_0() {
        let workers = Workers::new(1).unwrap();
        let mut recorder = Spectra::default();
        let weights = |size: f32| [tensor("a", vec![size; 4], &[2, 2])];
        recorder.record(30, &weights(1.0), &workers);
        let a = &recorder.record(40, &weights(2.0), &workers)[0];
        assert!(recorder.compares_with(40) && !recorder.compares_with(30));
        assert_eq!((a.bulk_scale, a.since_start), (None, None));
        assert!((a.since_last.unwrap().norm - 2.0).abs() < 1e-12, "{a:?}");
    }
}
