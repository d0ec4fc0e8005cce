//! Comparisons that gain seeds later, and runs that were made on different processors.

use super::comparing::{ONE_RATE, TWO, compare, losses};
use crate::support::{Place, names_in};
use serde_json::Value;

fn results(place: &Place, out: &str) -> Value {
    serde_json::from_slice(&place.read(&format!("{out}/results.json"))).unwrap()
}

fn text(place: &Place, file: &str) -> String {
    String::from_utf8(place.read(file)).unwrap()
}

/// Every file of the runs, with its content.
fn runs(place: &Place, out: &str) -> Vec<(String, Vec<u8>)> {
    let names = names_in(&place.path(&format!("{out}/runs")));
    names.into_iter().map(|name| (name.clone(), place.read(&format!("{out}/runs/{name}/metrics.jsonl")))).collect()
}

#[test]
fn added_seeds_make_only_the_missing_runs_and_are_noted() {
    let place = Place::new();
    compare(&place, &[TWO, &["--seeds", "2", "--out", "c"]].concat()).succeeds();
    assert!(results(&place, "c").get("seeds_before").is_none());
    let before = runs(&place, "c");
    let said = place.run(&["compare", "c", "--seeds", "4"]).succeeds();
    let after = runs(&place, "c");
    assert_eq!(after.len(), before.len() + 4);
    for run in &before {
        assert!(after.contains(run), "{} was repeated", run.0);
    }
    assert!(said.out.contains("Seeds were added after the comparison began: 2, then 4."), "{said:?}");
    assert!(said.out.contains("the p-values are too small"), "{said:?}");
    for file in ["c/results.md", "c/report.html"] {
        assert!(text(&place, file).contains("Seeds were added after the comparison began"), "{file}");
    }
    let found = results(&place, "c");
    assert_eq!((&found["seeds"], &found["seeds_before"]), (&Value::from(vec![1, 2, 3, 4]), &Value::from(vec![2])));
    for file in ["c/plan.toml", "c/configs/plan.toml"] {
        assert!(text(&place, file).contains("seeds = 4\nseeds_before = [2]\n"), "{file}");
    }
    // Its tuning and its runs are those of a comparison that had four seeds from the beginning.
    compare(&place, &[TWO, &["--seeds", "4", "--out", "whole"]].concat()).succeeds();
    assert_eq!(losses(&place, "c"), losses(&place, "whole"));
    // Later sessions keep the note; a repetition elsewhere has all its seeds from the beginning.
    let again = place.run(&["compare", "c"]).succeeds();
    assert_eq!(again.out, said.out);
    place.run(&["compare", "c", "--seeds", "5"]).succeeds();
    assert_eq!(results(&place, "c")["seeds_before"], Value::from(vec![2, 4]));
    place.run(&["compare", "c/plan.toml", "--out", "again"]).succeeds();
    assert!(!text(&place, "again/plan.toml").contains("seeds_before"));
}

#[test]
fn seeds_cannot_be_taken_away_and_nothing_else_can_be_changed_with_them() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let before = (place.read("c/plan.toml"), runs(&place, "c"), place.read("c/results.json"));
    let fewer = ["`c` holds a comparison with 2 seeds, and 1 are asked for", "`polaron compare c`"];
    place.run(&["compare", "c", "--seeds", "1"]).fails(2, &fewer);
    place.run(&["compare", "c", "--seeds", "1", "--next"]).fails(2, &fewer);
    place.run(&["compare", "c", "--seeds", "3", "--steps", "41"]).fails(2, &["`compare.steps` is 40 there and 41 now"]);
    place.run(&["compare", "c", "--seeds", "0"]).fails(2, &["compare.seeds"]);
    place.run(&["compare", "c", "--seeds", "1001"]).fails(2, &["must not exceed 1000"]);
    assert_eq!((place.read("c/plan.toml"), runs(&place, "c"), place.read("c/results.json")), before);
}

#[test]
fn seeds_are_added_by_a_list_too_and_a_kill_between_the_files_of_the_plan_does_no_harm() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let copy = place.read("c/configs/plan.toml");
    let said = place.run(&["compare", "c", "--seeds", "3", "--next"]);
    assert_eq!((said.code, said.out.lines().count()), (Some(1), 2), "{said:?}");
    assert!(
        said.out.lines().all(|line| line.ends_with(|c: char| c.is_ascii_hexdigit()) && line.contains("-s3")),
        "{said:?}"
    );
    place.write("c/configs/plan.toml", &copy);
    place.run(&["compare", "c"]).succeeds();
    assert_eq!(results(&place, "c")["seeds_before"], Value::from(vec![2]));
    assert_eq!(place.read("c/configs/plan.toml"), place.read("c/plan.toml"));
    // A plan whose note was removed was edited.
    let edited = text(&place, "c/plan.toml").replace("seeds_before = [2]\n", "");
    place.write("c/plan.toml", edited.as_bytes());
    place.run(&["compare", "c"]).fails(2, &["`compare.seeds_before` was [2] and is absent now"]);
}

#[test]
fn every_run_names_its_processor_and_one_machine_marks_nothing() {
    let place = Place::new();
    let said = compare(&place, ONE_RATE).succeeds();
    assert!(!said.out.contains("not comparable"), "{said:?}");
    let found = results(&place, "c");
    assert_eq!(found["pairs"][0]["times_comparable"], true);
    let cpu = found["optimizers"][0]["runs"][0]["cpus"][0].as_str().unwrap().to_owned();
    assert!(text(&place, "c/sessions.txt").contains(&cpu), "{cpu}");
    let csv = text(&place, "c/results.csv");
    assert!(csv.lines().next().unwrap().contains("optimizer_seconds,cpu,") && csv.contains(&cpu), "{csv}");
    // Runs of versions that did not note it.
    for name in names_in(&place.path("c/runs")) {
        std::fs::remove_file(place.path(&format!("c/runs/{name}/machines.jsonl"))).unwrap();
    }
    let older = place.run(&["compare", "c"]).succeeds();
    assert_eq!(older.out, said.out);
    assert!(results(&place, "c")["optimizers"][0]["runs"][0].get("cpus").is_none());
}

#[test]
fn times_of_paired_runs_on_different_processors_are_marked_as_not_comparable() {
    let place = Place::new();
    compare(&place, ONE_RATE).succeeds();
    let seed_1 = |name: &str| format!("c/runs/verdict-{name}-s1/machines.jsonl");
    // Both runs of a seed elsewhere: their times compare.
    for name in ["adamw", "muon"] {
        place.write(&seed_1(name), b"{\"step\":0,\"cpu\":\"Other CPU\"}\n");
    }
    assert!(!place.run(&["compare", "c"]).succeeds().out.contains("not comparable"));
    std::fs::remove_file(place.path(&seed_1("adamw"))).unwrap();
    let said = place.run(&["compare", "c"]).succeeds();
    assert!(said.out.contains("The processor of 1 of 4 verdict runs is not known"), "{said:?}");
    place.write(&seed_1("adamw"), b"{\"step\":0,\"cpu\":\"Third CPU\"}\n");
    let said = place.run(&["compare", "c"]).succeeds();
    for column in ["seconds (not comparable)", "ms per step (not comparable)", "optimizer share (not comparable)"] {
        assert!(said.out.contains(column), "{column}: {said:?}");
        assert!(text(&place, "c/results.md").contains(column), "{column}");
        assert!(text(&place, "c/report.html").contains(column), "{column}");
    }
    let note = said.out.lines().find(|line| line.contains("are not comparable: ")).unwrap();
    for part in ["on 1 of 2 seeds (seed 1: ", "Other CPU", "Third CPU", "adamw", "muon"] {
        assert!(note.contains(part), "{part}: {note}");
    }
    assert_eq!(results(&place, "c")["pairs"][0]["times_comparable"], false);
    assert!(text(&place, "c/report.html").contains("Times are not comparable"));
}
