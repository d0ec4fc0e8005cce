//! Every reader on damaged files: none panics, hangs, or takes memory that a file merely promises; what it accepts is
//! sound, what it refuses it says in words. And what is written is read back as the same.
//!
//! `corpus/READER/` holds small files: valid ones, and `bad-…`, which must be refused. Every file is read as it is, then with
//! random changes that the number of the case alone decides. `POLARON_FUZZ_CASES=100000` tries that many for every reader:
//!
//! ```text
//! POLARON_FUZZ_CASES=100000 cargo test --release -p polaron-train --test fuzz -- --test-threads 1
//! ```
//!
//! A failure names the case and leaves its input in a file; copied into the corpus it is a test from then on.

mod changes;
mod data;
mod harness;
mod round_trips;
mod runs;
mod settings;
