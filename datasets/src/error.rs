//! What can be wrong with a data set, said in one sentence each.

use std::path::{Path, PathBuf};

use crate::TokenizerKind;

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
    /// The path is a folder without packed tokens.
    #[error(
        "`{}` is a folder, and holds no packed tokens: give the path of one UTF-8 text file, or pack the folder's files \
         first with `polaron data pack`",
        path.display()
    )]
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
    #[error("the text file `{}` is not valid UTF-8 at byte offset {offset} (counted from 0): {advice}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte, from 0, in the unpacked content.
        offset: usize,
        /// What it looks like, and the command that mends it.
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
    /// The file holds no text.
    #[error("`{}` is {what}, not text: {advice}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do.
        advice: String,
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
    /// A text with characters or words that the tokenizer does not know.
    #[error("{problem}: leave them out of the text, or use a tokenizer that knows every text, such as byte or bpe:N")]
    UnknownText {
        /// How many, of how many, and which.
        problem: String,
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
    /// No tokenizer has that name.
    #[error(
        "`{value}` is no tokenizer: write auto, char, byte or bpe:N with N from 257 to 1048576, for example bpe:4096"
    )]
    BadTokenizerKind {
        /// What was asked for.
        value: String,
    },
    /// A text was to be encoded by the tokenizer of a file.
    #[error(
        "the tokenizer `file` belongs to packed data: pack the text first with `polaron data pack --tokenizer FILE`, or \
         take char, byte or bpe:N"
    )]
    NoTokenizerFile,
    /// A stored tokenizer makes no sense.
    #[error(
        "the tokenizer cannot be used ({problem}): store one that training, packing or the tokenizers library wrote"
    )]
    BadTokenizer {
        /// What is wrong with it.
        problem: String,
    },
    /// A byte-pair tokenizer could not be learnt.
    #[error("no tokenizer can be learnt from the text ({problem}): take the byte tokenizer, which needs no learning")]
    Learning {
        /// What the library said.
        problem: String,
    },
    /// A tokenizer from a file gave up.
    #[error("the tokenizer fails ({problem}): take another tokenizer.json, or bpe:N, which knows every text")]
    Encoding {
        /// What the library said.
        problem: String,
    },
    /// Tokens cannot be packed, or packed tokens cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
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

/// Why texts could not be packed, or packed tokens not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// An input does not exist.
    #[error("there is no file or folder `{}`: check the spelling of the path", path.display())]
    NoInput {
        /// What was asked for.
        path: PathBuf,
    },
    /// A folder holds no file of the right kind.
    #[error(
        "the folder `{}` holds no file ending in .txt, .text, .md, .markdown, .jsonl, .ndjson or .jsonlines, nor one of these with \
         .gz or .zst{}: give the files themselves, whatever their names",
        folder.display(), some_of(others)
    )]
    NoMatch {
        /// The folder.
        folder: PathBuf,
        /// What it holds instead, and why that is not read.
        others: Vec<(PathBuf, &'static str)>,
    },
    /// A packed file is damaged.
    #[error(
        "`{}` cannot be read, its {program} data are damaged or cut short ({problem}): fetch it again; `{program} -t {}` checks it",
        path.display(), crate::quoted(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The program that packs so.
        program: &'static str,
        /// What the unpacker said.
        problem: String,
    },
    /// Something is wrong with a line of a file.
    #[error("line {line}: {source}")]
    InLine {
        /// Line, from 1.
        line: usize,
        /// What.
        source: Box<DataError>,
    },
    /// A file or folder could not be read.
    #[error("`{}` cannot be read ({source}): check its permissions, or restore it", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system or the unpacker said.
        source: std::io::Error,
    },
    /// A line of a JSONL file is not a document.
    #[error(
        "line {line} of `{}` is no document ({problem}): every line must be an object that holds its text under one key, `text` or \
         what `polaron data pack --key NAME` names",
        path.display()
    )]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Something is wrong with the text in a file.
    #[error("in `{}`: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What.
        source: Box<DataError>,
    },
    /// Neither a tokenizer's name nor a file.
    #[error(
        "`{value}` is neither a tokenizer nor an existing file: write char, byte, bpe:N with N from 257 to 1048576, or the \
         path of a tokenizer.json"
    )]
    NoTokenizer {
        /// What was asked for.
        value: String,
    },
    /// A file holds no tokenizer.
    #[error(
        "`{}` holds no tokenizer ({problem}): give a tokenizer.json that polaron or the tokenizers library wrote",
        path.display()
    )]
    BadTokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Too much of the text is unknown to the tokenizer.
    #[error(
        "{problem}, and more than 0.1 % would be lost with `{}`: take bpe:N or byte, which know every text, or allow it with \
         --allow-unknown",
        tokenizer.display()
    )]
    TooMuchUnknown {
        /// The file of the tokenizer.
        tokenizer: PathBuf,
        /// How many, of how many, and which.
        problem: String,
    },
    /// The tokens cannot be divided.
    #[error(
        "{tokens} tokens cannot be divided with a validation share of {valid_fraction}: give more text, or another share"
    )]
    TooFew {
        /// Tokens in all.
        tokens: u64,
        /// The share.
        valid_fraction: f64,
    },
    /// The folder holds packed tokens already.
    #[error("`{}` holds packed tokens already: choose another --out, or remove that folder", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds something else.
    #[error("`{}` is not empty, it holds `{name}`: choose another --out", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What is in it.
        name: String,
    },
    /// Another process packs into the folder.
    #[error("another process is packing into `{}`: wait for it, stop it, or choose another --out", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder could not be written.
    #[error(
        "cannot write `{}` ({source}): check the permissions and the space on the disk, or choose another --out",
        path.display()
    )]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There are shards, but no manifest.
    #[error(
        "`{}` holds tokens but no manifest.json: packing was interrupted, so run `polaron data pack` with the same --out again",
        folder.display()
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
    },
    /// The manifest is damaged.
    #[error("the manifest `{}` is damaged ({problem}): restore it, or pack again", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A format of another version.
    #[error(
        "`{}` has format version {found}, but this program reads version {supported}: pack again, or use a newer polaron",
        path.display()
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that is read.
        supported: u32,
    },
    /// A file is no shard.
    #[error("`{}` is no shard of tokens (it does not begin with POLARTOK): restore it, or pack again", path.display())]
    NotAShard {
        /// The file.
        path: PathBuf,
    },
    /// A shard's tokens are of an unknown size.
    #[error("the shard `{}` has {found} bytes per token, but only 2 and 4 exist: it is damaged, restore it or pack again", path.display())]
    BadTokenSize {
        /// The file.
        path: PathBuf,
        /// Bytes per token.
        found: usize,
    },
    /// A shard is shorter or longer than it says.
    #[error(
        "the shard `{}` holds {found} bytes, but its header asks for {expected}: it was cut short, restore it or pack again",
        path.display()
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// A shard is not the one that the manifest names.
    #[error(
        "the shard `{}` is not the one that manifest.json describes: it is damaged or of another data set, restore it or \
         pack again",
        path.display()
    )]
    ForeignShard {
        /// The file.
        path: PathBuf,
    },
    /// A shard's content has changed.
    #[error(
        "the tokens in `{}` do not match their checksum (SHA-256): the file is damaged, restore it or pack again",
        path.display()
    )]
    BadChecksum {
        /// The file.
        path: PathBuf,
    },
    /// A token is not in the vocabulary.
    #[error(
        "token {token} at position {position} (counted from 0) of `{}` is outside the vocabulary of {vocab_size} tokens: \
         pack again with the right tokenizer",
        path.display()
    )]
    TokenOutside {
        /// The file.
        path: PathBuf,
        /// The first such token.
        token: u32,
        /// Its position in the file, from 0.
        position: u64,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// The tokenizer beside the shards is another one.
    #[error(
        "`{}` is not the tokenizer that the tokens beside it were made with: restore it, or pack again",
        path.display()
    )]
    ForeignTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// Another tokenizer was asked for.
    #[error(
        "`{}` was packed with the tokenizer {packed}, but {asked} is asked for: leave `data.tokenizer` out, or pack the text \
         again with `--tokenizer {asked}`",
        folder.display()
    )]
    OtherTokenizer {
        /// The folder.
        folder: PathBuf,
        /// The tokenizer of the data.
        packed: TokenizerKind,
        /// The one asked for.
        asked: TokenizerKind,
    },
}

/// The first few files, for a message.
fn some_of(others: &[(PathBuf, &'static str)]) -> String {
    let names: Vec<String> = others.iter().take(3).map(|(path, _)| format!("`{}`", path.display())).collect();
    match others.len().saturating_sub(names.len()) {
        _ if names.is_empty() => ", it is empty".into(),
        0 => format!(", only {}", names.join(", ")),
        more => format!(", only {} and {more} more", names.join(", ")),
    }
}

impl PackError {
    /// For `map_err`: `.map_err(PackError::writing(&path))`.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Unwritable { path, source }
    }
}
