//! The charts of the weights' spectra, if a run recorded them.

use super::chart::{COLOURS, Chart, Series};
use super::curves::tabs;
use crate::compare::Snapshot;
use crate::store::metrics::MatrixSpectrum;

type Number = fn(&MatrixSpectrum) -> Option<f64>;

/// What is drawn of a matrix: name of the tab, name of the axis, the number.
const DRAWN: [(&str, &str, Number); 12] = [
    ("stable rank", "stable rank", |matrix| Some(matrix.spectrum.stable_rank)),
    ("entropy rank", "entropy rank", |matrix| Some(matrix.spectrum.entropy_rank)),
    ("Roy–Vetterli rank", "Roy–Vetterli rank", |matrix| matrix.spectrum.roy_vetterli_rank),
    ("nuclear rank", "nuclear rank", |matrix| matrix.spectrum.nuclear_rank),
    ("spectral norm", "largest singular value", |matrix| Some(matrix.spectrum.largest)),
    ("outliers", "singular values above the bulk", |matrix| Some(matrix.bulk.as_ref()?.outliers)),
    ("bulk", "scale of the bulk over that of step 0", |matrix| matrix.bulk_scale),
    ("overlap", "squared cosine with the last record", |matrix| {
        matrix.overlap.map(|overlap| (overlap.rows + overlap.columns) / 2.0)
    }),
    ("change", "spectral norm of the change since the last record", |matrix| Some(matrix.since_last?.norm)),
    ("its rank", "stable rank of the change since the last record", |matrix| matrix.since_last?.stable_rank),
    ("change from step 0", "spectral norm of the change since step 0", |matrix| Some(matrix.since_start?.norm)),
    ("its rank", "stable rank of the change since step 0", |matrix| matrix.since_start?.stable_rank),
];
/// The note under the charts.
pub const NOTE: &str = "Stable rank: sum of the squared singular values over the largest square. Nuclear rank: the same of the \
    values themselves. Entropy rank: exponential of the entropy of the squares; Roy–Vetterli rank: of the values. All show how \
    many directions a matrix effectively uses. Bulk: the singular values that a matrix of independent numbers with the same median \
    singular value would have (the law of Marchenko and Pastur); those above its edge are outliers, which stand out of the noise. \
    A bulk that keeps its scale says that training adds directions and leaves the noise of the start as it is. Overlap: 1 where the \
    first singular vectors did not turn since the last record, mean of left and right. Frozen matrices have no overlap and no change.";

/// At a step, the mean of each number that is drawn, in the order of [`DRAWN`]; none where no matrix has it.
type At = (f64, [Option<f64>; DRAWN.len()]);

/// The means over steps.
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
        let mean = |of: Number| {
            let known: Vec<f64> = chosen.iter().filter_map(|matrix| of(matrix)).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        };
        (!chosen.is_empty()).then(|| (step, DRAWN.map(|(.., of)| mean(of))))
    };
    steps.into_iter().filter_map(at).collect()
}

/// The path of a matrix without the number of its block and without the final `weight` of every path.
fn kind(name: &str) -> String {
    let parts = name.strip_suffix(".weight").unwrap_or(name).split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.map(|part| if number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// A chart for everything that is drawn of a matrix, one at a time. `group` is unique in the page; empty without spectra.
pub fn charts(group: &str, curves: &[Curve]) -> String {
    let chart = |number: usize, y: &str| {
        let points =
            |curve: &Curve| curve.iter().filter_map(|(step, numbers)| Some((*step, numbers[number]?))).collect();
        let series =
            curves.iter().enumerate().map(|(key, curve)| Series { key, points: points(curve), band: Vec::new() });
        Chart { x: "steps".into(), y: y.into(), log_x: false, cut: false, series: series.collect() }
    };
    tabs(
        group,
        &std::array::from_fn::<_, { DRAWN.len() }, _>(|number| (DRAWN[number].0, chart(number, DRAWN[number].1))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use polaron_verify::inspect::{Change, Spectrum};

    fn snapshot(step: f64, matrices: &[(&str, f64)]) -> Snapshot {
        let matrix = |(name, rank): &(&str, f64)| MatrixSpectrum {
            name: (*name).into(),
            frozen: false,
            spectrum: Spectrum::of(&vec![1.0; *rank as usize]).unwrap(),
            bulk: None,
            bulk_scale: None,
            overlap: None,
            since_last: None,
            since_start: None,
        };
        Snapshot { step, matrices: matrices.iter().map(matrix).collect() }
    }

    fn ranks(curve: &Curve) -> Vec<(f64, f64)> {
        curve.iter().map(|(step, numbers)| (*step, numbers[0].unwrap())).collect()
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

    #[test]
    fn what_a_matrix_does_not_have_is_left_out_of_the_mean() {
        let mut snapshot = snapshot(10.0, &[("blocks.0.wq", 2.0), ("blocks.1.wq", 4.0)]);
        let change = |snapshot: &Snapshot| of_blocks(std::slice::from_ref(snapshot))[0].1[8];
        assert_eq!(change(&snapshot), None);
        snapshot.matrices[1].since_last = Some(Change { norm: 3.0, stable_rank: None });
        assert_eq!(change(&snapshot), Some(3.0));
        assert_eq!(DRAWN[8].0, "change");
    }
}
