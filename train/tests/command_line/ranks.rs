//! Several processes that train one run, by Open MPI: the bytes of a single process, whatever happens on the way.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::grains::are_equal;
use crate::support::{Place, Said, TINY, wait};

const STEPS: u64 = 12;
const SETTINGS: &[&str] = &[
    "--steps",
    "12",
    "--set",
    "train.batch=12",
    "--set",
    "train.grains=12",
    "--set",
    "train.checkpoint_every=4",
    "--set",
    "train.keep=9",
    "--set",
    "train.valid_every=4",
    "--set",
    "train.sample_tokens=0",
];

/// As the super-user, and in containers where processes may not read each other's memory.
const OPEN_MPI: [(&str, &str); 3] = [
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
];

/// Arguments of `polaron train` with the settings of these runs.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train"], TINY, SETTINGS, &["--threads", "1"], more].concat()
}

/// `mpirun` with several groups of processes, each with its own arguments.
fn mpirun(place: &Place, groups: &[(usize, Vec<&str>)]) -> Command {
    let mut command = Command::new("mpirun");
    command.envs(OPEN_MPI).env_remove("RUST_LOG").current_dir(place.path("")).stdin(Stdio::null());
    command.args(["--quiet", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]);
    for (at, (ranks, arguments)) in groups.iter().enumerate() {
        if at > 0 {
            command.arg(":");
        }
        command.args(["-np", &ranks.to_string(), env!("CARGO_BIN_EXE_polaron")]).args(arguments);
    }
    command
}

fn on(place: &Place, ranks: usize, more: &[&str]) -> Said {
    mpirun(place, &[(ranks, train(more))]).output().unwrap().into()
}

fn alone(place: &Place, more: &[&str]) {
    place.run(&train(more)).succeeds();
}

/// What the user is told, without what `mpirun` says about processes that ended.
#[track_caller]
fn refused(said: &Said, code: i32, fragments: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    let errors: Vec<&str> = said.err.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{said:?}");
    for fragment in fragments {
        assert!(errors[0].contains(fragment), "{fragment:?} is not in {said:?}");
    }
}

/// Starts ranks of a run that lasts until it is stopped.
fn begin(place: &Place, ranks: usize, more: &[&str]) -> Child {
    let long = train(&[&["--steps", "100000", "--set", "schedule.kind=constant", "--out", "run"], more].concat());
    let mut child = mpirun(place, &[(ranks, long)]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for_step("run", 6, &mut child);
    child
}

/// The processes of a run that trains into the folder of a place, by their number.
fn ranks_of(child: &Child) -> Vec<i32> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let pids = std::fs::read_to_string(children).unwrap();
    let mut pids: Vec<i32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let rank = |pid: &i32| {
        let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&variables).into_owned();
        text.split('\0').find_map(|line| line.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse::<usize>().ok())
    };
    pids.retain(|pid| rank(pid).is_some());
    pids.sort_by_key(rank);
    pids
}

fn signal(name: &str, pid: i32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn end(child: Child) -> Said {
    child.wait_with_output().unwrap().into()
}

/// The step of the newest checkpoint of `run`.
fn saved(place: &Place) -> u64 {
    let steps = crate::support::names_in(&place.path("run/checkpoints"));
    steps.iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap()
}

/// Resumes `run` up to a step beyond what it has, on other numbers of ranks, and compares with an undisturbed run of one process.
#[track_caller]
fn ends_like_an_undisturbed_run(place: &Place) {
    let steps = (saved(place) / 4 + 4) * 4;
    let text = String::from_utf8(place.read("run/config.toml")).unwrap();
    assert!(text.contains("steps = 100000"));
    let last = steps.to_string();
    let extended = |from: &str, out: &str, ranks: usize| {
        let arguments =
            ["train", "--extend", from, "--steps", &last, "--keep-schedule", "--out", out, "--threads", "1"];
        mpirun(place, &[(ranks, arguments.to_vec())]).output().map(Said::from).unwrap().succeeds();
    };
    extended("run", "ended", 3);
    let calm = train(&["--steps", &last, "--set", "schedule.kind=constant", "--out", "calm"]);
    place.run(&calm).succeeds();
    for name in ["model", "optimizer"] {
        let file = |run: &str| place.read(&format!("{run}/checkpoints/step-{steps:06}/{name}.safetensors"));
        assert!(file("ended") == file("calm"), "{name} differs");
    }
}

#[test]
fn any_number_of_ranks_and_threads_ends_in_the_same_bytes() {
    let place = Place::new();
    alone(&place, &["--out", "one"]);
    alone(&place, &["--threads", "2", "--out", "threads"]);
    for ranks in [2, 3, 4] {
        on(&place, ranks, &["--out", &format!("ranks-{ranks}")]).succeeds();
    }
    on(&place, 2, &["--threads", "2", "--out", "both"]).succeeds();
    are_equal(&place, STEPS, &["one", "threads", "ranks-2", "ranks-3", "ranks-4", "both"]);
    let plan = String::from_utf8(place.read("ranks-3/plan.txt")).unwrap();
    let owner = |rank: &str| plan.lines().any(|line| line.trim_start().starts_with(&format!("{rank}  ")));
    assert!(["0", "1", "2"].into_iter().all(owner) && !owner("3"), "{plan}");
    let log = String::from_utf8(place.read("ranks-3/logs/rank-2.log")).unwrap();
    assert!(log.contains("on each of 3 ranks, 12 grains a batch") && log.contains("step 12/12"), "{log}");
}

#[test]
fn every_kind_of_run_can_be_shared() {
    let place = Place::new();
    let kinds: &[(&str, &[&str])] = &[
        ("experts", &["--model", "olmoe-tiny"]),
        ("perceptron", &["--model", "mlp", "--data", "digits", "--set", "model.width=16", "--set", "model.depth=1"]),
        ("micro-batches", &["--set", "train.accumulation=4", "--set", "train.grains=3"]),
        ("look-ahead", &["--optimizer", "adamw", "--set", "optimizer.wrapper={kind='ema_nesterov'}"]),
        ("schedule-free", &["--optimizer", "soap", "--set", "optimizer.wrapper={kind='schedule_free'}"]),
        ("average", &["--set", "train.average={from=2}", "--set", "train.spectra_every=4"]),
        ("heads", &["--model", "nanogpt-char", "--set", "optimizer.qk_clip=0.01", "--set", "train.logits_every=2"]),
        ("adapters", &["--set", "train.lora.rank=4", "--set", "train.lora.refactor_every=4", "--freeze", "**.lora.a"]),
        ("draws", &["--optimizer", "random_spectrum", "--set", "train.recompute=true"]),
        ("clipping", &["--set", "optimizer.clip=0.01"]),
    ];
    for (name, keys) in kinds {
        // These have their own sizes, or keys that the thumbnail sets for another model.
        let given: Vec<&str> = match *name {
            "perceptron" => [&["train"], SETTINGS, &["--threads", "1"], *keys].concat(),
            _ => train(keys),
        };
        let [one, three] = ["one", "three"].map(|ranks| format!("{name}-{ranks}"));
        place.run(&[&given[..], &["--out", &one]].concat()).succeeds();
        let shared = [&given[..], &["--out", &three]].concat();
        mpirun(&place, &[(3, shared)]).output().map(Said::from).unwrap().succeeds();
        are_equal(&place, STEPS, &[&one, &three]);
    }
}

#[test]
fn a_run_is_resumed_on_any_other_number_of_ranks() {
    let place = Place::new();
    alone(&place, &["--out", "whole"]);
    for (saved_by, resumed_by) in [(1, 2), (2, 1), (2, 3), (4, 2)] {
        let run = format!("{saved_by}-{resumed_by}");
        on(&place, saved_by, &["--out", &run]).succeeds();
        for step in [8, 12] {
            std::fs::remove_dir_all(place.path(&format!("{run}/checkpoints/step-{step:06}"))).unwrap();
        }
        let said = on(&place, resumed_by, &["--out", &run]).succeeds();
        assert!(said.err.contains("from its checkpoint of step 4"), "{said:?}");
        are_equal(&place, STEPS, &["whole", &run]);
    }
    // A finished run says so once.
    let said = on(&place, 3, &["--out", "whole"]).succeeds();
    assert_eq!(said.err.matches("already finished").count(), 1, "{said:?}");
}

#[test]
fn without_grains_as_many_are_chosen_as_all_ranks_have_threads() {
    let place = Place::new();
    let plain = [&["train"], TINY, &["--steps", "4", "--threads", "1", "--out", "run"]].concat();
    let said = mpirun(&place, &[(3, plain)]).output().map(Said::from).unwrap().succeeds();
    assert!(said.err.contains("1 threads on each of 3 ranks, 4 grains a batch"), "{said:?}");
    assert!(String::from_utf8(place.read("run/config.toml")).unwrap().contains("grains = 4"));
}

#[test]
fn a_killed_rank_ends_the_run_and_costs_no_bit() {
    for rank in [0, 1] {
        let place = Place::new();
        let mut child = begin(&place, 2, &[]);
        let pids = ranks_of(&child);
        assert_eq!(pids.len(), 2);
        let start = Instant::now();
        signal("-KILL", pids[rank]);
        wait(&mut child, || false);
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_ne!(end(child).code, Some(0));
        ends_like_an_undisturbed_run(&place);
    }
}

#[test]
fn a_rank_that_hangs_ends_the_run_after_the_time_limit() {
    for rank in [0, 1] {
        let place = Place::new();
        let mut child = begin(&place, 3, &["--set", "ranks.timeout=2"]);
        signal("-STOP", ranks_of(&child)[rank]);
        let start = Instant::now();
        wait(&mut child, || false);
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        refused(&end(child), 1, &["no step was made for 2 s", "`ranks.timeout`"]);
        ends_like_an_undisturbed_run(&place);
    }
}

#[test]
fn sigusr1_saves_and_ends_on_all_ranks() {
    let place = Place::new();
    let child = begin(&place, 3, &[]);
    signal("-USR1", child.id() as i32);
    let said = end(child);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert_eq!(said.err.matches("interrupted: finishing this step").count(), 1, "{said:?}");
    let step = saved(&place);
    assert!(said.err.contains(&format!("saved at step {step} of 100000")), "{said:?}");
    ends_like_an_undisturbed_run(&place);
}

#[test]
fn an_interrupted_launch_saves_and_ends() {
    for name in ["-INT", "-HUP", "-USR1"] {
        let place = Place::new();
        let long = train(&["--steps", "100000", "--set", "schedule.kind=constant", "--out", "run"]);
        let mut command = place.command(&[&["launch", "--ranks", "3", "--"], &long[..]].concat());
        command.envs(OPEN_MPI);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        place.wait_for_step("run", 6, &mut child);
        signal(name, child.id() as i32);
        let said = end(child);
        assert_eq!(said.code, Some(130), "{name}: {said:?}");
        assert!(said.err.contains("mpirun ") && said.err.contains("saved at step"), "{name}: {said:?}");
        ends_like_an_undisturbed_run(&place);
    }
}

#[test]
fn a_launch_ends_with_the_code_of_its_run() {
    let place = Place::new();
    let launch = |more: &[&str]| {
        let mut command = place.command(&[&["launch", "--ranks", "2", "--"], &train(more)[..]].concat());
        Said::from(command.envs(OPEN_MPI).output().unwrap())
    };
    launch(&["--out", "run"]).succeeds();
    refused(&launch(&["--out", "run", "--lr", "0.5"]), 2, &["`optimizer.lr` is 0.02 there and 0.5 now"]);
    let missing = place.run(&["launch", "--ranks", "2", "--mpirun", "/no/mpirun", "--", "train"]);
    missing.fails(2, &["`/no/mpirun` was not found", "--mpirun"]);
}

#[test]
fn ranks_that_differ_are_refused_by_rank_and_part() {
    let place = Place::new();
    place.write("other.txt", b"Another text, which the other rank does not have.\n".repeat(100).as_slice());
    let pair = |more: &[&str]| {
        let groups = [(1, train(&["--out", "run"])), (1, train(&[&["--out", "run"], more].concat()))];
        Said::from(mpirun(&place, &groups).output().unwrap())
    };
    refused(&pair(&["--lr", "0.5"]), 2, &["rank 1 has another `optimizer.lr` than rank 0 (0.5, and there 0.02)"]);
    refused(&pair(&["--data", "other.txt"]), 2, &["rank 1 has another text or other data than rank 0"]);
    refused(&pair(&["--data", "gone.txt"]), 2, &["rank 1: ", "gone.txt"]);
    refused(&pair(&["--set", "model.d_model=32"]), 2, &["rank 1 has another `model.d_model`"]);
    assert!(!place.path("run").exists());
}

#[test]
fn bad_input_is_said_once_and_ends_all_ranks() {
    let place = Place::new();
    refused(&on(&place, 3, &["--set", "train.stesp=3"]), 2, &["unknown key `train.stesp`"]);
    refused(&on(&place, 3, &["--stesp", "3"]), 2, &["unexpected argument '--stesp'"]);
    refused(&on(&place, 3, &["--set", "train.grains=2"]), 2, &["3 processes cannot share 2 grains"]);
    refused(&on(&place, 2, &["--set", "ranks.timeout=0"]), 2, &["`ranks.timeout`"]);
    for key in ["probe_every", "sharpness_every", "energy_every"] {
        let set = format!("train.{key}=4");
        refused(&on(&place, 2, &["--set", &set]), 2, &[&format!("`train.{key}` is measured by a single process")]);
    }
    assert!(!place.path("runs").exists());
}

#[test]
fn a_diverged_run_says_so_once_on_the_rank_that_talks() {
    let place = Place::new();
    let said = on(&place, 3, &["--optimizer", "sgd", "--lr", "1e30", "--out", "run"]);
    refused(&said, 1, &["the run diverged at step", "first non-finite gradient", "the checkpoint of step 0 is intact"]);
    let alone = place.run(&train(&["--optimizer", "sgd", "--lr", "1e30", "--out", "alone"]));
    let place_of = |said: &Said| said.err.lines().find(|line| line.starts_with("error:")).map(String::from);
    assert_eq!(place_of(&said), place_of(&alone), "the first parameter that is not finite is found on all ranks");
}

#[test]
fn a_full_disk_of_the_rank_that_writes_ends_all_and_keeps_what_was_saved() {
    let place = Place::new();
    let keep = ["--steps", "60", "--set", "train.checkpoint_every=1", "--set", "train.keep=60"];
    let Some(said) = place.on_small_disk("250k", &mpirun(&place, &[(2, train(&keep))])) else { return };
    assert!(said.out.contains("exit 2"), "{said:?}");
    assert!(said.err.contains("error: cannot write `disk/run/") && said.err.contains("No space left"), "{said:?}");
    assert!(said.out.contains("step-000000") && !said.out.contains(".tmp-"), "{said:?}");
}
