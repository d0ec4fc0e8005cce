//! Grains: results that depend neither on the number of threads nor on that of processes; and launches that cannot work.

use crate::support::{Place, Said};

/// Grains of the runs below; their batch has 4 rows.
const GRAINS: &[&str] = &["--set", "train.grains=4", "--steps", "12", "--set", "train.checkpoint_every=4"];

fn train(place: &Place, more: &[&str]) -> Said {
    place.train(&[GRAINS, more].concat())
}

#[track_caller]
pub fn are_equal(place: &Place, step: u64, runs: &[&str]) {
    let file = |run: &str, name: &str| place.read(&format!("{run}/checkpoints/step-{step:06}/{name}.safetensors"));
    for run in &runs[1..] {
        for name in ["model", "optimizer"] {
            assert!(file(run, name) == file(runs[0], name), "{name} of {run} and of {} differ", runs[0]);
        }
        assert_eq!(place.timeless_events(run), place.timeless_events(runs[0]), "metrics of {run} and of {}", runs[0]);
    }
}

#[test]
fn with_grains_no_bit_depends_on_the_number_of_threads() {
    let place = Place::new();
    for threads in ["1", "2", "3", "5"] {
        train(&place, &["--threads", threads, "--out", threads]).succeeds();
    }
    are_equal(&place, 12, &["1", "2", "3", "5"]);
}

#[test]
fn a_grain_is_a_part_of_a_micro_batch() {
    let place = Place::new();
    let accumulated = |threads: &str| {
        let parts =
            ["--set", "train.grains=2", "--set", "train.accumulation=2", "--threads", threads, "--out", threads];
        train(&place, &parts).succeeds();
    };
    ["1", "2"].into_iter().for_each(accumulated);
    are_equal(&place, 12, &["1", "2"]);
    place.train(&["--set", "train.grains=5"]).fails(2, &["`train.grains`", "5", "a micro-batch has 4 rows"]);
    let parts = ["--set", "train.grains=3", "--set", "train.accumulation=2"];
    place.train(&parts).fails(2, &["`train.grains`", "a micro-batch has 2 rows"]);
}

#[test]
fn as_many_grains_as_threads_is_what_two_threads_did_before() {
    let place = Place::new();
    let steps = ["--steps", "12", "--set", "train.checkpoint_every=4"];
    place.train(&[&steps[..], &["--out", "before"]].concat()).succeeds();
    place.train(&[&steps[..], &["--set", "train.grains=2", "--threads", "1", "--out", "grains"]].concat()).succeeds();
    are_equal(&place, 12, &["before", "grains"]);
}

#[test]
fn a_run_keeps_its_grains_and_is_resumed_on_any_number_of_threads() {
    let place = Place::new();
    train(&place, &["--out", "whole"]).succeeds();
    train(&place, &["--steps", "12", "--out", "run"]).succeeds();
    for step in [8, 12] {
        std::fs::remove_dir_all(place.path(&format!("run/checkpoints/step-{step:06}"))).unwrap();
    }
    // Neither the grains nor the threads of the run.
    let said = place.train(&["--steps", "12", "--set", "train.checkpoint_every=4", "--threads", "1", "--out", "run"]);
    assert!(said.succeeds().err.contains("4 grains a batch"));
    are_equal(&place, 12, &["whole", "run"]);
    let other =
        place.train(&["--steps", "12", "--set", "train.checkpoint_every=4", "--set", "train.grains=2", "--out", "run"]);
    other.fails(2, &["`train.grains` is 4 there and 2 now"]);
}

#[test]
fn processes_without_a_launcher_are_refused_and_not_trained_n_times() {
    let place = Place::new();
    let mut command = place.command(&["train", "--data", "text.txt", "--out", "run"]);
    let said = Said::from(command.env("WORLD_SIZE", "4").output().unwrap());
    said.fails(2, &["`WORLD_SIZE` is 4", "polaron launch --ranks 4", "mpirun -np 4"]);
    assert!(!place.path("run").exists());
}

#[test]
fn a_launch_of_nothing_or_of_another_command_is_refused() {
    let place = Place::new();
    place.run(&["launch", "--ranks", "0", "--", "train"]).fails(2, &["--ranks is 0"]);
    place.run(&["launch", "--ranks", "2", "--", "list"]).fails(2, &["can only train"]);
    place.run(&["launch", "--ranks", "2"]).fails(2, &["train"]);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_says_how_to_build_it_and_trains_nothing() {
    let place = Place::new();
    let mut command = place.command(&["train", "--data", "text.txt", "--out", "run"]);
    let said = Said::from(command.env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap());
    said.fails(2, &["started as 2 processes", "--features mpi"]);
    place.run(&["launch", "--ranks", "2", "--", "train"]).fails(2, &["--features mpi"]);
    assert!(!place.path("run").exists());
}
