//! Encodings of text other than UTF-8: they are named, never converted silently.

use std::path::Path;

use super::compression::{Compression, with_suffix};
use crate::errors::DataError;
use crate::quote::quoted;

/// The byte order mark of UTF-8.
pub(super) const MARK: &[u8] = "\u{feff}".as_bytes();

/// An encoding, by the name under which `iconv` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding(&'static str);

impl Encoding {
    /// The encoding of a byte order mark at the front, other than that of UTF-8.
    pub fn of_mark(start: &[u8]) -> Option<Self> {
        let marks: [(&[u8], &str); 4] = [
            (b"\xff\xfe\0\0", "UTF-32"),
            (b"\0\0\xfe\xff", "UTF-32"),
            (b"\xff\xfe", "UTF-16"),
            (b"\xfe\xff", "UTF-16"),
        ];
        marks.into_iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, name)| Self(name))
    }

    /// UTF-16 or UTF-32 without a mark: zero bytes only at every second or at three of four places, and characters of a text.
    pub fn without_mark(start: &[u8]) -> Option<Self> {
        let zeros_at = |rest: usize| start.iter().skip(rest).step_by(4).filter(|byte| **byte == 0).count();
        let [a, b, c, d] = [0, 1, 2, 3].map(zeros_at);
        let units = start.len() / 4;
        if units > 0 && a == 0 && c >= units && d >= units {
            return Some(Self("UTF-32LE"));
        }
        if units > 0 && d == 0 && a >= units && b >= units {
            return Some(Self("UTF-32BE"));
        }
        if a + c == 0 && b + d > 0 && is_utf16(start, u16::from_le_bytes) {
            return Some(Self("UTF-16LE"));
        }
        (b + d == 0 && a + c > 0 && is_utf16(start, u16::from_be_bytes)).then_some(Self("UTF-16BE"))
    }

    /// The most likely encoding of a text that is not UTF-8.
    fn of_bytes(bytes: &[u8]) -> Self {
        let windows = bytes.iter().any(|byte| (0x80..0xa0).contains(byte));
        Self(if windows { "WINDOWS-1252" } else { "ISO-8859-1" })
    }
}

fn is_utf16(start: &[u8], unit: fn([u8; 2]) -> u16) -> bool {
    let units: Vec<u16> = start.as_chunks::<2>().0.iter().map(|pair| unit(*pair)).collect();
    // A surrogate pair that the end of the block cuts counts as one error.
    let errors = char::decode_utf16(units.iter().copied()).filter(Result::is_err).count();
    let controls = units.iter().filter(|unit| **unit < 32 && ![9, 10, 12, 13].contains(*unit)).count();
    errors <= 1 && controls * 100 <= units.len()
}

/// Whether bytes are not a text in any single-byte encoding: they have too many control characters.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    let controls = bytes.iter().filter(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31)).count();
    controls * 100 > bytes.len()
}

/// The command that converts a text to UTF-8.
fn command(path: &Path, compression: Compression, from: &str, options: &str) -> String {
    let target = quoted(&with_suffix(path, ".utf8.txt"));
    match compression {
        Compression::None => format!("iconv {options}-f {from} -t UTF-8 {} > {target}", quoted(path)),
        _ => format!("{} -dc {} | iconv {options}-f {from} -t UTF-8 > {target}", compression.program(), quoted(path)),
    }
}

/// A text in another encoding.
pub(crate) fn wrong(path: &Path, compression: Compression, encoding: Encoding) -> DataError {
    let command = command(path, compression, encoding.0, "");
    DataError::WrongEncoding { path: path.into(), encoding: encoding.0, command }
}

/// Bytes that are not UTF-8 at `offset` of a file; `around` are the bytes from there on, `before` some of those before them.
pub(crate) fn not_utf8(
    path: &Path,
    compression: Compression,
    offset: usize,
    before: &[u8],
    around: &[u8],
) -> DataError {
    let cut = std::str::from_utf8(around).err().is_some_and(|error| error.error_len().is_none());
    let advice = if cut {
        format!(
            "the file ends inside a character, so it was truncated: download it again, or remove that part with `{}`",
            command(path, compression, "UTF-8", "-c ")
        )
    } else if !before.is_ascii() {
        format!(
            "the text before is UTF-8, so the file is damaged: restore it, or remove the bad bytes with `{}`",
            command(path, compression, "UTF-8", "-c ")
        )
    } else {
        let encoding = Encoding::of_bytes(around);
        format!(
            "it looks like {} or another old encoding: convert it to UTF-8, for example with `{}`",
            encoding.0,
            command(path, compression, encoding.0, "")
        )
    };
    DataError::NotUtf8 { path: path.into(), offset, advice }
}

/// The text of a small file, such as a configuration, without its byte order mark, and whether it had one.
///
/// # Errors
///
/// [`DataError::WrongEncoding`] and [`DataError::NotUtf8`], with the command that converts the file.
pub fn decode_utf8(path: &Path, mut bytes: Vec<u8>) -> Result<(String, bool), DataError> {
    let marked = bytes.starts_with(MARK);
    if marked {
        bytes.drain(..MARK.len());
    }
    if let Some(encoding) = Encoding::of_mark(&bytes).or_else(|| Encoding::without_mark(&bytes)) {
        return Err(wrong(path, Compression::None, encoding));
    }
    String::from_utf8(bytes).map(|text| (text, marked)).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let (before, around) = error.as_bytes().split_at(valid);
        not_utf8(path, Compression::None, valid + if marked { MARK.len() } else { 0 }, before, around)
    })
}

/// Bytes without the byte order mark of UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}
