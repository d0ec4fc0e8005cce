use super::*;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::matrix::{Layout, polar_svd};
use crate::setting::numbers;

fn direction(x: Tensor<3>, config: &FreonConfig) -> Tensor<3> {
    config.rule().direction(Matrix::new(x, Layout::OutIn)).into_tensor()
}

fn values(x: Tensor<3>) -> Vec<f64> {
    x.into_data().convert_dtype(DType::F64).iter::<f64>().collect()
}

fn difference(x: Tensor<3>, y: Tensor<3>) -> f64 {
    (x - y).abs().max().into_scalar()
}

fn raw(c: Exponent) -> FreonConfig {
    FreonConfig::new().with_c(c).with_ridge(0.0).with_normalize(FreonNormalize::None)
}

#[test]
fn the_published_example_comes_out() {
    let g = vec![1., 2., 0., -1., 0., 3., -2., 1., 4., -1., 1., 2.];
    let g = Tensor::<3>::from_data(TensorData::new(g, [1, 3, 4]), (&Device::flex(), DType::F64));
    let near = |got: Vec<f64>, want: &[f64], tolerance: f64| {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < tolerance), "{got:?}");
    };
    for (c, want) in [
        ([1, 4], [0.6455385738, 1.1038449148, 0.1734466755, -0.7954746546]),
        ([1, 2], [0.4235348704, 0.6290831448, 0.2120794487, -0.6163561616]),
        ([2, 3], [0.3229315372, 0.4409569108, 0.2051874863, -0.5146836708]),
        ([1, 1], [0.1921221865, 0.2274919614, 0.1647909968, -0.3528938907]),
    ] {
        near(values(direction(g.clone(), &raw(Exponent::Fraction(c)))), &want, 1e-9);
    }
    for method in [FreonMethod::Svd, FreonMethod::Rational] {
        for (c, want) in [
            ([0, 1], [0.26726084, 0.53452168, 0.0]),
            ([1, 2], [0.42353292, 0.62908116, 0.21207734]),
            ([2, 3], [0.48809761, 0.66648924, 0.31013080]),
            ([3, 4], [0.52232150, 0.68600114, 0.36393352]),
            ([1, 1], [0.63005386, 0.74604863, 0.54042046]),
        ] {
            let config = FreonConfig::new().with_c(Exponent::Fraction(c)).with_method(method);
            near(values(direction(g.clone(), &config)), &want, 1e-8);
        }
    }
}

#[test]
fn c_0_is_sgd_c_half_the_polar_factor_and_c_1_the_transposed_pseudo_inverse() {
    let x = numbers([1, 6, 9], 1, DType::F64);
    let sgd = direction(x.clone(), &FreonConfig::new().with_c(Exponent::Number(0.0)).with_ridge(0.0));
    let norm: f64 = x.clone().square().sum().into_scalar::<f64>().sqrt();
    assert!(difference(sgd, x.clone() * (6.0_f64.sqrt() / norm)) < 1e-12);
    let half = direction(x.clone(), &FreonConfig::new().with_c(Exponent::Fraction([1, 2])).with_ridge(0.0));
    assert!(difference(half, polar_svd(x.clone(), 1e-5)) < 1e-12);
    let inverse = direction(x.clone(), &raw(Exponent::Fraction([1, 1])));
    // X pinv(X) = I, and the direction is pinv(X) transposed
    let identity = x.clone().matmul(inverse.swap_dims(1, 2));
    assert!(difference(identity.clone(), crate::matrix::identity_like(&identity)) < 1e-11);
}

#[test]
fn maps_compose() {
    let x = numbers([1, 5, 5], 1, DType::F64);
    let quarter = raw(Exponent::Fraction([1, 4]));
    let twice = direction(direction(x.clone(), &quarter), &quarter);
    assert!(difference(twice, direction(x.clone(), &raw(Exponent::Fraction([3, 8])))) < 1e-12);
    let whole = raw(Exponent::Fraction([1, 1]));
    // condition number of a small random matrix times rounding, twice
    assert!(difference(direction(direction(x.clone(), &whole), &whole), x) < 1e-9);
}

#[test]
fn rational_and_svd_agree_for_every_exponent_and_shape() {
    for c in [Exponent::Fraction([1, 4]), Exponent::Fraction([5, 8]), Exponent::Number(0.6), Exponent::Fraction([1, 1])]
    {
        for shape in [[2, 6, 9], [2, 9, 6], [1, 7, 7], [1, 1, 5]] {
            for normalize in [FreonNormalize::MeanSchatten, FreonNormalize::Rms, FreonNormalize::None] {
                let x = numbers(shape, 1, DType::F64);
                let config = FreonConfig::new().with_c(c).with_normalize(normalize);
                let exact = direction(x.clone(), &config);
                let iterated = direction(x, &config.with_method(FreonMethod::Rational));
                // the iteration loses the condition number of the factor, up to 1e3 with this ridge
                assert!(difference(exact, iterated) < 1e-10, "{c:?} {shape:?} {normalize:?}");
            }
        }
    }
}

#[test]
fn rank_deficient_f32_matrices_stay_finite_and_near_the_exact_value() {
    let x = numbers([1, 16, 3], 1, DType::F32).matmul(numbers([1, 3, 16], 2, DType::F32));
    let c = Exponent::Fraction([3, 4]);
    let exact = direction(x.clone().cast(DType::F64), &FreonConfig::new().with_c(c));
    let size: f64 = exact.clone().abs().max().into_scalar();
    for method in [FreonMethod::Svd, FreonMethod::Rational] {
        let got = direction(x.clone(), &FreonConfig::new().with_c(c).with_method(method)).cast(DType::F64);
        // the rounding of the input itself is amplified by up to ridge^-(1/4) relative to the mean
        assert!(difference(got, exact.clone()) < 6e-2 * size, "{method:?}");
    }
}

#[test]
fn a_fraction_and_the_nearest_number_agree() {
    let x = numbers([1, 6, 9], 1, DType::F64);
    let fraction = direction(x.clone(), &FreonConfig::new());
    let number = direction(x, &FreonConfig::new().with_c(Exponent::Number(0.6666666666666666)));
    assert!(difference(fraction, number) < 1e-12);
}
