//! What processes that train together ask of each other.

use std::fmt::Debug;
use std::ops::Add;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, RanksError};
use crate::host::workers::Workers;

/// The processes of a run, seen by one of them. All of them call the same methods in the same order; every call waits for the
/// others. A process that cannot answer ends the whole run, so that no method fails.
pub trait Ranks: Debug {
    /// The number of this one, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn count(&self) -> usize;

    /// Sends to every rank its part of `send`, `counts` numbers each in the order of the ranks, and returns what they send to this
    /// one, `received` numbers each.
    fn exchange(&self, send: &[f32], counts: &[usize], received: &[usize]) -> Vec<f32>;

    /// The numbers of all ranks one after the other, `counts` of each.
    fn gather(&self, own: &[f32], counts: &[usize]) -> Vec<f32>;

    /// The message of every rank.
    fn gather_bytes(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// The message of every rank, on the one that leads; none on the others, which need no memory for them.
    fn collect_bytes(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// Whether this one writes the files of the run and talks to the user.
    fn leads(&self) -> bool {
        self.rank() == 0
    }
}

/// What every rank tells the others.
///
/// # Errors
///
/// [`RanksError::Message`] for a message that cannot be read: another version of the program.
pub fn tell<T: Serialize + DeserializeOwned>(ranks: &dyn Ranks, own: &T) -> Result<Vec<T>, Error> {
    let unreadable = |rank: usize, error: &dyn ToString| RanksError::Message { rank, message: error.to_string() };
    let mut bytes = Vec::new();
    ciborium::into_writer(own, &mut bytes).map_err(|error| unreadable(ranks.rank(), &error))?;
    let read = |(rank, bytes): (usize, Vec<u8>)| {
        ciborium::from_reader(bytes.as_slice()).map_err(|error| unreadable(rank, &error).into())
    };
    ranks.gather_bytes(&bytes).into_iter().enumerate().map(read).collect()
}

/// Who shares work: the workers of this process, and the processes beside it.
#[derive(Clone, Copy, Debug)]
pub struct Crew<'a> {
    /// Threads of this process.
    pub workers: &'a Workers,
    /// The processes; None for a single one.
    pub ranks: Option<&'a dyn Ranks>,
}

impl<'a> Crew<'a> {
    /// The workers of a single process.
    pub fn alone(workers: &'a Workers) -> Self {
        Self { workers, ranks: None }
    }

    /// The number of this process, and how many there are.
    pub fn place(&self) -> (usize, usize) {
        self.ranks.map_or((0, 1), |ranks| (ranks.rank(), ranks.count()))
    }

    /// The part of `items` that this process works on: every n-th.
    pub fn mine<T>(&self, items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        let (rank, count) = self.place();
        items.skip(rank).step_by(count)
    }

    /// The results of all items in their order, given those of [`Self::mine`].
    ///
    /// # Errors
    ///
    /// Those of [`tell`].
    pub fn all<T: Serialize + DeserializeOwned>(&self, mine: Vec<T>) -> Result<Vec<T>, Error> {
        let Some(ranks) = self.ranks else { return Ok(mine) };
        Ok(in_turn(tell(ranks, &mine)?))
    }
}

/// Where each of several parts begins that lie one after the other.
pub fn starts<T: Copy + Default + Add<Output = T>>(lengths: &[T]) -> Vec<T> {
    lengths.iter().scan(T::default(), |start, length| Some(std::mem::replace(start, *start + *length))).collect()
}

/// The first of each, then the second of each, as long as there are some.
pub fn in_turn<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(lists.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_where_the_ones_before_end() {
        assert_eq!(starts(&[3, 0, 2]), [0, 3, 3]);
    }

    #[test]
    fn shares_of_every_nth_come_back_in_order() {
        assert_eq!(in_turn(vec![vec![0, 3, 6], vec![1, 4], vec![2, 5]]), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(in_turn(vec![vec![0], vec![], vec![]]), [0]);
        assert!(in_turn::<u8>(vec![]).is_empty());
    }
}
