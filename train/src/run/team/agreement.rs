//! That all processes are about to do the same: before they send each other numbers, which would otherwise not fit or, worse, fit.

use burn::tensor::TensorData;
use polaron_models::NamedTensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, RanksError};
use crate::host::ranks::{Ranks, tell};

/// What must be the same on all ranks: what it is, and what this rank has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Digest(Vec<(String, String)>);

impl Digest {
    /// Adds something; long texts are compared, and shown, by their SHA-256.
    #[must_use]
    pub fn with(mut self, what: &str, value: &str) -> Self {
        const SHOWN: usize = 80;
        let value =
            if value.len() > SHOWN { format!("SHA-256 {}", hex::encode(Sha256::digest(value))) } else { value.into() };
        self.0.push((what.into(), value));
        self
    }

    /// Adds weights.
    #[must_use]
    pub fn with_weights(mut self, weights: &[NamedTensor]) -> Self {
        let mut sum = Sha256::new();
        for NamedTensor { name, data } in weights {
            sum.update(name.as_bytes());
            sum.update(bytes(data));
        }
        self.0.push(("initial weights".into(), format!("SHA-256 {}", hex::encode(sum.finalize()))));
        self
    }
}

fn bytes(data: &TensorData) -> &[u8] {
    data.as_bytes()
}

/// What a rank found, or why it cannot take part.
type Found<T> = Result<T, (String, u8)>;

/// The result of every rank, if all of them have one.
///
/// # Errors
///
/// [`RanksError::Agreed`] with the message of the first rank that has none, on all of them.
pub fn agree<T: Serialize + for<'a> Deserialize<'a>, R>(
    ranks: &dyn Ranks,
    result: Result<R, Error>,
    told: impl Fn(&R) -> T,
) -> Result<(R, Vec<T>), Error> {
    let own: Found<T> = result.as_ref().map(told).map_err(|error| (error.to_string(), error.exit_code()));
    let agreed = |(rank, found): (usize, Found<T>)| {
        found.map_err(|(message, code)| Error::from(RanksError::Agreed { rank, message, code }))
    };
    let all = tell(ranks, &own)?.into_iter().enumerate().map(agreed).collect::<Result<_, _>>()?;
    Ok((result?, all))
}

/// Refuses a start in which the ranks differ.
///
/// # Errors
///
/// Those of [`agree`]; [`RanksError::Differs`] with the first rank and what it has.
pub fn agree_on_start<R>(
    ranks: &dyn Ranks,
    result: Result<R, Error>,
    digest: impl Fn(&R) -> Result<Digest, Error>,
) -> Result<R, Error> {
    let with_digest = result.and_then(|result| digest(&result).map(|digest| (result, digest)));
    let ((result, _), digests) = agree(ranks, with_digest, |(_, digest)| digest.clone())?;
    same(&digests)?;
    Ok(result)
}

/// Refuses digests that differ.
fn same(digests: &[Digest]) -> Result<(), RanksError> {
    let Some((Digest(ours), others)) = digests.split_first() else { return Ok(()) };
    for (index, Digest(theirs)) in others.iter().enumerate() {
        let value = |parts: &[(String, String)], what: &str| {
            parts.iter().find(|(part, _)| part == what).map_or_else(|| "none".into(), |(_, value)| value.clone())
        };
        let parts = ours.iter().chain(theirs).map(|(what, _)| (what, value(ours, what), value(theirs, what)));
        if let Some((what, ours, theirs)) = parts.into_iter().find(|(_, ours, theirs)| ours != theirs) {
            return Err(RanksError::Differs { rank: index + 1, what: what.clone(), theirs, ours });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_that_differs_is_named_with_the_part() {
        let digest = |steps: &str| Digest::default().with("version", "1").with("configuration", steps);
        assert_eq!(same(&[digest("a"), digest("a")]), Ok(()));
        let said = same(&[digest("a"), digest("a"), digest("b")]).unwrap_err().to_string();
        assert!(said.contains("rank 2 has another configuration than rank 0 (b, and there a)"), "{said}");
        let more = digest("a").with("seed", "3");
        for pair in [[digest("a"), more.clone()], [more, digest("a")]] {
            let said = same(&pair).unwrap_err().to_string();
            assert!(said.contains("another seed") && said.contains("none") && said.contains('3'), "{said}");
        }
    }

    #[test]
    fn long_texts_are_compared_by_their_sum() {
        let long = "x".repeat(1000);
        let digest = Digest::default().with("plan", &long);
        assert!(digest.0[0].1.starts_with("SHA-256 ") && digest.0[0].1.len() < 80);
        assert!(same(&[digest, Digest::default().with("plan", &format!("{long}y"))]).is_err());
    }
}
