//! The machine: devices, threads, memory, signals, and what a terminal shows.

pub mod device;
pub mod interrupt;
pub mod memory;
pub mod panics;
pub mod progress;
pub mod workers;
