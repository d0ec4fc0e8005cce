//! Ranks through MPI. All calls come from the main thread.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use mpi::Threading;
use mpi::datatype::{Equivalence, Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use super::exchange::{Ranks, starts};
use crate::error::RanksError;

/// The most elements of one call: MPI counts them, and where they begin, in 32 bits.
const LARGEST: usize = 1 << 30;

/// The rank that leads.
const LEADER: i32 = 0;

thread_local! {
    /// MPI, between [`enter`] and [`leave`]. Dropping it waits for all other processes: after an error or a panic that would be for
    /// ever, so it is only dropped on purpose.
    static UNIVERSE: RefCell<Option<ManuallyDrop<Universe>>> = const { RefCell::new(None) };
}

/// Joins the processes that the launcher has started, `count` as it says.
pub fn enter(count: usize) -> Result<Box<dyn Ranks>, RanksError> {
    let unusable = |message: String| RanksError::Unusable { message };
    let (universe, level) =
        mpi::initialize_with_threading(Threading::Funneled).ok_or_else(|| unusable("it is in use already".into()))?;
    let world = universe.world();
    UNIVERSE.set(Some(ManuallyDrop::new(universe)));
    if level < Threading::Funneled {
        return Err(unusable("it was built without support for threads".into()));
    }
    let (rank, size) = (world.rank() as usize, world.size() as usize);
    if size != count {
        return Err(unusable(format!("the launcher started {count} processes, of which MPI knows {size}")));
    }
    Ok(Box::new(World { world, rank, count, largest: LARGEST }))
}

/// Waits for all processes, and ends MPI.
pub fn leave() {
    if let Some(universe) = UNIVERSE.take() {
        drop(ManuallyDrop::into_inner(universe));
    }
}

/// Ends all processes, if MPI was begun.
pub fn abort(code: u8) {
    if mpi::is_initialized() && !mpi::is_finalized() {
        SimpleCommunicator::world().abort(i32::from(code));
    }
}

struct World {
    world: SimpleCommunicator,
    rank: usize,
    count: usize,
    /// The most elements of one call.
    largest: usize,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.count)
    }
}

impl Ranks for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn exchange(&self, send: &[f32], counts: &[usize], received: &[usize]) -> Vec<f32> {
        let mut all = vec![0.0; received.iter().sum()];
        // No rank knows the counts of all pairs, but all must call as often.
        let longest = counts.iter().chain(received).max().copied().unwrap_or_default() as u64;
        let mut longests = vec![0_u64; self.count];
        self.world.all_gather_into(&longest, &mut longests[..]);
        let (longest, most) = (longests.into_iter().max().unwrap_or_default() as usize, self.largest / self.count);
        if longest <= most {
            let whole = Parts { first: 0, most };
            self.exchange_once(send, &whole.counts(counts), &mut all, &whole.counts(received));
            return all;
        }
        for part in Parts::of(longest, most) {
            let come = part.counts(received);
            let mut incoming = vec![0.0; come.iter().sum::<i32>() as usize];
            self.exchange_once(&part.packed(send, counts), &part.counts(counts), &mut incoming, &come);
            part.unpack(&incoming, received, &mut all);
        }
        all
    }

    fn gather(&self, own: &[f32], counts: &[usize]) -> Vec<f32> {
        self.gather_any(own, counts)
    }

    fn gather_bytes(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let lengths = self.lengths(own);
        cut(&self.gather_any(own, &lengths), &lengths)
    }

    fn collect_bytes(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let lengths = self.lengths(own);
        let (longest, most) = (lengths.iter().max().copied().unwrap_or_default(), self.largest / self.count);
        let leader = self.world.process_at_rank(LEADER);
        let mut all = vec![0; if self.leads() { lengths.iter().sum() } else { 0 }];
        for part in Parts::of(longest, most) {
            let outgoing = &own[part.within(own.len())];
            if !self.leads() {
                leader.gather_varcount_into(outgoing);
                continue;
            }
            let come = part.counts(&lengths);
            let mut incoming = vec![0_u8; come.iter().sum::<i32>() as usize];
            let to = starts(&come);
            leader.gather_varcount_into_root(outgoing, &mut PartitionMut::new(&mut incoming[..], &come[..], &to[..]));
            part.unpack(&incoming, &lengths, &mut all);
        }
        if self.leads() { cut(&all, &lengths) } else { Vec::new() }
    }
}

impl World {
    /// How long the messages of all ranks are.
    fn lengths(&self, own: &[u8]) -> Vec<usize> {
        let mut lengths = vec![0_u64; self.count];
        self.world.all_gather_into(&(own.len() as u64), &mut lengths[..]);
        lengths.into_iter().map(|length| length as usize).collect()
    }

    fn exchange_once(&self, send: &[f32], counts: &[i32], receive: &mut [f32], come: &[i32]) {
        let (from, to) = (starts(counts), starts(come));
        let mut places = PartitionMut::new(receive, come, &to[..]);
        self.world.all_to_all_varcount_into(&Partition::new(send, counts, &from[..]), &mut places);
    }

    fn gather_once<T: Equivalence>(&self, own: &[T], receive: &mut [T], come: &[i32]) {
        let to = starts(come);
        self.world.all_gather_varcount_into(own, &mut PartitionMut::new(receive, come, &to[..]));
    }

    fn gather_any<T: Equivalence + Copy + Default>(&self, own: &[T], counts: &[usize]) -> Vec<T> {
        let mut all = vec![T::default(); counts.iter().sum()];
        let (longest, most) = (counts.iter().max().copied().unwrap_or_default(), self.largest / self.count);
        if longest <= most {
            self.gather_once(own, &mut all, &Parts { first: 0, most }.counts(counts));
            return all;
        }
        for part in Parts::of(longest, most) {
            let come = part.counts(counts);
            let mut incoming = vec![T::default(); come.iter().sum::<i32>() as usize];
            self.gather_once(&own[part.within(own.len())], &mut incoming, &come);
            part.unpack(&incoming, counts, &mut all);
        }
        all
    }
}

/// Messages of these lengths that lie one after the other.
fn cut(all: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    starts(lengths).into_iter().zip(lengths).map(|(start, length)| all[start..start + length].to_vec()).collect()
}

/// The elements of every message that one of several calls moves.
#[derive(Clone, Copy, Debug)]
struct Parts {
    first: usize,
    most: usize,
}

impl Parts {
    /// The calls that move messages of at most `longest` elements, with at most `most` of each in one call.
    fn of(longest: usize, most: usize) -> impl Iterator<Item = Self> {
        (0..longest).step_by(most).map(move |first| Self { first, most })
    }

    /// Those of a message of this length.
    fn within(&self, length: usize) -> std::ops::Range<usize> {
        self.first.min(length)..(self.first + self.most).min(length)
    }

    fn counts(&self, lengths: &[usize]) -> Vec<i32> {
        // At most `most`, which is below 2^31.
        lengths.iter().map(|length| self.within(*length).len() as i32).collect()
    }

    /// Those of all messages, which lie one after the other in `all`.
    fn packed<T: Copy>(&self, all: &[T], lengths: &[usize]) -> Vec<T> {
        let mut rest = all;
        let mut packed = Vec::new();
        for length in lengths {
            let (message, behind) = rest.split_at(*length);
            packed.extend_from_slice(&message[self.within(*length)]);
            rest = behind;
        }
        packed
    }

    /// Puts them back to where they belong in `all`.
    fn unpack<T: Copy>(&self, packed: &[T], lengths: &[usize], all: &mut [T]) {
        let (mut rest, mut start) = (packed, 0);
        for length in lengths {
            let place = self.within(*length);
            let (message, behind) = rest.split_at(place.len());
            all[start + place.start..start + place.end].copy_from_slice(message);
            (rest, start) = (behind, start + length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end() {
        assert_eq!(cut(&[1, 2, 3, 4, 5], &[3, 0, 2]), [vec![1, 2, 3], vec![], vec![4, 5]]);
    }

    #[test]
    fn long_messages_are_moved_in_parts_and_arrive_whole() {
        let (lengths, all) = ([5, 0, 3], [0, 1, 2, 3, 4, 50, 51, 52]);
        for most in 1..=6 {
            let mut arrived = [99; 8];
            for part in Parts::of(5, most) {
                let packed = part.packed(&all, &lengths);
                assert_eq!(part.counts(&lengths).iter().sum::<i32>() as usize, packed.len());
                part.unpack(&packed, &lengths, &mut arrived);
            }
            assert_eq!(arrived, all, "{most} in a call");
        }
    }

    #[test]
    #[ignore = "started below, on three ranks"]
    fn exchanges_in_small_parts() {
        let _universe = mpi::initialize().unwrap();
        let world = SimpleCommunicator::world();
        let (rank, count) = (world.rank() as usize, world.size() as usize);
        // Four messages of at most one element each in a call.
        let ranks = World { world, rank, count, largest: count };
        // From rank i to rank j: i + 2 j numbers.
        let message = |from: usize, to: usize| (0..from + 2 * to).map(move |at| (100 * from + 10 * to + at) as f32);
        let counts = |own: &dyn Fn(usize) -> usize| (0..count).map(own).collect::<Vec<_>>();
        let send: Vec<f32> = (0..count).flat_map(|to| message(rank, to)).collect();
        let (sent, received) = (counts(&|to| rank + 2 * to), counts(&|from| from + 2 * rank));
        let expected: Vec<f32> = (0..count).flat_map(|from| message(from, rank)).collect();
        assert_eq!(ranks.exchange(&send, &sent, &received), expected);
        let own: Vec<f32> = message(rank, 1).collect();
        let expected: Vec<f32> = (0..count).flat_map(|from| message(from, 1)).collect();
        assert_eq!(ranks.gather(&own, &counts(&|from| from + 2)), expected);
        let messages = (0..count).map(|from| vec![from as u8; 3 * from]).collect::<Vec<_>>();
        assert_eq!(ranks.gather_bytes(&messages[rank]), messages);
        assert_eq!(ranks.collect_bytes(&messages[rank]), if rank == 0 { messages } else { Vec::new() });
    }

    #[test]
    fn messages_of_all_lengths_arrive_in_any_number_of_calls() {
        let said = crate::host::ranks::tests::start(3, "host::ranks::mpi::tests::exchanges_in_small_parts");
        let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && text.matches("1 passed").count() == 3, "{text}");
    }
}
