//! Errors in the command line, each in one line: numbers out of range, commands that do not exist.

use std::path::Path;

use clap::error::ErrorKind;

use crate::error::{ConfigError, EXIT_BAD_INPUT, EXIT_DONE};
use crate::host::progress::{print, say};
use crate::networks::registry::NetworkConfig;

/// Every command.
pub const COMMANDS: [&str; 13] = [
    "train", "launch", "compare", "race", "report", "eval", "generate", "export", "inspect", "verify", "task", "data",
    "list",
];

/// A flag that sets a key of a configuration, whose whole numbers are TOML's (64 bits, signed). Negative ones are refused
/// later, by the check of the key.
pub fn setting(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", i64::MAX))
}

/// A flag that takes a whole number.
pub fn whole(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", u64::MAX))
}

/// A flag that takes a count.
pub fn count(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| format!("it must be a whole number from 0 to {}", usize::MAX))
}

/// A flag that takes a number.
pub fn real(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| "it must be a number, for example 0.02 or 3e-4".into())
}

/// A `--set` argument: key and raw value.
///
/// # Errors
///
/// [`ConfigError::BadSet`] without a key or an equals sign.
pub fn split_set(text: &str) -> Result<(String, String), ConfigError> {
    let parts = text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    parts.filter(|(key, _)| !key.is_empty()).ok_or_else(|| ConfigError::BadSet { text: text.into() })
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
        say("error: `polaron data` needs a command: write `polaron data pack` or `polaron data info`");
        return EXIT_BAD_INPUT;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")).collect();
    say(&format!("{} (see `polaron --help`)", said.join(" ")));
    EXIT_BAD_INPUT
}

/// The error for a first word that is meant as a command but is not one; None for a command, a flag, or the name of a
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
        "evaluate" | "validate" | "test" => Some(
            "to measure the loss of a model, write `polaron eval RUN`, or with a text `polaron eval RUN --data TEXT`",
        ),
        "resume" => Some("to resume a run, write `polaron train --resume RUN`"),
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
    fn only_a_word_that_could_be_a_command_is_treated_as_one() {
        for word in ["train", "--seed", "", "x.toml", "runs/mine"] {
            assert_eq!(no_command(word), None, "{word}");
        }
        for (word, fragment) in [
            ("evaluate", "polaron eval RUN"),
            ("genrate", "did you mean `polaron generate`?"),
            ("llama-d64", "--model llama-d64"),
            ("zzzzzz", "the commands are train"),
        ] {
            let said = no_command(word).unwrap();
            assert!(said.contains(fragment), "{word}: {said}");
        }
    }

    #[test]
    fn a_set_without_a_key_or_value_is_refused() {
        assert_eq!(split_set("a.b = 3").unwrap(), ("a.b".into(), "3".into()));
        assert_eq!(split_set("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(split_set("a.b").is_err());
        assert!(split_set("=3").is_err());
    }
}
