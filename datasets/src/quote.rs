//! Paths as a shell takes them.

use std::path::Path;

/// A path as one word of a POSIX shell, in single quotes where it needs them. One that begins with a dash gets `./` before it, so
/// that no program takes it for an option.
///
/// ```
/// use polaron_datasets::quoted;
///
/// assert_eq!(quoted("a/b.txt".as_ref()), "a/b.txt");
/// assert_eq!(quoted("it's.txt".as_ref()), r"'it'\''s.txt'");
/// assert_eq!(quoted("-x y".as_ref()), "'./-x y'");
/// ```
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = if text.starts_with('-') { format!("./{text}") } else { text.into_owned() };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
