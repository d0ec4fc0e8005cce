//! Texts: embedded or from a file, split into training and validation.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;

use crate::embedded::{self, DATASETS, IMAGE_DATASETS, SHAKESPEARE};
use crate::errors::{DataError, PackError};
use crate::packed::{Manifest, Packed};
use crate::split::{Ends, check_fraction};
use crate::text::{Event, Sources, TEXT_KEY};
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::{Losses, Tokenizer, Tokens};

/// Packed tokens that are compared when two tokenizers are written differently.
const COMPARED: usize = 1 << 14;

/// How a text becomes tokens.
#[derive(Clone, Copy)]
enum Means<'a> {
    /// With a tokenizer of this kind, made for the text.
    Kind(TokenizerKind),
    /// With this tokenizer, which a model was trained with.
    Given(&'a Tokenizer),
}

/// A text as tokens, split into training and validation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TextData {
    /// Name of the embedded text, or the given path.
    pub name: String,
    /// The tokenizer that made the tokens.
    pub tokenizer: Tokenizer,
    /// The first `N * (1 - valid_fraction)` tokens, truncated to a whole number; of several documents, up to the end of one that is
    /// near.
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
        Self::load_by(source, Means::Kind(tokenizer), valid_fraction)
    }

    /// The same with the tokenizer of a trained model. Packed data must have been made with that tokenizer: where the two are
    /// not written alike, they must encode the beginning of the validation split alike.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load), [`DataError::NotOfModel`] for a text that the tokenizer cannot encode,
    /// [`PackError::NotOfModel`] for data that were packed with another tokenizer.
    pub fn load_with(source: &str, tokenizer: &Tokenizer, valid_fraction: f64) -> Result<Self, DataError> {
        Self::load_by(source, Means::Given(tokenizer), valid_fraction)
    }

    fn load_by(source: &str, means: Means<'_>, valid_fraction: f64) -> Result<Self, DataError> {
        // Before reading, which may take long.
        check_fraction(valid_fraction)?;
        if source != SHAKESPEARE && Packed::is_at(Path::new(source)) {
            return from_packed(source, Packed::open(Path::new(source))?, means);
        }
        if source == SHAKESPEARE {
            return Self::from_documents(source, &[embedded::shakespeare()?], means, valid_fraction);
        }
        let (documents, notes) = read_file(source)?;
        let mut data = Self::from_documents(source, &documents, means, valid_fraction)?;
        data.notes.splice(0..0, notes);
        Ok(data)
    }

    /// The same from a text in memory; `name` appears only in messages.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] and [`DataError::BadFraction`].
    pub fn from_text(name: &str, text: &str, tokenizer: TokenizerKind, valid_fraction: f64) -> Result<Self, DataError> {
        Self::from_documents(name, &[text], Means::Kind(tokenizer), valid_fraction)
    }

    /// The same from documents, separated as [packing](crate::pack) separates them.
    fn from_documents<S: AsRef<str> + Sync>(
        name: &str,
        documents: &[S],
        means: Means<'_>,
        valid_fraction: f64,
    ) -> Result<Self, DataError> {
        check_fraction(valid_fraction)?;
        if documents.iter().all(|document| document.as_ref().is_empty()) {
            return Err(DataError::Empty { name: name.into() });
        }
        let tokenizer = match means {
            Means::Kind(kind) => Tokenizer::for_documents(kind, documents)?,
            Means::Given(tokenizer) => tokenizer.clone(),
        };
        let mut losses = Losses::default();
        let mut known = |text| match means {
            Means::Kind(_) => Cow::Borrowed(text),
            Means::Given(tokenizer) => tokenizer.known(text, &mut losses),
        };
        let texts: Vec<Cow<'_, str>> = documents.iter().map(|document| known(document.as_ref())).collect();
        let mut train = Vec::new();
        let mut ends = Ends::default();
        for (index, tokens) in tokenizer.encode_all(&texts).into_iter().enumerate() {
            if index > 0 {
                train.extend(tokenizer.separator()?);
                ends.add(train.len() as u64);
            }
            let tokens = tokens?;
            if let Means::Given(tokenizer) = means {
                tokenizer.count_tokens(&tokens, &mut losses);
            }
            train.extend(tokens);
        }
        let mut notes = judge(name, &tokenizer, &losses)?;
        let (border, note) = ends.training_part(train.len() as u64, valid_fraction);
        notes.extend(note);
        let valid = train.split_off(border as usize);
        train.shrink_to_fit();
        let characters = documents.iter().map(|document| document.as_ref().chars().count() as u64).sum();
        Ok(Self { name: name.into(), tokenizer, train: train.into(), valid: valid.into(), characters, notes })
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

/// Notes about what the tokenizer of a model does not know of a text. One character outside an alphabet is too much.
fn judge(name: &str, tokenizer: &Tokenizer, losses: &Losses) -> Result<Vec<String>, DataError> {
    let refused = |problem: String| DataError::NotOfModel { name: name.into(), problem };
    match losses.unknown() {
        Some(problem) if tokenizer.kind() == TokenizerKind::Char => Err(refused(problem)),
        _ => losses.judge(Path::new(name), false).map_err(|error| match error {
            DataError::Pack(PackError::TooMuchUnknown { problem, .. }) => refused(problem),
            other => other,
        }),
    }
}

/// Packed data to train on; a tokenizer that was asked for must be the one that they were packed with.
fn from_packed(name: &str, packed: Packed, means: Means<'_>) -> Result<TextData, DataError> {
    match means {
        Means::Kind(asked) if asked != TokenizerKind::Auto && asked != packed.manifest.tokenizer => {
            let (folder, packed) = (packed.folder, packed.manifest.tokenizer);
            return Err(PackError::OtherTokenizer { folder, packed, asked }.into());
        }
        Means::Given(tokenizer) if !encode_alike(&packed, tokenizer)? => {
            let [packed_with, model] =
                [&packed.tokenizer, tokenizer].map(|t| format!("{}, {} tokens", t.kind(), t.vocab_size()));
            return Err(PackError::NotOfModel { folder: packed.folder, packed: packed_with, model }.into());
        }
        _ => {}
    }
    let Packed { manifest, tokenizer, train, valid, .. } = packed;
    let Manifest { characters, notes, .. } = manifest;
    Ok(TextData { name: name.into(), tokenizer, train, valid, characters, notes })
}

/// Whether a tokenizer is that of packed data. Other programs write the same tokenizer in another form: then the two must
/// encode the beginning of the validation split alike.
fn encode_alike(packed: &Packed, tokenizer: &Tokenizer) -> Result<bool, DataError> {
    if packed.tokenizer == *tokenizer {
        return Ok(true);
    }
    let text = packed.tokenizer.decode(&packed.valid.to_vec(0..COMPARED))?;
    let tokens = packed.tokenizer.encode(&text)?;
    Ok(packed.tokenizer.vocab_size() <= tokenizer.vocab_size()
        && tokenizer.encode(&text).is_ok_and(|same| same == tokens))
}

fn unknown(source: &str) -> DataError {
    let (embedded, hint) = embedded::names_and_hint(DATASETS, source);
    DataError::Unknown { source_name: source.into(), embedded, hint }
}
