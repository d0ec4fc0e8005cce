//! The softmax of attention, on scores stored key by key, one tile of keys after the other.
//!
//! A line holds the scores of one key with every query of a block, so each lane of a vector is a query: nothing is summed across
//! lanes, and the causal mask leaves no rows of odd length. The forward pass keeps of a softmax only its largest score and its sum,
//! from which the backward pass computes the weights again (arXiv:2205.14135).

use std::ops::Range;

use super::math::{LANES, exp};

/// Most queries of a block.
pub(super) const BLOCK: usize = 64;

/// A tile of scores, `[keys, queries]`: query i sees the last `window` of the keys up to i.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub queries: Range<usize>,
    pub keys: Range<usize>,
    pub window: usize,
}

/// The softmax of every query of a block over the keys so far.
#[derive(Clone, Debug)]
pub(super) struct Softmax {
    /// Largest `score · scale` of every query.
    pub largest: [f32; BLOCK],
    /// Sum of `exp(score · scale - largest)`.
    pub total: [f32; BLOCK],
}

/// `W` neighbouring queries of a tile.
struct Strip<'a, const W: usize> {
    tile: &'a Tile,
    /// Its index in the block.
    index: usize,
}

impl Softmax {
    /// Over no key, and the sink if there is one: a score that takes part and has no weight in the result.
    pub(super) fn new(sink: Option<f32>) -> Self {
        // Finite, so that the first difference to it is no NaN.
        Self { largest: [sink.unwrap_or(f32::MIN); BLOCK], total: [if sink.is_some() { 1.0 } else { 0.0 }; BLOCK] }
    }

    /// The largest scores and sums of a block, one after the other.
    pub(super) fn read(sums: &[f32]) -> Self {
        let mut softmax = Self::new(None);
        softmax.largest.copy_from_slice(&sums[..BLOCK]);
        softmax.total.copy_from_slice(&sums[BLOCK..]);
        softmax
    }

    /// Writes what [`Self::read`] reads.
    pub(super) fn write(&self, sums: &mut [f32]) {
        sums[..BLOCK].copy_from_slice(&self.largest);
        sums[BLOCK..].copy_from_slice(&self.total);
    }

    /// What each query's values have to be multiplied with in the end.
    #[inline(always)]
    pub(super) fn factors(&self) -> [f32; BLOCK] {
        self.total.map(|total| 1.0 / total)
    }

    /// Gradient of a sink that took part; `means` as in [`Tile::back`], zero for queries that do not exist.
    #[inline(always)]
    pub(super) fn to_sink(&self, sink: f32, means: &[f32; BLOCK]) -> f32 {
        let factors = self.factors();
        let weight = |query: usize| exp(sink - self.largest[query]) * factors[query];
        -(0..BLOCK).map(|query| if means[query] == 0.0 { 0.0 } else { means[query] * weight(query) }).sum::<f32>()
    }
}

impl Tile {
    /// Adds the keys of a tile to a softmax. Replaces every score by `exp(score · scale - largest)`, or zero if the query does not
    /// see the key, and returns the factors that earlier values of the same queries must be multiplied with. Raises `of_head` to
    /// the largest `score · scale` of a key that its query sees.
    #[inline(always)]
    pub(super) fn add(
        &self,
        scores: &mut [f32],
        scale: f32,
        softmax: &mut Softmax,
        mut of_head: Option<&mut f32>,
    ) -> [f32; BLOCK] {
        let mut factors = [1.0; BLOCK];
        let vectors = self.queries.len() / LANES;
        for index in 0..vectors {
            Strip::<LANES> { tile: self, index }.add(scores, scale, softmax, &mut factors, of_head.as_deref_mut());
        }
        for index in vectors * LANES..self.queries.len() {
            Strip::<1> { tile: self, index }.add(scores, scale, softmax, &mut factors, of_head.as_deref_mut());
        }
        factors
    }

    /// Replaces scores by their weights in a softmax over all keys, and the gradients of the weights by those of the scores;
    /// `means` are the products of a query's weights and their gradients, over all keys.
    #[inline(always)]
    pub(super) fn back(
        &self,
        scores: &mut [f32],
        gradients: &mut [f32],
        scale: f32,
        softmax: &Softmax,
        means: &[f32; BLOCK],
    ) {
        let vectors = self.queries.len() / LANES;
        for index in 0..vectors {
            Strip::<LANES> { tile: self, index }.back(scores, gradients, scale, softmax, means);
        }
        for index in vectors * LANES..self.queries.len() {
            Strip::<1> { tile: self, index }.back(scores, gradients, scale, softmax, means);
        }
    }
}

impl<const W: usize> Strip<'_, W> {
    /// The first query.
    #[inline(always)]
    fn query(&self) -> usize {
        self.tile.queries.start + self.index * W
    }

    /// The keys that at least one of the queries sees.
    #[inline(always)]
    fn keys(&self) -> Range<usize> {
        let Tile { keys, window, .. } = self.tile;
        let start = keys.start.max((self.query() + 1).saturating_sub(*window)).min(keys.end);
        start..keys.end.min(self.query() + W).max(start)
    }

    /// The entries of a block that belong to these queries.
    #[inline(always)]
    fn of<'a>(&self, block: &'a [f32; BLOCK]) -> &'a [f32; W] {
        &block.as_chunks().0[self.index]
    }

    #[inline(always)]
    fn of_mut<'a>(&self, block: &'a mut [f32; BLOCK]) -> &'a mut [f32; W] {
        &mut block.as_chunks_mut().0[self.index]
    }

    /// The keys in `keys`, and their scores with these queries.
    #[inline(always)]
    fn lines<'a>(&self, scores: &'a [f32], keys: Range<usize>) -> impl Iterator<Item = &'a [f32; W]> {
        let (width, first, index) = (self.tile.queries.len(), self.tile.keys.start, self.index);
        let lines = scores[(keys.start - first) * width..(keys.end - first) * width].chunks_exact(width);
        lines.map(move |line| &line.as_chunks().0[index])
    }

    #[inline(always)]
    fn lines_mut<'a>(&self, scores: &'a mut [f32], keys: Range<usize>) -> impl Iterator<Item = &'a mut [f32; W]> {
        let (width, first, index) = (self.tile.queries.len(), self.tile.keys.start, self.index);
        let lines = scores[(keys.start - first) * width..(keys.end - first) * width].chunks_exact_mut(width);
        lines.map(move |line| &mut line.as_chunks_mut().0[index])
    }

    /// Writes `value` where a query does not see a key.
    #[inline(always)]
    fn hide(&self, scores: &mut [f32], value: f32) {
        let (first, window, keys) = (self.query(), self.tile.window, self.keys());
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
        let (keys, all) = (self.keys(), &self.tile.keys);
        for keys in [all.start..keys.start, keys.end..all.end] {
            self.lines_mut(scores, keys).for_each(|lanes| *lanes = [0.0; W]);
        }
    }

    #[inline(always)]
    fn add(
        &self,
        scores: &mut [f32],
        scale: f32,
        softmax: &mut Softmax,
        factors: &mut [f32; BLOCK],
        of_head: Option<&mut f32>,
    ) {
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
        let (before, factors) = (self.of_mut(&mut softmax.largest), self.of_mut(factors));
        for lane in 0..W {
            largest[lane] *= scale;
            largest[lane] = if largest[lane] > before[lane] { largest[lane] } else { before[lane] };
            factors[lane] = exp(before[lane] - largest[lane]);
            before[lane] = largest[lane];
        }
        let mut total = [0f32; W];
        for lanes in self.lines_mut(scores, self.keys()) {
            for lane in 0..W {
                lanes[lane] = exp(lanes[lane].mul_add(scale, -largest[lane]));
                total[lane] += lanes[lane];
            }
        }
        let sum = self.of_mut(&mut softmax.total);
        for lane in 0..W {
            sum[lane] = sum[lane].mul_add(factors[lane], total[lane]);
        }
        self.hide(scores, 0.0);
        self.clear(scores);
    }

    #[inline(always)]
    fn back(&self, scores: &mut [f32], gradients: &mut [f32], scale: f32, softmax: &Softmax, means: &[f32; BLOCK]) {
        let (largest, means) = (*self.of(&softmax.largest), *self.of(means));
        let factors = self.of(&softmax.total).map(|total| 1.0 / total);
        // `exp` is not zero for a hidden key, so it is hidden from its weight.
        for lanes in self.lines_mut(scores, self.keys()) {
            for lane in 0..W {
                lanes[lane] = exp(lanes[lane].mul_add(scale, -largest[lane])) * factors[lane];
            }
        }
        self.hide(scores, 0.0);
        for (gradient, weights) in self.lines_mut(gradients, self.keys()).zip(self.lines(scores, self.keys())) {
            for lane in 0..W {
                gradient[lane] = weights[lane] * (gradient[lane] - means[lane]) * scale;
            }
        }
        self.clear(scores);
        self.clear(gradients);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of queries and the keys that at least one of them sees.
    #[derive(Clone, Debug)]
    struct Seen {
        queries: Range<usize>,
        keys: Range<usize>,
        window: usize,
    }

    impl Seen {
        fn tiles(&self, size: usize) -> Vec<Tile> {
            let tile = |start: usize| Tile {
                queries: self.queries.clone(),
                keys: start..(start + size).min(self.keys.end),
                window: self.window,
            };
            self.keys.clone().step_by(size).map(tile).collect()
        }

        fn at(&self, query: usize, key: usize) -> usize {
            (key - self.keys.start) * self.queries.len() + query - self.queries.start
        }

        fn sees(&self, query: usize, key: usize) -> bool {
            key <= query && query - key < self.window
        }

        /// The part of a tile.
        fn part<'a>(&self, values: &'a mut [f32], tile: &Tile) -> &'a mut [f32] {
            let line = |key: usize| (key - self.keys.start) * self.queries.len();
            &mut values[line(tile.keys.start)..line(tile.keys.end)]
        }

        /// The weights of all keys, tile by tile.
        fn weights(
            &self,
            scores: &[f32],
            size: usize,
            sink: Option<f32>,
            mut largest: Option<&mut f32>,
        ) -> (Vec<f32>, Softmax) {
            let (mut weights, mut softmax) = (scores.to_vec(), Softmax::new(sink));
            let width = self.queries.len();
            let scale_lines = |weights: &mut [f32], factors: &[f32; BLOCK]| {
                let lines = weights.chunks_exact_mut(width);
                lines.for_each(|line| line.iter_mut().zip(factors).for_each(|(weight, factor)| *weight *= factor));
            };
            for tile in self.tiles(size) {
                let factors = tile.add(self.part(&mut weights, &tile), SCALE, &mut softmax, largest.as_deref_mut());
                scale_lines(&mut weights[..(tile.keys.start - self.keys.start) * width], &factors);
            }
            scale_lines(&mut weights, &softmax.factors());
            (weights, softmax)
        }
    }

    const SCALE: f32 = 0.25;

    /// Scores of every query with every key, key by key.
    fn numbers(seen: &Seen, seed: usize) -> Vec<f32> {
        let count = seen.queries.len() * seen.keys.len();
        (0..count).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 5.0 - 2.0).collect()
    }

    /// Weights of a query, computed one by one in 64 bits, and that of the sink.
    fn slowly(seen: &Seen, scores: &[f32], query: usize, sink: Option<f32>) -> (Vec<f64>, f64) {
        let score = |key: usize| f64::from(scores[seen.at(query, key)]) * f64::from(SCALE);
        let part = |key: usize| if seen.sees(query, key) { score(key).exp() } else { 0.0 };
        let parts: Vec<f64> = seen.keys.clone().map(part).collect();
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

    /// One tile for all keys, and tiles that cut the mask and the window.
    const SIZES: [usize; 4] = [128, 32, 10, 1];

    #[test]
    fn weights_are_a_softmax_of_the_visible_keys_and_zero_elsewhere() {
        for (seen, size) in blocks().iter().flat_map(|seen| SIZES.map(|size| (seen, size))) {
            for sink in [None, Some(0.7), Some(6.0)] {
                let scores = numbers(seen, 1);
                let (weights, _) = seen.weights(&scores, size, sink, None);
                for query in seen.queries.clone() {
                    let (expected, _) = slowly(seen, &scores, query, sink);
                    for (key, expected) in seen.keys.clone().zip(expected) {
                        let found = f64::from(weights[seen.at(query, key)]);
                        // A sum of up to 128 terms in 32 bits.
                        assert!(
                            (found - expected).abs() <= 3e-6 * expected,
                            "{seen:?} {size} {query} {key}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_the_softmax_in_64_bits() {
        for (seen, size) in blocks().iter().flat_map(|seen| SIZES.map(|size| (seen, size))) {
            for sink in [None, Some(0.7)] {
                let scores = numbers(seen, 1);
                let flowing = numbers(seen, 2);
                let (_, softmax) = seen.weights(&scores, size, sink, None);
                let (mut weights, mut gradient, mut means) = (scores.clone(), flowing.clone(), [0.0; BLOCK]);
                let mut expected_to_sink = 0.0;
                for (query, mean) in seen.queries.clone().zip(&mut means) {
                    let (expected, of_sink) = slowly(seen, &scores, query, sink);
                    let flow = |key: usize| f64::from(flowing[seen.at(query, key)]);
                    let exact: f64 = seen.keys.clone().zip(expected).map(|(key, weight)| flow(key) * weight).sum();
                    expected_to_sink -= of_sink * exact;
                    *mean = exact as f32;
                }
                for tile in seen.tiles(size) {
                    let (weights, gradient) = (seen.part(&mut weights, &tile), seen.part(&mut gradient, &tile));
                    tile.back(weights, gradient, SCALE, &softmax, &means);
                }
                for (query, mean) in seen.queries.clone().zip(means) {
                    let (expected, _) = slowly(seen, &scores, query, sink);
                    for (key, weight) in seen.keys.clone().zip(&expected) {
                        let at = seen.at(query, key);
                        let expected = weight * f64::from(flowing[at] - mean) * f64::from(SCALE);
                        assert!((f64::from(gradient[at]) - expected).abs() < 1e-6, "{seen:?} {size} {query} {key}");
                        assert!(
                            (f64::from(weights[at]) - weight).abs() <= 3e-6 * weight,
                            "{seen:?} {size} {query} {key}"
                        );
                    }
                }
                if let Some(sink) = sink {
                    let to_sink = softmax.to_sink(sink, &means);
                    assert!((f64::from(to_sink) - expected_to_sink).abs() < 1e-4, "{to_sink} {expected_to_sink}");
                }
            }
        }
    }

    #[test]
    fn the_largest_logit_is_that_of_a_key_which_its_query_sees() {
        for (seen, size) in blocks().iter().flat_map(|seen| SIZES.map(|size| (seen, size))) {
            let scores = numbers(seen, 1);
            let visible = seen.queries.clone().flat_map(|query| seen.keys.clone().map(move |key| (query, key)));
            let visible = visible.filter(|(query, key)| seen.sees(*query, *key));
            let expected =
                visible.map(|(query, key)| scores[seen.at(query, key)] * SCALE).fold(f32::NEG_INFINITY, f32::max);
            for sink in [None, Some(6.0)] {
                let (plain, _) = seen.weights(&scores, size, sink, None);
                let mut largest = f32::NEG_INFINITY;
                let (measured, _) = seen.weights(&scores, size, sink, Some(&mut largest));
                assert_eq!((largest, &measured), (expected, &plain), "{seen:?} {size} {sink:?}");
                let mut larger = expected + 1.0;
                seen.weights(&scores, size, sink, Some(&mut larger));
                assert_eq!(larger, expected + 1.0, "that of another block stays");
            }
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        let seen = Seen { queries: 0..20, keys: 0..20, window: usize::MAX };
        for size in SIZES {
            let mut scores = numbers(&seen, 1);
            scores[3] = f32::NAN; // key 0, query 3
            let (weights, softmax) = seen.weights(&scores, size, None, None);
            for (place, weight) in weights.iter().enumerate() {
                let (key, query) = (place / 20, place % 20);
                // All weights of a query are multiplied with the same factor, those of hidden keys too.
                assert_eq!(weight.is_nan(), query == 3, "{key} {query}");
            }
            assert!(softmax.to_sink(0.0, &[1.0; BLOCK]).is_nan());
        }
    }

    #[test]
    fn a_softmax_is_read_as_it_was_written() {
        let mut softmax = Softmax::new(Some(0.5));
        (softmax.largest[7], softmax.total[63]) = (3.0, 9.0);
        let mut sums = [0.0; 2 * BLOCK];
        softmax.write(&mut sums);
        let read = Softmax::read(&sums);
        assert_eq!((read.largest, read.total), (softmax.largest, softmax.total));
    }
}
