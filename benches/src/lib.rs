//! Benches of polaron (`cargo bench -p polaron-benches`), and in `peers/` the same work in other programs.
