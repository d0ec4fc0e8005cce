//! Promises of incremental decoding: [`LanguageModel::extend`] returns what the whole window returns.

use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_models::{Cache, LanguageModel, ModelConfig};

const VOCAB: usize = 31;
const CONTEXT: usize = 24;

/// Every small preset at its full width, but with few layers and a short context.
fn models() -> impl Iterator<Item = (&'static str, LanguageModel)> {
    ModelConfig::SMALL_PRESETS.iter().map(|preset| {
        let mut config = ModelConfig::preset(preset).unwrap();
        (config.context, config.sliding_window) = (CONTEXT, 5);
        (config.layers, config.full_every) = (2, config.full_every.min(2));
        (*preset, config.init(VOCAB, 3, &Device::flex()).unwrap())
    })
}

fn tensor(rows: &[Vec<i32>]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]), &Device::flex())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn most_likely(logits: &[f32]) -> i32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)));
    best.unwrap() as i32
}

/// Logits are below one and result from some hundred 32-bit operations.
const ROUNDING: f32 = 2e-6;

#[test]
fn every_preset_generates_the_same_tokens_with_and_without_the_cache() {
    for (preset, model) in models() {
        let mut tokens = vec![5, 17, 2];
        let mut cache = Cache::new();
        while tokens.len() < CONTEXT {
            let new = tensor(&[tokens[cache.len()..].to_vec()]);
            let cached = host(model.extend(&mut cache, new));
            assert_eq!(cache.len(), tokens.len());
            let all = host(model.forward(tensor(&[tokens.clone()])));
            let whole = &all[all.len() - VOCAB..];
            for (cached, whole) in cached.iter().zip(whole) {
                assert!((cached - whole).abs() <= ROUNDING, "{preset} at {}: {cached} {whole}", tokens.len());
            }
            assert_eq!(most_likely(&cached), most_likely(whole), "{preset} at {}", tokens.len());
            tokens.push(most_likely(whole));
        }
    }
}

#[test]
fn pieces_of_any_length_and_batches_give_the_whole() {
    let row = |salt: i32| (0..CONTEXT as i32).map(|i| (i * 7 + salt * 5) % VOCAB as i32).collect::<Vec<i32>>();
    let rows = [row(1), row(2)];
    for (preset, model) in models() {
        let whole = host(model.forward(tensor(&rows)).narrow(1, CONTEXT - 1, 1));
        for cuts in [vec![CONTEXT], vec![1, 8, CONTEXT - 9], vec![6, 1, 6, CONTEXT - 13]] {
            let (mut cache, mut start, mut last) = (Cache::new(), 0, Vec::new());
            for length in cuts {
                let piece = rows.each_ref().map(|row| row[start..start + length].to_vec());
                last = host(model.extend(&mut cache, tensor(&piece)));
                start += length;
            }
            for (found, expected) in last.iter().zip(&whole) {
                assert!((found - expected).abs() <= ROUNDING, "{preset}: {found} {expected}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "a window of 25 tokens is longer than the model's context of 24")]
fn a_cache_never_exceeds_the_context() {
    let (_, model) = models().next().unwrap();
    let mut cache = Cache::new();
    model.extend(&mut cache, tensor(&[vec![1; CONTEXT]]));
    model.extend(&mut cache, tensor(&[vec![1]]));
}
