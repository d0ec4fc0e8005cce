//! `--launch`: what stands before the program of every run, such as `srun -n1 -c2` or `nice`. It is no part of the plan.

use std::path::Path;
use std::process::{Command, ExitStatus};

use polaron_datasets::{quoted_word, split_words};

use crate::error::{CompareError, one_line};

/// The prefix of the commands of the runs; by default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    words: Vec<String>,
}

impl Launch {
    /// The prefix in a text, which is split as a shell splits it.
    ///
    /// # Errors
    ///
    /// [`CompareError::BadLaunch`].
    pub fn new(text: &str) -> Result<Self, CompareError> {
        let bad = |problem| CompareError::BadLaunch { text: text.into(), problem };
        let words = split_words(text).ok_or_else(|| bad("a quotation mark or a backslash in it is left open"))?;
        if words.first().is_none_or(String::is_empty) { Err(bad("it names no program")) } else { Ok(Self { words }) }
    }

    /// Whether there is a prefix.
    pub fn is_given(&self) -> bool {
        !self.words.is_empty()
    }

    /// The prefix as one line.
    pub fn text(&self) -> String {
        self.words.iter().map(|word| quoted_word(word)).collect::<Vec<_>>().join(" ")
    }

    /// A command that starts `program`.
    pub fn command(&self, program: &Path) -> Command {
        let Some((first, rest)) = self.words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    /// Why nothing can be started with the prefix, given the error of the operating system.
    pub fn cannot_start(&self, program: &Path, error: &std::io::Error) -> CompareError {
        let message = error.to_string();
        match self.words.first() {
            Some(first) => CompareError::CannotLaunch { program: first.clone(), message },
            None => CompareError::CannotStart { program: program.into(), message },
        }
    }

    /// Why a run did not end, which itself gave no reason: the prefix may have ended before it.
    pub fn failure(&self, run: &str, log: &Path, status: ExitStatus) -> CompareError {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let how = match status.code() {
            Some(0) => {
                "it ended with exit code 0 before the run had: it must wait for the program that it starts".into()
            }
            Some(code) => format!("it ended with exit code {code}"),
            None => "it was killed".to_owned(),
        };
        let said = last.map_or("its log is empty".to_owned(), |line| format!("its log ends with: {}", one_line(line)));
        CompareError::LaunchFailed {
            run: run.into(),
            prefix: self.text(),
            message: format!("{how}; {said}"),
            log: log.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_prefix_is_split_as_a_shell_splits_it_and_stands_before_the_program() {
        let launch = Launch::new("srun -n1 --comment 'two words' -c2").unwrap();
        let all = words(&launch.command(Path::new("/bin/polaron")));
        assert_eq!(all, ["srun", "-n1", "--comment", "two words", "-c2", "/bin/polaron"]);
        assert_eq!(launch.text(), "srun -n1 --comment 'two words' -c2");
        assert_eq!(words(&Launch::default().command(Path::new("p"))), ["p"]);
        assert!(launch.is_given() && !Launch::default().is_given());
    }

    #[test]
    fn a_prefix_without_a_program_is_refused() {
        for (text, fragment) in
            [("", "names no program"), ("  ", "names no program"), ("''", "names no"), ("srun 'a", "left open")]
        {
            let said = Launch::new(text).unwrap_err().to_string();
            assert!(said.contains(fragment) && said.contains("--launch"), "{text:?}: {said}");
        }
    }
}
