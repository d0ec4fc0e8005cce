//! "Did you mean": the valid name nearest to an unknown one.

/// The candidate closest to `name`, or `None` if no candidate is close enough for `name` to be a likely typing error.
///
/// Closeness is the normalised Damerau–Levenshtein similarity, ignoring case. Below one half two names differ in more
/// letters than they share, and a suggestion would mislead.
///
/// ```
/// assert_eq!(polaron_common::nearest("momentun", ["momentum", "nesterov"]), Some("momentum"));
/// assert_eq!(polaron_common::nearest("zzz", ["momentum", "nesterov"]), None);
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The end of an error message about an unknown name: a semicolon and the nearest valid name as a question, or nothing if
/// no valid name is near.
///
/// ```
/// use polaron_common::did_you_mean;
///
/// assert_eq!(did_you_mean("momentun", ["momentum", "nesterov"]), "; did you mean `momentum`?");
/// assert_eq!(did_you_mean("zzz", ["momentum", "nesterov"]), "");
/// ```
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// Like [`did_you_mean`], but lists all candidates if none is near.
///
/// ```
/// use polaron_common::did_you_mean_or_list;
///
/// assert_eq!(did_you_mean_or_list("zzz", ["momentum", "nesterov"]), "; it must be one of momentum, nesterov");
/// ```
pub fn did_you_mean_or_list<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    match did_you_mean(name, candidates.iter().copied()) {
        hint if hint.is_empty() => format!("; it must be one of {}", candidates.join(", ")),
        hint => hint,
    }
}
