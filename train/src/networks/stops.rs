//! Texts at which generating stops, looked for in text that comes in pieces.

/// Looks for texts in pieces of text. What may be the beginning of one of them is held back until more is known.
#[derive(Clone, Debug)]
pub struct Stops<'a> {
    texts: &'a [String],
    held: String,
}

impl<'a> Stops<'a> {
    /// Looks for any of `texts`.
    pub fn new(texts: &'a [String]) -> Self {
        Self { texts, held: String::new() }
    }

    /// Takes a piece. Returns the text that can be shown now, and whether one of the texts was found, which ends what is
    /// shown: neither it nor anything after it is part of that.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.texts.iter().filter_map(|text| self.held.find(text.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let may_begin = |at: &usize| {
            let end = self.held.get(*at..);
            end.is_some_and(|end| self.texts.iter().any(|text| text.starts_with(end)))
        };
        let at = (0..self.held.len()).find(may_begin).unwrap_or(self.held.len());
        let held = self.held.split_off(at);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// What is still held back, when no more text comes.
    pub fn rest(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of pieces, and whether a text was found.
    fn shown(texts: &[&str], pieces: &[&str]) -> (String, bool) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let (mut stops, mut all) = (Stops::new(&texts), String::new());
        for piece in pieces {
            let (text, found) = stops.push(piece);
            all.push_str(&text);
            if found {
                return (all, true);
            }
        }
        (all + &stops.rest(), false)
    }

    #[test]
    fn text_ends_before_the_first_of_the_texts_however_it_is_cut() {
        let text = "one\n\ntwo END three";
        for size in 1..=text.len() {
            let pieces: Vec<&str> =
                (0..text.len()).step_by(size).map(|at| &text[at..(at + size).min(text.len())]).collect();
            assert_eq!(shown(&["END", "\n\nt"], &pieces), ("one".into(), true), "{size}");
            assert_eq!(shown(&["END"], &pieces), ("one\n\ntwo ".into(), true), "{size}");
            assert_eq!(shown(&["ENDS", "\n\n\n"], &pieces), (text.into(), false), "{size}");
            assert_eq!(shown(&[], &pieces), (text.into(), false), "{size}");
        }
    }

    #[test]
    fn only_what_may_begin_a_text_is_held_back() {
        let texts = ["\u{e9}nd".to_owned()];
        let mut stops = Stops::new(&texts);
        assert_eq!(stops.push("a \u{e9}"), ("a ".into(), false));
        assert_eq!(stops.push("n\u{e9}"), ("\u{e9}n".into(), false));
        assert_eq!(stops.push("nd."), (String::new(), true));
    }
}
