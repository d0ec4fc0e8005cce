//! Kills, signals, damage and full disks: whatever happens, a run ends with the weights of an undisturbed one.

use std::process::{Child, Command};

use crate::support::{Place, Said, TINY, names_in};

const STEPS: u64 = 240;
const SETTINGS: &[&str] = &[
    "--steps",
    "240",
    "--set",
    "train.checkpoint_every=7",
    "--set",
    "train.valid_every=20",
    "--set",
    "train.spectra_every=30",
    "--set",
    "train.sample_tokens=0",
];

fn settings<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SETTINGS, more].concat()
}

fn undisturbed(place: &Place, more: &[&str]) {
    place.train(&settings(&[more, &["--out", "calm"]].concat())).succeeds();
}

#[track_caller]
fn ends_like_the_undisturbed_run(place: &Place, run: &str) {
    assert_eq!(place.weights(run, STEPS), place.weights("calm", STEPS), "the weights differ");
    let optimizer = |run: &str| place.read(&format!("{run}/checkpoints/step-{STEPS:06}/optimizer.safetensors"));
    assert_eq!(optimizer(run), optimizer("calm"), "the optimizer states differ");
    assert_eq!(place.timeless_events(run), place.timeless_events("calm"), "the metrics differ");
    assert_eq!(place.unfinished_checkpoints(run), 0, "something unfinished stayed behind");
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn terminate(child: Child) -> Said {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_run_of_before_a_key_existed_goes_on() {
    let place = Place::new();
    place.train(&["--steps", "3", "--out", "run"]).succeeds();
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    let newer = [
        "kv_heads",
        "head_dim",
        "rope_base",
        "experts",
        "aux_z",
        "parametrization",
        "valid_windows",
        "spectra_every",
        "freeze",
    ];
    let old = |line: &&str| !newer.iter().any(|key| line.starts_with(key));
    let older: Vec<&str> = config.lines().filter(old).collect();
    assert!(older.len() + newer.len() <= config.lines().count(), "{config}");
    place.write("run/config.toml", older.join("\n").as_bytes());
    assert!(place.train(&["--steps", "3", "--out", "run"]).succeeds().err.contains("already finished"));
    place.train(&["--steps", "3", "--out", "run", "--set", "model.aux_z=0.5"]).fails(2, &["`experts`"]);
    let more = ["--set", "model.head_dim=4"];
    place
        .train(&[&["--steps", "3", "--out", "run"], &more[..]].concat())
        .fails(2, &["`model.head_dim` is 0 there and 4 now"]);
}

#[test]
fn a_freon_run_of_before_its_default_changed_keeps_its_exact_method() {
    let place = Place::new();
    let freon = ["--optimizer", "freon", "--steps", "3", "--out", "run"];
    place.train(&[&freon[..], &["--set", "optimizer.matrix.method=svd"]].concat()).succeeds();
    let config = String::from_utf8(place.read("run/config.toml")).unwrap();
    let older = config.replace("method = \"svd\"\n", "");
    assert_ne!(older, config);
    place.write("run/config.toml", older.as_bytes());
    assert!(place.train(&["--resume", "run"]).succeeds().err.contains("already finished"));
    place
        .train(&freon)
        .fails(2, &["`optimizer.matrix` is { method = \"svd\" } there and { method = \"polynomial\" } now"]);
}

#[test]
fn a_killed_run_with_a_moving_exponent_ends_with_the_same_bytes() {
    let keys =
        ["c=[5, 8]", "c_start=[2, 5]", "c_switch=0.5", "c_width=0.2"].map(|key| format!("optimizer.matrix.{key}"));
    let sets = keys.iter().flat_map(|key| ["--set", key]);
    let more: Vec<&str> = ["--optimizer", "freon"].into_iter().chain(sets).collect();
    let place = Place::new();
    undisturbed(&place, &more);
    for step in [1, 33, 150] {
        let mut child = place.spawn_train(&settings(&[&more[..], &["--out", "run"]].concat()));
        place.wait_for_step("run", step, &mut child);
        kill(child);
    }
    place.train(&settings(&[&more[..], &["--out", "run"]].concat())).succeeds();
    ends_like_the_undisturbed_run(&place, "run");
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bytes() {
    let place = Place::new();
    undisturbed(&place, &[]);
    for step in [1, 33, 34, 111, 239] {
        let mut child = place.spawn_train(&settings(&["--out", "run"]));
        place.wait_for_step("run", step, &mut child);
        kill(child);
    }
    place.train(&settings(&["--out", "run"])).succeeds();
    ends_like_the_undisturbed_run(&place, "run");
}

#[test]
fn a_killed_run_with_adapters_ends_with_the_same_bytes() {
    let plain = ["--set", "train.lora.rank=2"];
    let refactored =
        ["--set", "train.lora.refactor_every=5", "--freeze", "**.lora.a", "--set", "train.spectra_every=0"];
    let averaged = ["--set", "train.average.from=20", "--set", "train.average.horizon=10"];
    let adamw = ["--optimizer", "adamw"];
    let cases =
        [plain.to_vec(), [&plain[..], &refactored, &averaged].concat(), [&plain[..], &refactored, &adamw].concat()];
    for lora in cases {
        let place = Place::new();
        undisturbed(&place, &lora);
        for step in [1, 34, 150] {
            let mut child = place.spawn_train(&settings(&[&lora, ["--out", "run"].as_slice()].concat()));
            place.wait_for_step("run", step, &mut child);
            kill(child);
        }
        place.train(&settings(&[&lora, ["--out", "run"].as_slice()].concat())).succeeds();
        ends_like_the_undisturbed_run(&place, "run");
    }
}

#[test]
fn a_killed_run_with_a_wrapper_or_an_average_ends_with_the_same_bytes() {
    let average = ["--set", "train.average.from=20", "--set", "train.average.horizon=10"];
    let outer = ["--set", "optimizer.wrapper.kind=outer_nesterov", "--set", "optimizer.wrapper.every=10"];
    let cases: [&[&str]; 5] = [
        &["--set", "optimizer.wrapper.kind=ema_nesterov", "--set", "optimizer.wrapper.prefill=10"],
        &outer,
        &["--set", "optimizer.wrapper.kind=schedule_free", "--set", "schedule.kind=constant"],
        &average,
        &[&outer[..], &average[..]].concat(),
    ];
    for more in cases {
        let place = Place::new();
        undisturbed(&place, more);
        for step in [1, 33, 150] {
            let mut child = place.spawn_train(&settings(&[more, ["--out", "run"].as_slice()].concat()));
            place.wait_for_step("run", step, &mut child);
            kill(child);
        }
        place.train(&settings(&[more, ["--out", "run"].as_slice()].concat())).succeeds();
        ends_like_the_undisturbed_run(&place, "run");
        let evaluation = |run: &str| {
            std::fs::read(place.path(&format!("{run}/checkpoints/step-{STEPS:06}/evaluation.safetensors"))).ok()
        };
        assert_eq!(evaluation("run"), evaluation("calm"), "the evaluated weights differ");
        assert_eq!(evaluation("run").is_some(), more.contains(&average[1]) || more.contains(&"schedule.kind=constant"));
    }
}

#[test]
fn first_weights_are_scaled_onto_their_balls_once() {
    let place = Place::new();
    let scion = ["--optimizer", "scion"];
    let balls = [scion.as_slice(), &["--set", "optimizer.onto_balls=true"]].concat();
    undisturbed(&place, &balls);
    for step in [1, 34] {
        let mut child = place.spawn_train(&settings(&[balls.as_slice(), &["--out", "run"]].concat()));
        place.wait_for_step("run", step, &mut child);
        kill(child);
    }
    place.train(&settings(&[balls.as_slice(), &["--out", "run"]].concat())).succeeds();
    ends_like_the_undisturbed_run(&place, "run");
    // not by default, and then nothing is written about it
    place.train(&settings(&[scion.as_slice(), &["--out", "plain"]].concat())).succeeds();
    assert_ne!(place.weights("plain", STEPS), place.weights("calm", STEPS));
    let config = |run: &str| String::from_utf8(place.read(&format!("{run}/config.toml"))).unwrap();
    assert!(config("calm").contains("onto_balls = true") && !config("plain").contains("onto_balls"));
    let muon = ["--optimizer", "muon", "--set", "optimizer.onto_balls=true", "--out", "muon"];
    place.train(&settings(&muon)).fails(2, &["only `scion` has one"]);
}

#[test]
fn a_killed_run_with_schedules_of_its_own_ends_with_the_same_bytes() {
    let place = Place::new();
    let text = "[[schedule.rule]]\noptimizer = 'adamw'\nkind = 'wsd'\nwarmup = 20\n[schedule.momentum]\nwarmup = 100\n";
    place.write("own.toml", text.as_bytes());
    let own = ["own.toml", "--set", "schedule.momentum.cooldown=60", "--set", "optimizer.adamw.lr_ratio=0.2"];
    undisturbed(&place, &own);
    for step in [33, 120, 200] {
        let mut child = place.spawn_train(&settings(&[&own, ["--out", "run"].as_slice()].concat()));
        place.wait_for_step("run", step, &mut child);
        kill(child);
    }
    place.run(&["train", "--resume", "run"]).succeeds();
    ends_like_the_undisturbed_run(&place, "run");
}

#[test]
fn a_kill_inside_checkpoint_writing_loses_nothing() {
    let place = Place::new();
    let often = ["--set", "train.checkpoint_every=1"];
    undisturbed(&place, &often);
    // A checkpoint takes a few milliseconds to write; a kill right after its folder was seen nearly always comes in time.
    let mut inside = 0;
    for _ in 0..40 {
        let mut child = place.spawn_train(&settings(&[&often, ["--out", "run"].as_slice()].concat()));
        place.wait_for_unfinished_checkpoint("run", &mut child);
        kill(child);
        inside += place.unfinished_checkpoints("run");
        if inside >= 3 {
            break;
        }
    }
    assert!(inside >= 1, "no kill came inside checkpoint writing");
    place.train(&settings(&[&often, ["--out", "run"].as_slice()].concat())).succeeds();
    ends_like_the_undisturbed_run(&place, "run");
}

#[test]
fn a_kill_before_the_first_checkpoint_begins_again() {
    let place = Place::new();
    undisturbed(&place, &[]);
    let mut child = place.spawn_train(&settings(&["--out", "run"]));
    place.wait_for_unfinished_checkpoint("run", &mut child);
    kill(child);
    place.train(&settings(&["--out", "run"])).succeeds();
    ends_like_the_undisturbed_run(&place, "run");
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_says_how_to_go_on() {
    let place = Place::new();
    undisturbed(&place, &["--optimizer", "adamw"]);
    let settings = settings(&["--optimizer", "adamw", "--out", "run"]);
    let mut child = place.spawn_train(&settings);
    place.wait_for_step("run", 50, &mut child);
    let said = terminate(child);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(said.err.contains("saved at step") && said.err.contains("--resume run"), "{said:?}");
    assert_eq!(place.events("run").last().unwrap()["status"].as_str(), Some("interrupted"));
    assert!(String::from_utf8(place.read("run/report.html")).unwrap().contains("<td>interrupted</td>"));
    let again = place.run(&["train", "--resume", "run"]).succeeds();
    assert!(again.err.contains("resuming `run`"), "{again:?}");
    // One checkpoint more than planned was written, and is gone again by retention.
    ends_like_the_undisturbed_run(&place, "run");
}

/// Stops a run in the middle, so that its newest checkpoint can be damaged.
fn stopped(place: &Place) -> String {
    let mut child = place.spawn_train(&settings(&["--out", "run"]));
    place.wait_for_step("run", 60, &mut child);
    kill(child);
    let names = names_in(&place.path("run/checkpoints"));
    names.into_iter().rfind(|name| name.starts_with("step-")).unwrap()
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let place = Place::new();
    undisturbed(&place, &[]);
    for file in ["model.safetensors", "optimizer.safetensors", "trainer.json", "complete.json"] {
        let newest = stopped(&place);
        let path = format!("run/checkpoints/{newest}/{file}");
        let mut bytes = place.read(&path);
        if file == "optimizer.safetensors" {
            bytes.truncate(bytes.len() / 2);
        } else {
            let middle = bytes.len() - 1;
            bytes[middle] ^= 4;
        }
        place.write(&path, &bytes);
        let said = place.train(&settings(&["--out", "run"])).succeeds();
        let warned =
            said.err.lines().any(|line| line.starts_with("warning:") && line.contains(&format!("{newest}/{file}")));
        assert!(warned, "{file}: {said:?}");
        assert!(said.err.contains("resuming `run`"), "{said:?}");
        ends_like_the_undisturbed_run(&place, "run");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn a_run_without_any_good_checkpoint_is_refused() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "run"]).succeeds();
    for step in ["step-000000", "step-000002"] {
        std::fs::remove_file(place.path(&format!("run/checkpoints/{step}/complete.json"))).unwrap();
    }
    place.train(&["--steps", "2", "--out", "run"]).fails(2, &["no checkpoint", "can be used"]);
}

#[test]
fn a_checkpoint_of_a_newer_program_is_refused() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "run"]).succeeds();
    let marker = "run/checkpoints/step-000002/complete.json";
    let text = String::from_utf8(place.read(marker)).unwrap().replace("\"format\":1", "\"format\":2");
    place.write(marker, text.as_bytes());
    place.train(&["--steps", "2", "--out", "run"]).fails(2, &["format 2", "newer polaron"]);
}

#[test]
fn a_text_that_has_changed_is_refused() {
    let place = Place::new();
    let child = {
        let mut child = place.spawn_train(&settings(&["--out", "run"]));
        place.wait_for_step("run", 20, &mut child);
        child
    };
    kill(child);
    let mut text = place.read("text.txt");
    text.rotate_left(1);
    place.write("text.txt", &text);
    place.train(&settings(&["--out", "run"])).fails(2, &["text.txt", "have changed"]);
}

#[test]
fn two_processes_cannot_train_into_one_folder() {
    let place = Place::new();
    let mut child = place.spawn_train(&["--steps", "100000", "--out", "run"]);
    place.wait_for_step("run", 1, &mut child);
    let said = place.train(&["--steps", "100000", "--out", "run"]);
    kill(child);
    said.fails(2, &["another process is training"]);
}

/// A file-size limit stands in for a full disk where no small disk can be mounted: the write fails in the middle too.
#[cfg(unix)]
#[test]
fn a_write_that_fails_names_the_file_and_leaves_nothing_unfinished() {
    let place = Place::new();
    // 8 blocks of 512 or 1024 bytes, less than the weights; the signal is ignored, so that the write returns an error.
    let script = "ulimit -f 8; trap '' XFSZ; exec \"$0\" \"$@\"";
    let program = env!("CARGO_BIN_EXE_polaron");
    let mut command = Command::new("sh");
    command.args(["-c", script, program, "train"]).args(TINY).args(["--steps", "5", "--out", "run"]);
    let said: Said = command.current_dir(place.path("")).output().unwrap().into();
    said.fails(2, &["cannot write", "model.safetensors", "--out"]);
    assert_eq!(place.unfinished_checkpoints("run"), 0);
    place.train(&["--steps", "5", "--out", "run"]).succeeds();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_checkpoints_written_so_far() {
    let place = Place::new();
    // Room for a few checkpoints of about 50 kB.
    let every = ["--steps", "50", "--set", "train.checkpoint_every=1", "--set", "train.keep=50"];
    let Some(said) = place.on_small_disk("200k", &place.command(&[&["train"], TINY, &every].concat())) else { return };
    assert!(said.out.contains("exit 2"), "{said:?}");
    assert!(said.err.contains("error: cannot write `disk/run/") && said.err.contains("No space left"), "{said:?}");
    assert!(said.out.contains("step-000000") && said.out.contains("step-000001"), "{said:?}");
    assert!(!said.out.contains(".tmp-"), "{said:?}");
}
