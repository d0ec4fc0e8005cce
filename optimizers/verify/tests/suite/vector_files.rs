//! Reference vectors, and those made by PyTorch itself.

use std::thread;

use burn::tensor::{DType, Device};
use polaron::OptimizerConfig;
use polaron_verify::vectors::{BUILT_IN, VectorCase, VectorError, VectorFile};

fn built_in(name: &str) -> VectorFile {
    let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name).expect("a built-in file");
    VectorFile::parse(text).expect("a vector file")
}

/// The problems of a file: cases that miss, or why it cannot be run.
fn faults(text: &str) -> Vec<String> {
    let file = match VectorFile::parse(text) {
        Ok(file) => file,
        Err(error) => return vec![error.to_string()],
    };
    if file.cases.is_empty() {
        return vec!["it has no cases".into()];
    }
    let runs = file.cases.iter().flat_map(|case| [DType::F32, DType::F64].map(|dtype| (case, dtype)));
    runs.filter_map(|(case, dtype)| fault(case, dtype)).collect()
}

fn fault(case: &VectorCase, dtype: DType) -> Option<String> {
    match case.run(&Device::flex(), dtype) {
        Ok(report) if report.passed() => None,
        Ok(report) => Some(format!("{} {dtype:?}: {report:?}", case.name)),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn every_built_in_file_is_met_in_both_dtypes() {
    let found: Vec<String> = thread::scope(|scope| {
        let start = |name: &'static str, text: &'static str| {
            // The name is that of the file for the sake of what a panic prints.
            let running = thread::Builder::new().name(name.into()).spawn_scoped(scope, move || faults(text));
            (name, running.expect("a thread"))
        };
        let running: Vec<_> = BUILT_IN.iter().map(|(name, text)| start(name, text)).collect();
        let faults = running.into_iter().flat_map(|(name, file)| {
            let faults = file.join().unwrap_or_else(|_| vec!["it panicked".into()]);
            faults.into_iter().map(move |fault| format!("{name}: {fault}"))
        });
        faults.collect()
    });
    assert!(found.is_empty(), "{} misses:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_kind_has_a_file_of_its_name_and_every_file_a_kind() {
    for kind in OptimizerConfig::KINDS {
        assert!(BUILT_IN.iter().any(|(name, _)| name == kind), "optimizers/verify/vectors/{kind}.json is missing");
    }
    for (name, text) in BUILT_IN {
        let file = VectorFile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A folder is of one origin, and may have several files of a kind, named after what they show.
        assert!(name.contains('/') || *name == file.kind, "{name} says it is of {}", file.kind);
        let stray = file.cases.iter().find(|case| case.optimizer.kind() != file.kind);
        assert!(stray.is_none(), "{name}: {stray:?}");
    }
}

#[test]
fn a_wrong_expectation_is_found() {
    let mut file = built_in("sgd");
    let case = &mut file.cases[0];
    case.expected.as_mut().unwrap()[2][3] += 1e-3;
    let report = case.run(&Device::flex(), DType::F64).unwrap();
    assert!(!report.passed());
    assert_eq!((report.step, report.entry), (3, 3));
}

#[test]
fn a_nan_never_passes() {
    let mut file = built_in("sgd");
    let case = &mut file.cases[0];
    case.gradients[0][0] = f64::NAN;
    assert!(!case.run(&Device::flex(), DType::F32).unwrap().passed());
}

#[test]
fn a_case_that_contradicts_itself_is_named_with_the_place() {
    let refused = |change: fn(&mut VectorCase)| {
        let mut case = built_in("sgd").cases.remove(0);
        change(&mut case);
        let error = case.run(&Device::flex(), DType::F64).unwrap_err();
        assert!(matches!(&error, VectorError::Case { case: name, .. } if *name == case.name), "{error:?}");
        error.to_string()
    };
    let said = refused(|case| case.gradients[1].push(0.0));
    assert!(said.contains("`gradients`, step 2"), "{said}");
    let said = refused(|case| case.expected = Some(Vec::new()));
    assert!(said.contains("`expected` has 0 arrays"), "{said}");
    let said = refused(|case| case.parameter.shape = vec![1 << 40, 1 << 40]);
    assert!(said.contains("too large"), "{said}");
    let said = refused(|case| case.parameter.shape = vec![1, 1, 1, case.parameter.data.len()]);
    assert!(said.contains("rank"), "{said}");
}
