//! How data are split: the end of them, a given share, is for validation.

use crate::errors::DataError;

/// Refuses a share that is not strictly between 0 and 1.
pub(crate) fn check_fraction(value: f64) -> Result<(), DataError> {
    // Written so that NaN fails too.
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(DataError::BadFraction { value }) }
}

/// How many of `count` items are for training: `count * (1 - valid_fraction)`, truncated to a whole number.
pub(crate) fn training_part(count: u64, valid_fraction: f64) -> u64 {
    ((count as f64 * (1.0 - valid_fraction)) as u64).min(count)
}

/// Ends of documents that are remembered, 8 MiB of them; of more, some that lie close together are left out.
const REMEMBERED: usize = 1 << 20;

/// Where the documents of a sequence of tokens end, so that its validation split can begin with a document.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    places: Vec<u64>,
    /// Remembered ends are at least so many tokens apart.
    spacing: u64,
}

impl Ends {
    /// A document, with what separates it from the next, ends after `place` tokens. The places ascend.
    pub fn add(&mut self, place: u64) {
        if self.places.last().is_some_and(|last| place < last + self.spacing) {
            return;
        }
        self.places.push(place);
        while self.places.len() >= REMEMBERED {
            self.spacing = (2 * self.spacing).max(1);
            let mut last = None;
            self.places.retain(|place| {
                let kept = last.is_none_or(|last| *place >= last + self.spacing);
                last = if kept { Some(*place) } else { last };
                kept
            });
        }
    }

    /// How many of `count` tokens are for training, and a note if the border divides a document.
    ///
    /// The border is the end of a document that is nearest to that of [`training_part`], unless this would change a split by more
    /// than half; a single document is divided as if it were none.
    pub fn training_part(&self, count: u64, valid_fraction: f64) -> (u64, Option<String>) {
        let exact = training_part(count, valid_fraction);
        if self.places.is_empty() {
            return (exact, None);
        }
        let next = self.places.partition_point(|place| *place < exact);
        let after = self.places.get(next).copied();
        let before = next.checked_sub(1).and_then(|before| self.places.get(before)).copied();
        let most = exact.min(count - exact) / 2;
        let nearest = before.into_iter().chain(after).min_by_key(|place| place.abs_diff(exact));
        if let Some(place) = nearest.filter(|place| place.abs_diff(exact) <= most) {
            return (place, None);
        }
        let (inside, beyond) = (exact - before.unwrap_or(0), after.unwrap_or(count) - exact);
        let note = format!(
            "the validation split begins inside a document, {inside} tokens of which are in the training split and {beyond} in \
             the validation split: no document ends near the border"
        );
        (exact, Some(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(places: &[u64]) -> Ends {
        let mut ends = Ends::default();
        places.iter().for_each(|place| ends.add(*place));
        ends
    }

    #[test]
    fn the_border_is_the_nearest_end_of_a_document() {
        for (places, expected) in
            [(&[][..], 90), (&[40, 88, 94], 88), (&[40, 87, 92], 92), (&[90], 90), (&[85], 85), (&[88, 92], 88)]
        {
            assert_eq!(ends(places).training_part(100, 0.1), (expected, None), "{places:?}");
        }
    }

    #[test]
    fn a_divided_document_is_noted() {
        for (places, parts) in
            [(&[84][..], ["6 tokens", "10 in"]), (&[20, 96], ["70 tokens", "6 in"]), (&[96], ["90 tokens", "6 in"])]
        {
            let (border, note) = ends(places).training_part(100, 0.1);
            let note = note.unwrap();
            assert!(border == 90 && parts.iter().all(|part| note.contains(part)), "{note}");
        }
    }

    #[test]
    fn many_ends_are_thinned_evenly() {
        let mut ends = Ends::default();
        let documents = 5 * REMEMBERED as u64 / 2;
        (1..=documents).for_each(|document| ends.add(10 * document));
        assert!(ends.places.len() < REMEMBERED && ends.places.len() > REMEMBERED / 4);
        let (border, note) = ends.training_part(10 * documents, 0.1);
        assert!(note.is_none() && border % 10 == 0 && border.abs_diff(9 * documents) < 100, "{border}");
    }
}
