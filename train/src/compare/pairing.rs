//! Whether runs of one seed began alike, as far as their first loss tells: it is that of the first weights on the first batch.

/// Losses that differ by less than this share differ by rounding.
const ROUNDING: f64 = 1e-3;

/// The first loss of a run.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// Name of its optimizer.
    pub optimizer: &'a str,
    /// Its seed.
    pub seed: u64,
    /// The training loss of step 1.
    pub loss: f64,
}

/// What to say if runs of one seed did not begin alike.
pub fn note(firsts: &[First<'_>]) -> Option<String> {
    let apart = |a: &First<'_>, b: &First<'_>| (a.loss - b.loss).abs() > ROUNDING * a.loss.abs().max(b.loss.abs());
    let other = |a: &First<'_>| firsts.iter().find(|b| a.seed == b.seed && apart(a, b)).copied();
    let (a, b) = firsts.iter().find_map(|a| Some((*a, other(a)?)))?;
    Some(format!(
        "Not paired: with seed {}, {} began with the loss {:.4} and {} with {:.4}. A seed has to give every optimizer the same weights and \
         batches; without that the intervals only hold if the differences between the runs of a seed are chance.",
        a.seed, a.optimizer, a.loss, b.optimizer, b.loss
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_seed_that_begin_with_other_losses_are_named() {
        let first = |optimizer, seed, loss| First { optimizer, seed, loss };
        assert_eq!(note(&[first("a", 1, 2.0), first("b", 1, 2.0), first("a", 2, 2.5), first("b", 2, 2.5001)]), None);
        let said = note(&[first("a", 1, 2.0), first("a", 2, 2.5), first("b", 1, 2.0), first("b", 2, 2.6)]).unwrap();
        assert!(said.contains("seed 2, a began with the loss 2.5000 and b with 2.6000"), "{said}");
    }
}
