//! The machine: devices, threads, memory, other processes, signals, and what a terminal shows.

pub mod device;
pub mod interrupt;
pub mod memory;
pub mod panics;
pub mod processor;
pub mod progress;
pub mod ranks;
pub mod tree;
pub mod watchdog;
pub mod workers;
