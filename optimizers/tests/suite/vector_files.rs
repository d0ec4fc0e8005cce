//! Reference vectors, and those made by PyTorch itself.

use burn::tensor::{DType, Device};
use polaron::vectors::VectorFile;

fn run_file(text: &str) {
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
    ($($name:ident: $file:literal;)*) => {
        $(#[test]
        fn $name() {
            run_file(include_str!(concat!("../../vectors/", $file, ".json")));
        })*
    };
}

passes! {
    sgd_equals_the_float64_reference: "sgd";
    adamw_equals_the_float64_reference: "adamw";
    muon_equals_the_float64_reference: "muon";
    sgd_equals_torch: "torch/sgd";
    adamw_equals_torch: "torch/adamw";
    muon_equals_torch_on_the_transposed_problem: "torch/muon";
}

#[test]
fn a_wrong_expectation_is_found() {
    let mut file = VectorFile::parse(include_str!("../../vectors/sgd.json")).unwrap();
    let case = &mut file.cases[0];
    case.expected[2][3] += 1e-3;
    let report = case.run(&Device::flex(), DType::F64).unwrap();
    assert!(!report.passed());
    assert_eq!((report.step, report.entry), (3, 3));
}

#[test]
fn a_nan_never_passes() {
    let mut file = VectorFile::parse(include_str!("../../vectors/sgd.json")).unwrap();
    let case = &mut file.cases[0];
    case.gradients[0][0] = f64::NAN;
    assert!(!case.run(&Device::flex(), DType::F32).unwrap().passed());
}
