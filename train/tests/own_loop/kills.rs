//! A comparison whose process is killed, and one whose folder the program reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use polaron_train::Measurement;

use super::{made, plan, simulated, text};

/// Names the folder in which this binary shall compare when it is started by a test.
const FOLDER: &str = "POLARON_TEST_OWN_LOOP";

/// What a killed process does; nothing when the tests are run.
#[test]
fn a_comparison_in_a_process_of_its_own() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let slow = |measurement: Measurement| {
        std::thread::sleep(Duration::from_millis(1));
        measurement
    };
    let run = plan(&folder).jobs(2).run(|trial| {
        let offset = if trial.optimizer_name() == "adamw" { 0.05 } else { 0.0 };
        Ok::<_, String>(simulated(&trial, offset).into_iter().map(slow))
    });
    run.unwrap();
}

/// The metrics of the runs that have ended, by name.
fn ended(folder: &Path) -> Vec<(String, String)> {
    let runs = std::fs::read_dir(folder.join("runs")).into_iter().flatten().filter_map(Result::ok);
    let metrics = runs.filter_map(|run| {
        let text = std::fs::read_to_string(run.path().join("metrics.jsonl")).ok()?;
        Some((run.file_name().into_string().ok()?, text))
    });
    let mut ended: Vec<_> = metrics.filter(|(_, text)| text.contains("\"status\":\"finished\"")).collect();
    ended.sort();
    ended
}

#[test]
fn a_comparison_killed_again_and_again_ends_like_an_undisturbed_one() {
    let place = tempfile::tempdir().unwrap();
    let (calm, folder) = (place.path().join("calm"), place.path().join("c"));
    let (undisturbed, _) = made(&plan(&calm)).unwrap();
    let mut before = Vec::new();
    for count in [1, 3, 6, 8] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::a_comparison_in_a_process_of_its_own"])
            .env(FOLDER, &folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let since = Instant::now();
        while ended(&folder).len() < count {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            assert!(since.elapsed() < Duration::from_secs(60), "{count} runs");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let now = ended(&folder);
        assert!(before.iter().all(|run| now.contains(run)), "a run was repeated");
        before = now;
    }
    let (results, runs) = made(&plan(&folder)).unwrap();
    assert!(runs.iter().all(|name| !before.iter().any(|(done, _)| done == name)), "{runs:?}");
    assert_eq!(runs.len() + before.len(), 12);
    // Seconds and the machine apart, which these runs state alike.
    assert_eq!(results, undisturbed);
    assert_eq!(text(&folder.join("results.csv")), text(&calm.join("results.csv")));
}

#[test]
fn the_program_writes_the_page_of_such_a_folder_and_does_not_make_its_runs() {
    let place = tempfile::tempdir().unwrap();
    made(&plan(place.path())).unwrap();
    let page = text(&place.path().join("report.html"));
    std::fs::remove_file(place.path().join("report.html")).unwrap();
    let polaron =
        |command: &str| Command::new(env!("CARGO_BIN_EXE_polaron")).arg(command).arg(place.path()).output().unwrap();
    assert!(polaron("report").status.success());
    assert_eq!(text(&place.path().join("report.html")), page);
    let said = polaron("compare");
    let message = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(2), "{message}");
    assert!(message.contains("run that program again"), "{message}");
}
