//! Reference vectors, and those made by PyTorch itself.

use burn::tensor::{DType, Device};
use polaron_verify::vectors::{BUILT_IN, VectorFile};

/// Every case of a built-in file, in both dtypes.
fn run_file(name: &str) {
    let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name).expect("a built-in file");
    let file = VectorFile::parse(text).expect("a vector file");
    assert!(!file.cases.is_empty());
    let mut misses = Vec::new();
    for case in &file.cases {
        for dtype in [DType::F32, DType::F64] {
            let report = case.run(&Device::flex(), dtype).expect("a case that runs");
            if !report.passed() {
                misses.push(format!("{} {dtype:?}: {report:?}", case.name));
            }
        }
    }
    assert!(misses.is_empty(), "{} {} misses:\n{}", misses.len(), file.kind, misses.join("\n"));
}

macro_rules! passes {
    ($($test:ident: $file:literal;)*) => {
        $(#[test]
        fn $test() {
            run_file($file);
        })*

        #[test]
        fn no_built_in_file_is_left_out() {
            let tested = [$($file),*];
            assert!(BUILT_IN.iter().all(|(name, _)| tested.contains(name)));
        }
    };
}

passes! {
    sgd_equals_the_float64_reference: "sgd";
    adamw_equals_the_float64_reference: "adamw";
    muon_equals_the_float64_reference: "muon";
    muon_eq_equals_the_float64_reference: "muon_eq";
    normuon_equals_the_float64_reference: "normuon";
    adamuon_equals_the_float64_reference: "adamuon";
    regularized_muon_equals_the_float64_reference: "regularized_muon";
    error_feedback_muon_equals_the_float64_reference: "error_feedback_muon";
    freon_equals_the_float64_reference: "freon";
    kaon_equals_the_float64_reference: "kaon";
    row_norm_equals_the_float64_reference: "row_norm";
    spectral_equals_the_float64_reference: "spectral";
    hybrid_equals_the_float64_reference: "hybrid";
    ssd_equals_the_float64_reference: "ssd";
    polar_grad_equals_the_float64_reference: "polar_grad";
    scion_equals_the_float64_reference: "scion";
    random_spectrum_keeps_the_directions_and_draws_inside_its_interval: "random_spectrum";
    sgd_equals_torch: "torch/sgd";
    adamw_equals_torch: "torch/adamw";
    muon_equals_torch_on_the_transposed_problem: "torch/muon";
}

fn sgd_file() -> VectorFile {
    VectorFile::parse(BUILT_IN[0].1).expect("a vector file")
}

#[test]
fn a_wrong_expectation_is_found() {
    let mut file = sgd_file();
    let case = &mut file.cases[0];
    case.expected.as_mut().unwrap()[2][3] += 1e-3;
    let report = case.run(&Device::flex(), DType::F64).unwrap();
    assert!(!report.passed());
    assert_eq!((report.step, report.entry), (3, 3));
}

#[test]
fn a_nan_never_passes() {
    let mut file = sgd_file();
    let case = &mut file.cases[0];
    case.gradients[0][0] = f64::NAN;
    assert!(!case.run(&Device::flex(), DType::F32).unwrap().passed());
}
