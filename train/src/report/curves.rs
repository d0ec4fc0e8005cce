//! Groups of charts: keys, tabs, curves, bars.

use super::chart::{COLOURS, Chart, Series};
use super::html;
use crate::compare::Point;

/// A curve over steps, tokens and seconds.
pub struct Curve {
    /// Its points, from left to right.
    pub points: Vec<Point>,
    /// Low and high end at every point; empty for none.
    pub band: Vec<(f64, f64)>,
    /// Separate points that are measured in another way.
    pub dots: Vec<Point>,
}

/// The keys of a group of charts.
pub fn keys<'a>(names: impl Iterator<Item = &'a str>) -> String {
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

/// The same curves over steps, tokens and seconds, one at a time; with `cut`, without a steep beginning. `group` is
/// unique in the page.
pub fn curve_tabs(group: &str, curves: &[Curve], y: &str, unit: &str, cut: bool) -> String {
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
    tabs(group, &axes.map(|(label, x, of)| (label, chart(x, of))))
}

/// The charts that have something to draw, one at a time. `group` is unique in the page; empty if there is none.
pub fn tabs(group: &str, charts: &[(&str, Chart)]) -> String {
    let group = html::escape(group);
    let (mut tabs, mut panels) = (String::new(), String::new());
    let drawn = charts.iter().map(|(label, chart)| (label, chart.html())).filter(|(_, html)| !html.is_empty());
    for (index, (label, html)) in drawn.enumerate() {
        let checked = if index == 0 { " checked" } else { "" };
        tabs.push_str(&format!(
            "<input type=\"radio\" name=\"{group}\" id=\"{group}-{index}\"{checked}><label for=\"{group}-{index}\">{label}</label>\n"
        ));
        panels.push_str(&format!("<div class=\"panel\">{html}</div>\n"));
    }
    if panels.contains("<svg") { format!("<div class=\"tabs\">\n{tabs}{panels}</div>\n") } else { String::new() }
}

/// Moving average over enough neighbours to make a noisy curve readable.
pub fn smoothed(points: &[Point]) -> Vec<Point> {
    let width = (points.len() / 40).max(1);
    let mean = |window: &[Point]| {
        let last = window[window.len() - 1];
        Point { loss: window.iter().map(|point| point.loss).sum::<f64>() / window.len() as f64, ..last }
    };
    points.windows(width).map(mean).collect()
}

/// Bars that show milliseconds per step: forward and backward, then the optimizer in a lighter colour.
pub fn time_bars<'a>(rows: impl Iterator<Item = (&'a str, f64, f64)>) -> String {
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
