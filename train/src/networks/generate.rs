//! Text from a model: a sliding window of context, and a sampler that depends on the seed alone.

use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_common::splitmix64;
use polaron_datasets::{TextStream, Tokenizer};
use polaron_models::{Cache, LanguageModel};

use super::stops::Stops;
use crate::error::Error;

/// How text is sampled, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens to generate, at most.
    pub tokens: usize,
    /// 0 always takes the likeliest token; larger is more random.
    pub temperature: f64,
    /// Draws from this many likeliest tokens; 0 draws from all.
    pub top_k: usize,
    /// Draws from the fewest likeliest tokens that have at least this probability together; 1 draws from all.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
    /// Texts that end the generated text, and are no part of it.
    pub stop: Vec<String>,
    /// Whether the text continues after the tokenizer's end-of-text token.
    pub ignore_end: bool,
}

impl Default for Sampling {
    /// No text, and no limits.
    fn default() -> Self {
        Self { tokens: 0, temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0, stop: Vec::new(), ignore_end: false }
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has as many tokens as were asked for.
    Length,
    /// The model wrote the end-of-text token.
    EndOfText,
    /// One of the texts that end it came.
    Stop,
}

impl Ended {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::EndOfText => "end_of_text",
            Self::Stop => "stop",
        }
    }
}

/// A text that a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The new text, without the prompt.
    pub text: String,
    /// Tokens that were generated for it, without an end-of-text token that ended it.
    pub tokens: usize,
    /// Why it ended.
    pub ended: Ended,
}

/// Continues `prompt`; `show` gets the new text piece by piece, as it becomes certain. `model` must be free of automatic
/// differentiation and live on `device`. An empty prompt starts from a line break, or from the first token where the alphabet
/// has none.
///
/// # Errors
///
/// When the tokenizer does not know a character of the prompt, the model's output is non-finite, or the device fails.
pub fn generate(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    prompt: &str,
    sampling: &Sampling,
    device: &Device,
    mut show: impl FnMut(&str),
) -> Result<Generated, Error> {
    tokenizer.check_known(prompt)?;
    let mut tokens = tokenizer.encode(prompt)?;
    if tokens.is_empty() {
        tokens = tokenizer.encode("\n").unwrap_or_else(|_| vec![0]);
    }
    let begin = tokens.len();
    let end_of_text = tokenizer.end_of_text().filter(|_| !sampling.ignore_end);
    let (mut stream, mut stops) = (TextStream::new(tokenizer, tokens.clone()), Stops::new(&sampling.stop));
    let (mut text, mut ended) = (String::new(), Ended::Length);
    let mut add = |piece: &str| {
        text.push_str(piece);
        show(piece);
    };
    let mut cache = Cache::new();
    for index in 0..sampling.tokens {
        let mut logits = next_logits(model, &mut cache, &tokens, device)?;
        // A table of embeddings may have more rows than there are tokens.
        logits.truncate(tokenizer.vocab_size());
        let uniform = uniform(sampling.seed, index as u64);
        let token = pick(&logits, sampling, uniform).ok_or_else(|| {
            Error::Usage("the model's output is non-finite: use a checkpoint from before it diverged".into())
        })?;
        if end_of_text == Some(token) {
            ended = Ended::EndOfText;
            break;
        }
        tokens.push(token);
        let (piece, found) = stops.push(&stream.push(token)?);
        add(&piece);
        if found {
            ended = Ended::Stop;
            break;
        }
    }
    add(&stops.rest());
    Ok(Generated { text, tokens: tokens.len() - begin, ended })
}

/// Scores of the token that follows `tokens`. As long as these fit into the context, only those that the cache does not hold
/// are computed; after that the window slides, every token's position changes, and the whole window is computed.
fn next_logits(model: &LanguageModel, cache: &mut Cache, tokens: &[u32], device: &Device) -> Result<Vec<f32>, Error> {
    let context = model.context();
    let slides = tokens.len() > context;
    let first = if slides { tokens.len() - context } else { cache.len() };
    if slides {
        *cache = Cache::new();
    }
    let new: Vec<i32> = tokens.iter().skip(first).map(|token| *token as i32).collect();
    let length = new.len();
    let input = Tensor::<2, Int>::from_data(TensorData::new(new, [1, length]), device);
    let logits = model.extend(cache, input);
    let data = logits.try_into_data_as::<f32>().map_err(Error::device_failed("generating"))?;
    data.try_to_vec::<f32>().map_err(Error::device_failed("generating"))
}

/// Draw `index` of the random sequence of `seed`: a number in [0, 1).
fn uniform(seed: u64, index: u64) -> f64 {
    let bits = splitmix64(splitmix64(seed).wrapping_add(index)) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// The token at which the cumulative probability, likeliest tokens first, exceeds `uniform`; ties go to the smaller token.
/// None when a score is NaN or the highest is not finite.
fn pick(logits: &[f32], sampling: &Sampling, uniform: f64) -> Option<u32> {
    let Sampling { temperature, top_k, top_p, .. } = *sampling;
    let mut ranked: Vec<(u32, f64)> = (0_u32..).zip(logits).map(|(token, logit)| (token, f64::from(*logit))).collect();
    if ranked.iter().any(|(_, logit)| logit.is_nan()) {
        return None;
    }
    ranked.sort_by(|(a, left), (b, right)| right.total_cmp(left).then(a.cmp(b)));
    let (likeliest, highest) = ranked.first().copied().filter(|(_, logit)| logit.is_finite())?;
    if temperature == 0.0 {
        return Some(likeliest);
    }
    if top_k > 0 {
        ranked.truncate(top_k);
    }
    let mut weights: Vec<(u32, f64)> =
        ranked.into_iter().map(|(token, logit)| (token, ((logit - highest) / temperature).exp())).collect();
    if top_p < 1.0 {
        weights.truncate(nucleus(&weights, top_p));
    }
    let mut left = uniform * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    for (token, weight) in &weights {
        if left < *weight {
            return Some(*token);
        }
        left -= weight;
    }
    // Rounding may leave a small remainder: it belongs to the last token that can be drawn at all.
    weights.iter().rev().find(|(_, weight)| *weight > 0.0).map(|(token, _)| *token)
}

/// How many of the likeliest tokens, which come first, have `share` of all probability together.
fn nucleus(weights: &[(u32, f64)], share: f64) -> usize {
    let mut left = share * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut reached = |weight: f64| {
        left -= weight;
        left <= 0.0
    };
    1 + weights.iter().take_while(|(_, weight)| !reached(*weight)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(logits: &[f32], temperature: f64, top_k: usize, uniform: f64) -> Option<u32> {
        super::pick(logits, &Sampling { temperature, top_k, ..Sampling::default() }, uniform)
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_smaller_of_equals() {
        assert_eq!(pick(&[0.0, 3.0, 3.0, 1.0], 0.0, 0, 0.99), Some(1));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Weights 1 and 3, so a quarter and three quarters; the likelier token comes first.
        let logits = [0.0, 3.0_f32.ln()];
        assert_eq!(pick(&logits, 1.0, 0, 0.74), Some(1));
        assert_eq!(pick(&logits, 1.0, 0, 0.76), Some(0));
        let drawn = (0..10_000).filter(|i| pick(&logits, 1.0, 0, uniform(7, *i)) == Some(1)).count();
        // Five standard deviations of a binomial with n = 10,000 and p = 0.75: 5 * sqrt(1875) = 217.
        assert!(drawn.abs_diff(7500) < 217, "{drawn}");
    }

    #[test]
    fn top_k_leaves_out_the_unlikely() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        for i in 0..1000 {
            assert!(matches!(pick(&logits, 10.0, 2, uniform(1, i)), Some(2 | 3)));
        }
    }

    #[test]
    fn top_p_keeps_the_fewest_tokens_that_reach_it() {
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let logits = [0.0, 4.0_f32.ln(), 2.0_f32.ln(), 0.0];
        let drawn = |top_p: f64| -> Vec<u32> {
            let sampling = Sampling { top_p, ..Sampling::default() };
            let all: std::collections::BTreeSet<u32> =
                (0..1000).filter_map(|i| super::pick(&logits, &sampling, uniform(1, i))).collect();
            all.into_iter().collect()
        };
        assert_eq!(drawn(1e-9), [1]);
        assert_eq!(drawn(0.49), [1]);
        assert_eq!(drawn(0.51), [1, 2]);
        assert_eq!(drawn(0.76), [0, 1, 2]);
        assert_eq!(drawn(0.9), [0, 1, 2, 3]);
        assert_eq!(drawn(1.0), [0, 1, 2, 3]);
    }

    #[test]
    fn a_tiny_temperature_does_not_overflow() {
        assert_eq!(pick(&[1.0, 500.0, 2.0], 1e-300, 0, 0.999), Some(1));
    }

    #[test]
    fn non_finite_outputs_give_no_token() {
        assert_eq!(pick(&[0.0, f32::NAN], 1.0, 0, 0.5), None);
        assert_eq!(pick(&[f32::INFINITY, 0.0], 1.0, 0, 0.5), None);
        assert_eq!(pick(&[], 1.0, 0, 0.5), None);
    }

    #[test]
    fn draws_depend_on_seed_and_index_alone() {
        assert_eq!(uniform(3, 4), uniform(3, 4));
        assert_ne!(uniform(3, 4), uniform(3, 5));
        assert_ne!(uniform(3, 4), uniform(4, 4));
        assert!((0..1000).all(|i| (0.0..1.0).contains(&uniform(1, i))));
    }
}
