//! The chart of a run's largest attention logits, if it recorded them.

use super::chart::{COLOURS, Chart, Series};
use super::curves::keys;
use crate::store::metrics::Event;

type Points = Vec<(f64, f64)>;

/// The largest logit of every layer over the steps, beside the threshold of QK-clip, with keys and a note; empty without logits. As
/// many layers are drawn as there are colours: those with the largest logits.
pub fn chart(events: &[Event], threshold: Option<f64>) -> String {
    let layers = layers(events);
    let peak = |layer: &Points| layer.iter().map(|(_, logit)| *logit).fold(f64::NEG_INFINITY, f64::max);
    let mut drawn: Vec<(String, Points)> =
        layers.into_iter().enumerate().map(|(layer, points)| (format!("layer {layer}"), points)).collect();
    let ends = drawn.first().and_then(|(_, points)| Some((points.first()?.0, points.last()?.0)));
    let Some((first, last)) = ends else { return String::new() };
    let most = COLOURS - usize::from(threshold.is_some());
    let left_out = drawn.len().saturating_sub(most);
    while drawn.len() > most {
        let lowest = (0..drawn.len()).min_by(|a, b| peak(&drawn[*a].1).total_cmp(&peak(&drawn[*b].1)));
        drawn.remove(lowest.unwrap_or_default());
    }
    drawn.extend(threshold.map(|threshold| ("threshold".into(), vec![(first, threshold), (last, threshold)])));
    let series = drawn.iter().enumerate();
    let series = series.map(|(key, (_, points))| Series { key, points: points.clone(), band: Vec::new() });
    let (x, y) = ("steps".into(), "largest logit".into());
    let svg = Chart { x, y, log_x: false, cut: false, series: series.collect() }.html();
    if svg.is_empty() {
        return svg;
    }
    let mut note = "The largest product of a query and a key that it sees, times the model's scale, over the heads of a layer and \
                    the batch of a step, before its update."
        .to_owned();
    if let Some((steps, heads)) = clipped(events) {
        note.push_str(&format!(" QK-clip scaled down {heads} heads in {steps} of the recorded steps."));
    }
    if left_out > 0 {
        note.push_str(&format!(" Layers not drawn: {left_out}; <code>metrics.jsonl</code> has them all."));
    }
    format!("{}{svg}<p class=\"note\">{note}</p>\n", keys(drawn.iter().map(|(name, _)| name.as_str())))
}

/// The curve of every layer.
fn layers(events: &[Event]) -> Vec<Points> {
    let mut layers: Vec<Points> = Vec::new();
    for event in events {
        let Event::Heads { step, largest, .. } = event else { continue };
        layers.resize_with(layers.len().max(largest.len()), Vec::new);
        for (layer, heads) in layers.iter_mut().zip(largest) {
            layer.push((*step as f64, f64::from(heads.iter().copied().fold(f32::NEG_INFINITY, f32::max))));
        }
    }
    layers
}

/// In how many steps heads were scaled down, and how many in all; None without QK-clip.
fn clipped(events: &[Event]) -> Option<(usize, usize)> {
    let counts = events.iter().filter_map(|event| match event {
        Event::Heads { clipped, .. } => *clipped,
        _ => None,
    });
    let counts: Vec<usize> = counts.collect();
    let steps = counts.iter().filter(|count| **count > 0).count();
    (!counts.is_empty()).then(|| (steps, counts.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(step: u64, largest: &[&[f32]], clipped: Option<usize>) -> Event {
        Event::Heads { step, largest: largest.iter().map(|heads| heads.to_vec()).collect(), clipped }
    }

    #[test]
    fn a_layer_is_drawn_by_its_largest_head() {
        let events = [heads(1, &[&[1.0, 3.0], &[2.0, -1.0]], None), heads(2, &[&[4.0, 0.5], &[2.5, 6.0]], None)];
        assert_eq!(layers(&events), [vec![(1.0, 3.0), (2.0, 4.0)], vec![(1.0, 2.0), (2.0, 6.0)]]);
        let html = chart(&events, None);
        assert!(html.contains("layer 0") && html.contains("layer 1") && html.contains("<svg"), "{html}");
        assert!(!html.contains("threshold") && !html.contains("QK-clip"), "{html}");
        assert_eq!(chart(&[], Some(100.0)), "");
    }

    #[test]
    fn the_threshold_and_what_it_did_are_shown() {
        let events = [heads(1, &[&[1.0]], Some(0)), heads(2, &[&[9.0]], Some(1)), heads(3, &[&[9.0]], Some(1))];
        let html = chart(&events, Some(8.0));
        assert!(html.contains(">threshold</button>"), "{html}");
        assert!(html.contains("scaled down 2 heads in 2 of the recorded steps"), "{html}");
    }

    #[test]
    fn of_many_layers_those_with_the_largest_logits_are_drawn() {
        let logits: Vec<[f32; 1]> = (0..12).map(|layer| [layer as f32]).collect();
        let largest: Vec<&[f32]> = logits.iter().map(<[f32; 1]>::as_slice).collect();
        let html = chart(&[heads(1, &largest, Some(0)), heads(2, &largest, Some(0))], Some(8.0));
        assert!(html.contains("Layers not drawn: 5;"), "{html}");
        assert!(!html.contains(">layer 4<") && html.contains(">layer 5<") && html.contains(">layer 11<"), "{html}");
    }
}
