//! The softmax of attention, on scores stored key by key.
//!
//! A line holds the scores of one key with every query of a block, so each lane of a vector is a query: nothing is summed across
//! lanes, and the causal mask leaves no rows of odd length.

use std::ops::Range;

use super::math::{LANES, exp};

/// A block of scores, `[keys, queries]`: query i sees the last `window` of the keys up to i.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub queries: Range<usize>,
    pub keys: Range<usize>,
    pub window: usize,
}

/// `W` neighbouring queries of a block.
struct Strip<'a, const W: usize> {
    seen: &'a Seen,
    /// Its index in the block.
    index: usize,
}

impl Seen {
    /// Replaces scores by the softmax of `score · scale` over the keys that a query sees, and the sink if there is one;
    /// the weight of a key that it does not see is zero. Raises `largest` to the largest `score · scale` of such a key.
    #[inline(always)]
    pub(super) fn softmax(&self, scores: &mut [f32], scale: f32, sink: Option<f32>, mut largest: Option<&mut f32>) {
        let vectors = self.queries.len() / LANES;
        for index in 0..vectors {
            Strip::<LANES> { seen: self, index }.softmax(scores, scale, sink, largest.as_deref_mut());
        }
        for index in vectors * LANES..self.queries.len() {
            Strip::<1> { seen: self, index }.softmax(scores, scale, sink, largest.as_deref_mut());
        }
    }

    /// Replaces the gradient of the weights by that of the scores. Returns that of the sink, or zero if there is none.
    #[inline(always)]
    pub(super) fn softmax_back(&self, gradient: &mut [f32], weights: &[f32], scale: f32, sink: bool) -> f32 {
        let vectors = self.queries.len() / LANES;
        let mut to_sink = 0.0;
        for index in 0..vectors {
            to_sink += Strip::<LANES> { seen: self, index }.softmax_back(gradient, weights, scale, sink);
        }
        for index in vectors * LANES..self.queries.len() {
            to_sink += Strip::<1> { seen: self, index }.softmax_back(gradient, weights, scale, sink);
        }
        to_sink
    }
}

impl<const W: usize> Strip<'_, W> {
    /// The first query.
    #[inline(always)]
    fn query(&self) -> usize {
        self.seen.queries.start + self.index * W
    }

    /// The keys that at least one of the queries sees.
    #[inline(always)]
    fn keys(&self) -> Range<usize> {
        let Seen { keys, window, .. } = self.seen;
        keys.start.max((self.query() + 1).saturating_sub(*window))..keys.end.min(self.query() + W)
    }

    /// The keys in `keys`, and their scores with these queries.
    #[inline(always)]
    fn lines<'a>(&self, scores: &'a [f32], keys: Range<usize>) -> impl Iterator<Item = &'a [f32; W]> {
        let (width, first, index) = (self.seen.queries.len(), self.seen.keys.start, self.index);
        let lines = scores[(keys.start - first) * width..(keys.end - first) * width].chunks_exact(width);
        lines.map(move |line| &line.as_chunks().0[index])
    }

    #[inline(always)]
    fn lines_mut<'a>(&self, scores: &'a mut [f32], keys: Range<usize>) -> impl Iterator<Item = &'a mut [f32; W]> {
        let (width, first, index) = (self.seen.queries.len(), self.seen.keys.start, self.index);
        let lines = scores[(keys.start - first) * width..(keys.end - first) * width].chunks_exact_mut(width);
        lines.map(move |line| &mut line.as_chunks_mut().0[index])
    }

    /// Writes `value` where a query does not see a key.
    #[inline(always)]
    fn hide(&self, scores: &mut [f32], value: f32) {
        let (first, window, keys) = (self.query(), self.seen.window, self.keys());
        // Between these two, every query sees every key.
        let start = (first + W).saturating_sub(window).clamp(keys.start, keys.end);
        let end = (first + 1).clamp(start, keys.end);
        for keys in [keys.start..start, end..keys.end] {
            for (key, lanes) in keys.clone().zip(self.lines_mut(scores, keys)) {
                for (lane, entry) in lanes.iter_mut().enumerate() {
                    if first + lane < key || first + lane >= window.saturating_add(key) {
                        *entry = value;
                    }
                }
            }
        }
    }

    /// Writes zero for the keys that none of the queries sees.
    #[inline(always)]
    fn clear(&self, scores: &mut [f32]) {
        let (keys, all) = (self.keys(), &self.seen.keys);
        for keys in [all.start..keys.start, keys.end..all.end] {
            self.lines_mut(scores, keys).for_each(|lanes| *lanes = [0.0; W]);
        }
    }

    #[inline(always)]
    fn softmax(&self, scores: &mut [f32], scale: f32, sink: Option<f32>, of_head: Option<&mut f32>) {
        self.hide(scores, f32::NEG_INFINITY);
        let mut largest = [f32::NEG_INFINITY; W];
        for lanes in self.lines(scores, self.keys()) {
            for lane in 0..W {
                largest[lane] = if lanes[lane] > largest[lane] { lanes[lane] } else { largest[lane] };
            }
        }
        if let Some(of_head) = of_head {
            *of_head = largest.iter().fold(*of_head, |of_head, score| of_head.max(score * scale));
        }
        let mut total = [0f32; W];
        for lane in 0..W {
            largest[lane] *= scale;
            if let Some(sink) = sink {
                largest[lane] = if sink > largest[lane] { sink } else { largest[lane] };
                total[lane] = exp(sink - largest[lane]);
            }
        }
        for lanes in self.lines_mut(scores, self.keys()) {
            for lane in 0..W {
                lanes[lane] = exp(lanes[lane].mul_add(scale, -largest[lane]));
                total[lane] += lanes[lane];
            }
        }
        let factor = total.map(|total| 1.0 / total);
        for lanes in self.lines_mut(scores, self.keys()) {
            for lane in 0..W {
                lanes[lane] *= factor[lane];
            }
        }
        self.hide(scores, 0.0);
        self.clear(scores);
    }

    #[inline(always)]
    fn softmax_back(&self, gradient: &mut [f32], weights: &[f32], scale: f32, sink: bool) -> f32 {
        let mut mean = [0f32; W];
        for (gradient, weights) in self.lines(gradient, self.keys()).zip(self.lines(weights, self.keys())) {
            for lane in 0..W {
                mean[lane] = gradient[lane].mul_add(weights[lane], mean[lane]);
            }
        }
        for (gradient, weights) in self.lines_mut(gradient, self.keys()).zip(self.lines(weights, self.keys())) {
            for lane in 0..W {
                gradient[lane] = weights[lane] * (gradient[lane] - mean[lane]) * scale;
            }
        }
        self.clear(gradient);
        if !sink {
            return 0.0;
        }
        // The weight of the sink is one minus the sum of the others.
        let mut missing = [1f32; W];
        for weights in self.lines(weights, self.keys()) {
            for lane in 0..W {
                missing[lane] -= weights[lane];
            }
        }
        -mean.iter().zip(missing).map(|(mean, missing)| mean * missing).sum::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores of every query with every key, key by key.
    fn numbers(seen: &Seen, seed: usize) -> Vec<f32> {
        let count = seen.queries.len() * seen.keys.len();
        (0..count).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 5.0 - 2.0).collect()
    }

    /// Weights of a query, computed one by one in 64 bits, and that of the sink.
    fn slowly(seen: &Seen, scores: &[f32], query: usize, scale: f64, sink: Option<f32>) -> (Vec<f64>, f64) {
        let width = seen.queries.len();
        let sees = |key: usize| key <= query && query - key < seen.window;
        let score =
            |key: usize| f64::from(scores[(key - seen.keys.start) * width + query - seen.queries.start]) * scale;
        let parts: Vec<f64> = seen.keys.clone().map(|key| if sees(key) { score(key).exp() } else { 0.0 }).collect();
        let of_sink = sink.map_or(0.0, |sink| f64::from(sink).exp());
        let total = parts.iter().sum::<f64>() + of_sink;
        (parts.into_iter().map(|part| part / total).collect(), of_sink / total)
    }

    fn blocks() -> Vec<Seen> {
        let block = |queries, keys, window| Seen { queries, keys, window };
        vec![
            block(0..64, 0..64, usize::MAX),
            block(64..128, 0..128, usize::MAX),
            block(64..83, 0..83, usize::MAX),
            block(0..5, 0..5, usize::MAX),
            block(64..128, 45..128, 20),
            block(64..97, 64..97, 1),
        ]
    }

    #[test]
    fn weights_are_a_softmax_of_the_visible_keys_and_zero_elsewhere() {
        for seen in blocks() {
            for sink in [None, Some(0.7), Some(6.0)] {
                let scores = numbers(&seen, 1);
                let mut weights = scores.clone();
                seen.softmax(&mut weights, 0.25, sink, None);
                for query in seen.queries.clone() {
                    let (expected, _) = slowly(&seen, &scores, query, 0.25, sink);
                    for (key, expected) in seen.keys.clone().zip(expected) {
                        let place = (key - seen.keys.start) * seen.queries.len() + query - seen.queries.start;
                        let found = f64::from(weights[place]);
                        // A sum of up to 128 terms in 32 bits.
                        assert!(
                            (found - expected).abs() <= 3e-6 * expected,
                            "{seen:?} {query} {key}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_the_softmax_in_64_bits() {
        for seen in blocks() {
            for sink in [None, Some(0.7)] {
                let scores = numbers(&seen, 1);
                let mut weights = scores.clone();
                seen.softmax(&mut weights, 0.25, sink, None);
                let flowing = numbers(&seen, 2);
                let mut gradient = flowing.clone();
                let to_sink = seen.softmax_back(&mut gradient, &weights, 0.25, sink.is_some());
                let mut expected_to_sink = 0.0;
                for query in seen.queries.clone() {
                    let at = |key: usize| (key - seen.keys.start) * seen.queries.len() + query - seen.queries.start;
                    let (expected, of_sink) = slowly(&seen, &scores, query, 0.25, sink);
                    let flow = |key: usize| f64::from(flowing[at(key)]);
                    let mean: f64 = seen.keys.clone().zip(&expected).map(|(key, weight)| flow(key) * weight).sum();
                    for (key, weight) in seen.keys.clone().zip(&expected) {
                        let expected = weight * (flow(key) - mean) * 0.25;
                        assert!((f64::from(gradient[at(key)]) - expected).abs() < 1e-6, "{seen:?} {query} {key}");
                    }
                    expected_to_sink -= of_sink * mean;
                }
                assert!((f64::from(to_sink) - expected_to_sink).abs() < 1e-4, "{to_sink} {expected_to_sink}");
            }
        }
    }

    #[test]
    fn the_largest_logit_is_that_of_a_key_which_its_query_sees() {
        for seen in blocks() {
            let width = seen.queries.len();
            let scores = numbers(&seen, 1);
            let visible = seen.queries.clone().flat_map(|query| seen.keys.clone().map(move |key| (query, key)));
            let visible = visible.filter(|(query, key)| key <= query && query - key < seen.window);
            let score = |(query, key): (usize, usize)| {
                scores[(key - seen.keys.start) * width + query - seen.queries.start] * 0.25
            };
            let expected = visible.map(score).fold(f32::NEG_INFINITY, f32::max);
            for sink in [None, Some(6.0)] {
                let (mut plain, mut measured) = (scores.clone(), scores.clone());
                seen.softmax(&mut plain, 0.25, sink, None);
                let mut largest = f32::NEG_INFINITY;
                seen.softmax(&mut measured, 0.25, sink, Some(&mut largest));
                assert_eq!((largest, &measured), (expected, &plain), "{seen:?} {sink:?}");
                let mut larger = expected + 1.0;
                seen.softmax(&mut scores.clone(), 0.25, sink, Some(&mut larger));
                assert_eq!(larger, expected + 1.0, "that of another block stays");
            }
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        let seen = Seen { queries: 0..20, keys: 0..20, window: usize::MAX };
        let mut scores = numbers(&seen, 1);
        scores[3] = f32::NAN; // key 0, query 3
        seen.softmax(&mut scores, 1.0, None, None);
        for (place, weight) in scores.iter().enumerate() {
            let (key, query) = (place / 20, place % 20);
            assert_eq!(weight.is_nan(), query == 3 && key <= 3, "{key} {query}");
        }
    }
}
