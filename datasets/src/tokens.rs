//! A sequence of tokens: in memory, or in shards that are mapped into it.

use std::ops::Range;
use std::sync::Arc;

use crate::PackError;
use crate::shard::Shard;

/// A sequence of tokens, in memory or in memory-mapped shards one after the other; both are read the same way.
///
/// Mapped shards take no memory that the system could not take back. Nobody may shorten their files while a program
/// reads them: as for every mapped file, the system would end that program with a bus error.
///
/// ```
/// use polaron_datasets::Tokens;
///
/// let tokens = Tokens::from(vec![5, 6, 7, 8]);
/// assert_eq!(tokens.to_vec(1..3), [6, 7]);
/// ```
#[derive(Clone, Debug)]
pub struct Tokens {
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Owned(Vec<u32>),
    /// The shards, and for each of them where it ends in the whole sequence.
    Mapped(Arc<Vec<(Shard, usize)>>),
}

impl From<Vec<u32>> for Tokens {
    fn from(tokens: Vec<u32>) -> Self {
        Self { storage: Storage::Owned(tokens) }
    }
}

impl Tokens {
    pub(crate) fn from_shards(shards: Vec<Shard>) -> Self {
        let ends = shards.into_iter().scan(0, |end, shard| {
            *end += shard.len();
            Some((shard, *end))
        });
        Self { storage: Storage::Mapped(Arc::new(ends.collect())) }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Owned(tokens) => tokens.len(),
            Storage::Mapped(shards) => shards.last().map_or(0, |(_, end)| *end),
        }
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the tokens in `range` to `into`; what lies beyond the end is left out.
    pub fn read(&self, range: Range<usize>, into: &mut Vec<u32>) {
        let end = range.end.min(self.len());
        match &self.storage {
            Storage::Owned(tokens) => into.extend_from_slice(tokens.get(range.start..end).unwrap_or_default()),
            Storage::Mapped(shards) => {
                let first = shards.partition_point(|(_, shard_end)| *shard_end <= range.start);
                for (shard, shard_end) in shards.iter().skip(first) {
                    let begin = shard_end - shard.len();
                    if begin >= end {
                        break;
                    }
                    let to = end.min(*shard_end);
                    shard.read(range.start.max(begin).min(to) - begin, to - begin, into);
                }
            }
        }
    }

    /// The tokens in `range`; what lies beyond the end is left out.
    pub fn to_vec(&self, range: Range<usize>) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(range.len().min(self.len()));
        self.read(range, &mut tokens);
        tokens
    }

    /// SHA-256 of every shard's tokens as its header gives them, in order: enough to tell two sequences apart without
    /// reading them. None for tokens in memory.
    pub fn checksums(&self) -> Option<Vec<[u8; 32]>> {
        match &self.storage {
            Storage::Owned(_) => None,
            Storage::Mapped(shards) => Some(shards.iter().map(|(shard, _)| shard.header.sha256).collect()),
        }
    }

    /// Checks every mapped shard against its checksum, and its tokens against the vocabulary.
    ///
    /// # Errors
    ///
    /// [`PackError::BadChecksum`] or [`PackError::TokenOutside`] for the first shard that fails.
    pub fn verify(&self) -> Result<(), PackError> {
        match &self.storage {
            Storage::Owned(_) => Ok(()),
            Storage::Mapped(shards) => shards.iter().try_for_each(|(shard, _)| shard.verify()),
        }
    }
}
