//! Charts as SVG inside a page: colours come from the page's style sheet, so that they follow the light or dark mode.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// The most points of a curve in a chart; more cannot be seen.
const MOST_POINTS: usize = 240;
/// Curves of fewer points are shown whole: a steep beginning is a large part of them.
const FEW_POINTS: usize = 20;
/// The fewest points of a curve, for charts with so many curves that the page would become too large.
const FEWEST_POINTS: usize = 40;
/// Everything is drawn twice as large as it is shown: the library rounds to whole pixels.
const SCALE: f64 = 2.0;
/// Numbers beyond this are not drawn: the library searches for round labels without end if a range is infinite.
const LARGEST_DRAWN: f64 = 1e30;
/// Placeholders for colours of the style sheet, which replace them when the drawing is done.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const FIRST_SERIES: u8 = 16;
/// Number of colours in the style sheet; further series use them again.
pub const COLOURS: usize = 8;

/// A curve, with an optional band around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Index of its key; colours repeat after [`COLOURS`].
    pub key: usize,
    /// Its points, ascending in x.
    pub points: Vec<(f64, f64)>,
    /// x, low and high end; empty for no band.
    pub band: Vec<(f64, f64, f64)>,
}

/// What a chart shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Label of the x axis.
    pub x: String,
    /// Label of the y axis.
    pub y: String,
    /// Whether x is logarithmic; if so, the points are marked.
    pub log_x: bool,
    /// Whether y may leave out the steep beginning of curves over time.
    pub cut: bool,
    /// The curves.
    pub series: Vec<Series>,
}

/// A size in which a chart is drawn, and the class under which the style sheet shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    font: f64,
    labels: usize,
}

/// For wide and for narrow screens: text that is scaled down with a chart cannot be read.
const SIZES: [Size; 2] = [
    Size { class: "wide", width: 860.0, height: 380.0, font: 13.0, labels: 8 },
    Size { class: "narrow", width: 360.0, height: 300.0, font: 12.0, labels: 4 },
];

impl Chart {
    /// The chart as HTML: one SVG for every size, and its values for the script. Empty if there is nothing to draw.
    pub fn html(&self) -> String {
        let Some(bounds) = self.bounds() else { return String::new() };
        let most = (MOST_POINTS * COLOURS / self.series.len().max(1)).clamp(FEWEST_POINTS, MOST_POINTS);
        let series = self.series.iter().map(|series| series.thinned(most)).collect();
        let chart = Self { series, x: self.x.clone(), y: self.y.clone(), ..*self };
        let drawings: String = SIZES.iter().map(|size| chart.svg(*size, bounds)).collect();
        if drawings.is_empty() {
            drawings
        } else {
            format!("<div class=\"chart\" {}>{drawings}</div>\n", chart.values(bounds))
        }
    }

    /// What the script needs to show values: name and scale of x, ends of both axes, and every curve as its key, all x
    /// and all y.
    fn values(&self, [x, y]: [(f64, f64); 2]) -> String {
        let numbers = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(brief).collect::<Vec<_>>().join(",");
        let curve = |series: &Series| {
            let finite = || series.points.iter().filter(|(x, y)| self.shows(*x) && drawn(*y));
            let [xs, ys] = [numbers(&mut finite().map(|(x, _)| *x)), numbers(&mut finite().map(|(_, y)| *y))];
            format!("[{},[{xs}],[{ys}]]", series.key)
        };
        format!(
            "data-x=\"{}\" data-log=\"{}\" data-ends=\"[{}]\" data-curves=\"[{}]\"",
            super::html::escape(&self.x),
            self.log_x,
            [x.0, x.1, y.0, y.1].map(|end| end.to_string()).join(","),
            self.series.iter().map(curve).collect::<Vec<_>>().join(",")
        )
    }

    /// Ends of both axes: x over all points, y without the steep beginning if that may be cut.
    fn bounds(&self) -> Option<[(f64, f64); 2]> {
        let points =
            || self.series.iter().flat_map(|series| &series.points).filter(|(x, y)| self.shows(*x) && drawn(*y));
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
        };
        let x = ends(&mut points().map(|(x, _)| *x));
        let low = ends(&mut points().map(|(_, y)| *y)).0;
        let long = self.series.iter().any(|series| series.points.len() >= FEW_POINTS);
        let from = if self.cut && long { x.0 + 0.08 * (x.1 - x.0) } else { x.0 };
        let high = ends(&mut points().filter(|(x, _)| *x >= from).map(|(_, y)| *y)).1;
        if !(x.0.is_finite() && low.is_finite() && high.is_finite()) {
            return None;
        }
        // Wide enough that the labels of the axis are different numbers.
        let margin = (0.06 * (high - low)).max(1e-3).max(1e-6 * low.abs().max(high.abs()));
        let x = match (self.log_x, x.1 > x.0) {
            (true, _) => (x.0 / 1.25, x.1 * 1.25),
            (false, true) => (x.0.min(0.0), x.1 + 0.02 * x.1.abs()),
            (false, false) => (x.0 - 0.5, x.1 + 0.5),
        };
        Some([x, (low - margin, high + margin)])
    }

    /// Whether a point at x can be shown on the axis.
    fn shows(&self, x: f64) -> bool {
        drawn(x) && (x > 0.0 || !self.log_x)
    }

    fn svg(&self, size: Size, [x, y]: [(f64, f64); 2]) -> String {
        let mut text = String::new();
        // Drawing into a string cannot fail; if the library ever refuses, the page still shows the other parts.
        let drawn = if self.log_x {
            self.draw(&mut text, size, (x.0..x.1).log_scale(), y)
        } else {
            self.draw(&mut text, size, x.0..x.1, y)
        };
        match drawn {
            Ok(frame) => self.styled(&text, size, frame),
            Err(error) => {
                tracing::warn!("a chart cannot be drawn: {error}");
                String::new()
            }
        }
    }

    /// Draws into `text`. Returns left, top, right and bottom of the area between the axes.
    fn draw<X>(
        &self,
        text: &mut String,
        size: Size,
        x: X,
        y: (f64, f64),
    ) -> Result<[i32; 4], Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let pixels = |length: f64| (length * SCALE).round() as u32;
        let root = SVGBackend::with_string(text, (pixels(size.width), pixels(size.height))).into_drawing_area();
        // The library draws text smaller than asked for.
        let font = ("sans-serif", size.font * SCALE * 1.24).into_font().color(&TEXT);
        let mut chart = ChartBuilder::on(&root)
            .margin(pixels(8.0))
            .margin_right(pixels(16.0))
            .x_label_area_size(pixels(40.0))
            .y_label_area_size(pixels(58.0))
            .build_cartesian_2d(x, y.0..y.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(size.labels)
            .y_labels(6)
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| number((y * 1e4).round() / 1e4))
            .label_style(font.clone())
            .axis_desc_style(font)
            .axis_style(ShapeStyle { color: TEXT.mix(0.6), filled: false, stroke_width: 2 })
            .bold_line_style(ShapeStyle { color: GRID.into(), filled: false, stroke_width: 2 })
            .light_line_style(TRANSPARENT)
            .draw()?;
        for series in &self.series {
            let colour = stand_in(series.key);
            let band = clipped_band(&series.band, y);
            if band.len() > 1 {
                let outline =
                    band.iter().map(|(x, low, _)| (*x, *low)).chain(band.iter().rev().map(|(x, _, high)| (*x, *high)));
                chart.draw_series([Polygon::new(outline.collect::<Vec<_>>(), colour.mix(0.18).filled())])?;
            }
            let points = clipped(&series.points, y);
            if points.len() > 1 {
                chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(4)))?;
            }
            if self.log_x || points.len() == 1 {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 7, colour.filled())))?;
            }
        }
        let (across, down) = chart.plotting_area().get_pixel_range();
        root.present()?;
        Ok([across.start, down.start, across.end, down.end])
    }

    /// Puts the style sheet's colours and classes into a drawing.
    fn styled(&self, text: &str, size: Size, frame: [i32; 4]) -> String {
        let hexadecimal = |colour: RGBColor| format!("\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        let mut text =
            text.replace(&hexadecimal(TEXT), "\"currentColor\"").replace(&hexadecimal(GRID), "\"var(--grid)\"");
        for Series { key, .. } in &self.series {
            let shown = format!("\"var(--c{})\" data-series=\"{key}\"", key % COLOURS);
            text = text.replace(&hexadecimal(stand_in(*key)), &shown);
        }
        text = text.replace(" font-family=\"sans-serif\"", "");
        // The page supplies size and namespace.
        let body = text.split_once('>').map_or("", |(_, body)| body);
        let view = format!("0 0 {} {}", size.width * SCALE, size.height * SCALE);
        let frame = frame.map(|end| end.to_string()).join(" ");
        let label = super::html::escape(&format!("{} by {}", self.y, self.x));
        format!(
            "<svg class=\"{}\" viewBox=\"{view}\" data-frame=\"{frame}\" role=\"img\" aria-label=\"{label}\">{body}",
            size.class
        )
    }
}

impl Series {
    /// The series with about `most` points.
    fn thinned(&self, most: usize) -> Self {
        Self {
            key: self.key,
            points: thinned(&self.points, most, |p| p.0, |ps| (average(ps, |p| p.0), average(ps, |p| p.1))),
            band: thinned(
                &self.band,
                most,
                |p| p.0,
                |ps| (average(ps, |p| p.0), average(ps, |p| p.1), average(ps, |p| p.2)),
            ),
        }
    }
}

/// The placeholder for the colour of a series.
fn stand_in(key: usize) -> RGBColor {
    RGBColor(FIRST_SERIES + (key % 200) as u8, (key / 200 % 256) as u8, 255)
}

/// Whether a number can be drawn; NaN cannot.
fn drawn(x: f64) -> bool {
    x.abs() <= LARGEST_DRAWN
}

/// A number to five digits, in its shortest form.
fn brief(x: f64) -> String {
    format!("{x:.4e}").parse::<f64>().unwrap_or(x).to_string()
}

fn average<P>(points: &[P], of: impl Fn(&P) -> f64) -> f64 {
    points.iter().map(of).sum::<f64>() / points.len() as f64
}

/// About `most` points: means over equal intervals, with the last point kept.
fn thinned<P: Copy>(points: &[P], most: usize, x: impl Fn(&P) -> f64, mean: impl Fn(&[P]) -> P) -> Vec<P> {
    let Some(last) = points.last().filter(|_| points.len() > most) else { return points.to_vec() };
    let stretch = points.len().div_ceil(most);
    let mut thin: Vec<P> = points.chunks(stretch).map(mean).collect();
    if thin.last().is_some_and(|point| x(point) < x(last)) {
        thin.push(*last);
    }
    thin
}

/// The points below the upper end of the axis; a curve that comes down from above begins at that end.
fn clipped(points: &[(f64, f64)], y: (f64, f64)) -> Vec<(f64, f64)> {
    let inside = |point: &(f64, f64)| drawn(point.0) && drawn(point.1) && point.1 <= y.1;
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        if !inside(point) {
            continue;
        }
        let before =
            index.checked_sub(1).map(|before| points[before]).filter(|before| !inside(before) && drawn(before.1));
        if let Some(before) = before.filter(|_| kept.is_empty()) {
            let share = (before.1 - y.1) / (before.1 - point.1);
            kept.push((before.0 + share * (point.0 - before.0), y.1));
        }
        kept.push(*point);
    }
    kept
}

fn clipped_band(band: &[(f64, f64, f64)], y: (f64, f64)) -> Vec<(f64, f64, f64)> {
    let within = |value: f64| value.clamp(y.0, y.1);
    let inside = band.iter().filter(|(_, low, high)| drawn(*low) && drawn(*high) && *low <= y.1);
    inside.map(|(x, low, high)| (*x, within(*low), within(*high))).collect()
}

/// A number as the shortest label.
pub fn number(x: f64) -> String {
    let size = x.abs();
    let trimmed = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match size {
        0.0 => "0".into(),
        _ if size >= 1e6 => format!("{}M", trimmed(format!("{:.2}", x / 1e6))),
        _ if size >= 1e4 => format!("{}k", trimmed(format!("{:.1}", x / 1e3))),
        _ if size >= 1e-3 => trimmed(format!("{x:.4}")),
        _ => format!("{x:e}"),
    }
}

#[cfg(test)]
#[path = "chart_tests.rs"]
mod tests;
