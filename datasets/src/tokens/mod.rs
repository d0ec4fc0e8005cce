//! Tokens: sequences of them, in memory or in mapped files, and the tokenizers that make them from text.

mod alphabet;
mod byte_lengths;
mod byte_pairs;
mod learned;
mod losses;
mod pieces;
mod published;
mod sequence;
mod shard;
mod stored;
mod stream;
mod tokenizer;
mod words;

pub(crate) use alphabet::Characters;
pub use byte_lengths::ByteLengths;
pub(crate) use losses::{Losses, difference};
pub(crate) use pieces::{LESSONS, complete, pieces};
pub use sequence::Tokens;
pub(crate) use shard::{Header, Shard, ShardWriter, VERSION, split, token_bytes};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
