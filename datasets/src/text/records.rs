//! Lines of JSON: every line is an object, the text under one of its keys is a document.

use std::io::BufRead;
use std::ops::ControlFlow;

use serde_json::{Map, Value};

use super::foreign;
use super::opened::{Event, Flow, Opened, Sink};
use crate::errors::{DataError, PackError, Problem};

/// The default key of the text in a record.
pub(crate) const TEXT_KEY: &str = "text";

/// How a line must be, for messages.
const RULE: &str = "every line must be an object with its text under one key, `text` or the one that `polaron data pack --key \
                    NAME` names; `--skip-bad` leaves such lines out";

/// Reads a file of records; blank lines and empty documents are ignored.
pub(super) fn read(file: &Opened<'_>, reader: &mut dyn BufRead, sink: Sink<'_>) -> Flow {
    let (path, mut line, mut offset) = (file.path, Vec::new(), file.offset);
    for number in 1.. {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(file.failed())?;
        if length == 0 {
            break;
        }
        let begins = offset;
        offset += length;
        let text = match std::str::from_utf8(&line) {
            Ok(text) => text,
            Err(error) => {
                let (before, around) = line.split_at(error.valid_up_to());
                let source = || Box::new(file.not_utf8(begins + before.len(), before, around));
                file.bad(number, error.into(), |_| DataError::InLine { line: number, source: source() })?;
                continue;
            }
        };
        // Files that were joined keep their marks.
        let unmarked = text.trim_start_matches('\u{feff}');
        if unmarked.len() < text.len() {
            file.notes.add(format!("byte order marks inside `{}` are removed", path.display()));
        }
        let record = unmarked.trim();
        if record.is_empty() {
            continue;
        }
        let bad = |problem| {
            PackError::BadRecord { path: path.into(), unit: "line", line: number, problem, rule: RULE }.into()
        };
        let document = match document(record, file.key) {
            Ok(document) => document,
            Err(problem) => {
                file.bad(number, problem, bad)?;
                continue;
            }
        };
        if !document.is_empty()
            && (sink(path, Event::Text(&document))?.is_break() || sink(path, Event::End)?.is_break())
        {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Reads a file of the ending `.json`, which may be lines of records.
pub(super) fn read_json(file: &Opened<'_>, reader: &mut dyn BufRead, sink: Sink<'_>) -> Flow {
    let front = file.start.trim_ascii_start();
    let is_object = |line: &str| serde_json::from_str::<Map<String, Value>>(line).is_ok();
    // If the front has no line break, the first line is a long record or a long document; reading it will tell.
    let are_lines = front.starts_with(b"{") && file.first_line().is_none_or(is_object);
    if are_lines || front.is_empty() {
        read(file, reader, sink)
    } else {
        Err(foreign::json_document(file.path, file.compression, front.starts_with(b"[")))
    }
}

/// Whether the first line is a record with a text.
pub(super) fn begins_with_record(file: &Opened<'_>) -> bool {
    file.first_line().is_some_and(|line| line.starts_with('{') && document(line, file.key).is_ok())
}

fn document(line: &str, key: &str) -> Result<String, Problem> {
    let Value::Object(mut record) = serde_json::from_str(line)? else { return Err("it is not an object".into()) };
    match record.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("its `{key}` is not a string").into()),
        None => {
            let keys: Vec<&str> = record.keys().take(8).map(String::as_str).collect();
            Err(format!("it has no key `{key}`, only: {}", keys.join(", ")).into())
        }
    }
}
