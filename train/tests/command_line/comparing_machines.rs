//! Comparisons whose runs something else starts: a prefix, or the scheduler of a cluster.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::comparing::{ONE_RATE, TWO, compare, losses, spawn, wait_for_runs};
use crate::support::{Place, Said, names_in, wait};

fn with<'a>(launch: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [ONE_RATE, &["--launch", launch], more].concat()
}

#[test]
fn a_prefix_changes_no_result_and_is_no_part_of_the_plan() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let long = ["--set", "train.checkpoint_every=5", "--out", "d"];
    let mut child = spawn(&place, &with("nice -n 1", &long));
    wait_for_runs(&place, "d", 2, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    // Another prefix, with words in quotation marks, then none.
    place.write("pass.sh", b"echo \"$1\" >> said.txt; shift; \"$@\"");
    place.run(&["compare", "d", "--launch", "sh pass.sh 'two words'"]).succeeds();
    assert!(String::from_utf8(place.read("said.txt")).unwrap().lines().all(|line| line == "two words"));
    place.run(&["compare", "d"]).succeeds();
    assert_eq!(losses(&place, "d"), losses(&place, "c"));
    let plan = |out: &str| {
        let text = String::from_utf8(place.read(&format!("{out}/plan.toml"))).unwrap();
        text.lines().filter(|line| !line.starts_with("checkpoint_every")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(plan("d"), plan("c"));
}

#[test]
fn a_prefix_that_cannot_start_a_run_is_one_clear_error() {
    let place = Place::new();
    let before = names_in(&place.path(""));
    for (launch, fragment) in [("srun 'a", "left open"), ("", "names no program")] {
        compare(&place, &with(launch, &[])).fails(2, &["--launch", fragment]);
    }
    for flag in ["--next", "--dry-run"] {
        compare(&place, &with("nice", &[flag])).fails(2, &["--launch", flag]);
    }
    assert_eq!(names_in(&place.path("")), before, "something was written");
    compare(&place, &with("no-such-launcher -n1", &[])).fails(2, &["cannot start `no-such-launcher` of --launch"]);
    let named = ["the run `verdict-", "started with --launch", "c/logs/verdict-"];
    let refused = |launch: &str, fragments: &[&str]| {
        place.run(&["compare", "c", "--launch", launch]).fails(1, &[&named, fragments].concat());
    };
    refused("sh -c 'echo launcher: no nodes are free >&2; exit 7'", &["exit code 7", "launcher: no nodes are free"]);
    refused("true", &["it must wait for the program", "its log is empty"]);
    // A run that says itself why it fails is not the fault of the prefix.
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).ok();
    std::fs::create_dir_all(place.path("c/runs/verdict-muon-s2/in the way")).unwrap();
    place.run(&["compare", "c", "--launch", "nice"]).fails(2, &["the run `verdict-muon-s2` failed", "is not empty"]);
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).unwrap();
    place.run(&["compare", "c"]).succeeds();
}

#[test]
fn a_prefix_with_an_exit_code_of_its_own_is_said_and_the_run_counts() {
    let place = Place::new();
    place.write("nine.sh", b"\"$@\"; exit 9");
    let said = compare(&place, &with("sh nine.sh", &[])).succeeds();
    assert!(said.err.contains("the run has ended, but `sh nine.sh` ended with exit status: 9"), "{said:?}");
}

fn signal(child: &Child) {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn is_interrupted(place: &Place) -> bool {
    let names = names_in(&place.path("c/runs"));
    let read = |name: &String| std::fs::read_to_string(place.path(&format!("c/runs/{name}/metrics.jsonl")));
    names.iter().filter_map(|name| read(name).ok()).any(|text| text.contains("\"interrupted\""))
}

#[test]
fn runs_behind_a_prefix_are_saved_when_the_comparison_stops_whether_their_input_is_passed_on_or_not() {
    for script in ["\"$@\"", "exec \"$@\" < /dev/null"] {
        let place = Place::new();
        place.write("prefix.sh", script.as_bytes());
        let mut child = spawn(&place, &with("sh prefix.sh", &["--steps", "1000000"]));
        wait_for_runs(&place, "c", 1, &mut child);
        signal(&child);
        let said: Said = child.wait_with_output().unwrap().into();
        assert_eq!(said.code, Some(130), "{script}: {said:?}");
        assert!(is_interrupted(&place), "{script}: no run says that it was interrupted");
    }
}

#[test]
fn runs_behind_a_prefix_are_saved_when_the_comparison_is_killed() {
    let place = Place::new();
    place.write("prefix.sh", b"\"$@\"");
    let mut child = spawn(&place, &with("sh prefix.sh", &["--steps", "1000000"]));
    wait_for_runs(&place, "c", 1, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut clock = Command::new("sleep").arg("60").spawn().unwrap();
    wait(&mut clock, || is_interrupted(&place));
    assert!(clock.try_wait().unwrap().is_none(), "no run was saved within a minute");
    clock.kill().unwrap();
    clock.wait().unwrap();
}

/// The lines that `--next` prints, after a check of its exit code.
#[track_caller]
fn lines(said: &Said) -> Vec<String> {
    let lines: Vec<String> = said.out.lines().map(String::from).collect();
    assert!(lines.iter().all(|line| line.starts_with("cd ") && line.contains(" train ")), "{said:?}");
    assert!(!said.err.contains("error"), "{said:?}");
    lines
}

/// Runs a line in a shell, in another folder.
fn pasted(line: &str) -> Output {
    Command::new("/bin/sh").arg("-c").arg(line).current_dir("/").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_listed_runs_make_the_comparison_stage_by_stage_from_any_folder() {
    let place = Place::new();
    compare(&place, &[TWO, &["--out", "calm"]].concat()).succeeds();
    let out = "it's a $HOME \"folder\"";
    let arguments = [TWO, &["--out", out, "--next"]].concat();
    let first = compare(&place, &arguments);
    assert_eq!(first.code, Some(1), "{first:?}");
    assert_eq!(lines(&first).len(), 4, "{first:?}");
    assert!(lines(&first).iter().all(|line| line.contains("/runs/tune-")), "{first:?}");
    // The same list until a run has ended.
    let plan = place.read(&format!("{out}/plan.toml"));
    assert_eq!(place.run(&["compare", out, "--next"]).out, first.out);
    assert_eq!(place.read(&format!("{out}/plan.toml")), plan);
    let mut rounds = 0;
    loop {
        let said = place.run(&["compare", out, "--next"]);
        let listed = lines(&said);
        if said.code == Some(0) {
            assert!(listed.is_empty() && said.err.contains("no run is left"), "{said:?}");
            break;
        }
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(!listed.is_empty(), "{said:?}");
        for line in &listed {
            assert!(pasted(line).status.success(), "{line}");
        }
        // A second time there is nothing to do.
        let again: Said = pasted(&listed[0]).into();
        assert!(again.err.contains("already finished"), "{again:?}");
        rounds += 1;
        assert!(rounds < 10);
    }
    assert!(rounds >= 2, "tuning and verdict are stages");
    let said = place.run(&["compare", out]).succeeds();
    assert!(!said.err.contains("verdict  "), "it trained: {said:?}");
    assert_eq!(losses(&place, out), losses(&place, "calm"));
    assert_eq!(names_in(&place.path(&format!("{out}/runs"))), names_in(&place.path("calm/runs")));
}

#[test]
fn a_run_that_another_process_trains_is_left_but_not_listed() {
    let place = Place::new();
    let arguments = [ONE_RATE, &["--steps", "1000000", "--next"]].concat();
    let first = compare(&place, &arguments);
    let listed = lines(&first);
    assert_eq!((first.code, listed.len()), (Some(1), 4), "{first:?}");
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(listed[0].replace("&& ", "&& exec "))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_runs(&place, "c", 1, &mut child);
    let said = place.run(&["compare", "c", "--next"]);
    // The same line on another machine.
    let twice: Said = pasted(&listed[0]).into();
    signal(&child);
    child.wait().unwrap();
    assert_eq!((said.code, lines(&said)), (Some(1), listed[1..].to_vec()), "{said:?}");
    assert!(said.err.contains("begin now: 3, under way: 1"), "{said:?}");
    twice.fails(2, &["another process is training"]);
    // Interrupted, it is listed again.
    assert_eq!(lines(&place.run(&["compare", "c", "--next"])), listed);
}

#[test]
fn a_list_of_a_bad_plan_is_refused_and_nothing_is_written() {
    let place = Place::new();
    let before = names_in(&place.path(""));
    let refused = |more: &[&str], fragments: &[&str]| {
        let said = compare(&place, &[ONE_RATE, &["--next"], more].concat());
        assert_eq!(said.out, "");
        said.fails(2, fragments);
        assert_eq!(names_in(&place.path("")), before, "something was written");
    };
    refused(&["--data", "nowhere.txt"], &["nowhere.txt"]);
    refused(&["--seeds", "0"], &["compare.seeds"]);
    refused(&["--out", "two\nlines"], &["two\\nlines", "one command a line"]);
    refused(&["--dry-run"], &["--next", "--dry-run"]);
}

/// The scripts of the section "On a cluster" of docs/COMPARING.md.
fn scripts() -> [String; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/COMPARING.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut blocks = text.split("```bash\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    [blocks.next().unwrap(), blocks.next().unwrap()]
}

#[test]
fn the_scripts_for_slurm_make_a_comparison() {
    let place = Place::new();
    let [task, driver] = scripts();
    place.write("task.sh", task.as_bytes());
    place.write("compare.sh", driver.as_bytes());
    place.write("plan.toml", PLAN);
    // In place of Slurm: every task of the array, here.
    std::fs::create_dir(place.path("bin")).unwrap();
    place.write(
        "bin/sbatch",
        b"#!/bin/bash\n[ \"$1\" = --wait ] || exit 1\nlast=${2#--array=1-}\nfor i in $(seq $last); do SLURM_ARRAY_TASK_ID=$i bash $3 $4 || code=1; done\nexit $code\n",
    );
    std::fs::set_permissions(place.path("bin/sbatch"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_polaron")).parent().unwrap();
    let path = format!("{}:{}:{}", place.path("bin").display(), program.display(), std::env::var("PATH").unwrap());
    let script = || {
        let mut bash = Command::new("bash");
        bash.args(["compare.sh", "c", "plan.toml"]).current_dir(place.path("")).env("PATH", &path).stdin(Stdio::null());
        Said::from(bash.output().unwrap())
    };
    let said = script().succeeds();
    assert!(said.out.contains("ranking: "), "{said:?}");
    place.run(&["compare", "plan.toml", "--out", "plain"]).succeeds();
    assert_eq!(losses(&place, "c"), losses(&place, "plain"));
    // A run that cannot be made ends the script.
    std::fs::remove_dir_all(place.path("c/runs/verdict-muon-s2")).unwrap();
    std::fs::create_dir_all(place.path("c/runs/verdict-muon-s2/in the way")).unwrap();
    let said = script();
    assert!(said.code == Some(1) && said.err.contains("no run of next.txt has ended"), "{said:?}");
}

const PLAN: &[u8] = b"optimizers = ['adamw', 'muon']
[compare]
steps = 20
tune_steps = 10
seeds = 2
lrs = [0.003, 0.01]
extensions = 1
[data]
source = 'text.txt'
[model]
d_model = 16
layers = 1
heads = 2
context = 16
[train]
batch = 4
";
