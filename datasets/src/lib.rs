//! Text, tokens, images and batches whose order other programs can repeat.
//!
//! ```
//! use polaron_datasets::{TextData, TokenizerKind, Windows};
//!
//! let data = TextData::load("shakespeare", TokenizerKind::Char, 0.1)?;
//! data.check_windows(64)?;
//! let windows = Windows::new(&data.train, 1337, 12, 64)?;
//! let batch = windows.batch(0);
//! assert_eq!((batch.rows(), batch.context()), (12, 64));
//! assert_eq!(batch.inputs(0..12)[1], batch.targets(0..12)[0]); // targets are the inputs shifted by one
//! # Ok::<(), polaron_datasets::DataError>(())
//! ```
//!
//! # Contents
//!
//! * [`TextData`]: an embedded text ([`DATASETS`]), any UTF-8 file or packed data, as token numbers, split into
//!   training and validation.
//! * [`pack`]: packs many or large texts once into a folder of tokens, which [`TextData`] then maps into memory.
//! * [`import`]: makes such a folder of the tokens of other programs.
//! * [`Tokens`]: a sequence of tokens, in memory or memory-mapped.
//! * [`Tokenizer`]: characters, bytes or byte pairs. A run stores it beside its weights, so that generated
//!   tokens become text again.
//! * [`Windows`]: the training batches of every step, from a counter-based generator: the step
//!   number alone determines the batch, so resuming needs no saved generator state and another program
//!   can draw the same batches ([`Windows::starts`] gives the rule).
//! * [`ImageData`]: embedded images ([`IMAGE_DATASETS`]) or the IDX files of MNIST and similar sets, with
//!   [`ImageSampler`] for the batches of every step.
//! * [`validation_batches`]: the non-overlapping windows of a split, in order.

mod draw;
mod embedded;
mod errors;
mod images;
mod packed;
mod quote;
mod split;
mod text;
mod text_data;
mod tokenizer_kind;
mod tokens;
mod windows;

pub use embedded::{DATASETS, DatasetInfo, IMAGE_DATASETS};
pub use errors::{DataError, ImageError, PackError, Problem};
pub use images::{ImageBatch, ImageData, ImageSampler, Images, image_batches};
pub use packed::{Manifest, Packed, ShardEntry, import, pack};
pub use quote::{quoted, quoted_word, split_words};
pub use text::decode_utf8;
pub use text_data::TextData;
pub use tokenizer_kind::{BadTokenizerKind, TokenizerKind};
pub use tokens::{ByteLengths, TextStream, Tokenizer, Tokens};
pub use windows::{Batch, Windows, last_window, validation_batches, validation_windows};
