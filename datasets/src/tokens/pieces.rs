//! Where long texts are cut, for encoding and for learning.

/// A text longer than this is encoded in pieces, each cut at the first suitable place after this many bytes.
const PIECE: usize = 1 << 16;
/// A piece without such a place is cut here.
const LONGEST_PIECE: usize = 1 << 20;
/// Longer words are learnt from in parts of this many characters.
const LONGEST_WORD: usize = 256;
/// Bytes that a BPE learns from, at the front of the text, up to the end of the piece in which the number is reached.
pub(crate) const LESSONS: usize = 64 << 20;

/// What a BPE learns from texts: their pieces up to 64 MiB. That is enough for any vocabulary of a small model and limits the
/// time.
pub(crate) fn lessons<'a>(texts: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut length = 0;
    texts.flat_map(pieces).take_while(move |piece| {
        let begins = length;
        length += piece.len();
        begins < LESSONS
    })
}

/// A piece in parts without words of more than [`LONGEST_WORD`] characters: the time to learn from a word grows with the square
/// of its length. Text with shorter words is one part.
fn parts(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let (part, after) = rest.split_at(end_of_part(rest));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// The parts of a piece, owned.
pub(super) fn owned_parts<S: AsRef<str>>(piece: S) -> Vec<String> {
    parts(piece.as_ref()).map(String::from).collect()
}

/// The end of the first [`LONGEST_WORD`] consecutive characters of one class in GPT-2's word splitting.
fn end_of_part(text: &str) -> usize {
    let (mut run, mut class) = (0, 0);
    for (offset, character) in text.char_indices() {
        let present = match character {
            c if c.is_alphabetic() => 0,
            c if c.is_numeric() => 1,
            c if c.is_whitespace() => 2,
            _ => 3,
        };
        run = if present == class { run + 1 } else { 1 };
        class = present;
        if run > LONGEST_WORD {
            return offset;
        }
    }
    text.len()
}

/// The pieces in which a text is encoded.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = match first_cut(rest) {
            Some(cut) => rest.split_at(cut),
            None if rest.is_empty() => return None,
            None => (rest, ""),
        };
        rest = after;
        Some(piece)
    })
}

/// Where the first piece of `text` ends; None if it may extend beyond the end.
///
/// The cut is between a letter or digit and white space: no word in GPT-2's or Llama's splitting crosses such a place, so
/// the pieces give the tokens of the whole text. The cut depends only on the text before it, so a text that is read block
/// by block is cut at the same places.
fn first_cut(text: &str) -> Option<usize> {
    let mut before = ' ';
    for (offset, character) in text.char_indices() {
        if offset >= LONGEST_PIECE || (offset >= PIECE && before.is_alphanumeric() && character.is_whitespace()) {
            return Some(offset);
        }
        before = character;
    }
    None
}

/// Length of the part of `text` that can be encoded before more of it is known.
pub(crate) fn complete(text: &str) -> usize {
    let mut end = 0;
    while let Some(cut) = text.get(end..).and_then(first_cut) {
        end += cut;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_text_and_no_longer_than_they_may_be() {
        let words = "word. Another1 ".repeat(20_000);
        let solid = "x".repeat(LONGEST_PIECE + 5);
        let wide = "\u{1F600}".repeat(LONGEST_PIECE / 4 + 9);
        for text in ["", "short", &words, &solid, &wide] {
            let all: Vec<&str> = pieces(text).collect();
            assert_eq!(all.concat(), text);
            assert!(all.iter().all(|piece| piece.len() <= LONGEST_PIECE + 3));
        }
        assert!(pieces(&words).all(|piece| piece.len() < PIECE + 20));
    }

    #[test]
    fn what_is_complete_ends_at_a_cut_of_the_whole() {
        let text = "some words, more words;  and\n\n more ".repeat(9_000);
        let lengths: Vec<usize> = pieces(&text).map(str::len).collect();
        for end in [0, 1000, PIECE, PIECE + 40, 3 * PIECE + 777, text.len()] {
            let known = complete(&text[..end]);
            assert!(known <= end && end - known < 2 * PIECE);
            let parts: Vec<usize> = pieces(&text[..known]).map(str::len).collect();
            assert_eq!(parts, lengths[..parts.len()], "{end}");
        }
    }
}
