//! The charts of the weights' spectra, if a run recorded them.

use polaron_verify::inspect::{Bulk, Spectrum};

use super::chart::{COLOURS, Chart, Series};
use super::curves::tabs;
use crate::compare::Snapshot;
use crate::run::spectra::mean;
use crate::store::metrics::MatrixSpectrum;

type Number = fn(&At) -> Option<f64>;

/// What is drawn of a spectrum: name of the tab, name of the axis, the number.
const DRAWN: [(&str, &str, Number); 7] = [
    ("stable rank", "stable rank", |at| Some(at.spectrum.stable_rank)),
    ("entropy rank", "entropy rank", |at| Some(at.spectrum.entropy_rank)),
    ("Roy–Vetterli rank", "Roy–Vetterli rank", |at| at.spectrum.roy_vetterli_rank),
    ("nuclear rank", "nuclear rank", |at| at.spectrum.nuclear_rank),
    ("spectral norm", "largest singular value", |at| Some(at.spectrum.largest)),
    ("outliers", "singular values above the bulk", |at| Some(at.bulk.as_ref()?.outliers)),
    ("scale of the bulk", "standard deviation of an entry", |at| Some(at.bulk.as_ref()?.sigma)),
];
/// The note under the charts.
pub const NOTE: &str = "Stable rank: sum of the squared singular values over the largest square. Nuclear rank: the same of the \
    values themselves. Entropy rank: exponential of the entropy of the squares; Roy–Vetterli rank: of the values. All show how \
    many directions a matrix effectively uses. Bulk: the singular values that a matrix of independent numbers with the same median \
    singular value would have (the law of Marchenko and Pastur); those above it stand out of the noise.";

/// The mean spectrum of some matrices at a step.
pub struct At {
    step: f64,
    spectrum: Spectrum,
    /// Absent where one of them has none.
    bulk: Option<Bulk>,
}

/// A spectrum over steps.
pub type Curve = Vec<At>;

/// The mean spectrum of every kind of matrix, such as `blocks.*.attn.wq`, and how many kinds are left out: as many are
/// shown as there are colours, those with the most matrices.
pub fn by_kind(snapshots: &[Snapshot]) -> (Vec<(String, Curve)>, usize) {
    let names = || snapshots.iter().flat_map(|snapshot| &snapshot.matrices).map(|matrix| kind(&matrix.name));
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for name in names() {
        match kinds.iter_mut().find(|(kind, _)| *kind == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let left_out = kinds.len().saturating_sub(COLOURS);
    kinds.truncate(COLOURS);
    let curve = |name: &String| mean_curve(snapshots, |matrix| kind(matrix) == *name);
    (kinds.into_iter().map(|(name, _)| (name.clone(), curve(&name))).collect(), left_out)
}

/// The mean spectrum of the matrices inside the blocks, or of all where there are no blocks.
pub fn of_blocks(snapshots: &[Snapshot]) -> Curve {
    let inside = |name: &str| kind(name).contains('*');
    let curve = mean_curve(snapshots, inside);
    if curve.is_empty() { mean_curve(snapshots, |_| true) } else { curve }
}

/// The mean over the chosen matrices and over all snapshots of a step.
fn mean_curve(snapshots: &[Snapshot], chosen: impl Fn(&str) -> bool) -> Curve {
    let mut steps: Vec<f64> = snapshots.iter().map(|snapshot| snapshot.step).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let at = |step: f64| {
        let matrices =
            snapshots.iter().filter(|snapshot| snapshot.step == step).flat_map(|snapshot| &snapshot.matrices);
        let chosen: Vec<&MatrixSpectrum> = matrices.filter(|matrix| chosen(&matrix.name)).collect();
        let spectra: Vec<Spectrum> = chosen.iter().map(|matrix| matrix.spectrum).collect();
        let bulks: Option<Vec<Bulk>> = chosen.iter().map(|matrix| matrix.bulk.clone()).collect();
        Some(At { step, spectrum: mean(&spectra)?, bulk: bulks.and_then(|bulks| Bulk::mean(&bulks)) })
    };
    steps.into_iter().filter_map(at).collect()
}

/// The path of a matrix without the number of its block and without the final `weight` of every path.
fn kind(name: &str) -> String {
    let parts = name.strip_suffix(".weight").unwrap_or(name).split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.map(|part| if number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// A chart for everything that is drawn of a spectrum, one at a time. `group` is unique in the page; empty without spectra.
pub fn charts(group: &str, curves: &[Curve]) -> String {
    let chart = |y: &str, of: Number| {
        let points = |curve: &Curve| curve.iter().filter_map(|at| Some((at.step, of(at)?))).collect();
        let series =
            curves.iter().enumerate().map(|(key, curve)| Series { key, points: points(curve), band: Vec::new() });
        Chart { x: "steps".into(), y: y.into(), log_x: false, cut: false, series: series.collect() }
    };
    tabs(group, &DRAWN.map(|(label, y, of)| (label, chart(y, of))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(step: f64, matrices: &[(&str, f64)]) -> Snapshot {
        let matrix = |(name, rank): &(&str, f64)| MatrixSpectrum {
            name: (*name).into(),
            spectrum: Spectrum::of(&vec![1.0; *rank as usize]).unwrap(),
            bulk: None,
        };
        Snapshot { step, matrices: matrices.iter().map(matrix).collect() }
    }

    fn ranks(curve: &Curve) -> Vec<(f64, f64)> {
        curve.iter().map(|at| (at.step, at.spectrum.stable_rank)).collect()
    }

    #[test]
    fn matrices_of_a_kind_are_averaged_over_the_blocks() {
        let first = [("embed.weight", 9.0), ("blocks.0.attn.wq.weight", 2.0), ("blocks.11.attn.wq.weight", 4.0)];
        let (kinds, left_out) = by_kind(&[snapshot(0.0, &first), snapshot(10.0, &first[..2])]);
        assert_eq!(left_out, 0);
        assert_eq!(kinds.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["blocks.*.attn.wq", "embed"]);
        assert_eq!(ranks(&kinds[0].1), [(0.0, 3.0), (10.0, 2.0)]);
        assert_eq!(ranks(&kinds[1].1), [(0.0, 9.0), (10.0, 9.0)]);
        // Of two runs, without the embedding.
        let runs = [snapshot(0.0, &first), snapshot(10.0, &first), snapshot(0.0, &[("blocks.0.attn.wq.weight", 6.0)])];
        assert_eq!(ranks(&of_blocks(&runs)), [(0.0, 4.0), (10.0, 3.0)]);
        assert_eq!(ranks(&of_blocks(&[snapshot(0.0, &first[..1])])), [(0.0, 9.0)]);
    }

    #[test]
    fn a_chart_has_no_more_lines_than_there_are_colours() {
        let names: Vec<String> = (0..10).map(|index| format!("layer{index}.weight")).collect();
        let matrices: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        let (kinds, left_out) = by_kind(&[snapshot(0.0, &matrices)]);
        assert_eq!((kinds.len(), left_out), (COLOURS, 2));
        assert_eq!(charts("x", &[]), "");
    }
}
