//! The iteration in Burn's operations, and that in memory of the host against it.

use super::*;
use burn::tensor::{Device, TensorData};

use crate::setting::numbers;

/// Inputs and outputs of the published maps, f64.
const INPUTS: [f64; 7] = [1e-3, 1e-2, 0.1, 0.3, 0.5, 0.9, 1.0];
const NEWTON_SCHULZ_5: [f64; 7] =
    [0.4705439512, 0.6989170633, 0.7121200817, 1.0795922929, 0.7654385305, 0.6820106703, 0.6964364095];
const POLAR_EXPRESS_5: [f64; 7] =
    [0.8588726435, 1.0271101784, 1.0591611380, 0.9831419530, 0.9106108757, 0.8749216556, 0.8591289631];

fn diagonal(values: &[f64], dtype: DType) -> Tensor<3> {
    let n = values.len();
    let data: Vec<f64> = (0..n * n).map(|k| if k / n == k % n { values[k / n] } else { 0.0 }).collect();
    let data = TensorData::new(data, [1, n, n]).convert_dtype(dtype);
    Tensor::from_data(data, (&Device::flex(), dtype))
}

fn frobenius(factor: f64, eps: f64) -> Normalisation {
    Normalisation { norm: Norm::Frobenius, factor, eps }
}

/// Every norm, and the Frobenius norm with an eps.
fn normalisations() -> [Normalisation; 4] {
    let [plain, schatten, aol] =
        [Norm::Frobenius, Norm::Schatten4, Norm::Aol].map(|norm| Normalisation { norm, factor: 1.02, eps: 0.0 });
    [plain, frobenius(1.02, 1e-7), schatten, aol]
}

fn values(tensor: Tensor<3>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().iter::<f64>().collect()
}

/// What the iteration makes of diag(INPUTS), with a norm factor that undoes the normalisation.
fn mapped(schedule: &[[f64; 3]], dtype: DType) -> Vec<f64> {
    let norm = INPUTS.iter().map(|s| s * s).sum::<f64>().sqrt();
    let out = values(polar_polynomial(diagonal(&INPUTS, dtype), schedule, frobenius(1.0 / norm, 0.0)));
    (0..INPUTS.len()).map(|i| out[i * INPUTS.len() + i]).collect()
}

const SHAPES: [[usize; 2]; 14] = [
    [1, 1],
    [1, 9],
    [9, 1],
    [3, 5],
    [17, 17],
    [40, 130],
    [64, 64],
    [65, 66],
    [100, 70],
    [33, 100],
    [150, 150],
    [131, 260],
    [300, 129],
    [257, 300],
];

fn random(shape: [usize; 3], dtype: DType) -> Tensor<3> {
    numbers(shape, 7, dtype)
}

/// Polar Express, six steps.
fn express() -> Vec<[f64; 3]> {
    POLAR_EXPRESS.into_iter().chain([POLAR_EXPRESS_LIMIT]).collect()
}

fn schedules() -> [Vec<[f64; 3]>; 3] {
    // without a fifth power, and an odd number of products
    [vec![NEWTON_SCHULZ; 5], express(), vec![[1.5, -0.5, 0.0]; 3]]
}

/// Muon's five steps.
fn muon(stack: Tensor<3>) -> Tensor<3> {
    polar_polynomial(stack, &[NEWTON_SCHULZ; 5], frobenius(1.0, 1e-7))
}

/// The iteration on the host, if the tensor is plain.
fn run(stack: Tensor<3>, iteration: &Iteration<'_>) -> Option<Tensor<3>> {
    flex::iterate(stack, iteration).ok()
}

#[test]
fn schedules_map_singular_values_as_published() {
    let express = POLAR_EXPRESS.to_vec();
    // The published digits end at 1e-10. In f32 Polar Express cancels terms of 8, 22 and 16 in
    // its first step, which costs more digits than Newton–Schulz loses.
    for (schedule, expected, f32_tolerance) in
        [(vec![NEWTON_SCHULZ; 5], NEWTON_SCHULZ_5, 2e-6), (express, POLAR_EXPRESS_5, 1e-5)]
    {
        for (s, want) in INPUTS.into_iter().zip(expected) {
            assert!((scalar_map(&schedule, s) - want).abs() < 1e-9, "{s}");
        }
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, f32_tolerance)] {
            for (got, want) in mapped(&schedule, dtype).into_iter().zip(expected) {
                assert!((got - want).abs() < tolerance, "{dtype:?}: {got} instead of {want}");
            }
        }
    }
}

/// A matrix `[1, short, long]` with these singular values.
fn with_spectrum(spectrum: &[f64], long: usize) -> Tensor<3> {
    map_singular_values(numbers([1, spectrum.len(), long], 3, DType::F64), |_, _| spectrum.to_vec())
}

/// The singular values of 16 directions, from 1 down to 1 / `condition`.
fn falling(condition: f64) -> Vec<f64> {
    (0..16).map(|i| condition.powf(-f64::from(i) / 15.0)).collect()
}

#[test]
fn the_gram_form_gives_what_the_plain_loop_gives() {
    let stable = vec![[2.0, -1.5, 0.5]; 12];
    let schedules = [vec![NEWTON_SCHULZ; 5], POLAR_EXPRESS.to_vec(), stable, vec![[1.5, -0.5, 0.0]; 9]];
    let cases = schedules.iter().flat_map(|schedule| [16, 32, 64, 128].map(|long| (schedule, long)));
    for ((schedule, long), normalisation) in cases.flat_map(|case| normalisations().map(|n| (case, n))) {
        for (condition, dtype, tolerance) in
            [(1e1, DType::F64, 1e-12), (1e6, DType::F64, 1e-12), (1e1, DType::F32, 1e-4), (1e6, DType::F32, 1e-4)]
        {
            let exact = with_spectrum(&falling(condition), long);
            let plain = Iteration { segments: schedule.chunks(1).collect(), normalisation };
            let want = values(on_device(exact.clone(), &plain));
            let gram = Iteration::new(schedule, [16, long], dtype, normalisation);
            assert_eq!(gram.segments.len() < schedule.len(), long > 16);
            let x = exact.cast(dtype);
            let turned = on_device(x.clone().swap_dims(1, 2), &gram).swap_dims(1, 2);
            // AOL scales the units of the shorter side, so a square matrix must not be turned.
            let turned = (long > 16 || normalisation.norm != Norm::Aol).then_some(turned);
            for got in std::iter::once(on_device(x, &gram)).chain(turned) {
                for (got, want) in values(got).into_iter().zip(&want) {
                    let at = format!("{dtype:?}, {long}, condition {condition}, {} steps", schedule.len());
                    assert!((got - want).abs() < tolerance, "{at}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn the_gram_matrix_is_formed_anew_before_rounding_errors_have_grown() {
    let lengths = |schedule: &[[f64; 3]], shape, dtype| -> Vec<usize> {
        Iteration::new(schedule, shape, dtype, frobenius(1.0, 0.0)).segments.iter().map(|steps| steps.len()).collect()
    };
    let stable = [[2.0, -1.5, 0.5]; 12];
    assert_eq!(lengths(&POLAR_EXPRESS, [128, 384], DType::F32), [2, 3]);
    assert_eq!(lengths(&[NEWTON_SCHULZ; 5], [384, 128], DType::F64), [3, 2]);
    assert_eq!(lengths(&stable, [384, 128], DType::F32), [4, 4, 4]);
    assert_eq!(lengths(&stable, [192, 128], DType::F32), [1; 12]);
    assert_eq!(lengths(&stable, [384, 128], DType::BF16), [1; 12]);
}

#[test]
fn the_bands_of_five_steps_are_as_documented() {
    let grid = || (0..=20_000).map(|i| 1e-3_f64.powf(1.0 - f64::from(i) / 20_000.0));
    let band = |schedule: &[[f64; 3]]| {
        grid().map(|s| scalar_map(schedule, s)).fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p), h.max(p)))
    };
    let (low, high) = band(&[NEWTON_SCHULZ; 5]);
    assert!((low - 0.470544).abs() < 1e-5 && (high - 1.202369).abs() < 1e-5, "{low} {high}");
    let (low, high) = band(&POLAR_EXPRESS);
    assert!((low - 0.858873).abs() < 1e-5 && (high - 1.141127).abs() < 1e-5, "{low} {high}");
}

#[test]
fn the_result_is_that_of_burns_operations() {
    for (dtype, tolerance) in [(DType::F32, 3e-5), (DType::F64, 1e-12)] {
        for [height, width] in SHAPES {
            for (schedule, normalisation) in schedules().iter().flat_map(|s| normalisations().map(|n| (s, n))) {
                let stack = random([2, height, width], dtype);
                let iteration = Iteration::new(schedule, [height, width], dtype, normalisation);
                let got = values(run(stack.clone(), &iteration).unwrap());
                let want = values(on_device(stack, &iteration));
                for (got, want) in got.into_iter().zip(want) {
                    // singular values are about 1: errors are absolute
                    let at = format!("{dtype:?} {height} x {width} {normalisation:?}");
                    assert!((got - want).abs() < tolerance, "{at}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn views_and_shared_tensors_are_read_and_left_as_they_are() {
    let stack = random([4, 30, 50], DType::F32);
    let before = values(stack.clone());
    let whole = values(muon(stack.clone()));
    let second = values(muon(stack.clone().narrow(0, 1, 1)));
    assert_eq!(whole[1500..3000], second[..]);
    let corner = stack.clone().narrow(1, 3, 20).narrow(2, 5, 40);
    let copied = Tensor::from_data(corner.clone().into_data(), &Device::flex());
    assert_eq!(values(muon(corner)), values(muon(copied)));
    let turned = values(muon(stack.clone().swap_dims(1, 2)).swap_dims(1, 2));
    assert!(turned.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_eq!(values(stack), before);
}

#[test]
fn stacks_and_threads_change_no_bit() {
    // large enough for threads among matrices, and within one
    let stack = random([2, 270, 400], DType::F32);
    let on = |threads: usize, f: &(dyn Fn() -> Vec<f64> + Sync)| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    };
    let whole = on(1, &|| values(muon(stack.clone())));
    assert_eq!(whole, on(3, &|| values(muon(stack.clone()))));
    let singly = || (0..2).flat_map(|i| values(muon(stack.clone().narrow(0, i, 1)))).collect();
    assert_eq!(whole, on(3, &singly));
}

#[test]
fn a_matrix_with_a_nan_gives_nan_and_leaves_its_neighbours_alone() {
    for [height, width] in [[2, 3], [70, 70], [140, 70]] {
        let size = height * width;
        let clean = random([2, height, width], DType::F32);
        let mut data: Vec<f64> = values(clean.clone());
        data[size + 1] = f64::NAN;
        let data = TensorData::new(data, [2, height, width]).convert::<f32>();
        let got = values(muon(Tensor::from_data(data, &Device::flex())));
        assert_eq!(got[..size], values(muon(clean))[..size]);
        assert!(got[size..].iter().all(|x| x.is_nan()), "{height} x {width}");
    }
}

#[test]
fn what_is_not_plain_is_given_back() {
    let iteration = Iteration::new(&[NEWTON_SCHULZ], [3, 3], DType::F32, frobenius(1.0, 0.0));
    let stack = random([1, 3, 3], DType::F32);
    assert!(run(stack.clone().cast(DType::BF16), &iteration).is_none());
    assert!(run(Tensor::from_inner(stack), &iteration).is_none());
}

/// `Σ s⁴` of a matrix with these singular values, to the power 1/4.
fn schatten4(spectrum: &[f64]) -> f64 {
    spectrum.iter().map(|s| s.powi(4)).sum::<f64>().powf(0.25)
}

#[test]
fn the_schatten_norm_is_divided_out_before_the_first_step() {
    for (condition, long) in [(1e1, 16), (1e6, 16), (1e1, 64), (1e6, 64)] {
        let spectrum = falling(condition);
        let x = with_spectrum(&spectrum, long);
        for (schedule, factor) in
            [(vec![NEWTON_SCHULZ; 5], 1.0), (MINIMAX_3.to_vec(), 1.02), (MINIMAX_4.to_vec(), 1.02)]
        {
            let normalisation = Normalisation { norm: Norm::Schatten4, factor, eps: 1e-7 };
            let mapped = |_: usize, s: &[f64]| -> Vec<f64> {
                s.iter().map(|s| scalar_map(&schedule, s / (factor * schatten4(&spectrum)))).collect()
            };
            let want = values(map_singular_values(x.clone(), mapped));
            let tall = x.clone().swap_dims(1, 2);
            let polar = |x: Tensor<3>| polar_polynomial(x, &schedule, normalisation);
            for got in [polar(x.clone()), polar(tall).swap_dims(1, 2)] {
                // f64 rounding, times the slope at 0 of up to 500
                assert!(
                    values(got).iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-11),
                    "{condition} {long}"
                );
            }
        }
    }
}

#[test]
fn aol_scaling_divides_the_units_of_the_shorter_side_by_the_sums_of_their_gram_matrix() {
    for [height, width] in [[3, 5], [5, 3], [4, 4], [6, 40], [40, 6]] {
        let x = random([2, height, width], DType::F64);
        let wide = if height <= width { x.clone() } else { x.clone().swap_dims(1, 2) };
        let gram = wide.clone().matmul(wide.clone().swap_dims(1, 2));
        let scaled = wide / gram.abs().sum_dim(2).sqrt();
        // At most 1, as the theorem says: no norm is needed.
        let want = map_singular_values(scaled, |_, s| {
            assert!(s[0] <= 1.0 + 1e-12, "{s:?}");
            s.iter().map(|s| scalar_map(&[NEWTON_SCHULZ; 2], s / 1.01)).collect()
        });
        let want = if height <= width { want } else { want.swap_dims(1, 2) };
        let normalisation = Normalisation { norm: Norm::Aol, factor: 1.01, eps: 0.0 };
        let got = values(polar_polynomial(x, &[NEWTON_SCHULZ; 2], normalisation));
        assert!(got.iter().zip(values(want)).all(|(got, want)| (got - want).abs() < 1e-12), "{height} x {width}");
    }
}

#[test]
fn norms_from_the_gram_matrix_do_not_depend_on_the_size_of_the_matrix_or_on_eps() {
    for (norm, size) in
        [Norm::Schatten4, Norm::Aol].into_iter().flat_map(|norm| [1e-30, 1.0, 1e30].map(|size| (norm, size)))
    {
        let want = values(polar_polynomial(
            random([2, 5, 8], DType::F64),
            &MINIMAX_4,
            Normalisation { norm, factor: 1.02, eps: 0.0 },
        ));
        for eps in [0.0, 1e-7] {
            let iteration = Iteration::new(&MINIMAX_4, [5, 8], DType::F32, Normalisation { norm, factor: 1.02, eps });
            let x = random([2, 5, 8], DType::F32) * size;
            for got in [values(run(x.clone(), &iteration).unwrap()), values(on_device(x.clone(), &iteration))] {
                // rounding in f32, times slopes of up to 300
                let error = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
                assert!(error < 1e-4, "{norm:?} {size:e} {eps}: {error:e}");
            }
        }
    }
}

#[test]
fn minimax_bands_are_as_documented_and_hold_beyond_1() {
    let grid = |low: f64, high: f64| (0..=20_000).map(move |i| low * (high / low).powf(f64::from(i) / 20_000.0));
    for (schedule, low, [least, most]) in
        [(MINIMAX_3.as_slice(), 1e-2, [0.718, 1.27]), (MINIMAX_4.as_slice(), 4e-3, [0.855, 1.127])]
    {
        let mapped = || grid(low, 1.0).map(|s| scalar_map(schedule, s));
        let (lowest, highest) = (mapped().fold(2.0, f64::min), mapped().fold(0.0, f64::max));
        // to the digits that are documented
        assert!((lowest - least).abs() < 1e-3 && (highest - most).abs() < 1e-3, "{lowest} {highest}");
        // a matrix of rank one that rounding makes larger than its norm: by 3 %, less the norm factor of 1.02
        assert!(grid(1.0, 1.01).all(|s| (0.0..2.0).contains(&scalar_map(schedule, s))));
    }
}
