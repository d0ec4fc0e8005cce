//! What can be wrong with a data set, said in one sentence each.

use std::path::PathBuf;

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
    /// The source is an embedded set of images.
    #[error("`{name}` is a set of images, not a text: take a text such as `shakespeare`, or train a model for images")]
    NotText {
        /// Name of the set.
        name: String,
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
    #[error("`{what}` is 0, but a batch needs at least 1: set it to a positive whole number")]
    Zero {
        /// Name of the size.
        what: &'static str,
    },
    /// Images cannot be read.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The data inside the program cannot be unpacked.
    #[error(
        "the embedded data set `{name}` cannot be unpacked ({source}): the program file is damaged, build or download it again"
    )]
    Embedded {
        /// Name of the embedded data set.
        name: &'static str,
        /// What the unpacker said.
        source: std::io::Error,
    },
}

/// Why a set of images could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The source is neither an embedded set nor a folder.
    #[error(
        "no images `{source_name}`: it is neither an embedded set of images ({embedded}) nor an existing folder with the \
         four IDX files of an MNIST-like set; check the spelling of the path"
    )]
    Unknown {
        /// What was asked for.
        source_name: String,
        /// The names of the embedded sets, comma separated.
        embedded: String,
    },
    /// The source is an embedded text.
    #[error(
        "`{name}` is a text, not a set of images: take `digits` or a folder of IDX files, or train a language model"
    )]
    NotImages {
        /// Name of the text.
        name: String,
    },
    /// One of the four files is missing.
    #[error(
        "the folder `{}` holds no `{name}` and no `{name}.gz`: put the four IDX files of an MNIST-like set there (the \
         Debian package `dataset-fashion-mnist` installs them in /usr/share/datasets/fashion-mnist; MNIST itself is on \
         https://yann.lecun.com/exdb/mnist/)",
        folder.display()
    )]
    FileMissing {
        /// The folder.
        folder: PathBuf,
        /// Name of the missing file.
        name: String,
    },
    /// A file exists but could not be read.
    #[error("the file `{}` cannot be read ({source}): check its permissions and the disk", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A gzip stream is damaged.
    #[error("the file `{}` cannot be unpacked ({source}): it is damaged, fetch it again", path.display())]
    BadGzip {
        /// The file.
        path: PathBuf,
        /// What the unpacker said.
        source: std::io::Error,
    },
    /// The file is of another kind.
    #[error(
        "the file `{}` begins with {found:#010x}, but its kind of IDX file begins with {expected:#010x}: put the right \
         file there, images and labels may have been swapped",
        path.display()
    )]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        found: u32,
        /// What they must be.
        expected: u32,
    },
    /// The file is not as long as its header says.
    #[error(
        "the file `{}` holds {found} bytes (unpacked), but its header asks for {expected}: it is damaged or cut short, \
         fetch it again",
        path.display()
    )]
    BadLength {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        found: usize,
        /// Bytes needed.
        expected: String,
    },
    /// The header promises no image at all.
    #[error("the file `{}` holds no image: put a file with images there", path.display())]
    NoImages {
        /// The file.
        path: PathBuf,
    },
    /// Images and labels differ in number.
    #[error(
        "`{}` holds {images} images, but `{}` holds {labels} labels: take both files from the same set",
        images_path.display(),
        labels_path.display()
    )]
    CountMismatch {
        /// The file of images.
        images_path: PathBuf,
        /// Number of images.
        images: usize,
        /// The file of labels.
        labels_path: PathBuf,
        /// Number of labels.
        labels: usize,
    },
    /// Training and validation images differ in size.
    #[error(
        "the images in `{}` are {} x {} pixels, but the training images are {} x {}: take all four files from the same set",
        path.display(), found[0], found[1], expected[0], expected[1]
    )]
    ShapeMismatch {
        /// The file of validation images.
        path: PathBuf,
        /// Their height and width.
        found: [usize; 2],
        /// Height and width of the training images.
        expected: [usize; 2],
    },
    /// A split of an embedded set holds no image.
    #[error("`valid_fraction` {valid_fraction} leaves the {split} split of `{name}` without any image: 0.2 is usual")]
    EmptySplit {
        /// Name of the set.
        name: String,
        /// "training", "validation".
        split: &'static str,
        /// The share that was asked for.
        valid_fraction: f64,
    },
}
