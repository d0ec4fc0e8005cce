//! What one run has learnt, found by `polaron inspect --delta` and kept by the `project` of the next.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use polaron::tensor_file;

use crate::support::{Place, Said};

const FILE: &str = "task.safetensors";

/// Keeps the directions of a file for every matrix of the blocks.
fn project(sides: &str) -> String {
    let roles = r#"["attention_query", "attention_key", "attention_value", "attention_output", "gate", "up", "down"]"#;
    format!("optimizer.rule=[{{ role = {roles}, project = {{ {sides} }} }}]")
}

fn kept() -> String {
    project(&format!("input = \"{FILE}\", output = \"{FILE}\""))
}

/// `base`, `task` that starts from it, and the directions of the difference.
fn prepared() -> (Place, Said) {
    let place = Place::new();
    place.train(&["--steps", "20", "--out", "base"]).succeeds();
    place.train(&["--steps", "10", "--init", "base", "--seed", "2", "--out", "task"]).succeeds();
    let said = place.run(&["inspect", "task", "--delta", "base", "--rank", "3", "--out", FILE]).succeeds();
    (place, said)
}

type Matrices = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

fn tensors(bytes: &[u8]) -> Matrices {
    let (tensors, _) = tensor_file::from_bytes(bytes).unwrap();
    tensors.into_iter().map(|(name, data)| (name, (data.shape().to_vec(), data.iter::<f64>().collect()))).collect()
}

/// How far the directions of the file have moved at most from one set of weights to another.
fn drift(directions: &Matrices, before: &Matrices, after: &Matrices) -> f64 {
    let mut most: f64 = 0.0;
    for (name, (shape, directions)) in directions {
        let (path, side) = name.rsplit_once('.').unwrap();
        if !path.starts_with("blocks.") {
            continue;
        }
        let (sizes, old) = &before[path];
        let moved: Vec<f64> = after[path].1.iter().zip(old).map(|(a, b)| a - b).collect();
        // Stored [d_in, d_out].
        let (step, stride) = if side == "input" { (sizes[1], 1) } else { (1, sizes[1]) };
        let others = sizes[usize::from(side == "input")];
        for k in 0..shape[1] {
            for other in 0..others {
                let along = |i: usize| directions[i * shape[1] + k] * moved[i * step + other * stride];
                most = most.max((0..shape[0]).map(along).sum::<f64>().abs());
            }
        }
    }
    most
}

#[test]
fn the_next_run_keeps_what_an_earlier_one_has_learnt() {
    let (place, said) = prepared();
    let line = said.out.lines().find(|line| line.starts_with("blocks.0.attn.wq.weight")).expect(&said.out);
    let numbers: Vec<&str> = line.split_whitespace().collect();
    // name, change, share and its sign, directions, energy, three shares
    assert_eq!((numbers.len(), numbers[4]), (9, "3"), "{line}");
    let shares: Vec<f64> = numbers[5..].iter().map(|number| number.parse().unwrap()).collect();
    assert!((shares[0] - shares[1..].iter().sum::<f64>()).abs() < 3e-3 && shares[0] <= 1.0, "{line}");
    assert!(shares[1] >= shares[2] && shares[2] >= shares[3] && shares[3] > 0.0, "{line}");
    assert!(said.out.contains("From step 20 of `base` to step 10 of `task`") && said.out.contains("wrote"), "{said:?}");
    assert!(!said.out.contains("norm.gain"), "vectors have no directions: {said:?}");

    let directions = tensors(&place.read(FILE));
    for (name, (shape, values)) in &directions {
        let &[features, count] = shape.as_slice() else { panic!("{name} {shape:?}") };
        let product =
            |a: usize, b: usize| (0..features).map(|i| values[i * count + a] * values[i * count + b]).sum::<f64>();
        assert!((0..count).all(|a| (product(a, a) - 1.0).abs() < 1e-5), "{name}");
    }
    let more = ["--steps", "10", "--init", "base", "--seed", "3", "--set", "optimizer.weight_decay=0.1"];
    place.train(&[&more[..], &["--out", "free"]].concat()).succeeds();
    let said = place.train(&[&more[..], &["--set", &kept(), "--out", "kept"]].concat()).succeeds();
    let plan = place.run(&["inspect", "kept"]).succeeds().out;
    assert!(plan.contains("keeps 3 input + 3 output"), "{plan} {said:?}");
    let [base, free, after] =
        [("base", 20), ("free", 10), ("kept", 10)].map(|(run, step)| tensors(&place.weights(run, step)));
    let drifts = [&free, &after].map(|after| drift(&directions, &base, after));
    assert!(drifts[0] > 1e-3 && drifts[1] < 1e-6, "{drifts:?}");
    assert!(after["blocks.0.attn.wq.weight"] != base["blocks.0.attn.wq.weight"], "nothing was trained");
}

#[test]
fn a_projected_run_goes_on_to_the_bit_and_refuses_other_directions() {
    let (place, _) = prepared();
    let kept = kept();
    let run = ["--steps", "10", "--init", "base", "--set", "train.checkpoint_every=5", "--set", &kept, "--out", "run"];
    place.train(&run).succeeds();
    let files =
        || ["model", "optimizer"].map(|file| place.read(&format!("run/checkpoints/step-000010/{file}.safetensors")));
    let straight = files();
    let newest = place.path("run/checkpoints/step-000010");
    std::fs::remove_dir_all(&newest).unwrap();
    place.train(&run).succeeds();
    assert_eq!(files(), straight);

    std::fs::remove_dir_all(&newest).unwrap();
    place.run(&["inspect", "task", "--delta", "base", "--rank", "2", "--out", FILE]).succeeds();
    place.train(&run).fails(2, &["keeps 3 input + 3 output", "keeps 2 input + 2 output", "was updated by"]);
    std::fs::remove_file(place.path(FILE)).unwrap();
    place.train(&run).fails(2, &["cannot read `task.safetensors`", "check the spelling of the path"]);
}

#[test]
fn adapters_count_with_what_they_add_to_their_matrices() {
    let place = Place::new();
    place.train(&["--steps", "10", "--out", "base"]).succeeds();
    let lora = ["--set", "train.lora.rank=2", "--set", "train.lora.match=[\"attn.*\"]"];
    place.train(&[&["--steps", "6", "--init", "base", "--out", "tuned"], &lora[..]].concat()).succeeds();
    let said = place.run(&["inspect", "tuned", "--delta", "base", "--rank", "2", "--out", FILE]).succeeds().out;
    let line = |name: &str| said.lines().find(|line| line.starts_with(name)).expect(&said).to_string();
    let query = line("blocks.0.attn.wq.weight");
    let numbers: Vec<&str> = query.split_whitespace().collect();
    // All of the change of rank 2, but for the rounding of f32.
    assert_eq!((numbers[4], numbers[5]), ("2", "1.000"), "{query}");
    assert!(line("blocks.0.mlp.up.weight").contains("none") && !said.contains("lora"), "{said}");
    let names: Vec<String> = tensors(&place.read(FILE)).into_keys().collect();
    assert!(names.iter().all(|name| name.contains(".attn.")) && !names.is_empty(), "{names:?}");
}

#[test]
fn a_project_that_cannot_be_kept_is_refused_before_the_first_step() {
    let (place, _) = prepared();
    let refused = |rule: &str, more: &[&str], fragments: &[&str]| {
        let run = ["--steps", "2", "--init", "base", "--set", rule, "--out", "refused"];
        place.train(&[&run[..], more].concat()).fails(2, fragments);
        assert!(!place.path("refused/checkpoints/step-000002").exists());
    };
    refused(&project("input = \"nowhere.safetensors\""), &[], &["cannot read `nowhere.safetensors`"]);
    refused(
        &project("input = \"text.txt\""),
        &[],
        &["the directions `text.txt`", "no safetensors file", "inspect RUN --delta BASE"],
    );
    refused(&project("inptu = \"a\""), &[], &["did you mean `input`"]);
    refused(&kept(), &["--set", "optimizer.qk_clip=100"], &["`optimizer.qk_clip` is 100", "project keeps directions"]);
    let everything = format!("optimizer.rule=[{{ match = \"**\", project = {{ input = \"{FILE}\" }} }}]");
    refused(&everything, &[], &["the project of", "vector", "leaves it out"]);
    let heads = kept().replace(
        "project =",
        "blocks = \"heads\", norm_control = { method = \"hyperball\" }, weight_decay = 0.0, project =",
    );
    refused(&heads, &[], &["output blocks", "hyperball"]);
    let factors = "optimizer.rule=[{ role = \"lora_b\", project = { output = \"factors.safetensors\" } }]";
    let second = TensorData::new((0..16).map(|i| i as f32).collect::<Vec<f32>>(), [16, 1]);
    let tensors = [("blocks.0.attn.wq.lora.b.output", &second)];
    place.write("factors.safetensors", &tensor_file::to_bytes(tensors, &BTreeMap::new()).unwrap());
    let lora = ["train.lora.rank=2", "train.lora.refactor_every=2", "train.lora.match=[\"attn.wq\"]"];
    let lora: Vec<&str> = lora.iter().flat_map(|key| ["--set", key]).chain(["--freeze", "**.lora.a"]).collect();
    refused(
        factors,
        &lora,
        &["`train.lora.refactor_every` is 2", "blocks.0.attn.wq.lora.b", "project keeps directions"],
    );
    let weights = project("input = \"base/checkpoints/step-000020/model.safetensors\"");
    refused(&weights, &[], &["is of no parameter of the model", ".input or .output"]);
}

#[test]
fn delta_of_weights_that_cannot_be_compared_says_why() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "base"]).succeeds();
    place.train(&["--steps", "2", "--set", "model.hidden=48", "--out", "wide"]).succeeds();
    let refused = |arguments: &[&str], fragments: &[&str]| {
        place.run(&[&["inspect"], arguments].concat()).fails(2, fragments);
    };
    refused(&["wide", "--delta", "base"], &["weights of one model", "blocks.0.mlp", "`base`", "`wide`"]);
    refused(&["base", "--delta", "base"], &["no matrix of `base` differs"]);
    refused(&["base", "--delta", "nowhere"], &["`nowhere` is neither a run folder"]);
    refused(&["base", "--delta", "wide", "--rank", "0"], &["--rank must be at least 1"]);
    refused(&["base", "--rank", "2"], &["--delta"]);
    refused(&["base", "--out", "x.safetensors"], &["--delta"]);
}
