//! Windows of a token sequence: random ones for training, all of them for validation.

use crate::{DataError, Tokens};

/// `rows` windows of `context` tokens each, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The tokens a model sees, `[rows, context]`.
    pub inputs: Vec<i32>,
    /// The tokens it must predict: the inputs shifted by one, `[rows, context]`.
    pub targets: Vec<i32>,
    /// Number of windows.
    pub rows: usize,
    /// Tokens in a window.
    pub context: usize,
}

/// The training windows of every step.
///
/// A counter-based generator draws them: step and row alone fix a window, nothing needs saving, and
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
        let first = splitmix64(self.data_seed).wrapping_add(step.wrapping_mul(self.batch as u64));
        let choices = (self.tokens.len() - self.context) as u128;
        (0..self.batch as u64)
            .map(|row| {
                let x = splitmix64(first.wrapping_add(row));
                ((u128::from(x) * choices) >> 64) as usize
            })
            .collect()
    }

    /// The batch of step `step` (from 0).
    pub fn batch(&self, step: u64) -> Batch {
        let mut batch = Batch::with_capacity(self.batch, self.context);
        for start in self.starts(step) {
            batch.push(self.tokens, start);
        }
        batch
    }
}

impl Batch {
    fn with_capacity(rows: usize, context: usize) -> Self {
        let tokens = rows.saturating_mul(context);
        Self { inputs: Vec::with_capacity(tokens), targets: Vec::with_capacity(tokens), rows: 0, context }
    }

    /// Adds the window at `start`; the caller keeps `start + context` inside `tokens`.
    fn push(&mut self, tokens: &Tokens, start: usize) {
        let window = tokens.to_vec(start..start + self.context + 1);
        self.inputs.extend(window.iter().take(self.context).map(|token| *token as i32));
        self.targets.extend(window.iter().skip(1).map(|token| *token as i32));
        self.rows += 1;
    }
}

/// How many non-overlapping windows of `context` tokens a split of `tokens` tokens holds: `(tokens
/// - 1) / context`, and 0 for a context of 0.
pub fn validation_windows(tokens: usize, context: usize) -> usize {
    tokens.saturating_sub(1).checked_div(context).unwrap_or(0)
}

/// All non-overlapping windows of `tokens` in order, `rows` at a time (0 counts as 1); the last
/// batch may hold fewer.
///
/// Window i covers the tokens `[i * context, (i + 1) * context)`. Fewer tokens than `context + 1`,
/// or a context of 0, give no batch at all:
/// [`TextData::check_windows`](crate::TextData::check_windows) refuses such a text beforehand.
pub fn validation_batches(tokens: &Tokens, context: usize, rows: usize) -> impl Iterator<Item = Batch> {
    let (windows, rows) = (validation_windows(tokens.len(), context), rows.max(1));
    (0..windows).step_by(rows).map(move |first| {
        let last = first.saturating_add(rows).min(windows);
        let mut batch = Batch::with_capacity(last - first, context);
        for window in first..last {
            batch.push(tokens, window * context);
        }
        batch
    })
}

/// One output of the SplitMix64 generator whose state is `state`: the constant 0x9E3779B97F4A7C15
/// is added, then the sum is mixed.
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_up(tokens: usize) -> Tokens {
        (0..tokens as u32).collect::<Vec<u32>>().into()
    }

    #[test]
    fn splitmix64_gives_the_published_outputs() {
        assert_eq!(splitmix64(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
        assert_eq!(splitmix64(u64::MAX), 0xE4D9_7177_1B65_2C20);
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
        assert_eq!((batch.rows, batch.context), (3, 16));
        let expected: Vec<i32> = [961, 577, 537].into_iter().flat_map(|start| start..start + 16).collect();
        assert_eq!(batch.inputs, expected);
        assert_eq!(batch.targets, expected.iter().map(|token| token + 1).collect::<Vec<i32>>());
    }

    #[test]
    fn the_last_token_is_reached_as_a_target_and_nothing_beyond() {
        let tokens = count_up(9);
        let windows = Windows::new(&tokens, 5, 64, 8).unwrap();
        let batch = windows.batch(0);
        assert_eq!(batch.targets.iter().max(), Some(&8));
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
            let inputs: Vec<i32> = validation_batches(&tokens, 10, rows).flat_map(|batch| batch.inputs).collect();
            assert_eq!(inputs, (0..100).collect::<Vec<i32>>(), "{rows} rows");
            let targets: Vec<i32> = validation_batches(&tokens, 10, rows).flat_map(|batch| batch.targets).collect();
            assert_eq!(targets, (1..101).collect::<Vec<i32>>(), "{rows} rows");
        }
        let rows: Vec<usize> = validation_batches(&tokens, 10, 4).map(|batch| batch.rows).collect();
        assert_eq!(rows, [4, 4, 2]);
    }

    #[test]
    fn a_window_without_a_last_target_does_not_count() {
        assert_eq!(validation_windows(100, 10), 9);
        assert_eq!(validation_windows(101, 10), 10);
        assert_eq!(validation_windows(0, 10), 0);
        assert_eq!(validation_windows(10, 0), 0);
        assert_eq!(validation_batches(&count_up(10), 10, 4).count(), 0);
        // The counts other programs report for the last 111,540 tokens of the public
        // tinyshakespeare text.
        assert_eq!([64, 128, 256].map(|context| validation_windows(111_540, context)), [1742, 871, 435]);
    }
}
