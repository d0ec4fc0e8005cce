//! Windows of a token sequence: random ones for training, evenly spaced ones or all for validation.

use std::ops::Range;

use crate::draw::rows_of_step;
use crate::errors::DataError;
use crate::tokens::{ByteLengths, Tokens};

/// Windows of `context` tokens each, one per row. Tokens are copied only when [`inputs`](Self::inputs) or
/// [`targets`](Self::targets) is called, for the rows that are needed, straight into what a tensor can own.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    tokens: &'a Tokens,
    /// Where the windows start; `start + context` is inside `tokens`.
    starts: Vec<usize>,
    context: usize,
}

impl Batch<'_> {
    /// Number of windows.
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// Tokens in a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The tokens that a model sees, of some rows: `[rows, context]`; rows beyond the last one are ignored.
    pub fn inputs(&self, rows: Range<usize>) -> Vec<i32> {
        self.copy(rows, 0)
    }

    /// The tokens that it must predict, the inputs shifted by one, of some rows: `[rows, context]`; rows beyond the last one
    /// are ignored.
    pub fn targets(&self, rows: Range<usize>) -> Vec<i32> {
        self.copy(rows, 1)
    }

    /// Bytes of text of the tokens that a model must predict, of all rows.
    pub fn target_bytes(&self, lengths: &ByteLengths) -> u64 {
        lengths.of(self.targets(0..self.rows()).into_iter().map(|token| token as u32))
    }

    fn copy(&self, rows: Range<usize>, shift: usize) -> Vec<i32> {
        let mut tokens = Vec::with_capacity(rows.len().min(self.rows()) * self.context);
        for start in self.starts.iter().take(rows.end).skip(rows.start) {
            self.tokens.read_as(start + shift..start + shift + self.context, &mut tokens, |token| token as i32);
        }
        tokens
    }
}

/// The training windows of every step.
///
/// They are drawn by a counter-based generator: step and row alone determine a window, nothing needs saving, and
/// no thread can change the order. See [`starts`](Self::starts) for the rule.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    tokens: &'a Tokens,
    data_seed: u64,
    batch: usize,
    context: usize,
}

impl<'a> Windows<'a> {
    /// Windows of `context` tokens over the training split `tokens`, `batch` of them per step.
    ///
    /// # Errors
    ///
    /// [`DataError::Zero`] when `batch` or `context` is 0, [`DataError::TooShort`] with fewer than
    /// `context + 1` tokens.
    pub fn new(tokens: &'a Tokens, data_seed: u64, batch: usize, context: usize) -> Result<Self, DataError> {
        for (what, size) in [("batch", batch), ("context", context)] {
            if size == 0 {
                return Err(DataError::Zero { what });
            }
        }
        if tokens.len() <= context {
            return Err(DataError::TooShort {
                name: "tokens".into(),
                split: "training split",
                tokens: tokens.len(),
                context,
                needed: context.saturating_add(1),
            });
        }
        Ok(Self { tokens, data_seed, batch, context })
    }

    /// Where the windows of step `step` (from 0) start, one per row.
    ///
    /// With N training tokens, context T and batch size B, row i of step t starts at
    /// `(x * (N - T)) >> 64` in 128-bit arithmetic, where
    /// `x = splitmix64(splitmix64(data_seed) + t * B + i)` in wrapping 64-bit arithmetic.
    pub fn starts(&self, step: u64) -> Vec<usize> {
        rows_of_step(self.data_seed, step, self.batch, self.tokens.len() - self.context)
    }

    /// The batch of step `step` (from 0).
    pub fn batch(&self, step: u64) -> Batch<'a> {
        Batch { tokens: self.tokens, starts: self.starts(step), context: self.context }
    }
}

/// How many non-overlapping windows of `context` tokens a split of `tokens` tokens has: `(tokens
/// - 1) / context`, and 0 for a context of 0.
pub fn validation_windows(tokens: usize, context: usize) -> usize {
    tokens.saturating_sub(1).checked_div(context).unwrap_or(0)
}

/// `windows` evenly spaced ones of the non-overlapping windows of `tokens`, or all of them if there are no more, in order,
/// `rows` at a time (0 counts as 1); the last batch may have fewer.
///
/// Non-overlapping window i covers the tokens `[i * context, (i + 1) * context)`; of n windows, number i of m evenly spaced ones
/// is `i * n / m`, truncated to a whole number. Fewer tokens than `context + 1`, or a context of 0, give no batch at all;
/// [`TextData::check_windows`](crate::TextData::check_windows) refuses such a text earlier.
pub fn validation_batches(
    tokens: &Tokens,
    context: usize,
    windows: usize,
    rows: usize,
) -> impl Iterator<Item = Batch<'_>> {
    let (all, rows) = (validation_windows(tokens.len(), context), rows.max(1));
    let windows = windows.min(all);
    let start = move |place: usize| (place as u128 * all as u128 / windows as u128) as usize * context;
    (0..windows).step_by(rows).map(move |first| {
        let starts = (first..first.saturating_add(rows).min(windows)).map(start).collect();
        Batch { tokens, starts, context }
    })
}

/// The tokens behind the last non-overlapping window of `context` tokens, as a shorter window: with it every token of a text but
/// the first is predicted once. None if there are none.
pub fn last_window(tokens: &Tokens, context: usize) -> Option<Batch<'_>> {
    let start = validation_windows(tokens.len(), context) * context;
    let context = tokens.len().saturating_sub(start + 1);
    (context > 0).then(|| Batch { tokens, starts: vec![start], context })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_up(tokens: usize) -> Tokens {
        (0..tokens as u32).collect::<Vec<u32>>().into()
    }

    // The numbers come from this Python, which has no fixed-width integers to overflow by accident:
    //   M = (1 << 64) - 1
    //   def splitmix64(z):
    //       z = (z + 0x9E3779B97F4A7C15) & M
    //       z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    //       z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    //       return z ^ (z >> 31)
    //   def starts(seed, t, b, n, c):
    //       return [(splitmix64((splitmix64(seed) + t * b + i) & M) * (n - c)) >> 64 for i in range(b)]
    #[test]
    fn starts_are_those_another_program_draws() {
        type Case = (u64, u64, usize, usize, usize, &'static [usize]);
        let cases: [Case; 5] = [
            (1337, 0, 4, 1_003_854, 64, &[194_049, 795_444, 826_150, 425_122]),
            (1337, 1999, 4, 1_003_854, 64, &[338_132, 370_476, 940_363, 435_298]),
            (0, 3, 3, 1000, 16, &[961, 577, 537]),
            (u64::MAX, u64::MAX, 5, 4_488_613, 128, &[4_200_458, 1_718_431, 1_087_440, 4_002_664, 1_426_067]),
            (7, 0, 3, 65, 64, &[0, 0, 0]),
        ];
        for (seed, step, batch, tokens, context, expected) in cases {
            let tokens = vec![0; tokens].into();
            let windows = Windows::new(&tokens, seed, batch, context).unwrap();
            assert_eq!(windows.starts(step), expected, "seed {seed}, step {step}");
        }
    }

    #[test]
    fn targets_are_the_inputs_shifted_by_one() {
        let tokens = count_up(1000);
        let batch = Windows::new(&tokens, 0, 3, 16).unwrap().batch(3);
        assert_eq!((batch.rows(), batch.context()), (3, 16));
        let expected: Vec<i32> = [961, 577, 537].into_iter().flat_map(|start| start..start + 16).collect();
        assert_eq!(batch.inputs(0..3), expected);
        assert_eq!(batch.targets(0..3), expected.iter().map(|token| token + 1).collect::<Vec<i32>>());
        assert_eq!(batch.inputs(1..2), expected[16..32]);
        assert_eq!(batch.targets(2..9), (538..554).collect::<Vec<i32>>());
        assert!(batch.inputs(3..4).is_empty());
    }

    #[test]
    fn the_last_token_is_reached_as_a_target_and_nothing_beyond() {
        let tokens = count_up(9);
        let windows = Windows::new(&tokens, 5, 64, 8).unwrap();
        let batch = windows.batch(0);
        assert_eq!(batch.targets(0..64).iter().max(), Some(&8));
        assert!(windows.starts(0).iter().all(|start| *start == 0));
    }

    #[test]
    fn training_windows_need_tokens_rows_and_a_context() {
        let tokens = count_up(8);
        let error = Windows::new(&tokens, 0, 1, 8).unwrap_err();
        assert!(matches!(error, DataError::TooShort { tokens: 8, context: 8, needed: 9, .. }), "{error}");
        assert!(matches!(Windows::new(&tokens, 0, 0, 4), Err(DataError::Zero { what: "batch" })));
        assert!(matches!(Windows::new(&tokens, 0, 1, 0), Err(DataError::Zero { what: "context" })));
    }

    #[test]
    fn validation_visits_every_window_once_and_in_order() {
        let tokens = count_up(103);
        for rows in [0, 1, 2, 3, 10, 11, 1000] {
            let (mut inputs, mut targets) = (Vec::new(), Vec::new());
            for batch in validation_batches(&tokens, 10, usize::MAX, rows) {
                inputs.extend(batch.inputs(0..batch.rows()));
                targets.extend(batch.targets(0..batch.rows()));
            }
            assert_eq!(inputs, (0..100).collect::<Vec<i32>>(), "{rows} rows");
            assert_eq!(targets, (1..101).collect::<Vec<i32>>(), "{rows} rows");
        }
        let rows: Vec<usize> = validation_batches(&tokens, 10, usize::MAX, 4).map(|batch| batch.rows()).collect();
        assert_eq!(rows, [4, 4, 2]);
    }

    #[test]
    fn the_last_window_has_the_tokens_that_the_others_leave() {
        for tokens in [2, 9, 10, 11, 12, 20, 21, 103] {
            let all = count_up(tokens);
            let batches = validation_batches(&all, 10, usize::MAX, 3).chain(last_window(&all, 10));
            let targets: Vec<i32> = batches.flat_map(|batch| batch.targets(0..batch.rows())).collect();
            assert_eq!(targets, (1..tokens as i32).collect::<Vec<i32>>(), "{tokens}");
        }
        assert!([0, 1, 11, 21].iter().all(|tokens| last_window(&count_up(*tokens), 10).is_none()));
    }

    #[test]
    fn a_window_without_a_last_target_does_not_count() {
        assert_eq!(validation_windows(100, 10), 9);
        assert_eq!(validation_windows(101, 10), 10);
        assert_eq!(validation_windows(0, 10), 0);
        assert_eq!(validation_windows(10, 0), 0);
        assert_eq!(validation_batches(&count_up(10), 10, usize::MAX, 4).count(), 0);
        // The counts that other programs report for the last 111,540 tokens of the public
        // tinyshakespeare text.
        assert_eq!([64, 128, 256].map(|context| validation_windows(111_540, context)), [1742, 871, 435]);
    }

    #[test]
    fn chosen_windows_are_evenly_spaced_ones_of_all() {
        let tokens = count_up(103);
        let starts = |windows: usize| -> Vec<usize> {
            validation_batches(&tokens, 10, windows, 2).flat_map(|batch| batch.starts).collect()
        };
        assert_eq!(starts(10), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
        assert_eq!(starts(4), [0, 20, 50, 70]);
        assert_eq!(starts(1), [0]);
        assert!(starts(0).is_empty());
        let last = validation_batches(&tokens, 10, 3, 2).last().unwrap();
        assert_eq!((last.rows(), last.targets(0..1)[9]), (1, 70));
    }
}
