//! How evenly a router spreads its tokens, and the losses that balance it.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::routing::{Choice, Routing};

/// Loads, probabilities and logits of one router over N tokens, or their means over routers or batches.
///
/// With E experts, `top_k` = k, logits `z` and probabilities `p = softmax(z)` over all experts:
///
/// ```text
/// f_i = fraction of the N k choices that are expert i        P_i = mean over tokens of p_i
/// ```
///
/// Both sum to one. Entropies are divided by ln E, so that 1 is uniform (with one expert they are 1). The definitions are those
/// of the programs of arXiv 2605.18106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RouterMetrics {
    /// Standard deviation of f over its mean: 0 when balanced, `sqrt(E - 1)` when one expert gets all tokens.
    pub load_cv: f64,
    /// Entropy of f.
    pub load_entropy: f64,
    /// Largest f.
    pub top_expert_load: f64,
    /// Fraction of the experts with f below `0.1 / E`.
    pub dead_expert_fraction: f64,
    /// Standard deviation of P over its mean.
    pub prob_cv: f64,
    /// Entropy of P.
    pub prob_entropy: f64,
    /// Mean over tokens of the entropy of p.
    pub token_entropy: f64,
    /// Load-balance loss `E Σ f_i P_i`: 1 when balanced.
    pub load_balance_loss: f64,
    /// Mean over tokens of the squared logsumexp of z.
    pub z_loss: f64,
    /// Root mean square of the logits.
    pub logit_rms: f64,
    /// Largest absolute logit.
    pub logit_max_abs: f64,
    /// Mean over tokens of the logsumexp of z.
    pub logsumexp_mean: f64,
    /// Largest logsumexp of z.
    pub logsumexp_max: f64,
}

impl RouterMetrics {
    /// The metrics of a router with logits `[tokens, experts]`, row-major, whose `top_k` experts with the largest logits
    /// are chosen (ties go to the earlier one). All zero without tokens or experts.
    #[must_use]
    pub fn of_logits(logits: &[f32], experts: usize, top_k: usize) -> Self {
        match (logits.len(), top_k) {
            (0, _) | (_, 0) => Self::default(),
            _ if experts == 0 || top_k > experts => Self::default(),
            _ => Self::of(&Choice::new(logits.to_vec(), experts, top_k)),
        }
    }

    pub(crate) fn of(choice: &Choice) -> Self {
        let experts = choice.counts.len();
        let choices: usize = choice.counts.iter().sum();
        let load: Vec<f64> = choice.counts.iter().map(|count| *count as f64 / choices as f64).collect();
        let tokens = (choice.logits.len() / experts) as f64;
        let mut sums = Sums::new(experts);
        for row in choice.logits.chunks_exact(experts) {
            sums.add(row);
        }
        let probability: Vec<f64> = sums.probability.iter().map(|sum| sum / tokens).collect();
        let both = load.iter().zip(&probability).map(|(load, probability)| load * probability);
        let dead = load.iter().filter(|load| **load < 0.1 / experts as f64).count();
        Self {
            load_cv: variation(&load),
            load_entropy: entropy(&load),
            top_expert_load: load.iter().copied().fold(0.0, f64::max),
            dead_expert_fraction: dead as f64 / experts as f64,
            prob_cv: variation(&probability),
            prob_entropy: entropy(&probability),
            token_entropy: sums.entropy / tokens,
            load_balance_loss: experts as f64 * both.sum::<f64>(),
            z_loss: sums.squared_logsumexp / tokens,
            logit_rms: (sums.squares / (tokens * experts as f64)).sqrt(),
            logit_max_abs: sums.largest,
            logsumexp_mean: sums.logsumexp / tokens,
            logsumexp_max: sums.largest_logsumexp,
        }
    }

    /// The mean of every metric; `None` for an empty slice.
    pub fn mean(all: &[Self]) -> Option<Self> {
        let mut mean = Self::default();
        for one in all {
            for (slot, value) in mean.slots().into_iter().zip(one.values()) {
                *slot += value / all.len() as f64;
            }
        }
        (!all.is_empty()).then_some(mean)
    }

    fn values(mut self) -> [f64; COUNT] {
        self.slots().map(|slot| *slot)
    }

    fn slots(&mut self) -> [&mut f64; COUNT] {
        [
            &mut self.load_cv,
            &mut self.load_entropy,
            &mut self.top_expert_load,
            &mut self.dead_expert_fraction,
            &mut self.prob_cv,
            &mut self.prob_entropy,
            &mut self.token_entropy,
            &mut self.load_balance_loss,
            &mut self.z_loss,
            &mut self.logit_rms,
            &mut self.logit_max_abs,
            &mut self.logsumexp_mean,
            &mut self.logsumexp_max,
        ]
    }
}

/// Number of metrics.
const COUNT: usize = 13;

/// Sums over tokens.
struct Sums {
    probability: Vec<f64>,
    entropy: f64,
    squares: f64,
    largest: f64,
    logsumexp: f64,
    squared_logsumexp: f64,
    largest_logsumexp: f64,
}

impl Sums {
    fn new(experts: usize) -> Self {
        Self {
            probability: vec![0.0; experts],
            entropy: 0.0,
            squares: 0.0,
            largest: 0.0,
            logsumexp: 0.0,
            squared_logsumexp: 0.0,
            largest_logsumexp: f64::NEG_INFINITY,
        }
    }

    fn add(&mut self, row: &[f32]) {
        let row: Vec<f64> = row.iter().map(|logit| f64::from(*logit)).collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let logsumexp = row.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln() + largest;
        let p: Vec<f64> = row.iter().map(|logit| (logit - logsumexp).exp()).collect();
        self.probability.iter_mut().zip(&p).for_each(|(sum, p)| *sum += p);
        self.entropy += entropy(&p);
        self.squares += row.iter().map(|logit| logit * logit).sum::<f64>();
        self.largest = row.iter().fold(self.largest, |largest, logit| largest.max(logit.abs()));
        self.logsumexp += logsumexp;
        self.squared_logsumexp += logsumexp * logsumexp;
        self.largest_logsumexp = self.largest_logsumexp.max(logsumexp);
    }
}

/// Population standard deviation over the mean.
fn variation(shares: &[f64]) -> f64 {
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / shares.len() as f64;
    variance.sqrt() / mean
}

/// Entropy over its largest possible value.
fn entropy(shares: &[f64]) -> f64 {
    if shares.len() == 1 {
        return 1.0;
    }
    let sum: f64 = shares.iter().filter(|share| **share > 0.0).map(|share| share * share.ln()).sum();
    -sum / (shares.len() as f64).ln()
}

/// Load-balance loss `E Σ stopgrad(f_i) P_i` and mean squared logsumexp of one router, `[1]` each.
pub(crate) fn auxiliary_losses(routing: &Routing) -> (Tensor<1>, Tensor<1>) {
    let Routing { logits, choice } = routing;
    let experts = choice.counts.len();
    let choices: usize = choice.counts.iter().sum();
    let load: Vec<f32> = choice.counts.iter().map(|count| (*count as f64 / choices as f64) as f32).collect();
    let load = Tensor::<2>::from_data(TensorData::new(load, [1, experts]), (&logits.device(), logits.dtype()));
    let balance = (softmax(logits.clone(), 1).mean_dim(0) * load).sum() * experts as f64;
    let logsumexp = (logits.clone() - log_softmax(logits.clone(), 1)).narrow(1, 0, 1);
    (balance, logsumexp.square().mean())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDING: f64 = 1e-12;

    /// Logits that send token t to expert `t mod experts` by a margin.
    fn round_robin(tokens: usize, experts: usize) -> Vec<f32> {
        (0..tokens * experts).map(|at| if at / experts % experts == at % experts { 2.0 } else { 0.0 }).collect()
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < ROUNDING, "{found} {expected}");
    }

    #[test]
    fn a_balanced_router_has_no_variation_full_entropy_and_a_balance_loss_of_one() {
        for (experts, tokens) in [(4, 8), (16, 64)] {
            let metrics = RouterMetrics::of_logits(&round_robin(tokens, experts), experts, 1);
            near(metrics.load_cv, 0.0);
            near(metrics.load_entropy, 1.0);
            near(metrics.prob_cv, 0.0);
            near(metrics.prob_entropy, 1.0);
            near(metrics.load_balance_loss, 1.0);
            near(metrics.top_expert_load, 1.0 / experts as f64);
            near(metrics.dead_expert_fraction, 0.0);
            assert!(metrics.token_entropy < 1.0);
        }
    }

    #[test]
    fn one_expert_that_gets_all_tokens_has_a_variation_of_the_root_of_experts_minus_one() {
        for experts in [2, 5, 16] {
            let logits: Vec<f32> = (0..6 * experts).map(|at| if at % experts == 1 { 1.0 } else { 0.0 }).collect();
            let metrics = RouterMetrics::of_logits(&logits, experts, 1);
            near(metrics.load_cv, (experts as f64 - 1.0).sqrt());
            near(metrics.load_entropy, 0.0);
            near(metrics.top_expert_load, 1.0);
            near(metrics.dead_expert_fraction, (experts as f64 - 1.0) / experts as f64);
            let p = 1f64.exp() / (1f64.exp() + experts as f64 - 1.0);
            near(metrics.load_balance_loss, experts as f64 * p);
        }
    }

    #[test]
    fn logits_made_by_hand_give_the_numbers_computed_by_hand() {
        // Two tokens, two experts, logits (0, ln 3) and (0, -ln 3): p = (1/4, 3/4) and (3/4, 1/4).
        let ln3 = 3f64.ln();
        let metrics = RouterMetrics::of_logits(&[0.0, ln3 as f32, 0.0, -ln3 as f32], 2, 1);
        let rounding = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        rounding(metrics.load_cv, 0.0);
        rounding(metrics.prob_cv, 0.0);
        rounding(metrics.token_entropy, -(0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln()) / 2f64.ln());
        rounding(metrics.logit_rms, (ln3 * ln3 / 2.0).sqrt());
        rounding(metrics.logit_max_abs, ln3);
        let (first, second) = (4f64.ln(), (4.0 / 3.0f64).ln());
        rounding(metrics.logsumexp_mean, (first + second) / 2.0);
        rounding(metrics.logsumexp_max, first);
        rounding(metrics.z_loss, (first * first + second * second) / 2.0);
        // Three tokens of one expert and one of the other: f = (3/4, 1/4).
        let metrics = RouterMetrics::of_logits(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2, 1);
        rounding(metrics.load_cv, 0.5);
        rounding(metrics.load_entropy, -(0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln()) / 2f64.ln());
    }

    #[test]
    fn the_mean_is_taken_of_every_metric() {
        let one = RouterMetrics::of_logits(&round_robin(4, 4), 4, 1);
        let two = RouterMetrics::of_logits(&[3.0, 0.0, 0.0, -1.0], 4, 2);
        let mean = RouterMetrics::mean(&[one, two]).unwrap();
        for ((mean, one), two) in mean.values().into_iter().zip(one.values()).zip(two.values()) {
            near(mean, (one + two) / 2.0);
        }
        assert_eq!(RouterMetrics::mean(&[]), None);
    }

    #[test]
    fn no_tokens_give_zeros() {
        assert_eq!(RouterMetrics::of_logits(&[], 4, 2), RouterMetrics::default());
    }

    #[test]
    fn the_losses_for_training_are_those_that_are_reported() {
        use burn::tensor::Device;
        let logits: Vec<f32> = (0..24).map(|at| ((at * 7) % 11) as f32 * 0.3 - 1.0).collect();
        let metrics = RouterMetrics::of_logits(&logits, 4, 2);
        let choice = Choice::new(logits.clone(), 4, 2);
        let logits = Tensor::<2>::from_data(TensorData::new(logits, [6, 4]), &Device::flex());
        let (balance, z) = auxiliary_losses(&Routing { logits, choice });
        for (found, expected) in [(balance, metrics.load_balance_loss), (z, metrics.z_loss)] {
            let found = f64::from(found.into_scalar::<f32>());
            // A dozen 32-bit operations.
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
