//! Text, tokens, images and batches whose order other programs can repeat.
//!
//! ```
//! use polaron_datasets::{TextData, TokenizerKind, Windows};
//!
//! let data = TextData::load("shakespeare", TokenizerKind::Char, 0.1)?;
//! data.check_windows(64)?;
//! let windows = Windows::new(&data.train, 1337, 12, 64)?;
//! let batch = windows.batch(0);
//! assert_eq!((batch.rows, batch.context), (12, 64));
//! assert_eq!(batch.inputs[1], batch.targets[0]); // targets are the inputs shifted by one
//! # Ok::<(), polaron_datasets::DataError>(())
//! ```
//!
//! # What is here
//!
//! * [`TextData`]: an embedded text ([`DATASETS`]), any UTF-8 file or packed data, as token numbers, split into
//!   training and validation.
//! * [`pack`]: many or large texts, packed once into a folder of tokens that [`TextData`] then maps
//!   into memory.
//! * [`Tokens`]: a sequence of tokens, in memory or mapped.
//! * [`Tokenizer`]: characters, bytes or byte pairs. A run stores it beside its weights, so that generated
//!   tokens become text again.
//! * [`Windows`]: the training batches of every step, from a counter-based generator: the step
//!   number alone fixes the batch, so resuming needs no saved generator state and another program
//!   can draw the same batches ([`Windows::starts`] gives the rule).
//! * [`ImageData`]: embedded images ([`IMAGE_DATASETS`]) or the IDX files of MNIST and its kin, with
//!   [`ImageSampler`] for the batches of every step.
//! * [`validation_batches`]: every non-overlapping window of a split, in order.

mod encoding;
mod error;
mod folder;
mod idx;
mod images;
mod kind;
mod learned;
mod losses;
pub mod pack;
mod packed;
mod quote;
mod shard;
mod source;
mod text;
mod tokenizer;
mod tokens;
mod unpack;
mod windows;

pub use encoding::decode_utf8;
pub use error::{DataError, ImageError, PackError};
pub use images::{IMAGE_DATASETS, ImageBatch, ImageData, ImageSampler, Images, image_batches};
pub use packed::{Manifest, Packed, ShardEntry};
pub use quote::{quoted, quoted_word};
pub use text::{DATASETS, DatasetInfo, TextData};
pub use tokenizer::{Tokenizer, TokenizerKind};
pub use tokens::Tokens;
pub use windows::{Batch, Windows, splitmix64, validation_batches, validation_windows};
