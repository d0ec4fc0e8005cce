//! What can be wrong with a data set.

use std::path::PathBuf;

use super::image::ImageError;
use super::pack::PackError;
use super::problem::Problem;
use crate::tokenizer_kind::BadTokenizerKind;

/// Why a data set could not be read, encoded or cut into batches.
///
/// Every message is one sentence that says what is wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The source is neither the name of an embedded text nor a file.
    #[error(
        "no data set `{source_name}`: it is neither an embedded text ({embedded}) nor the path of an existing file{hint}"
    )]
    Unknown {
        /// The source that was given.
        source_name: String,
        /// The names of the embedded texts, comma separated.
        embedded: String,
        /// A suggestion that begins with a semicolon.
        hint: String,
    },
    /// The path is a folder without packed tokens.
    #[error(
        "`{}` is a folder without packed tokens: give the path of one UTF-8 text file, or pack the folder's files first \
         with `polaron data pack`",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The source is an embedded set of images.
    #[error("`{name}` is a set of images, not a text: use a text such as `shakespeare`, or train a model for images")]
    NotText {
        /// Name of the set.
        name: String,
    },
    /// The file exists but could not be read.
    #[error("the text file `{}` cannot be read ({source}): check its permissions and the disk", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The text has no characters.
    #[error("the text `{name}` is empty: give a text with at least a few thousand characters")]
    Empty {
        /// Name or path of the text.
        name: String,
    },
    /// The bytes are not UTF-8.
    #[error("the text file `{}` is not valid UTF-8 at byte offset {offset} (counted from 0): {advice}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte, from 0, in the decompressed content.
        offset: usize,
        /// What it looks like, and the command that repairs it.
        advice: String,
    },
    /// The text is in another encoding.
    #[error("the text file `{}` is {encoding}, not UTF-8: convert it with `{command}`", path.display())]
    WrongEncoding {
        /// The file.
        path: PathBuf,
        /// The encoding, as `iconv` calls it.
        encoding: &'static str,
        /// The command that converts it.
        command: String,
    },
    /// The file is not a text.
    #[error("`{}` is {what}, not text: {advice}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do.
        advice: String,
    },
    /// Something is wrong with a line of a file.
    #[error("line {line}: {source}")]
    InLine {
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        source: Box<DataError>,
    },
    /// Something is wrong with the text in a file.
    #[error("in `{}`: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<DataError>,
    },
    /// A split is too short for a single window.
    #[error(
        "the {split} of the text `{name}` has {tokens} tokens, but one window of context {context} needs {needed}: use a longer \
         text, a shorter context or another `valid_fraction`"
    )]
    TooShort {
        /// Name or path of the text.
        name: String,
        /// "training split" or "validation split".
        split: &'static str,
        /// Tokens in that split.
        tokens: usize,
        /// Tokens that a model sees at once.
        context: usize,
        /// Tokens that one window needs: the context and one more for the last target.
        needed: usize,
    },
    /// The fraction for validation is not strictly between 0 and 1.
    #[error(
        "`valid_fraction` is {value}, but it must be greater than 0 and less than 1: 0.1 keeps the last tenth of the text for validation"
    )]
    BadFraction {
        /// The value given.
        value: f64,
    },
    /// A character that is unknown to the tokenizer.
    #[error(
        "the character {character:?} at character offset {offset} (counted from 0) is not among the {known} characters of \
         this tokenizer: remove it from the text, or train with the `byte` tokenizer, which can encode every text"
    )]
    UnknownCharacter {
        /// The first unknown character.
        character: char,
        /// Its position in the text, in characters from 0.
        offset: usize,
        /// Size of the alphabet.
        known: usize,
    },
    /// A text with characters or words that are unknown to the tokenizer.
    #[error(
        "{problem}: remove them from the text, or use a tokenizer that can encode every text, such as byte or bpe:N"
    )]
    UnknownText {
        /// How many are unknown, of how many, and which.
        problem: String,
    },
    /// A text with characters or words that the tokenizer of a trained model does not know.
    #[error(
        "the text `{name}` does not fit the tokenizer of the weights: {problem}; remove them from the text, or \
         use weights whose tokenizer can encode every text"
    )]
    NotOfModel {
        /// Name or path of the text.
        name: String,
        /// How many are unknown, of how many, and which.
        problem: String,
    },
    /// The text of the tokens is not known.
    #[error(
        "the data were imported with --vocab, without a tokenizer, so their tokens have no text: import them again with `polaron data \
         import --tokenizer tokenizer.json`"
    )]
    NoText,
    /// No token is written like that.
    #[error(
        "the tokenizer has no token `{token}`, which --eot asks for: name one of its tokens, or `none`, or leave --eot out"
    )]
    NoSuchToken {
        /// The token that was asked for.
        token: String,
    },
    /// A token number outside the vocabulary of the tokenizer.
    #[error(
        "the token {token} at position {position} (counted from 0) is outside the vocabulary of {vocab_size} tokens: decode \
         with the tokenizer that the tokens were made with"
    )]
    UnknownToken {
        /// The first unknown token.
        token: u32,
        /// Its position, from 0.
        position: usize,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A stored alphabet is empty, unsorted or has a character twice.
    #[error(
        "the alphabet of a `char` tokenizer must be non-empty, sorted by code point and without duplicates, but {problem}: \
         use the alphabet that training wrote"
    )]
    BadAlphabet {
        /// What is wrong with it.
        problem: String,
    },
    /// A size that must be at least one is zero.
    #[error("`{what}` is 0, but a batch needs at least 1: set it to a positive whole number")]
    Zero {
        /// Name of the size.
        what: &'static str,
    },
    /// No tokenizer has that name.
    #[error(transparent)]
    BadTokenizerKind(#[from] BadTokenizerKind),
    /// The tokenizer of a file was asked for, for a text that is not packed.
    #[error(
        "the tokenizer `file` belongs to packed data: pack the text first with `polaron data pack --tokenizer FILE`, or \
         use char, byte or bpe:N"
    )]
    NoTokenizerFile,
    /// A stored tokenizer cannot be used.
    #[error("the tokenizer cannot be used ({problem}): use one that training, packing or the tokenizers library wrote")]
    BadTokenizer {
        /// What is wrong with it.
        #[source]
        problem: Problem,
    },
    /// A byte-pair tokenizer could not be learnt.
    #[error("no tokenizer can be learnt from the text ({problem}): use the byte tokenizer, which needs no learning")]
    Learning {
        /// The error of the library.
        #[source]
        problem: Problem,
    },
    /// A tokenizer from a file failed.
    #[error("the tokenizer failed ({problem}): use another tokenizer.json, or bpe:N, which can encode every text")]
    Encoding {
        /// The error of the library.
        #[source]
        problem: Problem,
    },
    /// Tokens cannot be packed, or packed tokens cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Images cannot be read.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The data inside the program cannot be decompressed.
    #[error(
        "the embedded data set `{name}` cannot be decompressed ({source}): the program file is damaged, build or download it again"
    )]
    Embedded {
        /// Name of the embedded data set.
        name: &'static str,
        /// The error of the decompressor.
        source: std::io::Error,
    },
}
