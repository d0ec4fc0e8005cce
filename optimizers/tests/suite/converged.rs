//! Default methods by matrix products against the decompositions on the host that they replace, in f32.
//!
//! `cargo test --release --workspace --test suite -- converged --nocapture` prints the errors of the front pages.

use burn::tensor::{DType, Tensor};
use polaron::OptimizerConfig;
use polaron::matrix::{Axis, EpsMode, Layout, Matrix, map_singular_values};
use polaron::rule::{Direction, OneSided, Polar};
use polaron::rules::RegularizedMuonConfig;

use crate::numbers::random;

const SHAPES: [[usize; 2]; 4] = [[64, 64], [128, 384], [384, 128], [256, 704]];

/// How the singular values of a matrix fall.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spectrum {
    /// That of independent numbers.
    Flat,
    /// 1/i
    Harmonic,
    /// 1/i²
    Square,
    /// In equal steps of the logarithm, down to 1 over this condition number.
    Condition(f64),
    /// Equal up to a quarter of the rank, then 0.
    Quarter,
}

const SPECTRA: [Spectrum; 6] = [
    Spectrum::Flat,
    Spectrum::Harmonic,
    Spectrum::Square,
    Spectrum::Condition(1e3),
    Spectrum::Condition(1e6),
    Spectrum::Quarter,
];

impl Spectrum {
    fn matrix(self, [height, width]: [usize; 2]) -> Tensor<3> {
        let rank = height.min(width) as f64;
        let value = |i: usize, s: f64| match self {
            Self::Flat => s,
            Self::Harmonic => 1.0 / (i as f64 + 1.0),
            Self::Square => (i as f64 + 1.0).powi(-2),
            Self::Condition(number) => number.powf(-(i as f64) / (rank - 1.0)),
            Self::Quarter => f64::from(u8::from(4.0 * (i as f64 + 1.0) <= rank)),
        };
        let numbers = random([1, height, width], (height * width) as u64).cast(DType::F64);
        map_singular_values(numbers, |_, s| s.iter().enumerate().map(|(i, s)| value(i, *s)).collect()).cast(DType::F32)
    }
}

fn norm(x: Tensor<3>) -> f64 {
    x.cast(DType::F64).square().sum().sqrt().into_scalar()
}

fn error(got: &Tensor<3>, want: &Tensor<3>) -> f64 {
    norm(got.clone().cast(DType::F64) - want.clone().cast(DType::F64)) / norm(want.clone())
}

fn nuclear(x: &Tensor<3>, polar: &Tensor<3>) -> f64 {
    (x.clone().cast(DType::F64) * polar.clone().cast(DType::F64)).sum().into_scalar()
}

#[test]
fn the_converged_polar_factor_is_the_exact_one_within_what_f32_holds() {
    for (spectrum, most) in SPECTRA.into_iter().zip([5e-5, 5e-5, 5e-4, 2e-4, 0.35, 1.5e-2]) {
        for shape in SHAPES {
            let x = spectrum.matrix(shape);
            let polar = |polar: Polar| polar.apply(Matrix::new(x.clone(), Layout::InOut)).into_tensor();
            let (exact, got) = (polar(Polar::Svd { rcond: 1e-5 }), polar(Polar::Converged));
            let (error, bias) = (error(&got, &exact), nuclear(&x, &got) / nuclear(&x, &exact) - 1.0);
            println!("polar {spectrum:?} {shape:?}: {error:.1e}, nuclear norm {bias:+.0e}");
            // The last two: of singular values below 1e-5 of the norm the polynomial keeps a part, `svd` nothing.
            assert!(error < most, "{spectrum:?} {shape:?}: {error:.1e}");
            assert!(bias.abs() < 2e-5, "{spectrum:?} {shape:?}: {bias:.1e}");
        }
    }
}

#[test]
fn the_converged_root_is_the_exact_one_for_every_ridge_and_side() {
    for (spectrum, shape) in SPECTRA.into_iter().flat_map(|spectrum| SHAPES.map(|shape| (spectrum, shape))) {
        let x = Matrix::new(spectrum.matrix(shape), Layout::OutIn);
        for (eps, side) in [(1e-8, Axis::Input), (1e-8, Axis::Output), (1e-4, Axis::Input), (0.1, Axis::Output)] {
            let root = |method: OneSided| method.apply(x.clone(), side, eps, EpsMode::Relative).into_tensor();
            let (exact, got) = (root(OneSided::GramEigh), root(OneSided::ConvergedRoot));
            let (error, coupled) = (error(&got, &exact), error(&root(OneSided::GramPolarExpress { steps: 5 }), &exact));
            println!(
                "root {spectrum:?} {shape:?} eps {eps:e} {side:?}: {error:.1e}, gram_polar_express5 {coupled:.1e}"
            );
            // At 1e-8 the root of the ridge is down to 4e-6 of the norm, where ten steps end.
            let most = if spectrum == Spectrum::Condition(1e6) { 3e-2 } else { 5e-3 };
            assert!(error < most, "{spectrum:?} {shape:?} {eps:e}: {error:.1e}");
        }
    }
}

#[test]
fn the_converged_level_of_regularized_muon_is_the_exact_one() {
    for (spectrum, shape) in SPECTRA.into_iter().flat_map(|spectrum| SHAPES.map(|shape| (spectrum, shape))) {
        let x = Matrix::new(spectrum.matrix(shape), Layout::InOut);
        for eps in [0.1, 0.03, 0.01, 1e-3, 1e-4] {
            let config = RegularizedMuonConfig::new().with_eps(eps);
            let direction = |polar| config.clone().with_polar(polar).direction(x.clone()).into_tensor();
            let exact = direction(Polar::Svd { rcond: 1e-5 });
            let error = error(&direction(Polar::Converged), &exact);
            println!("level {spectrum:?} {shape:?} eps {eps}: {error:.1e}");
            assert!(error < if eps < 1e-3 { 5e-3 } else { 5e-4 }, "{spectrum:?} {shape:?} {eps}: {error:.1e}");
        }
    }
}

/// Directions that the matrix does not contain hold the rounding errors of its entries, about 1e-7 of the norm.
#[test]
fn noise_of_a_matrix_that_is_not_of_full_rank_stays_far_below_its_directions() {
    for shape in SHAPES {
        let rank = shape[0].min(shape[1]);
        let x = Matrix::new(Spectrum::Quarter.matrix(shape), Layout::InOut);
        map_singular_values(Polar::Converged.apply(x).into_tensor(), |_, s| {
            let (directions, noise) = s.split_at(rank / 4);
            println!("noise {shape:?}: {:.1e}", noise[0]);
            assert!(directions.iter().all(|s| (s - 1.0).abs() < 1e-4), "{shape:?}: {directions:?}");
            assert!(noise[0] < 0.05, "{shape:?}: {noise:?}");
            s.to_vec()
        });
    }
}

#[test]
fn no_default_decomposes_on_the_host_unless_its_page_says_why() {
    let on_host = |kind: &&&str| OptimizerConfig::of_kind(kind).expect("the kind exists").describe().cost.on_host;
    let of_necessity = ["error_feedback_muon", "random_spectrum", "soap", "soap_muon", "truncated_sgd"];
    let others: Vec<_> =
        OptimizerConfig::KINDS.iter().filter(on_host).filter(|kind| !of_necessity.contains(kind)).collect();
    assert!(others.is_empty(), "{others:?}");
}
