//! Encoding texts into shards.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::options::{PackOptions, PackTokenizer};
use super::shards::Shards;
use crate::errors::DataError;
use crate::split::Ends;
use crate::text::Event;
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::{Losses, Tokenizer, complete, difference};

/// Text that is compared with what its tokens decode to.
const COMPARED: usize = 1 << 15;
/// Text that is collected before it is encoded: enough to keep every processor busy.
const GATHERED: usize = 1 << 21;

/// Encodes texts as they are read.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a PackOptions,
    losses: Losses,
    shards: Shards<'a>,
    ends: Ends,
    /// Texts that are not encoded yet; the last may go on.
    gathered: Vec<Part>,
    /// Their bytes.
    bytes: usize,
    /// Whether a document has ended and nothing has been written since.
    between: bool,
    /// Gets the numbers of documents and characters, the separator and a note.
    manifest: &'a mut Manifest,
}

/// A part of a document.
struct Part {
    path: PathBuf,
    text: String,
    /// Whether the document ends with it.
    ends: bool,
}

impl<'a> Encoder<'a> {
    pub fn new(
        tokenizer: &'a Tokenizer,
        options: &'a PackOptions,
        shards: Shards<'a>,
        manifest: &'a mut Manifest,
    ) -> Self {
        let (losses, ends) = Default::default();
        Self { tokenizer, options, losses, shards, ends, gathered: Vec::new(), bytes: 0, between: false, manifest }
    }

    /// Takes an event of the file at `path`.
    pub fn take(&mut self, path: &Path, event: Event<'_>) -> Result<ControlFlow<()>, DataError> {
        let open = self.gathered.last_mut().filter(|part| !part.ends);
        match (event, open) {
            (Event::Text(text), Some(part)) => {
                part.text.push_str(text);
                self.bytes += text.len();
            }
            (Event::Text(text), None) => {
                self.gathered.push(Part { path: path.into(), text: text.into(), ends: false });
                self.bytes += text.len();
            }
            (Event::End, Some(part)) => part.ends = true,
            (Event::End, None) => {}
        }
        if self.bytes >= GATHERED {
            self.encode()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Encodes what is left.
    pub fn finish(mut self) -> Result<(Shards<'a>, Ends, Losses), DataError> {
        self.encode()?;
        Ok((self.shards, self.ends, self.losses))
    }

    /// Encodes the gathered texts; of a document that goes on, what can be encoded before more of it is known.
    fn encode(&mut self) -> Result<(), DataError> {
        let mut parts = std::mem::take(&mut self.gathered);
        if let Some(last) = parts.last_mut().filter(|part| !part.ends) {
            let text = last.text.split_off(complete(&last.text));
            self.gathered.push(Part { path: last.path.clone(), text, ends: false });
        }
        self.bytes = self.gathered.iter().map(|part| part.text.len()).sum();
        let from_file = matches!(self.options.tokenizer, PackTokenizer::File(_));
        // With an alphabet, the first unknown character is an error, unless unknown ones are allowed.
        let counting = from_file && (self.options.allow_unknown || self.tokenizer.kind() != TokenizerKind::Char);
        let is_first = self.losses.is_empty();
        let mut known =
            |text| if counting { self.tokenizer.known(text, &mut self.losses) } else { Cow::Borrowed(text) };
        let texts: Vec<Cow<'_, str>> = parts.iter().map(|part| known(&part.text)).collect();
        let encoded = self.tokenizer.encode_all(&texts);
        for (part, tokens) in parts.iter().zip(encoded) {
            let tokens =
                tokens.map_err(|source| DataError::InFile { path: part.path.clone(), source: Box::new(source) })?;
            if counting {
                self.tokenizer.count_tokens(&tokens, &mut self.losses);
            }
            self.write(part, &tokens)?;
        }
        if let Some(text) = texts.first().filter(|_| counting && is_first && self.losses.keep_all()) {
            self.manifest.notes.extend(changed_front(self.tokenizer, text)?);
        }
        Ok(())
    }

    fn write(&mut self, part: &Part, tokens: &[u32]) -> Result<(), DataError> {
        if self.between {
            // Only now is it certain that another document follows.
            self.manifest.separator = self.tokenizer.separator_as(self.options.eot.as_deref())?;
            self.shards.push(&self.manifest.separator)?;
            self.ends.add(self.shards.tokens());
        }
        self.shards.push(tokens)?;
        self.manifest.characters += part.text.chars().count() as u64;
        self.manifest.documents += u64::from(part.ends);
        self.between = part.ends;
        Ok(())
    }
}

/// A note if decoding does not restore the front of a text.
fn changed_front(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>, DataError> {
    let front = text.get(..text.floor_char_boundary(COMPARED)).unwrap_or_default();
    Ok(difference(front, &tokenizer.decode(&tokenizer.encode(front)?)?))
}
