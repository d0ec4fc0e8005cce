//! Every device that is compiled in computes the same, within rounding.

use polaron_train::host::device::{DEVICES, DeviceInfo};

use crate::support::Place;

fn compiled() -> impl Iterator<Item = &'static DeviceInfo> {
    DEVICES.iter().filter(|info| info.compiled)
}

#[test]
fn the_reference_vectors_pass_on_every_device() {
    let place = Place::new();
    for info in compiled() {
        let said = place.run(&["verify", "--device", info.name]);
        assert_eq!(said.code, Some(0), "{}: {}{}", info.name, said.out, said.err);
        assert!(said.out.contains("torch/muon"), "{}", said.out);
    }
}

#[test]
fn a_miss_is_named_and_ends_with_exit_code_1() {
    let place = Place::new();
    let wrong = r#"{"format": "optimizer-vectors", "version": 1, "kind": "sgd", "cases": [{
        "name": "off_by_a_tenth", "optimizer": {"kind": "sgd"}, "layout": "out_in", "blocks": null, "lr": 0.1,
        "parameter": {"shape": [2], "data": [1.0, 2.0]}, "gradients": [[1.0, 1.0]], "expected": [[0.9, 2.0]],
        "tolerance": {"f32_max_abs": 1e-6, "f64_max_abs": 1e-14}}]}"#;
    place.write("wrong.json", wrong.as_bytes());
    let said = place.run(&["verify", "wrong.json"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.out.contains("case off_by_a_tenth, step 1, entry 1"), "{}", said.out);
    place.write("broken.json", b"{}");
    assert_eq!(place.run(&["verify", "broken.json"]).code, Some(2));
}

#[test]
fn every_device_trains_to_the_same_losses() {
    let place = Place::new();
    let mut reference: Vec<f64> = Vec::new();
    for info in compiled() {
        let said = place.train(&["--steps", "3", "--device", info.name, "--out", info.name]);
        assert_eq!(said.code, Some(0), "{}: {}", info.name, said.err);
        let events = place.events(info.name);
        let losses: Vec<f64> =
            events.iter().filter(|event| event["event"] == "train").map(|e| e["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 3);
        if reference.is_empty() {
            reference = losses;
            continue;
        }
        // The same weights and batches; sums run in another order, in f32.
        for (got, expected) in losses.iter().zip(&reference) {
            assert!((got - expected).abs() < 1e-4, "{}: {got} is not {expected}", info.name);
        }
    }
}
