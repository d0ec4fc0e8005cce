//! How many parameters and operations a configuration has.

use super::choices::{PositionKind, QkNormKind};
use super::model::ModelConfig;

impl ModelConfig {
    /// Number of parameters in the matrices inside the blocks, including all experts but not the routers.
    #[must_use]
    pub fn hidden_parameters(&self) -> usize {
        let feed_forward = product(&[self.experts.max(1), self.feed_forward_matrices()]);
        product(&[self.layers, self.attention_matrices().saturating_add(feed_forward)])
    }

    /// Number of all parameters with a vocabulary of `vocab_size` tokens.
    #[must_use]
    pub fn parameters(&self, vocab_size: usize) -> usize {
        self.hidden_parameters().saturating_add(self.parameters_outside(vocab_size, self.experts))
    }

    /// Number of parameters that one token uses: all except those of the experts that it is not sent to. Without experts, equal
    /// to [`parameters`](Self::parameters).
    #[must_use]
    pub fn active_parameters(&self, vocab_size: usize) -> usize {
        self.active_matrices().saturating_add(self.parameters_outside(vocab_size, self.top_k))
    }

    /// Floating-point operations of one training step (forward and backward) on `batch` windows:
    /// `6 B T (active + vocab · d) + 12 B T Σ keys · a`, where `active` counts the matrices of the blocks that one token
    /// uses (routers and `top_k` experts), `keys` is the mean number of tokens that a layer's query sees (`T / 2` with a
    /// causal mask, fewer with a sliding window) and a is the width of all query heads.
    #[must_use]
    pub fn flops_per_step(&self, vocab_size: usize, batch: usize) -> f64 {
        let tokens = batch as f64 * self.context as f64;
        let routers = self.layers as f64 * self.experts as f64 * self.d_model as f64;
        let weights = self.active_matrices() as f64 + routers + vocab_size as f64 * self.d_model as f64;
        let keys: f64 = (0..self.layers).map(|layer| self.mean_keys(layer)).sum();
        let attention = 2.0 * keys * self.query_width() as f64;
        6.0 * tokens * (weights + attention)
    }

    /// Mean number of tokens that a query of this layer sees.
    fn mean_keys(&self, layer: usize) -> f64 {
        let context = self.context as f64;
        let window = self.window(layer).map_or(context, |window| (window as f64).min(context));
        window - window * window / (2.0 * context)
    }

    /// Matrices of the blocks that one token uses, without the routers.
    fn active_matrices(&self) -> usize {
        let feed_forward = product(&[self.top_k.max(1), self.feed_forward_matrices()]);
        product(&[self.layers, self.attention_matrices().saturating_add(feed_forward)])
    }

    fn attention_matrices(&self) -> usize {
        let (query, key) = (self.query_width(), self.key_width());
        product(&[2, self.d_model, query.saturating_add(key)])
    }

    /// Matrices of one feed-forward layer or one expert.
    fn feed_forward_matrices(&self) -> usize {
        let matrices = if self.feed_forward.is_gated() { 3 } else { 2 };
        product(&[matrices, self.d_model, self.hidden])
    }

    /// All parameters outside the matrices of the blocks, with the biases of `experts` experts.
    fn parameters_outside(&self, vocab_size: usize, experts: usize) -> usize {
        let tables = if self.tied_head { 1 } else { 2 };
        let positions = match self.position {
            PositionKind::Learned => self.context,
            PositionKind::Rotary => 0,
        };
        let norms = if self.post_norm { 4 } else { 2 };
        let block = [
            product(&[norms, self.norm_vectors(), self.d_model]),
            self.attention_vectors(),
            product(&[self.experts, self.d_model]),
            self.feed_forward_biases(),
            self.expert_biases(experts),
        ];
        let block = block.into_iter().fold(0, usize::saturating_add);
        let last_norm = product(&[self.norm_vectors(), self.d_model]);
        [product(&[tables, vocab_size, self.d_model]), product(&[positions, self.d_model]), last_norm]
            .into_iter()
            .fold(product(&[self.layers, block]), usize::saturating_add)
    }

    /// Vectors of one norm: its gain, and its bias if it has one.
    fn norm_vectors(&self) -> usize {
        if self.norm_bias { 2 } else { 1 }
    }

    /// Vectors of the query and key norms, biases and sinks.
    fn attention_vectors(&self) -> usize {
        let (query, key) = (self.query_width(), self.key_width());
        let gains = match self.qk_norm {
            QkNormKind::None => 0,
            QkNormKind::PerHead => product(&[2, self.head_dim()]),
            QkNormKind::FullWidth => query.saturating_add(key),
        };
        let biases = if self.attention_bias { [query, key, key, self.d_model] } else { [0; 4] };
        let sinks = if self.sinks { self.heads } else { 0 };
        let norms = product(&[self.norm_vectors(), gains]);
        biases.into_iter().chain([norms, sinks]).fold(0, usize::saturating_add)
    }

    /// Biases of a dense feed-forward layer.
    fn feed_forward_biases(&self) -> usize {
        if !self.feed_forward_bias || self.experts > 0 {
            return 0;
        }
        let inner = if self.feed_forward.is_gated() { 2 } else { 1 };
        product(&[inner, self.hidden]).saturating_add(self.d_model)
    }

    /// Biases of the router and of `experts` experts.
    fn expert_biases(&self, experts: usize) -> usize {
        if !self.expert_bias || self.experts == 0 {
            return 0;
        }
        let one = product(&[2, self.hidden]).saturating_add(self.d_model);
        product(&[experts, one]).saturating_add(self.experts)
    }
}

fn product(factors: &[usize]) -> usize {
    factors.iter().copied().fold(1, usize::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_sizes() {
        // preset, parameters with 65 tokens, of these in the blocks' matrices, batch, GFLOP a step
        for (name, all, hidden, batch, gflop) in [
            ("nanogpt-char", 804_096, 786_432, 12, 3.81),
            ("llama-d64", 221_888, 212_992, 32, 2.87),
            ("llama-d128", 869_760, 851_968, 32, 22.75),
            ("llama-d256", 4_853_504, 4_816_896, 16, 128.45),
        ] {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.parameters(65), all, "{name}");
            assert_eq!(config.hidden_parameters(), hidden, "{name}");
            // The published figures have two decimals.
            let found = config.flops_per_step(65, batch) * 1e-9;
            assert!((found - gflop).abs() <= 0.005, "{name}: {found}");
        }
    }

    #[test]
    fn presets_of_papers_have_the_published_numbers_of_parameters() {
        for (name, vocabulary, all, active) in [
            ("gpt2-124m", 50_257, 124_439_808, 124_439_808),
            ("llama2-130m", 32_000, 134_105_856, 134_105_856),
            ("llama2-350m", 32_000, 367_969_280, 367_969_280),
            ("qwen3-0.6b", 151_936, 596_049_920, 596_049_920),
            ("gemma3-1b", 262_144, 999_885_952, 999_885_952),
            ("olmoe-1b-7b", 50_304, 6_919_161_856, 1_282_017_280),
            ("gpt-oss-small", 201_088, 3_467_779_008, 1_654_954_944),
        ] {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.parameters(vocabulary), all, "{name}");
            assert_eq!(config.active_parameters(vocabulary), active, "{name}");
        }
    }

    #[test]
    fn active_parameters_leave_out_the_experts_that_a_token_is_not_sent_to() {
        for name in ["nanogpt-char", "llama-d64", "qwen3-tiny", "gemma3-tiny"] {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(config.active_parameters(65), config.parameters(65), "{name}");
        }
        // One expert: gate, up and down; for gpt-oss with a bias each.
        for (name, one, idle) in [("olmoe-tiny", 3 * 128 * 64, 12), ("gpt-oss-tiny", 3 * 128 * 128 + 3 * 128, 6)] {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(config.parameters(65) - config.active_parameters(65), config.layers * idle * one, "{name}");
        }
    }

    #[test]
    fn operations_count_the_chosen_experts_and_the_keys_that_are_seen() {
        let mut config = ModelConfig::preset("gpt-oss-tiny").unwrap();
        let per_token = |config: &ModelConfig| config.flops_per_step(65, 1) / config.context as f64;
        let before = per_token(&config);
        config.top_k = 3;
        // One more expert in each of 4 layers, at 6 operations a weight.
        assert_eq!(per_token(&config) - before, 6.0 * 4.0 * 3.0 * 128.0 * 128.0);
        config.top_k = 2;
        config.full_every = 1;
        // Two layers see 64 keys in the mean instead of 32 - 32² / 256 = 28; 12 operations per key and feature.
        assert_eq!(per_token(&config) - before, 12.0 * 2.0 * (64.0 - 28.0) * 256.0);
    }
}
