//! The forward pass against `reference/forward.py` and `reference/modern.py`, written independently in float64.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_models::{LanguageModel, ModelConfig, NamedTensor, load_named, parameter_table, to_exported};
use serde::Deserialize;

mod common;

#[derive(Deserialize)]
struct Fixture {
    /// Keys of the configuration that differ from the preset's.
    #[serde(flatten)]
    config: serde_json::Map<String, serde_json::Value>,
    vocab_size: usize,
    /// Parameters of the preset itself with 65 tokens.
    preset_parameters: Option<usize>,
    tensors: BTreeMap<String, Stored>,
    tokens: Vec<Vec<i32>>,
    targets: Vec<Vec<i32>>,
    logits: Vec<Vec<Vec<f64>>>,
    loss: f64,
    slopes: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Stored {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Fixture {
    fn model(&self, preset: &str, device: &Device) -> LanguageModel {
        let mut config = self.config.clone();
        config.insert("preset".into(), preset.into());
        let config: ModelConfig = serde_json::from_value(config.into()).unwrap();
        let model = config.init(self.vocab_size, 0, device).unwrap();
        let paths = parameter_table(&model).into_iter().map(|info| info.path);
        let tensors: Vec<NamedTensor> = paths.map(|path| self.stored(path)).collect();
        assert_eq!(tensors.len(), self.tensors.len());
        load_named(model, tensors, device).unwrap()
    }

    /// The tensor of a model's path, in the layout in which the model stores it.
    fn stored(&self, path: String) -> NamedTensor {
        let exported = &self.tensors[&path.replace(".gain", ".weight")];
        let data = match exported.shape[..] {
            [outputs, inputs] if is_projection(&path) => {
                let at = |i: usize| exported.data[i % outputs * inputs + i / outputs];
                let values: Vec<f32> = (0..outputs * inputs).map(at).collect();
                TensorData::new(values, [inputs, outputs])
            }
            _ => TensorData::new(exported.data.clone(), exported.shape.clone()),
        };
        NamedTensor { name: path, data }
    }
}

/// Embeddings and the biases of experts are stored as they are exported; other matrices are stored `[input, output]`.
fn is_projection(path: &str) -> bool {
    path != "embed.weight" && path != "position.weight" && !path.ends_with(".bias")
}

fn fixtures() -> [(&'static str, Fixture); 7] {
    let parse = |text| serde_json::from_str::<Fixture>(text).unwrap();
    [
        ("nanogpt-char", parse(include_str!("reference/nanogpt.json"))),
        ("nanogpt-char", parse(include_str!("reference/gpt2.json"))),
        ("llama-d64", parse(include_str!("reference/llama.json"))),
        ("qwen3-tiny", parse(include_str!("reference/qwen3.json"))),
        ("gemma3-tiny", parse(include_str!("reference/gemma3.json"))),
        ("olmoe-tiny", parse(include_str!("reference/olmoe.json"))),
        ("gpt-oss-tiny", parse(include_str!("reference/gpt_oss.json"))),
    ]
}

/// A device on which the fused kernels apply.
fn fused_device() -> Device {
    Device::flex().autodiff()
}

/// A device on which every layer uses Burn's operations: the fused kernels cannot recompute activations.
fn plain_device() -> Device {
    Device::flex().autodiff().gradient_checkpointing()
}

fn tokens(rows: &[Vec<i32>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

/// Logits are up to about 5 and each results from some hundred 32-bit operations on numbers of that size; 24 bits of
/// mantissa resolve 5 to 3e-7, and errors of random sign add up to some twenty times that. A wrong axis, scale, gain or
/// rotation shows in the first digit.
const TOLERANCE: f64 = 1e-5;

#[test]
fn logits_and_loss_are_those_of_the_float64_reference() {
    for device in [Device::flex(), fused_device(), plain_device()] {
        for (preset, fixture) in fixtures() {
            let model = fixture.model(preset, &device);
            let inputs = tokens(&fixture.tokens, &device);
            let logits = model.forward(inputs.clone());
            let logits: Vec<f32> = logits.into_data().try_to_vec().unwrap();
            let expected = fixture.logits.concat().concat();
            assert_eq!(logits.len(), expected.len());
            for (found, expected) in logits.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= TOLERANCE, "{preset}: {found} {expected} {error:.2e}");
            }
            let loss = model.loss(inputs, tokens(&fixture.targets, &device)).into_scalar::<f32>();
            assert!((f64::from(loss) - fixture.loss).abs() <= TOLERANCE, "{preset}: {loss}");
        }
    }
}

#[test]
fn gradients_are_those_of_the_float64_reference() {
    for (device, (preset, fixture)) in [fused_device(), plain_device()]
        .into_iter()
        .flat_map(|device| fixtures().map(|fixture| (device.clone(), fixture)))
    {
        let model = fixture.model(preset, &device);
        let inputs = tokens(&fixture.tokens, &device);
        let loss = model.loss(inputs, tokens(&fixture.targets, &device));
        let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
        let gradients = common::named_gradients(&model, &mut gradients);
        assert_eq!(gradients.len(), fixture.slopes.len(), "every parameter has a gradient");
        for (path, gradient) in gradients {
            let name = path.replace(".gain", ".weight");
            let shape = &fixture.tensors[&name].shape;
            let slope = slope_along_sines(&gradient, shape, is_projection(&path));
            // As the loss, and the error of the reference's own difference.
            let error = (slope - fixture.slopes[&name]).abs();
            assert!(error <= TOLERANCE, "{preset} {path}: {slope} {error:.2e}");
        }
    }
}

/// Product of a gradient and the unit vector along sin(1), sin(2), … in the exported layout.
fn slope_along_sines(gradient: &[f32], shape: &[usize], is_projection: bool) -> f64 {
    let sine = |i: usize| ((i + 1) as f64).sin();
    let exported_index = |i: usize| match *shape {
        [outputs, inputs] if is_projection => i % outputs * inputs + i / outputs,
        _ => i,
    };
    let length = (0..gradient.len()).map(|i| sine(i).powi(2)).sum::<f64>().sqrt();
    let product = |(i, g): (usize, &f32)| f64::from(*g) * sine(exported_index(i));
    gradient.iter().enumerate().map(product).sum::<f64>() / length
}

#[test]
fn fused_layers_agree_with_burns_operations_over_windows_of_several_blocks() {
    // Fused attention takes 64 queries and 256 keys at a time: whole blocks and tiles and a short one of each; windows within a
    // tile and over several.
    const CONTEXT: usize = 535;
    for (preset, window) in [("nanogpt-char", 0), ("qwen3-tiny", 0), ("gemma3-tiny", 40), ("gpt-oss-tiny", 300)] {
        let mut config = ModelConfig::preset(preset).unwrap();
        (config.context, config.layers) = (CONTEXT, 2);
        if window > 0 {
            config.sliding_window = window;
        }
        let rows: Vec<Vec<i32>> = (0..2).map(|row| (0..CONTEXT as i32).map(|i| (i * i + row) % 31).collect()).collect();
        let [fused, plain] = [fused_device(), plain_device()].map(|device| {
            let model = config.init(31, 3, &device).unwrap();
            let loss = model.loss(tokens(&rows, &device), tokens(&rows, &device));
            let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
            common::named_gradients(&model, &mut gradients)
        });
        for ((path, fused), (_, plain)) in fused.into_iter().zip(plain) {
            let largest = plain.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let error = fused.iter().zip(&plain).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
            // Sums of some hundred terms in another order; the largest error seen is a tenth of this.
            assert!(error <= 2e-5 * largest && largest > 0.0, "{preset} {path}: {error:e} of {largest:e}");
        }
    }
}

#[test]
fn presets_have_as_many_parameters_as_the_reference_counts() {
    let mut counted = 0;
    for (preset, fixture) in fixtures() {
        let Some(expected) = fixture.preset_parameters else { continue };
        let config = ModelConfig::preset(preset).unwrap();
        assert_eq!(config.parameters(65), expected, "{preset}");
        let model = config.init(65, 1, &Device::flex()).unwrap();
        assert_eq!(parameter_table(&model).iter().map(|info| info.count).sum::<usize>(), expected, "{preset}");
        counted += 1;
    }
    assert_eq!(counted, 4);
}

#[test]
fn exported_names_shapes_and_values_are_the_documented_ones() {
    for (preset, fixture) in fixtures() {
        let model = fixture.model(preset, &Device::flex());
        let exported = to_exported(&model);
        assert_eq!(exported.len(), fixture.tensors.len());
        for NamedTensor { name, data } in exported {
            let expected = &fixture.tensors[&name];
            assert_eq!(data.shape().to_vec(), expected.shape, "{name}");
            assert_eq!(data.try_to_vec::<f32>().unwrap(), expected.data, "{name}");
        }
    }
}
