use super::*;
use burn::tensor::{DType, Device};

use crate::matrix::Layout;
use crate::setting::numbers;

/// The polar factor of a stack stored `[batch, out, in]`.
fn apply(polar: &Polar, stack: Tensor<3>) -> Vec<f64> {
    polar.apply(Matrix::new(stack, Layout::OutIn)).into_tensor().into_data().convert::<f64>().iter::<f64>().collect()
}

/// Every choice of a key that holds a polar factor.
fn every() -> Vec<Polar> {
    Polar::choices(&()).into_iter().map(|polar| serde_json::from_value(polar).unwrap()).collect()
}

#[test]
fn unsafe_schedules_are_refused_with_the_singular_value_that_breaks_them() {
    let aol_old = vec![
        [4.0098, -7.0585, 2.4635],
        [3.4585, -5.5479, 2.5959],
        [2.7573, -3.2939, 1.4254],
        [2.7215, -3.0494, 1.3169],
    ];
    let cans = vec![
        [8.4703, -25.1081, 18.6293],
        [4.1828, -3.1087, 0.5806],
        [3.9619, -2.9541, 0.5630],
        [3.2866, -2.4647, 0.5074],
        [2.2737, -1.6447, 0.4162],
    ];
    for coefficients in [aol_old, cans] {
        let coefficients = coefficients.into();
        let polar = Polar::Polynomial { coefficients, norm_factor: 1.0, eps: 1e-7, norm: Norm::Frobenius };
        let message = polar.validate().unwrap_err().to_string();
        assert!(message.contains("outside [0, 2]"), "{message}");
    }
}

#[test]
fn a_zero_matrix_gives_zero_by_every_method() {
    let zero = Tensor::<3>::zeros([2, 3, 5], &Device::flex());
    for polar in every() {
        assert!(apply(&polar, zero.clone()).into_iter().all(|v| v == 0.0), "{polar:?}");
    }
}

#[test]
fn a_stack_gives_what_its_matrices_give_one_by_one() {
    let stack = numbers([3, 4, 6], 1, DType::F32);
    for polar in every() {
        let whole = apply(&polar, stack.clone());
        let parts: Vec<f64> = (0..3).flat_map(|i| apply(&polar, stack.clone().narrow(0, i, 1))).collect();
        assert_eq!(whole, parts, "{polar:?}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_valid_one() {
    let error = serde_json::from_str::<Polar>(r#"{"method": "newton_schulz", "stepz": 5}"#).unwrap_err();
    assert!(error.to_string().contains("`stepz`; did you mean `steps`"), "{error}");
    let error = serde_json::from_str::<Polar>(r#"{"method": "newton_shulz"}"#).unwrap_err();
    assert!(error.to_string().contains("did you mean `newton_schulz`"), "{error}");
    for (slip, near) in [
        (r#""norm": "schatten""#, "did you mean `schatten4`"),
        (r#""precondition": "oal""#, "aol"),
        (r#""norm": 4"#, "schatten4"),
        (r#""preconditon": "aol""#, "did you mean `precondition`"),
        (r#""norm": "schatten4", "precondition": "aol""#, "remove `precondition` or `norm`"),
    ] {
        let error = serde_json::from_str::<Polar>(&format!(r#"{{"method": "newton_schulz", {slip}}}"#)).unwrap_err();
        assert!(error.to_string().contains(near), "{error}");
    }
    for (slip, near) in [
        (r#""coefficients": "quintik""#, "did you mean `quintic`"),
        (r#""coefficients": 3"#, "polar.coefficients"),
        (r#""eps": 0.0"#, "stable12"),
    ] {
        let error = serde_json::from_str::<Polar>(&format!(r#"{{"method": "polynomial", {slip}}}"#)).unwrap_err();
        assert!(error.to_string().contains(near), "{error}");
    }
    let error = serde_json::from_str::<Polar>(r#"{"method": "minimax", "norm": "frobenius"}"#).unwrap_err();
    assert!(error.to_string().contains("norm"), "{error}");
}

#[test]
fn every_choice_round_trips_and_an_absent_norm_is_not_written() {
    for polar in every() {
        assert!(polar.validate().is_ok(), "{polar:?}");
        let json = serde_json::to_string(&polar).unwrap();
        assert_eq!(serde_json::from_str::<Polar>(&json).unwrap(), polar, "{json}");
        let toml = toml::to_string(&polar).unwrap();
        assert_eq!(toml::from_str::<Polar>(&toml).unwrap(), polar, "{toml}");
        assert_eq!(json.contains("norm\""), polar.normalisation().norm == Norm::Schatten4 && !json.contains("minimax"));
        assert_eq!(json.contains("precondition"), polar.normalisation().norm == Norm::Aol);
    }
}

#[test]
fn labels_tell_all_choices_apart_but_for_eps() {
    let labels: std::collections::BTreeSet<String> = every().iter().map(Polar::label).collect();
    let want = [
        "aol",
        "aol after aol scaling",
        "converged",
        "cubic5",
        "deepseekv4",
        "minimax3",
        "minimax4",
        "newton_schulz5",
        "newton_schulz5 after aol scaling",
        "newton_schulz5 over schatten4",
        "polar_express5",
        "polar_express5 over schatten4",
        "polynomial12",
        "quintic",
        "stable12",
        "svd",
    ];
    assert!(labels.iter().map(String::as_str).eq(want), "{labels:?}");
}

#[test]
fn lists_by_name_are_those_published() {
    // input 1e-3, 1e-2, 0.1, 0.3, 0.5, 0.9, 1
    let inputs = [1e-3, 1e-2, 0.1, 0.3, 0.5, 0.9, 1.0];
    for (list, want) in [
        (
            CoefficientList::Quintic,
            [0.4749815640, 1.0180252250, 1.0190498887, 0.9962242985, 0.9858693541, 0.9799143091, 0.9783455603],
        ),
        (
            CoefficientList::Aol,
            [0.1465949453, 1.0141567052, 1.0310022508, 1.0028459044, 1.0270360025, 1.0164623949, 0.9438268825],
        ),
        (CoefficientList::Stable12, [1.0000049537, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ] {
        for (s, want) in inputs.into_iter().zip(want) {
            let got = crate::matrix::scalar_map(&list.rows(), s);
            assert!((got - want).abs() < 1e-9, "{list:?} {s}: {got}");
        }
    }
    let ends = |list: CoefficientList, low: f64, high: f64| {
        let grid = (0..=20_000).map(|i| low * (high / low).powf(f64::from(i) / 20_000.0));
        let image = grid.map(|s| crate::matrix::scalar_map(&list.rows(), s));
        image.fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p), high.max(p)))
    };
    let (low, high) = ends(CoefficientList::DeepseekV4, 1e-3, 1.0);
    assert!((low - 1.0).abs() < 1e-5 && (high - 1.000538).abs() < 1e-5, "{low} {high}");
    let (low, high) = ends(CoefficientList::Cubic5, 1e-2, 1.0);
    assert!((low - 0.774106).abs() < 1e-5 && (high - 1.3).abs() < 1e-5, "{low} {high}");
    // why it has a norm factor of its own
    assert!(ends(CoefficientList::Cubic5, 1.0, 1.01).0 < 0.0);
}

#[test]
fn the_units_of_aol_scaling_are_outputs_of_a_square_matrix_in_both_layouts() {
    let polar: Polar = serde_json::from_str(r#"{"method": "newton_schulz", "precondition": "aol"}"#).unwrap();
    for [outputs, inputs] in [[4, 4], [3, 5], [5, 3]] {
        let x = numbers([2, outputs, inputs], 1, DType::F64);
        let out_in = polar.apply(Matrix::new(x.clone(), Layout::OutIn)).into_tensor();
        let in_out = polar.apply(Matrix::new(x.swap_dims(1, 2), Layout::InOut)).into_tensor().swap_dims(1, 2);
        let error: f64 = (out_in - in_out).abs().max().into_scalar();
        assert!(error < 1e-13, "{outputs} x {inputs}: {error}");
    }
}

#[test]
fn products_are_counted() {
    let products = |text: &str| {
        let polar: Polar = serde_json::from_str(text).unwrap();
        // a square of 1 and a long row tell r³ and r²R apart
        let cost = polar.cost("");
        [cost.product_operations(1, 1), cost.product_operations(1, 1001)]
    };
    assert_eq!(products(r#"{"method": "minimax"}"#), [24.0, 16016.0 + 8.0]);
    assert_eq!(products(r#"{"method": "minimax", "steps": 3}"#), [18.0, 12012.0 + 6.0]);
    assert_eq!(products(r#"{"method": "newton_schulz", "norm": "schatten4"}"#), [30.0, 20020.0 + 10.0]);
    // no fifth power: the Gram matrix is not squared
    assert_eq!(products(r#"{"method": "polynomial", "coefficients": "cubic5"}"#), [20.0, 20020.0]);
}
