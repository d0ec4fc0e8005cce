//! Patterns on parameter paths.

use polaron_common::did_you_mean;
use regex::Regex;

use super::LayerwiseError;

/// A glob, or a regular expression between slashes, on paths such as `blocks.3.attn.wq.weight`.
///
/// In a glob `*` matches any single component and `**` any number of characters; a glob also
/// matches everything below its path, so `lm_head` matches `lm_head.weight`. A regular
/// expression is searched for anywhere in the path.
///
/// ```
/// use polaron::layerwise::Pattern;
/// let pattern = Pattern::new("blocks.*.mlp.down")?;
/// assert!(pattern.matches("blocks.3.mlp.down.weight"));
/// assert!(!pattern.matches("blocks.3.attn.wq.weight"));
/// assert!(Pattern::new(r"/mlp\.(up|gate)/")?.matches("blocks.3.mlp.up.weight"));
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a glob or a `/regex/`.
    ///
    /// # Errors
    /// If the regular expression is not valid.
    pub fn new(text: impl Into<String>) -> Result<Self, LayerwiseError> {
        let text = text.into();
        let source = match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(regex) => regex.to_string(),
            None => {
                let glob = regex::escape(&text).replace(r"\*\*", ".*").replace(r"\*", r"[^.]*");
                format!(r"^{glob}(\..*)?$")
            }
        };
        match Regex::new(&source) {
            Ok(regex) => Ok(Self { text, regex }),
            Err(error) => {
                // The parser draws the place on lines of its own, and says what is wrong on the last one.
                let said = error.to_string();
                let last = said.lines().last().unwrap_or_default();
                let message = last.trim_start_matches("error: ").to_string();
                Err(LayerwiseError::Pattern { pattern: text, message })
            }
        }
    }

    /// The path, or the beginning of one, that is nearest to a pattern that matches nothing: as a question, or empty.
    pub(super) fn nearest<'a>(&self, paths: impl Iterator<Item = &'a str>) -> String {
        let beginnings = paths.flat_map(|path| path.match_indices('.').map(|(dot, _)| &path[..dot]).chain([path]));
        did_you_mean(self.text.trim_end_matches(['*', '.']), beginnings)
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_whole_components_only() {
        let matches = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().matches(path);
        assert!(matches("head", "head.weight"));
        assert!(!matches("head", "heads.weight"));
        assert!(!matches("head", "lm.head.weight"));
        assert!(matches("**.weight", "blocks.0.attn.wq.weight"));
        assert!(matches("blocks.*.norm1", "blocks.10.norm1.gamma"));
        assert!(!matches("blocks.*.weight", "blocks.0.attn.weight"));
        assert!(matches("a.b", "a.b") && !matches("a.b", "axb"));
    }

    #[test]
    fn a_broken_regular_expression_is_an_error_that_names_it() {
        let error = Pattern::new("/(/").unwrap_err();
        assert_eq!(error.to_string(), "pattern \"/(/\" is not valid: unclosed group");
    }
}
