//! Commands that the program prints can be pasted into a shell.

use std::path::Path;
use std::process::Command;

use crate::support::Place;

/// Runs a printed command as a user would: in a shell, with the program on the path.
#[track_caller]
fn pasted(place: &Place, command: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_polaron"));
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).current_dir(place.path("")).env("PATH", program.parent().unwrap());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The command behind a label in what a run said.
#[track_caller]
fn printed<'a>(said: &'a str, label: &str) -> &'a str {
    let line = said.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label:?} in {said}")).trim()
}

/// One name, and a dash, which would make it a flag, at the front of another.
const NASTY: [&str; 3] = ["my \"run\" $HOME 'n' `id` \u{e9}\u{2603}!;&", "-run", "--out"];

#[test]
fn the_commands_at_the_end_of_a_run_work_for_any_folder() {
    for name in NASTY {
        let place = Place::new();
        let out = format!("--out={name}");
        let said = place.train(&[&out, "--steps", "2"]).succeeds();
        let text = pasted(&place, printed(&said.out, "generate text"));
        assert!(text.starts_with("The"), "{text}");
        assert!(pasted(&place, printed(&said.out, "export weights")).contains("model.safetensors"));
        assert!(place.path("model.safetensors").is_file());
        // The finished run says the same, whatever happened to its text.
        let again = place.train(&[&out, "--steps", "2"]).succeeds();
        assert_eq!(printed(&again.out, "generate text"), printed(&said.out, "generate text"));
    }
}

#[test]
fn the_suggested_prompt_is_one_that_the_text_has() {
    for (text, prompt) in [
        ("0123 4567 89\n".repeat(300), "'0'"),
        ("\u{4e2d}\u{6587}\u{3002}\n".repeat(600), "\u{3002}"),
        ("$'\n".repeat(900), "$"),
        ("\n\t".repeat(900), "''"),
    ] {
        let place = Place::new();
        place.write("text.txt", text.as_bytes());
        let said = place.train(&["--out", "run", "--steps", "1"]).succeeds();
        let command = printed(&said.out, "generate text");
        let text = pasted(&place, command);
        assert!(text.starts_with(prompt.trim_matches('\'')), "{command}: {text}");
    }
    let place = Place::new();
    let said = place.train(&["--out", "run", "--steps", "1", "--set", "train.sample_prompt=fool's"]);
    said.fails(2, &["`train.sample_prompt`", "'\\''"]);
    let said = place.train(&["--out", "run", "--steps", "1", "--set", "train.sample_prompt=a fool"]).succeeds();
    assert!(pasted(&place, printed(&said.out, "generate text")).starts_with("a fool"));
}

#[test]
fn the_commands_of_packing_and_of_reports_are_quoted_too() {
    for name in NASTY {
        let place = Place::new();
        let packed =
            place.run(&["data", "pack", "text.txt", "--tokenizer", "char", &format!("--out={name}")]).succeeds();
        let tiny = crate::support::TINY.iter().filter(|word| !["--data", "text.txt"].contains(*word));
        let tiny: Vec<&str> = tiny.copied().collect();
        let command = format!("{} {} --steps 1 --out run", printed(&packed.out, "train on it"), tiny.join(" "));
        pasted(&place, &command);
        let out = format!("--out=runs/{name}");
        place.train(&[&out, "--steps", "1"]).succeeds();
        let page = String::from_utf8(place.read(&format!("runs/{name}/report.html"))).unwrap();
        let code = page.split("Repeat it: <code>").nth(1).unwrap().split("</code>").next().unwrap();
        let unescaped = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
            .iter()
            .fold(code.to_owned(), |text, (from, to)| text.replace(from, to));
        pasted(&place, &unescaped);
    }
}
