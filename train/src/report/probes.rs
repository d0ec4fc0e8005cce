//! What the probes of a run say, if it has any: the best rate beside the one that was used.

use super::chart::{COLOURS, Chart, Series};
use super::curves::keys;
use super::html::{escape, table};
use crate::store::metrics::Event;
use polaron::layerwise::Probe;

/// The probes of one group of parameters, with their steps.
struct Group<'a> {
    name: &'a str,
    probes: Vec<(u64, &'a Probe)>,
}

impl Group<'_> {
    /// Steps, and the base-2 logarithm of best rate / rate, where there is one.
    fn points(&self) -> Vec<(f64, f64)> {
        let point = |(step, probe): &(u64, &Probe)| {
            let ratio = probe.lr_ratio.filter(|ratio| *ratio > 0.0)?;
            Some((*step as f64, -ratio.log2()))
        };
        self.probes.iter().filter_map(point).collect()
    }

    /// The root mean square change of the natural logarithm of the best rate between neighbouring probes.
    fn swing(&self) -> Option<f64> {
        let best = self.probes.iter().map(|(_, probe)| probe.best_lr.filter(|best| *best > 0.0).map(f64::ln));
        let best: Vec<Option<f64>> = best.collect();
        let changes: Vec<f64> = best.windows(2).filter_map(|pair| Some(pair[1]? - pair[0]?)).collect();
        (!changes.is_empty())
            .then(|| (changes.iter().map(|change| change * change).sum::<f64>() / changes.len() as f64).sqrt())
    }

    fn median(&self, of: impl Fn(&Probe) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.probes.iter().filter_map(|(_, probe)| of(probe)).collect();
        values.sort_by(f64::total_cmp);
        let (last, middle) = (values.len().checked_sub(1)?, values.len() / 2);
        Some((values[last / 2] + values[middle]) / 2.0)
    }

    /// The median of the base-2 logarithm of best rate / rate, where there is one.
    fn best(&self) -> Option<f64> {
        self.median(|probe| Some(-probe.lr_ratio.filter(|ratio| *ratio > 0.0)?.log2()))
    }

    fn row(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        let without = self.probes.len() - self.points().len();
        vec![
            self.name.to_owned(),
            number(self.best().map(f64::exp2)),
            number(self.swing()),
            number(self.median(|probe| probe.alignment)),
            number(self.median(|probe| probe.efficiency)),
            number(self.median(|probe| probe.snr)),
            format!("{without} of {}", self.probes.len()),
        ]
    }
}

const HEAD: [&str; 7] =
    ["group", "best rate / rate", "swing", "alignment", "efficiency", "signal to noise", "without a best rate"];

const NOTE: &str = "The rate that would have decreased the loss on the probe batches most along the step that was made, over the \
                    rate of that step, as a power of 2: at 0 the step was the best, above it too short; below -1 it was more than \
                    twice too long, and the loss rose as far as it is quadratic along the step. A group is measured alone, while \
                    all others stand still. Medians over the probes; swing: how much the natural logarithm of the best rate changes \
                    from one probe to the next (root mean square).";

/// Chart, table and what they say; empty without probes. As many groups are drawn as there are colours.
pub fn chart(events: &[Event]) -> String {
    let groups = groups(events);
    let drawn = &groups[..groups.len().min(COLOURS)];
    let series = drawn.iter().enumerate();
    let series = series.map(|(key, group)| Series { key, points: group.points(), band: Vec::new() }).collect();
    let (x, y) = ("steps".into(), "log₂ of best rate / rate".into());
    let svg = Chart { x, y, log_x: false, cut: false, series }.html();
    if groups.is_empty() {
        return String::new();
    }
    let left_out = match groups.len() - drawn.len() {
        0 => String::new(),
        left_out => format!(" Groups not drawn: {left_out}."),
    };
    let rows: Vec<Vec<String>> = groups.iter().map(Group::row).collect();
    format!(
        "{}{svg}<p>{}</p>\n{}<p class=\"note\">{NOTE}{left_out}</p>\n",
        keys(drawn.iter().map(|group| group.name)),
        escape(&said(&groups)),
        table(&HEAD.map(String::from), &rows)
    )
}

/// One sentence: which groups could have made longer steps, and which shorter ones.
fn said(groups: &[Group<'_>]) -> String {
    let of = |holds: fn(Option<f64>) -> bool| {
        let names: Vec<&str> = groups.iter().filter(|group| holds(group.best())).map(|group| group.name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    format!(
        "In the median, the step was shorter than half of the best one for: {}; within a factor of 2 of it for: {}; longer than \
         twice the best one for: {}. Without a best one in any probe, since the loss rises along the step or curves down: {}.",
        of(|best| best.is_some_and(|best| best > 1.0)),
        of(|best| best.is_some_and(|best| best.abs() <= 1.0)),
        of(|best| best.is_some_and(|best| best < -1.0)),
        of(|best| best.is_none())
    )
}

fn groups(events: &[Event]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for event in events {
        let Event::Probe { step, probe } = event else { continue };
        match groups.iter_mut().find(|group| group.name == probe.group) {
            Some(group) => group.probes.push((*step, probe)),
            None => groups.push(Group { name: &probe.group, probes: vec![(*step, probe)] }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(step: u64, group: &str, best_lr: Option<f64>, lr_ratio: Option<f64>) -> Event {
        let number = |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
        let line = format!(
            r#"{{"event":"probe","step":{step},"group":"{group}","lr":0.1,"alignment":0.9,"potential":2.0,"slope":1.0,
                "curvature":1.0,"best_lr":{},"lr_ratio":{},"best_decrease":0.5,"decrease":0.1,"efficiency":0.2,"snr":null}}"#,
            number(best_lr),
            number(lr_ratio)
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn every_group_has_its_curve_and_its_median() {
        let events = [
            probe(10, "hidden", Some(0.4), Some(0.25)),
            probe(10, "head", Some(0.025), Some(4.0)),
            probe(20, "hidden", Some(0.8), Some(0.125)),
            probe(20, "head", None, None),
            probe(30, "hidden", Some(0.8), Some(0.125)),
        ];
        let found = groups(&events);
        assert_eq!(found[0].points(), [(10.0, 2.0), (20.0, 3.0), (30.0, 3.0)]);
        assert_eq!(found[1].points(), [(10.0, -2.0)]);
        assert!((found[0].swing().unwrap() - 2.0_f64.ln() / 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!((found[1].swing(), found[1].row()[6].as_str()), (None, "1 of 2"));
        let html = chart(&events);
        assert!(html.contains("<svg") && html.contains("8.000"), "{html}");
        assert!(html.contains("shorter than half of the best one for: hidden;"), "{html}");
        assert!(html.contains("longer than twice the best one for: head. Without"), "{html}");
        // Both from the same median, also of an even number of probes.
        let even =
            [probe(1, "a", Some(1.0), Some(0.25)), probe(2, "a", Some(1.0), Some(4.0)), probe(1, "b", None, None)];
        let html = chart(&even);
        assert!(html.contains("within a factor of 2 of it for: a;") && html.contains("<td>1.000</td>"), "{html}");
        assert!(html.contains("curves down: b."), "{html}");
    }

    #[test]
    fn without_probes_there_is_no_section() {
        assert_eq!(chart(&[]), "");
    }
}
