//! Text from a model: a sliding window of context, and a sampler that depends on the seed alone.

use burn::tensor::{Device, Int, Tensor, TensorData};
use polaron_common::splitmix64;
use polaron_datasets::Tokenizer;
use polaron_models::{Cache, LanguageModel};

use crate::error::Error;

/// How text is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens to generate.
    pub tokens: usize,
    /// 0 always takes the likeliest token; larger is more random.
    pub temperature: f64,
    /// Draws from this many likeliest tokens; 0 draws from all.
    pub top_k: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Continues `prompt`; returns the new text only. `model` must be free of automatic differentiation and live on
/// `device`. An empty prompt starts from a line break, or from the first token where the alphabet has none.
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
) -> Result<String, Error> {
    tokenizer.check_known(prompt)?;
    let mut tokens = tokenizer.encode(prompt)?;
    if tokens.is_empty() {
        tokens = tokenizer.encode("\n").unwrap_or_else(|_| vec![0]);
    }
    let begin = tokens.len();
    let mut cache = Cache::new();
    for index in 0..sampling.tokens {
        let logits = next_logits(model, &mut cache, &tokens, device)?;
        let uniform = uniform(sampling.seed, index as u64);
        let token = pick(&logits, sampling.temperature, sampling.top_k, uniform).ok_or_else(|| {
            Error::Usage("the model's output is non-finite: use a checkpoint from before it diverged".into())
        })?;
        tokens.push(token);
    }
    let (before, new) = tokens.split_at(begin);
    Ok(tokenizer.decode_after(before, new)?)
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
fn pick(logits: &[f32], temperature: f64, top_k: usize, uniform: f64) -> Option<u32> {
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
    let weights: Vec<(u32, f64)> =
        ranked.into_iter().map(|(token, logit)| (token, ((logit - highest) / temperature).exp())).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

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
