//! A transformer encoder of burn-nn that learns whether the verb of a sentence agrees with its subject. The sentences are generated:
//! "the cats near the king sleep" is right, "the cats near the king sleeps" is not, and the nouns between the two distract.

use std::error::Error;
use std::path::PathBuf;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron::{Role, Schedule};
use polaron_common::splitmix64;
use polaron_train::{Comparison, Measurement, Results, Trial, own};

const BATCH: usize = 64;
/// Nouns, and verbs, each in the singular; the plural of word w is w + 1.
const KINDS: u64 = 12;
const PREPOSITIONS: u64 = 4;
/// Words 0 and 1 are padding and "the"; then come nouns, verbs, prepositions.
const NOUNS: u64 = 2;
const VERBS: u64 = NOUNS + 2 * KINDS;
const BETWEEN: u64 = VERBS + 2 * KINDS;
const WORDS: u64 = BETWEEN + PREPOSITIONS;
/// Words of the longest sentence: the subject, three distractions, the verb.
const LENGTH: usize = 2 + 3 * 3 + 1;

/// The comparison of the three optimizers.
pub fn compare(folder: PathBuf, quick: bool) -> Result<Results, Box<dyn Error>> {
    let comparison = Comparison::new(folder)
        .model("transformer encoder")
        .optimizers(["adamw", "muon", "muon_eq"])
        .schedule(Schedule::cosine(if quick { 2 } else { 20 }))
        .steps(if quick { 20 } else { 400 })
        .valid_every(if quick { 10 } else { 40 })
        .counts(BATCH as u64, "sentences");
    Ok(comparison.run(train)?)
}

/// One run: weights and batches from the seed of the trial, the optimizer from its settings.
fn train(trial: Trial) -> Result<impl Iterator<Item = Measurement>, polaron::LayerwiseError> {
    let device = Device::flex().autodiff();
    device.seed(trial.seed());
    let model = Network::new(&device);
    let optimizer = trial.layerwise()?.assign("output", Role::Head).build(&model)?;
    let (seed, plain) = (trial.seed(), device.clone().inner());
    let loss = move |model: &Network, step| model.loss(seed, step, BATCH, &device);
    // Sentences of a seed that no trial has.
    let valid = move |model: &Network| model.loss(u64::MAX, 0, 1000, &plain).into_scalar::<f64>();
    Ok(own::train(trial, model, optimizer, loss, valid))
}

#[derive(Module, Debug)]
struct Network {
    words: Embedding,
    places: Embedding,
    encoder: TransformerEncoder,
    output: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            words: EmbeddingConfig::new(WORDS as usize, 32).init(device),
            places: EmbeddingConfig::new(LENGTH, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 64, 4, 2).with_norm_first(true).with_dropout(0.0).init(device),
            output: LinearConfig::new(32, 2).init(device),
        }
    }

    /// Mean loss over the sentences of a step.
    fn loss(&self, seed: u64, step: u64, count: usize, device: &Device) -> Tensor<1> {
        let of = splitmix64(splitmix64(seed).wrapping_add(step));
        let (words, labels): (Vec<_>, Vec<_>) = (0..count as u64).map(|i| sentence(splitmix64(of ^ i))).unzip();
        let words = Tensor::<2, Int>::from_data(TensorData::new(words.concat(), [count, LENGTH]), device);
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [count]), device);
        let places = Tensor::<1, Int>::arange(0..LENGTH as i64, device).unsqueeze::<2>();
        let x = self.words.forward(words) + self.places.forward(places);
        let x = self.encoder.forward(TransformerEncoderInput::new(x));
        let logits = self.output.forward(x.mean_dim(1).squeeze_dim::<2>(1));
        CrossEntropyLossConfig::new().init(device).forward(logits, labels)
    }
}

/// The sentence of a random number, and whether its verb agrees with its subject.
fn sentence(random: u64) -> (Vec<i32>, i32) {
    let mut drawn = 0;
    let mut below = |n: u64| {
        drawn += 1;
        splitmix64(random.wrapping_add(drawn)) % n
    };
    let (subject, plural, agrees) = (below(KINDS), below(2), below(2));
    let mut words = vec![1, NOUNS + 2 * subject + plural];
    for _ in 0..below(4) {
        words.extend([BETWEEN + below(PREPOSITIONS), 1, NOUNS + below(2 * KINDS)]);
    }
    // A singular subject has a singular verb.
    words.push(VERBS + 2 * below(KINDS) + if agrees == 1 { plural } else { 1 - plural });
    words.resize(LENGTH, 0);
    (words.into_iter().map(|word| word as i32).collect(), agrees as i32)
}
