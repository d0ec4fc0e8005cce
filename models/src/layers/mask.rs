//! Which tokens a query must not see.

use burn::tensor::Tensor;

use super::kept::Kept;

/// The score of a hidden token. Finite, because not every GPU promises to compute with infinities; its exponential is exactly
/// zero in 16, 32 and 64 bits.
const MASKED: f32 = -1e9;

/// Masks for attention in Burn's operations, by how many tokens a query sees (`None`: the whole context).
#[derive(Debug)]
pub(crate) struct Masks(Kept<Option<usize>>);

impl Masks {
    pub(crate) fn new() -> Self {
        Self(Kept::new())
    }

    /// `scores`, `[batch, heads, queries, keys]`, with the keys hidden that a query must not see: those after its own position,
    /// and all but the last `window` of the others. The last query has the position of the last key.
    pub(crate) fn hide(&self, scores: Tensor<4>, window: Option<usize>) -> Tensor<4> {
        let [_, _, queries, keys] = scores.dims();
        if queries == 1 && window.is_none_or(|window| keys <= window) {
            return scores;
        }
        let place = (&scores.device(), scores.dtype());
        let mask = self.0.get(window, keys, place, || causal(keys, window.unwrap_or(keys)));
        scores + mask.narrow(0, keys - queries, queries).unsqueeze()
    }
}

/// 0 where a token may look, `MASKED` where it may not: `[tokens, tokens]`, row-major.
fn causal(tokens: usize, window: usize) -> Vec<f32> {
    let row =
        |query: usize| (0..tokens).map(move |key| if key > query || query - key >= window { MASKED } else { 0.0 });
    (0..tokens).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_query_sees_its_window_and_nothing_later() {
        let masks = Masks::new();
        let seen = |queries, keys, window| -> Vec<bool> {
            let scores = masks.hide(Tensor::zeros([1, 1, queries, keys], &Device::flex()), window);
            let scores: Vec<f32> = scores.into_data().try_to_vec().unwrap();
            scores.into_iter().map(|x| x == 0.0).collect()
        };
        let (o, x) = (false, true);
        assert_eq!(seen(3, 3, None), [x, o, o, x, x, o, x, x, x]);
        assert_eq!(seen(3, 3, Some(2)), [x, o, o, x, x, o, o, x, x]);
        assert_eq!(seen(2, 4, Some(3)), [x, x, x, o, o, x, x, x]);
        assert_eq!(seen(1, 2, Some(1)), [o, x]);
        assert_eq!(seen(1, 3, None), [x, x, x]);
        assert_eq!(seen(1, 3, Some(3)), [x, x, x]);
    }
}
