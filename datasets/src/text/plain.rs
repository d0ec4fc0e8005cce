//! Plain text: the whole file is one document.

use std::io::{BufRead, ErrorKind};
use std::ops::ControlFlow;

use super::decompress::BLOCK;
use super::opened::{Event, Flow, Opened, Sink};
use super::records;

/// Reads a file block by block; a character that a block cuts waits for the next.
pub(super) fn read(file: &Opened<'_>, reader: &mut dyn BufRead, sink: Sink<'_>) -> Flow {
    let path = file.path;
    if records::begins_with_record(file) {
        file.notes.add(format!(
            "`{}` is read as one plain text, although its first line is a JSON record: rename it to .jsonl to read records",
            path.display()
        ));
    }
    let mut block = vec![0; BLOCK];
    let (mut held, mut offset) = (0, file.offset);
    loop {
        let length = match reader.read(block.get_mut(held..).unwrap_or_default()) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(file.failed()(error)),
        };
        let bytes = block.get(..held + length).unwrap_or_default();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // At the end of the file nothing can complete a character.
            Err(error) if error.error_len().is_none() && length > 0 => {
                bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
            }
            Err(error) => {
                let (before, around) = bytes.split_at(error.valid_up_to());
                return Err(file.not_utf8(offset + before.len(), before, around));
            }
        };
        if text.contains('\u{feff}') {
            file.notes.add(format!(
                "`{}` has byte order marks (U+FEFF) inside the text, which are kept: marked files were joined",
                path.display()
            ));
        }
        if !text.is_empty() && sink(path, Event::Text(text))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let (valid, filled) = (text.len(), held + length);
        block.copy_within(valid..filled, 0);
        (held, offset) = (filled - valid, offset + valid);
        if length == 0 {
            return if offset > file.offset { sink(path, Event::End) } else { Ok(ControlFlow::Continue(())) };
        }
    }
}
