//! Texts: embedded or from a file, split into training and validation.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;

use crate::embedded::{self, DATASETS, IMAGE_DATASETS, SHAKESPEARE};
use crate::errors::{DataError, PackError};
use crate::packed::{Manifest, Packed};
use crate::split::{check_fraction, training_part};
use crate::text::{Event, Sources, TEXT_KEY};
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::{Tokenizer, Tokens};

/// A text as tokens, split into training and validation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TextData {
    /// Name of the embedded text, or the given path.
    pub name: String,
    /// The tokenizer that made the tokens.
    pub tokenizer: Tokenizer,
    /// The first `N * (1 - valid_fraction)` tokens, truncated to a whole number.
    pub train: Tokens,
    /// The other tokens.
    pub valid: Tokens,
    /// Length of the whole text in characters (not bytes).
    pub characters: u64,
    /// Notes for the user: what was removed, not read, or unknown to the tokenizer.
    pub notes: Vec<String>,
}

impl TextData {
    /// Reads an embedded text by name ([`DATASETS`](crate::DATASETS)) or, with any other `source`, the file or the folder of
    /// [packed](crate::pack) tokens at that path. A file is read as [packing](crate::pack) reads it: text or lines of JSON,
    /// compressed or not. An embedded name takes precedence over a file of the same name (write `./shakespeare` for the file).
    ///
    /// Packed data have their own tokenizer and split: `tokenizer` must be theirs or
    /// [`TokenizerKind::Auto`], and `valid_fraction` is ignored.
    ///
    /// `valid_fraction`: the fraction of the tokens, at the end of the text, for validation; 0.1 is usual.
    ///
    /// # Errors
    ///
    /// One [`DataError`] each for: no such text, a folder, an unreadable file, an empty file, bytes
    /// that are not UTF-8, damaged packed data ([`PackError`]), a `valid_fraction` that is not strictly
    /// between 0 and 1. [`check_windows`](Self::check_windows) checks whether the text is long enough for a model.
    pub fn load(source: &str, tokenizer: TokenizerKind, valid_fraction: f64) -> Result<Self, DataError> {
        // Before reading, which may take long.
        check_fraction(valid_fraction)?;
        if source != SHAKESPEARE && Packed::is_at(Path::new(source)) {
            return from_packed(source, Packed::open(Path::new(source))?, tokenizer);
        }
        if source == SHAKESPEARE {
            return Self::from_text(source, &embedded::shakespeare()?, tokenizer, valid_fraction);
        }
        let (documents, notes) = read_file(source)?;
        let data = Self::from_documents(source, &documents, tokenizer, valid_fraction)?;
        Ok(Self { notes, ..data })
    }

    /// The same from a text in memory; `name` appears only in messages.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] and [`DataError::BadFraction`].
    pub fn from_text(name: &str, text: &str, tokenizer: TokenizerKind, valid_fraction: f64) -> Result<Self, DataError> {
        Self::from_documents(name, &[text], tokenizer, valid_fraction)
    }

    /// The same from documents, separated as [packing](crate::pack) separates them.
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
        for (index, tokens) in tokenizer.encode_all(documents).into_iter().enumerate() {
            if index > 0 {
                train.extend(tokenizer.separator()?);
            }
            train.extend(tokens?);
        }
        let valid = train.split_off(training_part(train.len() as u64, valid_fraction) as usize);
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

    /// Checks that both splits have at least one window of `context` tokens, which takes `context + 1`
    /// tokens: the last one is only a target.
    ///
    /// # Errors
    ///
    /// [`DataError::TooShort`] for the first split that has none; [`DataError::Zero`] for a context
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

/// The documents of a file, and notes about it.
fn read_file(source: &str) -> Result<(Vec<String>, Vec<String>), DataError> {
    let path = Path::new(source);
    if embedded::has(IMAGE_DATASETS, source) && !path.exists() {
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

/// Packed data to train on; `asked` must be the tokenizer that they were packed with, or `auto`.
fn from_packed(name: &str, packed: Packed, asked: TokenizerKind) -> Result<TextData, DataError> {
    let Packed { folder, manifest, tokenizer, train, valid } = packed;
    let Manifest { tokenizer: kind, characters, notes, .. } = manifest;
    if asked != TokenizerKind::Auto && asked != kind {
        return Err(PackError::OtherTokenizer { folder, packed: kind, asked }.into());
    }
    Ok(TextData { name: name.into(), tokenizer, train, valid, characters, notes })
}

fn unknown(source: &str) -> DataError {
    let (embedded, hint) = embedded::names_and_hint(DATASETS, source);
    DataError::Unknown { source_name: source.into(), embedded, hint }
}
