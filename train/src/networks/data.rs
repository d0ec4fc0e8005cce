//! Where the data of a run come from, and the sizes that follow from them.

use polaron_datasets::TokenizerKind;
use serde::{Deserialize, Serialize};

/// `[data]`: text and tokens, or images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Name of embedded data, or the path of a UTF-8 file, of a folder of packed tokens or, for a perceptron, of a folder of
    /// IDX files (made absolute in a resolved configuration).
    pub source: String,
    /// `char`, `byte` or `bpe:N`; `auto` is `char` for a text and their own tokenizer for packed data, and is replaced by
    /// it in a resolved configuration. Ignored for images.
    pub tokenizer: TokenizerKind,
    /// Share of the tokens, at the end of the text, or of embedded images, kept for validation; strictly between 0 and 1.
    /// Packed data have their own share, which a resolved configuration holds.
    pub valid_fraction: f64,
}

/// The sizes of a model that follow from its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSizes {
    /// The size of the vocabulary, or how many numbers an image has.
    pub inputs: usize,
    /// The size of the vocabulary, or the number of classes of images.
    pub outputs: usize,
}
