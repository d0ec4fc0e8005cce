//! Charts as SVG inside a page: colours come from the page's style sheet, so that they follow light and dark.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Points of a curve in a chart; more cannot be seen.
const MOST_POINTS: usize = 240;
/// Curves of fewer points show what they have: a steep beginning is a good part of it.
const FEW_POINTS: usize = 20;
/// Points of a curve where there are so many that the page would become too large.
const FEWEST_POINTS: usize = 40;
/// Everything is drawn twice as large as it is shown: the library rounds to whole pixels.
const SCALE: f64 = 2.0;
/// Numbers beyond this are not drawn: the library looks for round labels for ever where a span is infinite.
const LARGEST_DRAWN: f64 = 1e30;
/// Stand-ins for colours of the style sheet, put in their place when the drawing is done.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const FIRST_SERIES: u8 = 16;
/// Colours that the style sheet has; with more series they begin again.
pub const COLOURS: usize = 8;

/// A curve, with a band around it where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Number of its key; colours begin again after [`COLOURS`].
    pub key: usize,
    /// Its points, ascending in x.
    pub points: Vec<(f64, f64)>,
    /// x, low and high end.
    pub band: Vec<(f64, f64, f64)>,
}

/// What a chart shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What x is.
    pub x: String,
    /// What y is.
    pub y: String,
    /// Whether x is logarithmic; its points are marked then, and labelled with their value.
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

    /// What the script needs for telling values: name and form of x, ends of both axes, and every curve as its key, all x
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

    /// Ends of both axes: x over everything, y without the steep beginning where that may be cut.
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
        // At least so wide that the labels of the axis are different numbers.
        let margin = (0.06 * (high - low)).max(1e-3).max(1e-6 * low.abs().max(high.abs()));
        let x = match (self.log_x, x.1 > x.0) {
            (true, _) => (x.0 / 1.25, x.1 * 1.25),
            (false, true) => (x.0.min(0.0), x.1 + 0.02 * x.1.abs()),
            (false, false) => (x.0 - 0.5, x.1 + 0.5),
        };
        Some([x, (low - margin, high + margin)])
    }

    /// Whether a point at x has a place on the axis.
    fn shows(&self, x: f64) -> bool {
        drawn(x) && (x > 0.0 || !self.log_x)
    }

    fn svg(&self, size: Size, [x, y]: [(f64, f64); 2]) -> String {
        let mut text = String::new();
        // Drawing into a string cannot fail; should the library ever refuse, the page shows the other parts.
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
        // The library makes text smaller than it is told.
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
        // The page brings size and name space.
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
    /// With about `most` points.
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

/// The colour that stands in for a series' own.
fn stand_in(key: usize) -> RGBColor {
    RGBColor(FIRST_SERIES + (key % 200) as u8, (key / 200 % 256) as u8, 255)
}

/// Whether a number can stand in a chart; NaN cannot.
fn drawn(x: f64) -> bool {
    x.abs() <= LARGEST_DRAWN
}

/// To five digits, as short as that can be written.
fn brief(x: f64) -> String {
    format!("{x:.4e}").parse::<f64>().unwrap_or(x).to_string()
}

fn average<P>(points: &[P], of: impl Fn(&P) -> f64) -> f64 {
    points.iter().map(of).sum::<f64>() / points.len() as f64
}

/// About `most` points: means over equal stretches, with the last point kept.
fn thinned<P: Copy>(points: &[P], most: usize, x: impl Fn(&P) -> f64, mean: impl Fn(&[P]) -> P) -> Vec<P> {
    let Some(last) = points.last().filter(|_| points.len() > most) else { return points.to_vec() };
    let stretch = points.len().div_ceil(most);
    let mut thin: Vec<P> = points.chunks(stretch).map(mean).collect();
    if thin.last().is_some_and(|point| x(point) < x(last)) {
        thin.push(*last);
    }
    thin
}

/// The points below the upper end of the axis; a curve that comes down from above begins on it.
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

/// A label that is as short as it can be.
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
mod tests {
    use super::*;

    fn chart(log_x: bool) -> Chart {
        let line = |key: usize| Series {
            key,
            points: (1..=2000).map(|i| (f64::from(i), 4.0 / f64::from(i).ln_1p() + key as f64)).collect(),
            band: (1..=2000).map(|i| (f64::from(i), 1.0, 2.0)).collect(),
        };
        Chart { x: "steps".into(), y: "loss <&>".into(), log_x, cut: !log_x, series: vec![line(0), line(1), line(9)] }
    }

    #[test]
    fn every_series_is_one_curve_in_both_sizes() {
        for log_x in [false, true] {
            let html = chart(log_x).html();
            assert_eq!(html.matches("<svg").count(), 2);
            for (key, colour) in [(0, 0), (1, 1), (9, 1)] {
                let curve = format!("stroke=\"var(--c{colour})\" data-series=\"{key}\"");
                let curves = html.lines().filter(|line| line.starts_with("<polyline") && line.contains(&curve)).count();
                assert_eq!(curves, 2, "log {log_x}");
            }
            assert!(!html.contains("#0") && !html.contains("#1"), "a stand-in colour is left");
            // A page holds up to twenty of these and may have two megabytes; usual charts are far smaller.
            assert!(html.len() < 3 * 75_000, "{}", html.len());
        }
    }

    #[test]
    fn many_curves_are_drawn_with_fewer_points() {
        let Chart { series, .. } = chart(false);
        let series = (0..40).map(|key| Series { key, ..series[0].clone() }).collect();
        let html = Chart { series, ..chart(false) }.html();
        // A page of a comparison has about ten such charts, and two megabytes.
        assert!(html.len() < 200_000, "{}", html.len());
    }

    #[test]
    fn a_curve_of_few_points_is_shown_whole() {
        let of = |count: u32| {
            let points: Vec<(f64, f64)> = (1..=count).map(|i| (f64::from(i) * 500.0, 4.0 / f64::from(i))).collect();
            let chart = Chart { series: vec![Series { key: 0, points, band: Vec::new() }], ..chart(false) };
            let [_, y] = chart.bounds().unwrap();
            y.1 >= 4.0
        };
        for few in 1..20 {
            assert!(of(few), "{few} points");
        }
        assert!(!of(40));
    }

    #[test]
    fn names_are_escaped() {
        let html = chart(false).html();
        assert!(html.contains("loss &lt;&amp;&gt;") && !html.contains("loss <"));
    }

    #[test]
    fn a_chart_of_nothing_is_nothing() {
        let empty = Chart { series: Vec::new(), ..chart(false) };
        assert_eq!(empty.html(), "");
        let nan =
            Chart { series: vec![Series { key: 0, points: vec![(1.0, f64::NAN)], band: Vec::new() }], ..chart(false) };
        assert_eq!(nan.html(), "");
        let one = Chart { series: vec![Series { key: 0, points: vec![(1.0, 2.0)], band: Vec::new() }], ..chart(false) };
        assert!(one.html().contains("<circle"));
    }

    #[test]
    fn the_values_stand_beside_the_drawing() {
        let points = vec![(1e-3, 2.123_456), (4e-3, f64::NAN), (1e-2, 1.5)];
        let chart = Chart { series: vec![Series { key: 3, points, band: Vec::new() }], ..chart(true) };
        let html = chart.html();
        assert!(html.contains("data-curves=\"[[3,[0.001,0.01],[2.1235,1.5]]]\""), "{:.400}", html);
        assert!(html.contains("data-x=\"steps\" data-log=\"true\" data-ends=\"[0.0008,0.0125,"), "{:.400}", html);
        // Margins and label areas of the wide size, twice as large.
        assert!(html.contains("data-frame=\"132 16 1688 664\""), "{:.900}", html);
    }

    #[test]
    fn curves_are_cut_at_the_top_of_the_chart() {
        let cut = clipped(&[(0.0, 4.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)], (0.0, 3.0));
        assert_eq!(cut, [(0.5, 3.0), (1.0, 2.0), (3.0, 1.0)]);
    }

    #[test]
    fn thinning_keeps_the_ends() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        let thin = thinned(&points, MOST_POINTS, |p| p.0, |ps| (average(ps, |p| p.0), average(ps, |p| p.1)));
        assert!(thin.len() <= MOST_POINTS + 1);
        assert_eq!(thin.last(), points.last());
    }

    #[test]
    fn labels_are_short() {
        let shown = [0.0, 0.02, 1e-4, 2.5, 400.0, 12_000.0, 3_070_000.0].map(number);
        assert_eq!(shown, ["0", "0.02", "1e-4", "2.5", "400", "12k", "3.07M"]);
    }
}
