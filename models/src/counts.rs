//! How many parameters and operations a configuration has.

use crate::{FeedForwardKind, ModelConfig, PositionKind, QkNormKind};

impl ModelConfig {
    /// Number of parameters in the matrices inside the blocks, those of all experts included; without the routers.
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

    /// Number of parameters that one token uses: all but those of the experts that it is not sent to. Equal to
    /// [`parameters`](Self::parameters) without experts.
    #[must_use]
    pub fn active_parameters(&self, vocab_size: usize) -> usize {
        self.active_matrices().saturating_add(self.parameters_outside(vocab_size, self.top_k))
    }

    /// Floating-point operations of one training step (forward and backward) on `batch` windows:
    /// `6 B T (active + vocab · d) + 12 B T Σ keys · a`, where `active` counts the matrices of the blocks that one token
    /// uses (routers and `top_k` experts), `keys` is the mean number of tokens that a layer's query sees (`T / 2` with a
    /// causal mask, less in a sliding window) and a is the width of all query heads.
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
        let matrices = if self.feed_forward == FeedForwardKind::Gelu { 2 } else { 3 };
        product(&[matrices, self.d_model, self.hidden])
    }

    /// Everything but the matrices inside the blocks, with the biases of so many experts.
    fn parameters_outside(&self, vocab_size: usize, experts: usize) -> usize {
        let tables = if self.tied_head { 1 } else { 2 };
        let positions = match self.position {
            PositionKind::Learned => self.context,
            PositionKind::Rotary => 0,
        };
        let norms = if self.post_norm { 4 } else { 2 };
        let block = [
            product(&[norms, self.d_model]),
            self.attention_vectors(),
            product(&[self.experts, self.d_model]),
            self.expert_biases(experts),
        ];
        let block = block.into_iter().fold(0, usize::saturating_add);
        [product(&[tables, vocab_size, self.d_model]), product(&[positions, self.d_model]), self.d_model]
            .into_iter()
            .fold(product(&[self.layers, block]), usize::saturating_add)
    }

    /// Gains of the query and key norms, biases and sinks.
    fn attention_vectors(&self) -> usize {
        let (query, key) = (self.query_width(), self.key_width());
        let gains = match self.qk_norm {
            QkNormKind::None => 0,
            QkNormKind::PerHead => product(&[2, self.head_dim()]),
            QkNormKind::FullWidth => query.saturating_add(key),
        };
        let biases = if self.attention_bias { [query, key, key, self.d_model] } else { [0; 4] };
        let sinks = if self.sinks { self.heads } else { 0 };
        biases.into_iter().chain([gains, sinks]).fold(0, usize::saturating_add)
    }

    /// Biases of the router and of so many experts.
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
