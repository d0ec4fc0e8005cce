//! The largest curvature of a run's loss, if it was measured.

use super::chart::{Chart, Series};
use super::curves::keys;
use crate::store::metrics::Event;

/// The sharpness over the steps beside 2 / lr, with keys and a note; empty without measurements.
pub fn chart(events: &[Event]) -> String {
    let measured = |of: fn(&Event) -> Option<(u64, f64)>| -> Vec<(f64, f64)> {
        let positive = events.iter().filter_map(of).filter(|(_, value)| *value > 0.0);
        positive.map(|(step, value)| (step as f64, value.log10())).collect()
    };
    let sharpness = measured(|event| match event {
        Event::Sharpness { step, sharpness, .. } => Some((*step, (*sharpness)?)),
        _ => None,
    });
    let edge = measured(|event| match event {
        Event::Sharpness { step, stable_below, .. } => Some((*step, (*stable_below)?)),
        _ => None,
    });
    let series = [sharpness, edge].into_iter().enumerate();
    let series = series.map(|(key, points)| Series { key, points, band: Vec::new() }).collect();
    let svg = Chart { x: "steps".into(), y: "log₁₀ of curvature".into(), log_x: false, cut: false, series }.html();
    if svg.is_empty() {
        return svg;
    }
    format!(
        "{}{svg}<p class=\"note\">The eigenvalue of the Hessian with the largest magnitude, on the probe batches, by power iteration; \
         negative ones are not drawn. Gradient descent with the rate lr is stable up to a curvature of 2 / lr. Other rules \
         scale their steps, so for them only the shape of the curve can be compared, not its height.</p>\n",
        keys(["sharpness", "2 / lr"].into_iter())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curvature_and_limit_are_drawn_as_powers_of_ten() {
        let measured = |step, sharpness, stable_below| Event::Sharpness { step, sharpness, stable_below };
        let html =
            chart(&[measured(10, Some(100.0), Some(20.0)), measured(20, Some(1000.0), None), measured(30, None, None)]);
        assert!(html.contains("<svg") && html.contains("2 / lr"), "{html}");
        assert_eq!(chart(&[]), "");
    }
}
