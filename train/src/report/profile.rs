//! The part of a page about several comparisons: their performance profile.

use std::path::Path;

use super::chart::{Chart, Series};
use super::curves::{keys, tabs};
use super::html::{escape, table};
use crate::compare::{Count, LARGEST, Profile, Results};

/// The section; empty if the comparisons have no profile.
pub fn section(tasks: &[(&Path, &Results)]) -> String {
    let results: Vec<&Results> = tasks.iter().map(|(_, results)| *results).collect();
    let Some(steps) = Profile::of(&results, Count::Steps) else { return String::new() };
    let timed = results.iter().all(|results| results.times_comparable());
    let seconds = if timed { Profile::of(&results, Count::Seconds) } else { None };
    let mut charts = vec![("by step", chart(&steps, "steps"))];
    charts.extend(seconds.as_ref().map(|profile| ("by time", chart(profile, "seconds"))));
    let mut head: Vec<String> = ["optimizer", "score, steps"].map(String::from).into();
    head.extend(seconds.as_ref().map(|_| "score, seconds".to_owned()));
    head.extend(tasks.iter().map(|(path, results)| format!("{}, to {}", super::names::name_of(path), target(results))));
    let mut order: Vec<usize> = (0..steps.optimizers.len()).collect();
    order.sort_by(|a, b| steps.score(*b).total_cmp(&steps.score(*a)));
    let row = |optimizer: &usize| {
        let mut cells = vec![steps.optimizers[*optimizer].clone(), format!("{:.3}", steps.score(*optimizer))];
        cells.extend(seconds.as_ref().map(|profile| format!("{:.3}", profile.score(*optimizer))));
        cells.extend(steps.ratios[*optimizer].iter().map(ratio));
        cells
    };
    let rows: Vec<Vec<String>> = order.iter().map(row).collect();
    let untimed =
        if timed { "" } else { " Seconds are left out, since paired runs were made on different processors." };
    let note = format!(
        "For every task, the median over the seeds of the steps to its lowest target, relative to the best optimizer (the columns on the right; –: not \
         reached). The curves: the share of the tasks that an optimizer solves within a multiple of the best one's time. The score is the mean of that \
         share from 1 to {LARGEST} times: 1 for the best in every task. No interval: tasks are chosen, not drawn.{untimed}"
    );
    format!(
        "<section><h1>{} optimizers over {} tasks</h1>\n{}{}{}<p class=\"note\">{}</p>\n</section>\n",
        steps.optimizers.len(),
        tasks.len(),
        keys(steps.optimizers.iter().map(String::as_str)),
        tabs("profile", &charts),
        table(&head, &rows),
        escape(&note)
    )
}

/// The lowest target.
fn target(results: &Results) -> String {
    let lowest = results.targets.iter().copied().min_by(f64::total_cmp);
    lowest.map_or("no target".into(), |target| target.to_string())
}

fn ratio(ratio: &f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2}") } else { "–".into() }
}

/// The shares over what is needed beyond the best time.
fn chart(profile: &Profile, unit: &str) -> Chart {
    let series = (0..profile.optimizers.len()).map(|key| {
        let beyond = |(factor, share): (f64, f64)| (100.0 * (factor - 1.0), 100.0 * share);
        Series { key, points: profile.curve(key).into_iter().map(beyond).collect(), band: Vec::new() }
    });
    Chart {
        x: format!("{unit} beyond the best optimizer's, %"),
        y: "tasks solved, %".into(),
        log_x: false,
        cut: false,
        series: series.collect(),
    }
}
