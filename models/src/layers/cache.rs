//! Keys and values of the tokens seen so far, so that the next token costs one token's work.

use burn::tensor::Tensor;

/// Keys and values that [`LanguageModel::extend`](crate::LanguageModel::extend) keeps; initially empty.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    pub(crate) layers: Vec<KeyValues>,
    pub(crate) length: usize,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of tokens in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// Keys and values of one layer, `[batch, kv_heads, tokens, head_dim]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyValues(Option<(Tensor<4>, Tensor<4>)>);

impl KeyValues {
    /// Adds new keys and values and returns all. Keeps those that the next query can see.
    pub(crate) fn extend(&mut self, key: Tensor<4>, value: Tensor<4>, window: Option<usize>) -> (Tensor<4>, Tensor<4>) {
        let (key, value) = match self.0.take() {
            Some((old_key, old_value)) => (Tensor::cat(vec![old_key, key], 2), Tensor::cat(vec![old_value, value], 2)),
            None => (key, value),
        };
        let tokens = key.dims()[2];
        let kept = window.map_or(tokens, |window| tokens.min(window - 1));
        let last = |x: &Tensor<4>| if kept == tokens { x.clone() } else { x.clone().narrow(2, tokens - kept, kept) };
        self.0 = (kept > 0).then(|| (last(&key), last(&value)));
        (key, value)
    }
}
