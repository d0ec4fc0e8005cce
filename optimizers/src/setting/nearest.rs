//! "Did you mean": the nearest valid name to one that was not understood.

/// The candidate closest to `name`, or `None` when nothing is close enough to be a likely slip.
///
/// Closeness is the normalised Damerau–Levenshtein similarity; below one half two names have
/// more differences than common letters, and a suggestion would mislead.
///
/// ```
/// assert_eq!(polaron::nearest("momentun", ["momentum", "nesterov"]), Some("momentum"));
/// assert_eq!(polaron::nearest("zzz", ["momentum", "nesterov"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `unknown key "stepz", did you mean "steps"?`, or the list of all names when none is close.
pub(super) fn unknown(what: &str, name: &str, valid: &[impl AsRef<str>]) -> String {
    let valid: Vec<&str> = valid.iter().map(AsRef::as_ref).collect();
    match nearest(name, valid.iter().copied()) {
        Some(near) => format!("unknown {what} \"{name}\", did you mean \"{near}\"?"),
        None => format!("unknown {what} \"{name}\", valid: {}", valid.join(", ")),
    }
}
