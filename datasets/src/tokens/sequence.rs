//! A sequence of tokens: in memory, or in memory-mapped shards.

use std::ops::Range;
use std::sync::Arc;

use super::shard::Shard;
use crate::errors::PackError;

/// A sequence of tokens, in memory or in consecutive memory-mapped shards; both are read in the same way.
///
/// The operating system can reclaim the memory of mapped shards at any time. Their files must not be truncated while a
/// program reads them: as with every mapped file, the system would end that program with a bus error.
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
    /// The shards, each with its end in the whole sequence.
    Mapped(Vec<(Arc<Shard>, usize)>),
}

impl From<Vec<u32>> for Tokens {
    fn from(tokens: Vec<u32>) -> Self {
        Self { storage: Storage::Owned(tokens) }
    }
}

impl Tokens {
    pub(crate) fn from_shards(shards: Vec<Shard>) -> Self {
        Self::mapped(shards.into_iter().map(Arc::new))
    }

    fn mapped(shards: impl Iterator<Item = Arc<Shard>>) -> Self {
        let ends = shards.scan(0, |end, shard| {
            *end += shard.len();
            Some((shard, *end))
        });
        Self { storage: Storage::Mapped(ends.collect()) }
    }

    /// These tokens, then `more`. Mapped tokens stay mapped.
    pub fn followed_by(&self, more: &Self) -> Self {
        match (&self.storage, &more.storage) {
            (Storage::Mapped(first), Storage::Mapped(second)) => {
                Self::mapped(first.iter().chain(second).map(|(shard, _)| Arc::clone(shard)))
            }
            _ => {
                let mut all = self.to_vec(0..self.len());
                more.read(0..more.len(), &mut all);
                all.into()
            }
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Owned(tokens) => tokens.len(),
            Storage::Mapped(shards) => shards.last().map_or(0, |(_, end)| *end),
        }
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the tokens in `range` to `into`; the part of the range beyond the end is ignored.
    pub fn read(&self, range: Range<usize>, into: &mut Vec<u32>) {
        self.read_as(range, into, |token| token);
    }

    /// The same in another type, without a copy in between.
    pub(crate) fn read_as<T>(&self, range: Range<usize>, into: &mut Vec<T>, convert: impl Fn(u32) -> T + Copy) {
        let end = range.end.min(self.len());
        match &self.storage {
            Storage::Owned(tokens) => {
                into.extend(tokens.get(range.start..end).unwrap_or_default().iter().copied().map(convert));
            }
            Storage::Mapped(shards) => {
                let first = shards.partition_point(|(_, shard_end)| *shard_end <= range.start);
                for (shard, shard_end) in shards.iter().skip(first) {
                    let begin = shard_end - shard.len();
                    if begin >= end {
                        break;
                    }
                    let to = end.min(*shard_end);
                    shard.read(range.start.max(begin).min(to) - begin, to - begin, into, convert);
                }
            }
        }
    }

    /// The tokens in `range`; the part of the range beyond the end is ignored.
    pub fn to_vec(&self, range: Range<usize>) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(range.len().min(self.len()));
        self.read(range, &mut tokens);
        tokens
    }

    /// SHA-256 of every shard's tokens, from its header, in order: enough to distinguish two sequences without
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
