//! What can be wrong with a text, said in one sentence each.

use std::path::PathBuf;

/// Why a text could not be read, encoded or cut into windows.
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
        /// What was asked for.
        source_name: String,
        /// The names of the embedded texts, comma separated.
        embedded: String,
        /// Empty, or a suggestion that begins with a semicolon.
        hint: String,
    },
    /// The path is a folder.
    #[error("`{}` is a folder, not a text file: give the path of one UTF-8 text file", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The file exists but could not be read.
    #[error("the text file `{}` cannot be read ({source}): check its permissions and the disk", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The text holds no character.
    #[error("the text `{name}` is empty: give a text with at least a few thousand characters")]
    Empty {
        /// Name or path of the text.
        name: String,
    },
    /// The bytes are not UTF-8.
    #[error(
        "the text file `{}` is not valid UTF-8 at byte offset {offset} (counted from 0): convert it to UTF-8, for example \
         with `iconv -t UTF-8`",
        path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte, from 0.
        offset: usize,
    },
    /// A split is too short to hold a single window.
    #[error(
        "the {split} of the text `{name}` holds {tokens} tokens, but one window of context {context} needs {needed}: use a \
         longer text, a shorter context or another `valid_fraction`"
    )]
    TooShort {
        /// Name or path of the text.
        name: String,
        /// "training split", "validation split".
        split: &'static str,
        /// Tokens in that split.
        tokens: usize,
        /// Tokens a model sees at once.
        context: usize,
        /// Tokens one window needs: the context and one more for the last target.
        needed: usize,
    },
    /// The share of the validation split is not strictly between 0 and 1.
    #[error(
        "`valid_fraction` is {value}, but it must lie strictly between 0 and 1: 0.1 keeps the last tenth of the text for validation"
    )]
    BadFraction {
        /// The value given.
        value: f64,
    },
    /// A character that the tokenizer does not know.
    #[error(
        "the character {character:?} at character offset {offset} (counted from 0) is not among the {known} characters of \
         this tokenizer: leave it out, or train with the `byte` tokenizer, which knows every text"
    )]
    UnknownCharacter {
        /// The first unknown character.
        character: char,
        /// Its position in the text, in characters from 0.
        offset: usize,
        /// Size of the alphabet.
        known: usize,
    },
    /// A token number that the tokenizer does not know.
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
    /// A stored alphabet is empty, unsorted or holds a character twice.
    #[error(
        "the alphabet of a `char` tokenizer must be non-empty, sorted by code point and without repetition, but {problem}: \
         store the alphabet that training wrote"
    )]
    BadAlphabet {
        /// What is wrong with it.
        problem: String,
    },
    /// A size that must be at least one is zero.
    #[error("`{what}` is 0, but a batch of windows needs at least 1: set it to a positive whole number")]
    Zero {
        /// Name of the size.
        what: &'static str,
    },
    /// The text inside the program cannot be unpacked.
    #[error(
        "the embedded text `{name}` cannot be unpacked ({source}): the program file is damaged, build or download it again"
    )]
    Embedded {
        /// Name of the embedded text.
        name: &'static str,
        /// What the unpacker said.
        source: std::io::Error,
    },
}
