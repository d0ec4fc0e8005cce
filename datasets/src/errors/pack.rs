//! What can be wrong with texts to pack and with packed tokens.

use std::path::{Path, PathBuf};

use super::problem::Problem;
use crate::quote::quoted;
use crate::tokenizer_kind::TokenizerKind;

/// Why texts could not be packed, or packed tokens could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// An input does not exist.
    #[error("there is no file or folder `{}`: check the spelling of the path", path.display())]
    NoInput {
        /// The path that was given.
        path: PathBuf,
    },
    /// A folder has no file of the right kind.
    #[error(
        "the folder `{}` has no file ending in {endings}{}: give the files themselves, their endings do not matter then",
        folder.display(), some_of(others)
    )]
    NoMatch {
        /// The folder.
        folder: PathBuf,
        /// The endings that are read.
        endings: &'static str,
        /// The other files in it, and why they are not read.
        others: Vec<(PathBuf, &'static str)>,
    },
    /// A compressed file is damaged.
    #[error(
        "`{}` cannot be read, its {program} data are damaged or truncated ({problem}): download it again; `{program} -t {}` checks it",
        path.display(), quoted(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The program that compresses in this way.
        program: &'static str,
        /// The error of the decompressor.
        #[source]
        problem: Problem,
    },
    /// A file or folder could not be read.
    #[error("`{}` cannot be read ({source}): check its permissions, or restore it", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system or of the decompressor.
        source: std::io::Error,
    },
    /// A line of a file is not a document.
    #[error("{unit} {line} of `{}` is not a document ({problem}): {rule}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// "line", or "row" of a table.
        unit: &'static str,
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        problem: Problem,
        /// How a line must be in the format of the file.
        rule: &'static str,
    },
    /// A file cannot be imported.
    #[error("`{}` cannot be imported: {problem}", path.display())]
    NotTokens {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A Parquet table cannot be read.
    #[error("the Parquet table `{}` cannot be read ({problem}): download it again, or write it again with {codecs}", path.display())]
    BadTable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: Problem,
        /// The compressions that are read.
        codecs: &'static str,
    },
    /// A Parquet table has no such column of text.
    #[error(
        "the Parquet table `{}` has no column `{key}` of text, only: {columns}: name its column with `polaron data pack --key NAME`",
        path.display()
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column that was asked for.
        key: String,
        /// The columns that it has, and their types.
        columns: String,
    },
    /// Every line was left out.
    #[error(
        "no document is left ({problem}): leave --skip-bad out to see what is wrong with the first, or check --key"
    )]
    OnlyBad {
        /// How many lines are left out, and why the first ones.
        problem: String,
    },
    /// Neither the name of a tokenizer nor a file.
    #[error(
        "`{value}` is neither a tokenizer nor an existing file: write char, byte, bpe:N with N from 257 to 1048576, or the \
         path of a tokenizer.json"
    )]
    NoTokenizer {
        /// The tokenizer that was given.
        value: String,
    },
    /// A file is not a tokenizer.
    #[error(
        "`{}` is not a tokenizer ({problem}): give a tokenizer.json that polaron or the tokenizers library wrote",
        path.display()
    )]
    BadTokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: Problem,
    },
    /// Too much of the text is unknown to the tokenizer.
    #[error(
        "{problem}, and more than 0.1 % would be lost with `{}`: use bpe:N or byte, which can encode every text, or allow it with \
         --allow-unknown",
        tokenizer.display()
    )]
    TooMuchUnknown {
        /// The file of the tokenizer.
        tokenizer: PathBuf,
        /// How many are unknown, of how many, and which.
        problem: String,
    },
    /// There are too few tokens to split.
    #[error(
        "{tokens} tokens cannot be split with a validation fraction of {valid_fraction}: give more text, or another fraction"
    )]
    TooFew {
        /// Total number of tokens.
        tokens: u64,
        /// The fraction for validation.
        valid_fraction: f64,
    },
    /// The folder already has packed tokens.
    #[error("`{}` already has packed tokens: choose another --out, or remove that folder", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has other files.
    #[error("`{}` is not empty, `{name}` is in it: choose another --out", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// A file in it.
        name: String,
    },
    /// Another process is packing into the folder.
    #[error("another process is packing into `{}`: wait for it, stop it, or choose another --out", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder could not be written.
    #[error(
        "cannot write `{}` ({source}): check the permissions and the free space on the disk, or choose another --out",
        path.display()
    )]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// There are shards, but no manifest.
    #[error(
        "`{}` has tokens but no manifest.json: packing was interrupted, so run `polaron data pack` again with the same --out",
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
        #[source]
        problem: Problem,
    },
    /// The format has another version.
    #[error(
        "`{}` has format version {found}, but this program reads version {supported}: pack again, or use a newer polaron",
        path.display()
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that this program reads.
        supported: u32,
    },
    /// A file is not a shard.
    #[error("`{}` is not a shard of tokens (it does not begin with POLARTOK): restore it, or pack again", path.display())]
    NotAShard {
        /// The file.
        path: PathBuf,
    },
    /// The tokens of a shard have an unknown size.
    #[error("the shard `{}` has {found} bytes per token, but only 2 and 4 exist: it is damaged, restore it or pack again", path.display())]
    BadTokenSize {
        /// The file.
        path: PathBuf,
        /// Bytes per token.
        found: usize,
    },
    /// The length of a shard is not that of its header.
    #[error(
        "the shard `{}` has {found} bytes, but its header asks for {expected}: it is damaged or truncated, restore it or pack again",
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
    /// A shard is not the one in the manifest.
    #[error(
        "the shard `{}` is not the one that manifest.json describes: it is damaged or of another data set, restore it \
         or pack again",
        path.display()
    )]
    ForeignShard {
        /// The file.
        path: PathBuf,
    },
    /// The content of a shard has changed.
    #[error(
        "the tokens in `{}` do not match their checksum (SHA-256): the file is damaged, restore it or pack again",
        path.display()
    )]
    BadChecksum {
        /// The file.
        path: PathBuf,
    },
    /// A token is outside the vocabulary.
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
    /// The tokenizer beside the shards is not theirs.
    #[error(
        "`{}` is not the tokenizer that the tokens beside it were made with: restore it, or pack again",
        path.display()
    )]
    ForeignTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// The settings ask for another tokenizer.
    #[error(
        "`{}` was packed with the tokenizer {packed}, but `data.tokenizer` is {asked}: remove that setting, or pack the text \
         again with `--tokenizer {asked}`",
        folder.display()
    )]
    OtherTokenizer {
        /// The folder.
        folder: PathBuf,
        /// The tokenizer of the data.
        packed: TokenizerKind,
        /// The tokenizer in the settings.
        asked: TokenizerKind,
    },
    /// The tokens were made with another tokenizer than that of a trained model.
    #[error(
        "`{}` was packed with another tokenizer ({packed}) than that of the weights ({model}): pack the text again with \
         `polaron data pack TEXT --tokenizer FILE`, where FILE is the tokenizer.json beside the weights",
        folder.display()
    )]
    NotOfModel {
        /// The folder.
        folder: PathBuf,
        /// The tokenizer of the data.
        packed: String,
        /// The tokenizer of the model.
        model: String,
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
