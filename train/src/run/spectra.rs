//! Spectra of a model's weights, recorded during training if `train.spectra_every` is set.

use std::sync::{Mutex, PoisonError};

use polaron_models::NamedTensor;
use polaron_verify::inspect::{Bulk, Spectrum, singular_values};

use crate::host::workers::Workers;
use crate::store::metrics::MatrixSpectrum;

/// The spectra of all matrices among the weights, in the order of the model, but for those with non-finite values.
pub fn of_weights(weights: &[NamedTensor], workers: &Workers) -> Vec<MatrixSpectrum> {
    let mut found: Vec<Option<(Spectrum, Option<Bulk>)>> = vec![None; weights.len()];
    let places: Vec<Mutex<&mut Option<(Spectrum, Option<Bulk>)>>> = found.iter_mut().map(Mutex::new).collect();
    workers.each(weights.iter().zip(&places), |(tensor, place)| {
        **place.lock().unwrap_or_else(PoisonError::into_inner) = of_tensor(tensor);
    });
    drop(places);
    let named = |(tensor, found): (&NamedTensor, Option<(Spectrum, Option<Bulk>)>)| {
        let (spectrum, bulk) = found?;
        Some(MatrixSpectrum { name: tensor.name.clone(), spectrum, bulk })
    };
    weights.iter().zip(found).filter_map(named).collect()
}

fn of_tensor(tensor: &NamedTensor) -> Option<(Spectrum, Option<Bulk>)> {
    let matrices = singular_values(&tensor.data);
    let spectra = matrices.iter().map(|values| Spectrum::of(values)).collect::<Option<Vec<Spectrum>>>()?;
    let &[.., height, width] = tensor.data.shape().as_slice() else { return None };
    let bulks = matrices.iter().map(|values| Bulk::of(values, [height, width])).collect::<Option<Vec<Bulk>>>();
    Some((mean(&spectra)?, bulks.and_then(|bulks| Bulk::mean(&bulks))))
}

/// The mean of each number over the spectra; None if there are no spectra.
pub fn mean(spectra: &[Spectrum]) -> Option<Spectrum> {
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
    use burn::tensor::TensorData;

    #[test]
    fn every_matrix_has_a_spectrum_however_many_workers_compute_it() {
        let tensor = |name: &str, values: Vec<f32>, shape: &[usize]| NamedTensor {
            name: name.into(),
            data: TensorData::new(values, shape.to_vec()),
        };
        let weights = [
            tensor("a", vec![3.0, 0.0, 0.0, 4.0], &[2, 2]),
            tensor("gain", vec![1.0; 4], &[4]),
            tensor("experts", vec![1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0], &[2, 2, 2]),
            tensor("broken", vec![f32::NAN; 4], &[2, 2]),
        ];
        let spectra = of_weights(&weights, &Workers::new(1).unwrap());
        assert_eq!(spectra.iter().map(|matrix| matrix.name.as_str()).collect::<Vec<_>>(), ["a", "experts"]);
        let [a, experts] = [0, 1].map(|index| spectra[index].spectrum);
        assert!((a.largest - 4.0).abs() < 1e-12 && (a.smallest - 3.0).abs() < 1e-12, "{a:?}");
        // The first expert uses two of two directions, the second one of two.
        assert!((experts.stable_rank - 1.5).abs() < 1e-12 && (experts.largest - 1.5).abs() < 1e-12, "{experts:?}");
        assert_eq!(of_weights(&weights, &Workers::new(3).unwrap()), spectra);
    }
}
