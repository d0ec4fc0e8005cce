//! Encoding texts into shards.

use std::ops::ControlFlow;
use std::path::Path;

use super::manifest::Manifest;
use super::options::{PackOptions, PackTokenizer};
use super::shards::Shards;
use crate::errors::DataError;
use crate::text::Event;
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::{Losses, Tokenizer, complete, difference};

/// Text that is compared with what its tokens decode to.
const COMPARED: usize = 1 << 15;
/// Text that is collected before it is encoded: enough pieces to keep every processor busy.
const GATHERED: usize = 1 << 20;

/// Encodes texts as they are read.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a PackOptions,
    pub losses: Losses,
    pub shards: Shards<'a>,
    /// Text of the current document that is not encoded yet.
    text: String,
    /// Whether a document has ended and nothing has been written since.
    between: bool,
    /// Gets the numbers of documents and characters, the separator and a note.
    manifest: &'a mut Manifest,
}

impl<'a> Encoder<'a> {
    pub fn new(
        tokenizer: &'a Tokenizer,
        options: &'a PackOptions,
        shards: Shards<'a>,
        manifest: &'a mut Manifest,
    ) -> Self {
        Self { tokenizer, options, losses: Losses::default(), shards, text: String::new(), between: false, manifest }
    }

    /// Takes an event of the file at `path`.
    pub fn take(&mut self, path: &Path, event: Event<'_>) -> Result<ControlFlow<()>, DataError> {
        let in_file = |source| DataError::InFile { path: path.into(), source: Box::new(source) };
        match event {
            Event::Text(text) => {
                self.text.push_str(text);
                if self.text.len() >= GATHERED {
                    self.encode(complete(&self.text)).map_err(in_file)?;
                }
            }
            Event::End => {
                self.encode(self.text.len()).map_err(in_file)?;
                self.manifest.documents += 1;
                self.between = true;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Encodes the first `end` bytes of the collected text.
    fn encode(&mut self, end: usize) -> Result<(), DataError> {
        if self.between {
            // Only now is it certain that another document follows.
            self.manifest.separator = self.tokenizer.separator()?;
            self.shards.push(&self.manifest.separator)?;
            self.between = false;
        }
        let text = self.text.get(..end).unwrap_or_default();
        let from_file = matches!(self.options.tokenizer, PackTokenizer::File(_));
        // With an alphabet, the first unknown character is an error, unless unknown ones are allowed.
        let counting = from_file && (self.options.allow_unknown || self.tokenizer.kind() != TokenizerKind::Char);
        if counting {
            let is_first = self.losses.is_empty();
            let tokens = self.tokenizer.encode_counting(text, &mut self.losses)?;
            if is_first && self.losses.keep_all() {
                self.manifest.notes.extend(changed_front(self.tokenizer, text)?);
            }
            self.shards.push(&tokens)?;
        } else {
            self.shards.push(&self.tokenizer.encode(text)?)?;
        }
        self.manifest.characters += text.chars().count() as u64;
        self.text.drain(..end);
        Ok(())
    }
}

/// A note if decoding does not restore the front of a text.
fn changed_front(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>, DataError> {
    let front = text.get(..text.floor_char_boundary(COMPARED)).unwrap_or_default();
    Ok(difference(front, &tokenizer.decode(&tokenizer.encode(front)?)?))
}
