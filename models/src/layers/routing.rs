//! Which tokens a router sends to which experts.

use burn::tensor::Tensor;

/// The output of a router for some tokens.
pub(crate) struct Routing {
    /// `[tokens, experts]`.
    pub logits: Tensor<2>,
    pub choice: Choice,
}

/// Which tokens go to which experts; on the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The experts of every token, largest logit first, `[tokens · top_k]`.
    pub chosen: Vec<i32>,
    /// How many tokens each expert has.
    pub counts: Vec<usize>,
    /// The logits: `[tokens, experts]`, row-major.
    pub logits: Vec<f32>,
}

impl Choice {
    /// The `top_k` experts with the largest of `logits`, `[tokens, experts]`; ties go to the earlier one.
    pub(crate) fn new(logits: Vec<f32>, experts: usize, top_k: usize) -> Self {
        let mut chosen = Vec::with_capacity(logits.len() / experts * top_k);
        let mut counts = vec![0; experts];
        let mut ranked: Vec<usize> = Vec::with_capacity(experts);
        for row in logits.chunks_exact(experts) {
            ranked.clear();
            ranked.extend(0..experts);
            // A total order, so that NaN logits lead to a NaN loss, not to a panic.
            ranked.sort_unstable_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
            for expert in &ranked[..top_k] {
                chosen.push(*expert as i32);
                counts[*expert] += 1;
            }
        }
        Self { chosen, counts, logits }
    }

    /// Sorts the rows (token, slot) by expert: the row at every place, and the place of every row.
    pub(super) fn permutation(&self) -> (Vec<i32>, Vec<i32>) {
        let mut next: Vec<usize> = Vec::with_capacity(self.counts.len());
        let mut before = 0;
        for count in &self.counts {
            next.push(before);
            before += count;
        }
        let (mut order, mut place) = (vec![0; self.chosen.len()], vec![0; self.chosen.len()]);
        for (row, expert) in self.chosen.iter().enumerate() {
            let at = &mut next[*expert as usize];
            (order[*at], place[row]) = (row as i32, *at as i32);
            *at += 1;
        }
        (order, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logits_are_chosen_and_ties_go_to_the_earlier_expert() {
        let choice = Choice::new(vec![0.0, 3.0, 1.0, 3.0, 2.0, 2.0, 2.0, -1.0], 4, 2);
        assert_eq!(choice.chosen, [1, 3, 0, 1]);
        assert_eq!(choice.counts, [1, 2, 0, 1]);
    }

    #[test]
    fn logits_of_nan_are_routed_without_a_panic() {
        let choice = Choice::new(vec![f32::NAN, 1.0, f32::NEG_INFINITY, f32::NAN], 2, 1);
        assert_eq!(choice.chosen.len(), 2);
    }

    #[test]
    fn rows_are_sorted_by_expert_and_return_to_their_places() {
        let choice = Choice::new(vec![0.0, 3.0, 1.0, 5.0, 2.0, 2.5, 0.5, 1.0, 0.0], 3, 2);
        let (order, place) = choice.permutation();
        let experts: Vec<i32> = order.iter().map(|row| choice.chosen[*row as usize]).collect();
        assert!(experts.is_sorted(), "{experts:?}");
        for (row, place) in place.iter().enumerate() {
            assert_eq!(order[*place as usize], row as i32);
        }
    }
}
