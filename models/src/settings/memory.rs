//! What a forward pass keeps for the backward pass.

use super::choices::QkNormKind;
use super::mlp::MlpConfig;
use super::model::ModelConfig;

/// Numbers that the backward pass needs of one row of a batch (a window, an image), with the fused layers of Burn's CPU backend;
/// Burn's own operations keep more.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Activations {
    /// In all blocks.
    pub blocks: f64,
    /// In the block that keeps the most.
    pub largest_block: f64,
    /// The inputs of the blocks: what remains of them where a block is computed again.
    pub inputs: f64,
    /// The input of the head, and its gradient.
    pub head: f64,
    /// Logits.
    pub logits: f64,
    /// Most logits that a thread computes at one time, however many rows it has.
    pub logits_at_once: f64,
}

/// Tokens whose logits are computed at one time: enough that the gradient of the head, which every block of tokens adds to, costs
/// little beside its products.
pub(crate) fn tokens_at_once(vocab_size: usize) -> usize {
    ((1 << 21) / vocab_size.max(1)).max(512)
}

impl ModelConfig {
    /// What the backward pass needs of one window with a vocabulary of `vocab_size` tokens.
    #[must_use]
    pub fn activations(&self, vocab_size: usize) -> Activations {
        let (context, layers, width) = (self.context as f64, self.layers as f64, self.d_model as f64);
        let (query, key) = (self.query_width() as f64, self.key_width() as f64);
        // Block input, first norm, attention's queries, keys, values and output, stream, second norm.
        let stream = 4.0 * width + 2.0 * query + 2.0 * key;
        let before_norms = match self.qk_norm {
            QkNormKind::None => 0.0,
            QkNormKind::PerHead | QkNormKind::FullWidth => query + key,
        };
        let after = if self.post_norm { 2.0 * width } else { 0.0 };
        // Of a softmax the largest score and the sum.
        let softmax = 2.0 * self.heads as f64;
        let block = context * (stream + before_norms + after + softmax + self.fed());
        Activations {
            blocks: layers * block,
            largest_block: block,
            inputs: context * layers * width,
            head: 2.0 * context * width,
            logits: context * vocab_size as f64,
            logits_at_once: tokens_at_once(vocab_size) as f64 * vocab_size as f64,
        }
    }

    /// Numbers that the feed-forward layer or the experts keep of a token: the derivatives of the nonlinearity and its value; with
    /// experts also their inputs and outputs, and the router's probabilities.
    fn fed(&self) -> f64 {
        let (width, hidden) = (self.d_model as f64, self.hidden as f64);
        if self.experts == 0 {
            return if self.feed_forward.is_gated() { 3.0 } else { 2.0 } * hidden;
        }
        self.top_k as f64 * (3.0 * hidden + 2.0 * width) + 4.0 * self.experts as f64
    }
}

impl MlpConfig {
    /// What the backward pass needs of one image.
    #[must_use]
    pub fn activations(&self, inputs: usize, outputs: usize) -> Activations {
        let (inputs, width, depth) = (inputs as f64, self.width as f64, self.depth as f64);
        // Burn's operations: the value before and after the nonlinearity.
        let block = 2.0 * width;
        Activations {
            blocks: inputs + depth * block,
            largest_block: inputs + block,
            inputs: inputs + (depth - 1.0) * width,
            head: 0.0,
            logits: 3.0 * outputs as f64,
            logits_at_once: f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dense_block_keeps_its_stream_its_attention_and_its_hidden_layer() {
        let config = ModelConfig::preset("llama-d256").unwrap();
        let kept = config.activations(65);
        let token = 8.0 * 256.0 + 2.0 * 4.0 + 3.0 * 704.0;
        assert_eq!((kept.blocks, kept.largest_block), (6.0 * 256.0 * token, 256.0 * token));
        assert_eq!((kept.inputs, kept.head), (6.0 * 256.0 * 256.0, 256.0 * 512.0));
        assert_eq!((kept.logits, kept.logits_at_once), (256.0 * 65.0, f64::from((1 << 21) / 65 * 65)));
        assert_eq!(config.activations(50_257).logits_at_once, 512.0 * 50_257.0);
    }

    #[test]
    fn windows_make_no_difference_and_experts_keep_what_they_use() {
        let mut config = ModelConfig::preset("gpt-oss-tiny").unwrap();
        let per_layer = |config: &ModelConfig| config.activations(65).blocks / (config.context * config.layers) as f64;
        let before = per_layer(&config);
        (config.full_every, config.context) = (1, 4 * config.context);
        assert_eq!(per_layer(&config), before);
        config.top_k += 1;
        assert_eq!(per_layer(&config) - before, 3.0 * 128.0 + 2.0 * 128.0);
    }

    #[test]
    fn a_size_of_any_kind_is_counted_at_once() {
        let mut config = ModelConfig::preset("gemma3-tiny").unwrap();
        (config.layers, config.context) = (usize::MAX, usize::MAX);
        assert!(config.activations(usize::MAX).blocks.is_finite());
    }
}
