//! Importing: writes tokens of other programs as a folder of packed tokens.
//!
//! ```no_run
//! use polaron_datasets::import::{ImportOptions, ImportTokenizer, import};
//!
//! let options = ImportOptions::new(["train.bin".into(), "val.bin".into()], ImportTokenizer::Vocabulary(50_257));
//! let manifest = import(&options, "packed".as_ref(), &mut |_| {})?;
//! # Ok::<(), polaron_datasets::DataError>(())
//! ```
//!
//! # What is read
//!
//! | layout, all numbers little-endian | written by |
//! |---|---|
//! | tokens of 2 bytes | nanoGPT |
//! | 256 numbers of 4 bytes (20240520, version 1, number of tokens, zeros), then tokens of 2 bytes | llm.c, modded-nanogpt |
//! | the same with 20240801 and version 7, then tokens of 4 bytes | llm.c for Llama 3 |
//!
//! A file is for validation if `val`, `valid` or `validation` is a word of its name (`val.bin`, `fineweb_val_000000.bin`). If there
//! are such files and others, the names decide about the split; otherwise the last part of all tokens is for validation, from the
//! end-of-text token on that is nearest to the given fraction.

use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::manifest::Manifest;
use super::options::PackProgress;
use super::shards::{Shards, divide};
use super::token_file::TokenFile;
use crate::errors::DataError;
use crate::split::{Ends, check_fraction};
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::Tokenizer;

/// The validation split if nothing else is asked for and the names do not tell.
const VALID_FRACTION: f64 = 0.1;

/// A note about tokens without an end of text.
const NO_ENDS: &str =
    "the validation split may begin inside a document: no end-of-text token tells where documents end";

/// What is known about the tokenizer of imported tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportTokenizer {
    /// The `tokenizer.json` that made the tokens.
    File(PathBuf),
    /// Only the number of different tokens: a model can be trained on them, but neither reads nor writes text.
    Vocabulary(usize),
}

/// What is imported, and how.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Files of tokens.
    pub inputs: Vec<PathBuf>,
    /// Their tokenizer.
    pub tokenizer: ImportTokenizer,
    /// The fraction of the tokens, at the end, for validation; by default the names of the files decide, or else it is 0.1.
    pub valid_fraction: Option<f64>,
    /// Tokens of one shard; 67,108,864 by default.
    pub shard_tokens: u64,
}

impl ImportOptions {
    /// The defaults for these files.
    pub fn new(inputs: impl IntoIterator<Item = PathBuf>, tokenizer: ImportTokenizer) -> Self {
        Self { inputs: inputs.into_iter().collect(), tokenizer, valid_fraction: None, shard_tokens: 1 << 26 }
    }
}

/// Imports files of tokens into the folder `out`, which must be new, empty, or left by an interrupted packing. `progress` is
/// called often. Returns the manifest of the folder.
///
/// # Errors
///
/// One [`DataError`] each for: a file that does not exist, or is not one of tokens, or has a token outside the vocabulary, a split
/// without tokens, a bad tokenizer, a folder that is in use, a full disk. After an error, the folder is as before.
pub fn import(
    options: &ImportOptions,
    out: &Path,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<Manifest, DataError> {
    check_fraction(options.valid_fraction.unwrap_or(VALID_FRACTION))?;
    if options.shard_tokens == 0 {
        return Err(DataError::Zero { what: "shard tokens" });
    }
    let tokenizer = match &options.tokenizer {
        ImportTokenizer::File(path) => Tokenizer::from_file(path)?,
        ImportTokenizer::Vocabulary(vocab_size) => Tokenizer::without_text(*vocab_size)?,
    };
    // Every header is checked before anything is written.
    options.inputs.iter().try_for_each(|path| TokenFile::open(path).map(drop))?;
    let folder = Folder::claim(out)?;
    let imported = write(options, &tokenizer, &folder, progress);
    if imported.is_err() {
        folder.clear();
    }
    imported
}

fn write(
    options: &ImportOptions,
    tokenizer: &Tokenizer,
    folder: &Folder,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<Manifest, DataError> {
    let (mut train, mut valid): (Vec<&PathBuf>, Vec<&PathBuf>) =
        options.inputs.iter().partition(|path| !is_for_validation(path));
    if options.valid_fraction.is_some() || train.is_empty() || valid.is_empty() {
        (train, valid) = (options.inputs.iter().collect(), Vec::new());
    }
    let bytes = |files: &[&PathBuf]| {
        files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|about| about.len()).sum::<u64>()
    };
    let total = bytes(&train) + bytes(&valid);
    let mut report = |read| progress(PackProgress { doing: "importing", read, total });
    let mut copy = Copy {
        tokenizer,
        end_of_text: tokenizer.end_of_text(),
        shards: Shards::new(folder, tokenizer.vocab_size(), options.shard_tokens),
        ends: Ends::default(),
        documents: 0,
        read: 0,
    };
    train.iter().try_for_each(|path| copy.file(path, &mut report))?;
    let named_border = copy.shards.tokens();
    valid.iter().try_for_each(|path| copy.file(path, &mut report))?;
    let count = copy.shards.tokens();
    let mut manifest = Manifest::empty(TokenizerKind::File, options.valid_fraction.unwrap_or(VALID_FRACTION));
    manifest.sources = train.iter().chain(&valid).map(|path| path.display().to_string()).collect();
    manifest.separator = copy.end_of_text.filter(|_| copy.documents > 0).into_iter().collect();
    manifest.documents = copy.documents.max(1);
    let border = if valid.is_empty() {
        let (border, note) = copy.ends.training_part(count, manifest.valid_fraction);
        manifest.notes.extend(if copy.documents == 0 { Some(NO_ENDS.into()) } else { note });
        border
    } else {
        manifest.valid_fraction = (count - named_border) as f64 / count as f64;
        named_border
    };
    divide(folder, copy.shards.finish()?, border, &mut manifest)?;
    folder.finish(tokenizer, &mut manifest)?;
    Ok(manifest)
}

/// The tokens of the files, one after the other.
struct Copy<'a> {
    tokenizer: &'a Tokenizer,
    end_of_text: Option<u32>,
    shards: Shards<'a>,
    ends: Ends,
    documents: u64,
    /// Bytes of the files that were copied.
    read: u64,
}

impl Copy<'_> {
    fn file(&mut self, path: &Path, report: &mut dyn FnMut(u64)) -> Result<(), DataError> {
        let mut file = TokenFile::open(path)?;
        loop {
            let tokens = file.read(self.tokenizer.vocab_size())?;
            report(self.read + file.offset());
            if tokens.is_empty() {
                self.read += file.offset();
                return Ok(());
            }
            let places = (self.shards.tokens() + 1..).zip(&tokens);
            for (place, _) in places.filter(|(_, token)| Some(**token) == self.end_of_text) {
                self.documents += 1;
                self.ends.add(place);
            }
            self.shards.push(&tokens)?;
        }
    }
}

/// Whether the name of a file says that it is for validation.
fn is_for_validation(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.split(|c: char| !c.is_alphabetic()).any(|word| ["val", "valid", "validation"].contains(&word))
}
