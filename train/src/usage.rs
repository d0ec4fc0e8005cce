//! Wrong command lines, in one line each: numbers out of range, commands that do not exist.

use std::path::Path;

use clap::error::ErrorKind;

use crate::error::{EXIT_BAD_INPUT, EXIT_DONE};
use crate::network::NetworkConfig;
use crate::progress::{print, say};

/// Every command.
const COMMANDS: [&str; 10] =
    ["train", "compare", "report", "generate", "export", "inspect", "verify", "task", "data", "list"];

/// A flag that stands for a key of a configuration, in which whole numbers end at the largest of TOML. What is negative is
/// refused with the key.
pub fn setting(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", i64::MAX))
}

/// A flag that takes a whole number.
pub fn whole(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", u64::MAX))
}

/// A flag that takes a number of things.
pub fn count(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", usize::MAX))
}

/// A flag that takes a number.
pub fn real(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "it must be a number, for example 0.02 or 3e-4".into())
}

/// Help and version go to stdout; a wrong argument is one line on stderr. Returns the exit code.
pub fn report(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    if !error.use_stderr() {
        print(&text);
        return EXIT_DONE;
    }
    let first = std::env::args().nth(1).unwrap_or_default();
    if let Some(message) = no_command(&first).filter(|_| !Path::new(&first).exists()) {
        say(&format!("error: {message}"));
        return EXIT_BAD_INPUT;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        say("error: `polaron data` needs to be told what to do: write `polaron data pack` or `polaron data info`");
        return EXIT_BAD_INPUT;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")).collect();
    say(&format!("{} (see `polaron --help`)", said.join(" ")));
    EXIT_BAD_INPUT
}

/// What is wrong with a first word that is meant as a command and is none; None for a command, a flag, or the name of a
/// file.
pub fn no_command(word: &str) -> Option<String> {
    if word.is_empty() || word.starts_with('-') || COMMANDS.contains(&word) || word == "help" {
        return None;
    }
    if Path::new(word).extension().is_some() || word.contains(std::path::is_separator) {
        return None;
    }
    if NetworkConfig::presets().contains(&word) {
        return Some(format!("`{word}` is a model, not a configuration file: write `polaron train --model {word}`"));
    }
    let instead = match word {
        "eval" | "evaluate" | "validate" | "test" => Some(
            "the validation losses of a run are in `polaron inspect RUN` and in its metrics.jsonl, and `polaron train` \
             measures them",
        ),
        "resume" => Some("to go on with a run, write `polaron train --resume RUN`"),
        "pack" | "info" => Some("for packed tokens, write `polaron data pack` or `polaron data info`"),
        "sample" => Some("to write text with the model of a run, write `polaron generate RUN --prompt TEXT`"),
        "bench" => Some("to time optimizers, write `polaron compare --dry-run` or `polaron compare`"),
        _ => None,
    };
    let near = || polaron_common::nearest(word, COMMANDS).map(|near| format!("did you mean `polaron {near}`?"));
    let hint = instead.map(String::from).or_else(near);
    Some(match hint {
        Some(hint) => format!("`{word}` is neither a command nor a configuration file; {hint}"),
        None => format!(
            "`{word}` is neither a command nor an existing configuration file: the commands are {}",
            COMMANDS.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_may_be_a_command_is_taken_for_one() {
        for word in ["train", "--seed", "", "x.toml", "runs/mine"] {
            assert_eq!(no_command(word), None, "{word}");
        }
        for (word, fragment) in [
            ("eval", "polaron inspect RUN"),
            ("genrate", "did you mean `polaron generate`?"),
            ("llama-d64", "--model llama-d64"),
            ("zzzzzz", "the commands are train"),
        ] {
            let said = no_command(word).unwrap();
            assert!(said.contains(fragment), "{word}: {said}");
        }
    }
}
