//! The part of a page about a comparison.

use std::path::Path;

use super::curves::{Curve, curve_tabs, keys, smoothed, time_bars};
use super::html::{escape, folded, list, table};
use super::names::name_of;
use super::weights;
use crate::children::LoadedComparison;
use crate::compare::{
    ComparisonFolder, Outcome, Point, Snapshot, Standing, mean, pair_table, rate_table, rates_note, table_columns,
    time_column,
};
use crate::report::chart::{Chart, Series};
use crate::store::run_folder::RunFolder;
use polaron_common::thousands;
use polaron_datasets::quoted;

const PAIRS_NOTE: &str = "<p class=\"note\">Differences of the final loss, other minus better. Seeds needed: to find a difference \
    of this size with probability 0.8; detectable: the difference that these seeds find with that probability. Bootstrap intervals \
    are shown from five seeds on; for few seeds they are too narrow.</p>\n";

const TIMES_NOTE: &str =
    " Times are not comparable: runs that are paired were made on different processors (see the notes).";

/// The sections about a comparison: the verdict first.
pub fn sections(dir: &Path, comparison: &LoadedComparison) -> String {
    let results = &comparison.results;
    let unfinished = match comparison.missing {
        0 => String::new(),
        missing => format!("<p><strong>Not finished: at least {missing} more runs are needed.</strong></p>\n"),
    };
    let columns = table_columns(results);
    let verdict = if results.verdict.is_empty() {
        vec!["no pair has finished its verdict runs yet".to_owned()]
    } else {
        results.verdict.clone()
    };
    let names = || results.optimizers.iter().map(|standing| standing.name.as_str());
    let group = |name: &str| format!("{name}-{}", slug(&name_of(dir)));
    let mut html = format!(
        "<h1>Comparison of {}</h1>\n<p class=\"faint\">{}: {} steps of {} {}, {} paired and {} tuning seeds</p>\n{unfinished}\
         <div class=\"verdict\"><p>{}</p>\n{}</div>\n{}<div class=\"note\">{}</div>\n",
        escape(&names().collect::<Vec<_>>().join(", ")),
        escape(&comparison.subject.title),
        thousands(results.steps),
        thousands(results.tokens_per_step),
        &results.unit,
        results.seeds.len(),
        results.tune_seeds.len(),
        escape(&results.ranking),
        list(&verdict),
        table(&columns[0], &columns[1..]),
        list(&results.notes),
    );
    let times_note = if results.times_comparable() { "" } else { TIMES_NOTE };
    let valid = curve_tabs(
        &group("valid"),
        &mean_curves(comparison, |outcome| outcome.curve.clone()),
        "validation loss",
        &results.unit,
        true,
    );
    if !valid.is_empty() {
        html.push_str(&section(
            "Validation loss during training",
            &format!(
                "{}{valid}<p class=\"note\">Mean over the seeds; the band reaches from the lowest to the highest.{times_note}</p>\n",
                keys(names())
            ),
        ));
    }
    let train = curve_tabs(
        &group("train"),
        &mean_curves(comparison, |outcome| smoothed(&outcome.train)),
        "training loss",
        &results.unit,
        true,
    );
    if !train.is_empty() {
        let note = if times_note.is_empty() { String::new() } else { format!("<p class=\"note\">{times_note}</p>\n") };
        html.push_str(&section("Training loss, moving average", &format!("{}{train}{note}", keys(names()))));
    }
    html.push_str(&sensitivity(comparison, &keys(names())));
    html.push_str(&spectra(comparison, &group("spectra"), &keys(names())));
    let timed = |standing: &Standing| standing.seconds_per_step.zip(standing.optimizer_share);
    let times = results.optimizers.iter().filter_map(|standing| {
        let (seconds, share) = timed(standing)?;
        Some((standing.name.as_str(), seconds, share))
    });
    // A loop of one's own need not measure the optimizer.
    if results.optimizers.iter().any(|standing| timed(standing).is_some()) {
        let bars = "Forward and backward; lighter: clipping and updating.";
        let bars = format!("{}<p class=\"note\">{bars}{times_note}</p>\n", time_bars(times));
        html.push_str(&section("Time per step", &bars));
    }
    let pairs = pair_table(results);
    if pairs.len() > 1 {
        html.push_str(&section("Pairs in numbers", &format!("{}{PAIRS_NOTE}", table(&pairs[0], &pairs[1..]))));
    }
    html.push_str(&section("Verdict runs", &run_table(comparison)));
    html.push_str(&section("Details", &details(dir, comparison)));
    html
}

fn section(title: &str, body: &str) -> String {
    format!("<section><h2>{}</h2>\n{body}</section>\n", escape(title))
}

/// Letters and digits: an identifier for the page.
fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// The mean curve of every optimizer over its finished verdict runs, as far as all of them have points.
fn mean_curves(comparison: &LoadedComparison, of: impl Fn(&Outcome) -> Vec<Point>) -> Vec<Curve> {
    let curve = |runs: &[crate::compare::VerdictRun]| {
        let ended = runs.iter().filter_map(|run| comparison.ended.get(&run.name));
        let curves: Vec<Vec<Point>> = ended.filter(|outcome| outcome.loss.is_some()).map(&of).collect();
        let length = curves.iter().map(Vec::len).min().unwrap_or(0);
        let at = |index: usize| {
            let points: Vec<Point> = curves.iter().map(|curve| curve[index]).collect();
            let average = |of: fn(&Point) -> f64| mean(&points.iter().map(of).collect::<Vec<f64>>());
            let losses = || points.iter().map(|point| point.loss);
            let point = Point {
                step: average(|p| p.step),
                tokens: average(|p| p.tokens),
                seconds: average(|p| p.seconds),
                loss: average(|p| p.loss),
            };
            (point, (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max)))
        };
        (0..length).map(at).unzip::<Point, (f64, f64), Vec<_>, Vec<_>>()
    };
    let standings = comparison.results.optimizers.iter();
    let curves = standings.map(|standing| {
        let (points, band) = curve(&standing.runs);
        // One run has no band.
        let band = if standing.runs.len() > 1 { band } else { Vec::new() };
        Curve { points, band, dots: Vec::new() }
    });
    curves.collect()
}

/// Tuning loss over the learning rate, at the chosen values of swept keys.
fn sensitivity(comparison: &LoadedComparison, keys: &str) -> String {
    let standings = comparison.results.optimizers.iter().enumerate();
    let series = standings.map(|(key, standing)| {
        let points = standing.tuning.curve().into_iter().filter(|(_, loss)| loss.is_finite()).collect();
        Series { key, points, band: Vec::new() }
    });
    let (x, y) = ("learning rate".into(), "tuning loss".into());
    let svg = Chart { x, y, log_x: true, cut: false, series: series.collect() }.html();
    if svg.is_empty() {
        return String::new();
    }
    let rates = rate_table(&comparison.results);
    let note = escape(&rates_note(comparison.plan.settings.tune_steps));
    let note = format!("<p class=\"note\">{note} The curves omit rates at which a run diverged.</p>\n");
    section("Sensitivity to the learning rate", &format!("{keys}{svg}{}{note}", table(&rates[0], &rates[1..])))
}

/// The spectra of the weights in the verdict runs; empty if none were recorded.
fn spectra(comparison: &LoadedComparison, group: &str, keys: &str) -> String {
    let curve = |runs: &[crate::compare::VerdictRun]| {
        let ended = runs.iter().filter_map(|run| comparison.ended.get(&run.name));
        let snapshots: Vec<Snapshot> = ended.flat_map(|outcome| outcome.spectra.iter().cloned()).collect();
        weights::of_blocks(&snapshots)
    };
    let curves: Vec<weights::Curve> =
        comparison.results.optimizers.iter().map(|standing| curve(&standing.runs)).collect();
    let charts = weights::charts(group, &curves);
    if charts.is_empty() {
        return String::new();
    }
    let note = "Means over the matrices inside the blocks and the verdict runs.";
    section("Spectra of the weights", &format!("{keys}{charts}<p class=\"note\">{note} {}</p>\n", weights::NOTE))
}

fn run_table(comparison: &LoadedComparison) -> String {
    let mut head: Vec<String> = ["optimizer", "seed", "final loss", "steps"].map(String::from).into();
    head.push(time_column(&comparison.results, "seconds"));
    head.extend(comparison.results.targets.iter().map(|target| format!("steps to {target}")));
    let rows = comparison.results.optimizers.iter().flat_map(|standing| {
        standing.runs.iter().map(|run| {
            let loss = run.loss.map_or_else(|| "diverged".into(), |loss| format!("{loss:.4}"));
            let mut row = vec![
                standing.name.clone(),
                run.seed.to_string(),
                loss,
                run.steps.to_string(),
                format!("{:.1}", run.seconds),
            ];
            row.extend(
                run.reached
                    .iter()
                    .map(|reached| reached.map_or_else(|| "–".into(), |[steps, _, _]| format!("{steps:.0}"))),
            );
            row
        })
    });
    table(&head, &rows.collect::<Vec<_>>())
}

fn details(dir: &Path, comparison: &LoadedComparison) -> String {
    let folder = ComparisonFolder::new(dir);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut html = format!(
        "<p>Repeat it: <code>polaron compare {} --out runs/again</code></p>\n",
        escape(&quoted(&folder.plan_file()))
    );
    let sessions = read(&folder.sessions_file());
    if !sessions.is_empty() {
        html.push_str(&folded("Commands, program and machine", &sessions));
    }
    html.push_str(&folded("Plan of the comparison", &read(&folder.plan_file())));
    for standing in &comparison.results.optimizers {
        let Some(run) = standing.runs.first() else { continue };
        let run = RunFolder::new(folder.run(&run.name));
        html.push_str(&format!("<h3>{}</h3>\n", escape(&standing.name)));
        html.push_str(&folded("Which rule updates which parameter", &read(&run.plan_file())));
        html.push_str(&folded("Configuration of its first verdict run", &read(&run.config_file())));
    }
    html.push_str(&folded(
        "Table and verdict as Markdown, for pasting",
        &crate::compare::markdown(&comparison.results, comparison.plan.settings.tune_steps),
    ));
    html
}
