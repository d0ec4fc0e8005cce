//! The energy of a run with Muon or smoothed Muon, if it was recorded.

use super::chart::{Chart, Series};
use super::curves::keys;
use crate::store::metrics::Event;

/// One record whose numbers are finite.
#[derive(Clone, Copy)]
struct Record {
    step: u64,
    objective: f64,
    kinetic: f64,
    total: f64,
    dissipated: f64,
    rises: Option<bool>,
}

/// Energy and loss over the steps, with keys and what they say; empty without records.
pub fn chart(events: &[Event]) -> String {
    let record = |event: &Event| match *event {
        Event::Energy { step, objective, kinetic, total, dissipated, rises } => Some(Record {
            step,
            objective: objective?,
            kinetic: kinetic?,
            total: total?,
            dissipated: dissipated?,
            rises,
        }),
        _ => None,
    };
    let records: Vec<Record> = events.iter().filter_map(record).collect();
    let series = |(key, of): (usize, fn(&Record) -> f64)| Series {
        key,
        points: records.iter().map(|record| (record.step as f64, of(record))).collect(),
        band: Vec::new(),
    };
    let drawn: [fn(&Record) -> f64; 2] = [|record| record.total, |record| record.objective];
    let series = drawn.into_iter().enumerate().map(series).collect();
    let svg = Chart { x: "steps".into(), y: "nats".into(), log_x: false, cut: false, series }.html();
    if svg.is_empty() {
        return svg;
    }
    format!(
        "{}{svg}<p>{}</p>\n<p class=\"note\">Energy: the loss on the probe batches and what the momentum adds to it. In the limit of \
         small steps over the full batch it does not rise. Where it often does, the learning rate is large, the noise of the \
         batches is, or the parameters outside the rule move the loss.</p>\n",
        keys(["energy", "loss on the probe batches"].into_iter()),
        said(&records)
    )
}

/// How often the energy rose, which part the momentum had, and what of the loss of energy is not explained.
fn said(records: &[Record]) -> String {
    let compared: Vec<bool> = records.iter().filter_map(|record| record.rises).collect();
    let rises = compared.iter().filter(|rises| **rises).count();
    let mut shares: Vec<f64> = records.iter().map(|record| record.kinetic / record.total).collect();
    shares.sort_by(f64::total_cmp);
    let share = shares.get(shares.len() / 2).map_or(0.0, |share| 100.0 * share);
    format!(
        "The energy rose in {rises} of {} records. Share of the momentum: {share:.1} % in the median.{}",
        compared.len(),
        balance(records).unwrap_or_default()
    )
}

/// What was lost beside what the momentum gave off, if every step was recorded.
fn balance(records: &[Record]) -> Option<String> {
    let (first, last) = (records.first()?, records.last()?);
    let every_step = records.windows(2).all(|pair| pair[1].step == pair[0].step + 1);
    let (lost, dissipated) =
        (first.total - last.total, records[1..].iter().map(|record| record.dissipated).sum::<f64>());
    (every_step && records.len() > 1).then(|| {
        format!(" Lost from first to last record: {lost:.4}; dissipated by the rule in these steps: {dissipated:.4}.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, objective: f64, dissipated: f64, rises: Option<bool>) -> Event {
        let known = |value: f64| value.is_finite().then_some(value);
        let (total, dissipated) = (known(objective + 1.0), Some(dissipated));
        Event::Energy { step, objective: known(objective), kinetic: Some(1.0), total, dissipated, rises }
    }

    #[test]
    fn the_page_says_how_often_the_energy_rose_and_whether_it_balances() {
        let events = [record(0, 3.0, 0.0, None), record(1, 2.0, 0.75, Some(false)), record(2, 2.5, 0.25, Some(true))];
        let html = chart(&events);
        assert!(html.contains("<svg") && html.contains("rose in 1 of 2 records"), "{html}");
        assert!(html.contains("28.6 % in the median"), "{html}");
        assert!(html.contains("record: 0.5000; dissipated by the rule in these steps: 1.0000."), "{html}");
        // With a gap, nothing can be said about the balance.
        let html = chart(&[events[0].clone(), events[2].clone()]);
        assert!(html.contains("rose in 1 of 1 records") && !html.contains("dissipated by"), "{html}");
        // A record without numbers is a gap.
        let html = chart(&[events[0].clone(), record(1, f64::NAN, 0.5, None), events[2].clone()]);
        assert!(html.contains("<svg") && !html.contains("dissipated by"), "{html}");
        assert_eq!(chart(&[]), "");
    }
}
