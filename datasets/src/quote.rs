//! Words of the commands in messages, quoted for a POSIX shell.

use std::path::Path;

/// `text` as one word of a command line; plain words are unchanged.
///
/// ```
/// assert_eq!(polaron_datasets::quoted_word("KING HENRY:"), "'KING HENRY:'");
/// ```
pub fn quoted_word(text: &str) -> String {
    // No argument of a process can hold a NUL.
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map(String::from).unwrap_or_default()
}

/// The words of a command line, as a POSIX shell splits them; None where a quotation mark or a backslash is left open.
///
/// ```
/// assert_eq!(polaron_datasets::split_words("srun --comment 'a b'"), Some(vec!["srun".into(), "--comment".into(), "a b".into()]));
/// assert_eq!(polaron_datasets::split_words("srun 'a"), None);
/// ```
pub fn split_words(text: &str) -> Option<Vec<String>> {
    shlex::split(text)
}

/// A path as one word of a command line. A path that begins with a dash gets `./` before it, so that no program reads it
/// as an option.
///
/// ```
/// use polaron_datasets::quoted;
///
/// assert_eq!(quoted("a/b.txt".as_ref()), "a/b.txt");
/// assert_eq!(quoted("-x y".as_ref()), "'./-x y'");
/// ```
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { quoted_word(&format!("./{text}")) } else { quoted_word(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_as_they_are() {
        assert_eq!(quoted_word("runs/llama-d64-muon-s1"), "runs/llama-d64-muon-s1");
        assert_eq!(quoted_word(""), "''");
        assert_eq!(quoted(Path::new("-run")), "./-run");
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in
            ["a b", "it's", "$HOME `id` \"x\"", "a\nb", "\\", "!x", "été ☃", "~", "*", "-n", "a;b&c|d", "^", "'\"'"]
        {
            let command = format!("printf '%s' {}", quoted_word(text));
            let output = std::process::Command::new("sh").arg("-c").arg(&command).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{command}");
        }
    }
}
