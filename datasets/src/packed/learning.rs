//! The tokenizer of a packing: read from a file, or made for the texts.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;

use super::options::{PackProgress, PackTokenizer};
use crate::errors::DataError;
use crate::text::{Event, Sources};
use crate::tokenizer_kind::TokenizerKind;
use crate::tokens::{Characters, LESSONS, Tokenizer, complete, pieces};

/// Pieces that wait between reading and learning.
const WAITING: usize = 16;

/// The tokenizer and the kind that was asked for.
pub(super) fn make_tokenizer(
    asked: &PackTokenizer,
    sources: &Sources,
    progress: &mut (dyn FnMut(PackProgress) + Send),
) -> Result<(TokenizerKind, Tokenizer), DataError> {
    let total = sources.bytes();
    let mut report = |read| progress(PackProgress { doing: "learning the tokenizer", read, total });
    let kind = match asked {
        PackTokenizer::Kind(kind) => *kind,
        PackTokenizer::File(path) => return Ok((TokenizerKind::File, Tokenizer::from_file(path)?)),
    };
    let tokenizer = match kind {
        TokenizerKind::Byte => Tokenizer::byte(),
        TokenizerKind::Bpe(vocab_size) => learn(vocab_size, sources, &mut report)?,
        TokenizerKind::File => return Err(DataError::NoTokenizerFile),
        TokenizerKind::Char | TokenizerKind::Auto => {
            let mut characters = Characters::default();
            sources.read(&mut report, &mut |_, event| {
                match event {
                    Event::Text(text) => characters.add(text),
                    Event::End => characters.end_document(),
                }
                Ok(ControlFlow::Continue(()))
            })?;
            Tokenizer::char_of(characters)
        }
    };
    Ok((kind, tokenizer))
}

/// Reads on one thread and learns on another, so that only a few pieces are in memory at a time.
fn learn(vocab_size: usize, sources: &Sources, report: &mut (dyn FnMut(u64) + Send)) -> Result<Tokenizer, DataError> {
    let (sender, receiver) = sync_channel::<String>(WAITING);
    let (mut text, mut length) = (String::new(), 0);
    // Whether the learner needs more. It closes the channel early only if it failed; then its error is returned.
    let mut send = move |text: &str| {
        pieces(text).all(|piece| {
            let begins = length;
            length += piece.len();
            begins < LESSONS && sender.send(piece.into()).is_ok()
        })
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            sources.read(report, &mut |_, event| {
                let ready = match event {
                    Event::Text(more) => {
                        text.push_str(more);
                        complete(&text)
                    }
                    Event::End => text.len(),
                };
                let wanted = send(text.get(..ready).unwrap_or_default());
                text.drain(..ready);
                Ok(if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        });
        let tokenizer = Tokenizer::bpe_from(vocab_size, receiver.into_iter());
        match reader.join() {
            Ok(result) => result.and(tokenizer),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
