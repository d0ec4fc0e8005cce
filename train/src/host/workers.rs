//! Host threads that each work on a part of a batch.
//!
//! On a CPU the operations of a small model are too short to be split among threads one by one; splitting the rows of a
//! batch keeps every core busy. Each worker has a thread pool of a single thread, so that its operations run one after the
//! other and their results cannot depend on what the other workers do.

use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::Error;

/// A fixed number of workers.
#[derive(Debug)]
pub struct Workers {
    /// Empty for a single worker.
    pools: Vec<ThreadPool>,
    /// Whether a single worker is a thread of rayon's own pool, and not the calling thread.
    pooled: bool,
}

impl Workers {
    /// `count` workers. 1 is a thread of rayon's own pool; 0 is the calling thread, for devices that do not compute on the
    /// CPU's threads but queue the operations of every calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`] when the system cannot start that many threads.
    pub fn new(count: usize) -> Result<Self, Error> {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let pools = (0..if count > 1 { count } else { 0 }).map(pool).collect::<Result<Vec<_>, _>>();
        let pools = pools.map_err(Error::device_failed("starting its worker threads"))?;
        Ok(Self { pools, pooled: count > 0 })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Runs a single task. On a CPU it runs inside rayon's pool: from outside, every parallel operation has to be handed to the
    /// pool and waited for, which was 6 % of a step of `llama-d64`.
    pub fn alone<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        if self.pooled { rayon::scope(|_| task()) } else { task() }
    }

    /// Runs one task per worker at the same time; results are in the order of the tasks. Tasks beyond the number of workers
    /// are distributed round-robin and wait for their worker.
    pub fn run<T: Send, F: FnOnce() -> T + Send>(&self, tasks: Vec<F>) -> Vec<T> {
        if self.pools.is_empty() || tasks.len() <= 1 {
            return self.alone(|| tasks.into_iter().map(|task| task()).collect());
        }
        std::thread::scope(|scope| {
            let workers = self.pools.iter().cycle();
            let start = |(pool, task): (_, F)| {
                let pool: &ThreadPool = pool;
                scope.spawn(move || pool.install(task))
            };
            let running: Vec<_> = workers.zip(tasks).map(start).collect();
            let finish = |thread: std::thread::ScopedJoinHandle<'_, T>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().map(finish).collect()
        })
    }
}

impl Workers {
    /// Calls `work` on every item, each on the next free worker; items are started in their order.
    pub fn each<T: Send>(&self, items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
        let (queue, work) = (Mutex::new(items), &work);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let tasks = (0..self.count()).map(|_| {
            || {
                while let Some(item) = next() {
                    work(item);
                }
            }
        });
        self.run(tasks.collect());
    }
}

/// Splits `rows` into at most `parts` ranges whose lengths differ by at most one; returns pairs of first row and number of
/// rows.
pub fn shares(rows: usize, parts: usize) -> Vec<(usize, usize)> {
    let parts = parts.clamp(1, rows.max(1));
    let start = |part: usize| part * (rows / parts) + part.min(rows % parts);
    (0..parts).map(|part| (start(part), start(part + 1) - start(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_tasks() {
        for count in [0, 1, 2, 3] {
            let workers = Workers::new(count).unwrap();
            let tasks: Vec<_> = (0..7).map(|i| move || i * i).collect();
            assert_eq!(workers.run(tasks), [0, 1, 4, 9, 16, 25, 36], "{count} workers");
        }
    }

    #[test]
    fn inside_a_worker_there_is_one_thread() {
        let workers = Workers::new(2).unwrap();
        assert_eq!(workers.run(vec![rayon::current_num_threads, rayon::current_num_threads]), [1, 1]);
    }

    #[test]
    fn every_item_is_worked_on_once() {
        for count in [0, 1, 3] {
            let workers = Workers::new(count).unwrap();
            let mut items = vec![0; 100];
            workers.each(items.iter_mut(), |item| *item += 1);
            assert_eq!(items, [1; 100], "{count} workers");
        }
    }

    #[test]
    fn a_panic_in_a_worker_is_a_panic_of_the_caller() {
        let workers = Workers::new(2).unwrap();
        let result = crate::host::panics::catch(|| workers.run(vec![|| 1, || panic!("broken")]));
        assert!(result.is_err());
    }

    #[test]
    fn every_row_belongs_to_one_share() {
        assert_eq!(shares(12, 2), [(0, 6), (6, 6)]);
        assert_eq!(shares(5, 3), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(shares(2, 8), [(0, 1), (1, 1)]);
        assert_eq!(shares(3, 0), [(0, 3)]);
    }
}
