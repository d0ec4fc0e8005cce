//! Words of the commands that this program prints, quoted for a POSIX shell.

use std::path::Path;

/// `text` as one word of a command line; plain words stay as they are.
pub fn quoted(text: &str) -> String {
    // No argument of a process can hold a NUL.
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map(String::from).unwrap_or_default()
}

/// A path as one word that no command takes for a flag.
pub fn quoted_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { quoted(&format!("./{text}")) } else { quoted(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_as_they_are() {
        assert_eq!(quoted("runs/llama-d64-muon-s1"), "runs/llama-d64-muon-s1");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted_path(Path::new("-run")), "./-run");
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in
            ["a b", "it's", "$HOME `id` \"x\"", "a\nb", "\\", "!x", "été ☃", "~", "*", "-n", "a;b&c|d", "^", "'\"'"]
        {
            let command = format!("printf '%s' {}", quoted(text));
            let output = std::process::Command::new("sh").arg("-c").arg(&command).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{command}");
        }
    }
}
