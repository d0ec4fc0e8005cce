//! Images and perceptrons.

use crate::support::{Place, Said};

/// A step takes about a millisecond.
const SMALL: &[&str] = &["train", "--model", "mlp", "--set", "model.width=32", "--threads", "2", "--out", "run"];

fn run(place: &Place, more: &[&str]) -> Said {
    place.run(&[SMALL, more].concat())
}

#[test]
fn a_perceptron_reads_digits() {
    let place = Place::new();
    let said = place.run(&["train", "--model", "mlp", "--steps", "300", "--threads", "2", "--out", "run"]).succeeds();
    let events = place.events("run");
    let accuracy = |event: &serde_json::Value| event["accuracy"].as_f64();
    let last = events.iter().rev().find_map(accuracy).unwrap();
    assert!(last >= 0.97, "{last}");
    for fragment in ["nats per image", "% of the validation images", "19,200 images", "images/s"] {
        assert!(said.out.contains(fragment), "{fragment:?} is not in {}", said.out);
    }
    assert!(!said.out.contains("generate"), "{}", said.out);
    assert!(said.err.contains("1,437 training and 360 validation images of 8 x 8, 10 classes"), "{}", said.err);
}

#[test]
fn a_perceptron_resumes_to_the_same_bytes() {
    let place = Place::new();
    run(&place, &["--steps", "40", "--set", "train.checkpoint_every=20"]).succeeds();
    let last = "run/checkpoints/step-000040";
    let weights = place.read(&format!("{last}/model.safetensors"));
    std::fs::remove_dir_all(place.path(last)).unwrap();
    let said = run(&place, &["--steps", "40", "--set", "train.checkpoint_every=20"]).succeeds();
    assert!(said.err.contains("checkpoint of step 20"), "{}", said.err);
    assert_eq!(place.read(&format!("{last}/model.safetensors")), weights);
}

#[test]
fn a_perceptron_is_exported_and_inspected_but_writes_no_text() {
    let place = Place::new();
    run(&place, &["--steps", "5"]).succeeds();
    place.run(&["export", "run", "--out", "w.safetensors"]).succeeds();
    let bytes = place.read("w.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    // Other programs expect [output, input].
    assert_eq!((shape("layers.0.weight"), shape("head.weight")), (vec![32, 64], vec![10, 32]));
    let said = place.run(&["inspect", "run"]).succeeds();
    assert!(said.out.contains("64 inputs, 10 classes") && said.out.contains("step 5 of 5"), "{}", said.out);
    place.run(&["generate", "run", "--prompt", "x"]).fails(2, &["holds a perceptron"]);
    place.run(&["inspect", "mlp", "--vocab", "3"]).fails(2, &["--vocab"]);
}

#[test]
fn a_wrong_size_activation_or_folder_is_one_clear_error() {
    let place = Place::new();
    let cases = [
        (["--set", "model.width=0"], "`width` is 0"),
        (["--set", "model.activation=relo"], "did you mean `relu`"),
        (["--set", "model.heads=2"], "model.heads"),
        (["--data", "text.txt"], "text.txt"),
        (["--data", "nowhere"], "nowhere"),
    ];
    for (more, fragment) in cases {
        run(&place, &more).fails(2, &[fragment]);
        assert!(!place.path("run").exists(), "{more:?}");
    }
}
