//! `polaron report`: one HTML page about comparisons and runs, with everything in it.

mod chart;
mod comparison;
mod html;
mod runs;
mod weights;

use std::path::{Path, PathBuf};

use crate::compare::{ComparisonFolder, LoadedComparison, Point};
use crate::error::{EXIT_DONE, Error};
use crate::progress::{print, say};
use crate::run_folder::{FolderError, RunFolder, write_atomically};
use chart::{COLOURS, Chart, Series};
use runs::ReportedRun;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// The page of a folder.
pub const FILE: &str = "report.html";

/// Writes the page about the folders `dirs`, runs and comparisons in any mixture: into `out`, or into the folder if there is
/// only one, or as `report.html`. Returns the exit code.
///
/// # Errors
///
/// A folder that holds neither run nor comparison, files that cannot be read or written.
pub fn report(dirs: &[PathBuf], out: Option<&Path>) -> Result<u8, Error> {
    let path = match (out, dirs) {
        (Some(out), _) => out.to_path_buf(),
        (None, [dir]) => dir.join(FILE),
        (None, _) => PathBuf::from(FILE),
    };
    write_atomically(&path, page(dirs)?.as_bytes())?;
    print(&format!("wrote {}\n", path.display()));
    Ok(EXIT_DONE)
}

/// The page about the folders `dirs`.
///
/// # Errors
///
/// A folder that holds neither run nor comparison, files that cannot be read.
pub fn page(dirs: &[PathBuf]) -> Result<String, Error> {
    let (mut comparisons, mut runs, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for dir in dirs {
        if ComparisonFolder::new(dir).holds_comparison() {
            let comparison = LoadedComparison::open(dir)?;
            seen.push((name_of(dir), comparison.plan.source().to_owned(), comparison.data_sha256.clone()));
            comparisons.push((dir, comparison));
        } else if RunFolder::new(dir).config_file().is_file() {
            let run = ReportedRun::open(dir)?;
            seen.push((run.name.clone(), run.source().to_owned(), run.data_sha256.clone()));
            runs.push(run);
        } else {
            return Err(FolderError::Neither { path: dir.clone() }.into());
        }
    }
    let warning = other_data(&seen);
    if let Some(warning) = &warning {
        say(&format!("warning: {warning}"));
    }
    let mut body = warning.map(|text| format!("<p><strong>{}</strong></p>\n", html::escape(&text))).unwrap_or_default();
    body.extend(comparisons.iter().map(|(dir, comparison)| comparison::sections(dir, comparison)));
    if !runs.is_empty() {
        body.push_str(&runs::sections(&runs));
    }
    let title = match (comparisons.as_slice(), runs.as_slice()) {
        ([(dir, _)], []) => format!("Comparison {}", name_of(dir)),
        ([], [run]) => format!("Run {}", run.name),
        _ => "polaron report".into(),
    };
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <p class=\"note\">Made by polaron {}.</p>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        html::escape(&title),
        env!("CARGO_PKG_VERSION"),
    ))
}

/// Says so if the folders of a page, given with the place and the fingerprint of their data, are on different ones.
fn other_data(seen: &[(String, String, Option<String>)]) -> Option<String> {
    let known = || seen.iter().filter_map(|(name, source, sha256)| Some((name, source, sha256.as_ref()?)));
    let (_, _, first) = known().next()?;
    if known().all(|(_, _, sha256)| sha256 == first) {
        return None;
    }
    let word =
        |(name, source, sha256): (&String, &String, &String)| format!("{name}: {source}, fingerprint {sha256:.12}");
    let each: Vec<String> = known().map(word).collect();
    Some(format!("Losses on different data or tokenizers cannot be compared ({})", each.join("; ")))
}

/// What a folder is called on a page.
fn name_of(dir: &Path) -> String {
    let name =
        std::path::absolute(dir).ok().and_then(|dir| dir.file_name().map(|name| name.to_string_lossy().into_owned()));
    name.unwrap_or_else(|| dir.display().to_string())
}

/// A curve over steps, tokens and seconds.
struct Curve {
    points: Vec<Point>,
    /// Low and high end at every point; empty for none.
    band: Vec<(f64, f64)>,
    /// Points that are measured in another way and stand alone.
    dots: Vec<Point>,
}

/// The keys of a group of charts.
fn keys<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let key = |(index, name): (usize, &str)| {
        let colour = index % COLOURS;
        let name = html::escape(name);
        format!(
            "<button class=\"key\" type=\"button\" data-series=\"{index}\" aria-pressed=\"true\">\
             <span class=\"swatch\" style=\"background:var(--c{colour})\"></span>{name}</button>\n"
        )
    };
    format!("<div class=\"keys\">{}</div>\n", names.enumerate().map(key).collect::<String>())
}

/// The same curves over steps, tokens and seconds, one at a time, perhaps without their steep beginning. `group` is unique in
/// the page.
fn curve_tabs(group: &str, curves: &[Curve], y: &str, unit: &str, cut: bool) -> String {
    let axes = [
        ("by step", "steps", (|point| point.step) as fn(&Point) -> f64),
        ("by data", unit, |point| point.tokens),
        ("by time", "training seconds", |point| point.seconds),
    ];
    let chart = |x: &str, of: fn(&Point) -> f64| {
        let place = |point: &Point| (of(point), point.loss);
        let lines = curves.iter().enumerate().map(|(key, curve)| Series {
            key,
            points: curve.points.iter().map(place).collect(),
            band: curve.points.iter().zip(&curve.band).map(|(point, (low, high))| (of(point), *low, *high)).collect(),
        });
        let dots = curves.iter().enumerate().flat_map(|(key, curve)| {
            curve.dots.iter().map(move |dot| Series { key, points: vec![place(dot)], band: Vec::new() })
        });
        let series = lines.chain(dots);
        Chart { x: x.into(), y: y.into(), log_x: false, cut, series: series.collect() }
    };
    tabs(group, axes.map(|(label, x, of)| (label, chart(x, of))))
}

/// Three charts, one at a time. `group` is unique in the page; empty if there is nothing to draw.
fn tabs(group: &str, charts: [(&str, Chart); 3]) -> String {
    let group = html::escape(group);
    let (mut tabs, mut panels) = (String::new(), String::new());
    for (index, (label, chart)) in charts.into_iter().enumerate() {
        let checked = if index == 0 { " checked" } else { "" };
        tabs.push_str(&format!(
            "<input type=\"radio\" name=\"{group}\" id=\"{group}-{index}\"{checked}><label for=\"{group}-{index}\">{label}</label>\n"
        ));
        panels.push_str(&format!("<div class=\"panel\">{}</div>\n", chart.html()));
    }
    if panels.contains("<svg") { format!("<div class=\"tabs\">\n{tabs}{panels}</div>\n") } else { String::new() }
}

/// Mean over so many neighbours that a noisy curve can be read.
fn smoothed(points: &[Point]) -> Vec<Point> {
    let width = (points.len() / 40).max(1);
    let mean = |window: &[Point]| {
        let last = window[window.len() - 1];
        Point { loss: window.iter().map(|point| point.loss).sum::<f64>() / window.len() as f64, ..last }
    };
    points.windows(width).map(mean).collect()
}

/// Bars that show milliseconds of a step: forward and backward, then the optimizer in a lighter colour.
fn time_bars<'a>(rows: impl Iterator<Item = (&'a str, f64, f64)>) -> String {
    let rows: Vec<(&str, f64, f64)> = rows.collect();
    let longest = rows.iter().map(|(_, seconds, _)| *seconds).fold(0.0, f64::max);
    let bar = |(index, (name, seconds, share)): (usize, &(&str, f64, f64))| {
        let percent = |part: f64| if longest > 0.0 { 62.0 * part / longest } else { 0.0 };
        let (colour, name) = (index % COLOURS, html::escape(name));
        format!(
            "<span>{name}</span><div class=\"bar\"><i style=\"width:{:.2}%;background:var(--c{colour})\"></i>\
             <i style=\"width:{:.2}%;background:var(--c{colour})\"></i><b>{:.1} ms, optimizer {:.1} %</b></div>\n",
            percent(seconds * (1.0 - share)),
            percent(seconds * share),
            seconds * 1e3,
            share * 100.0
        )
    };
    format!("<div class=\"bars\">{}</div>\n", rows.iter().enumerate().map(bar).collect::<String>())
}
