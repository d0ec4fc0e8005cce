//! The results as tables: for a terminal, for pasting (Markdown), for other programs (CSV).

use std::collections::HashMap;
use std::path::Path;

use super::draw::LR;
use super::outcome::{Outcome, first_reach};
use super::plan::{Candidate, Plan};
use super::processors::time_column;
use super::results::{Pair, Results, Standing};
use super::tuning::{AtFactor, FACTORS, Known, Round, Run, Tuning, sensitivity_runs, tuning_runs, verdict_runs};
use polaron_common::{markdown_table, table, thousands};

/// Header and rows of the table of optimizers, best first.
pub fn rows(results: &Results) -> (Vec<String>, Vec<Vec<String>>) {
    let mut head: Vec<String> = ["place", "optimizer", "final loss"].map(String::from).into();
    for target in &results.targets {
        head.extend([format!("steps to {target}"), results.unit.clone(), time_column(results, "seconds")]);
    }
    head.extend(["ms per step", "optimizer share"].map(|name| time_column(results, name)));
    let rest =
        ["state per parameter", "best lr", "next lr below", "next lr above", "tuning runs", "tuning steps", "diverged"];
    head.extend(rest.map(String::from));
    (head, ranked(results).into_iter().map(row).collect())
}

/// The optimizers, best first.
fn ranked(results: &Results) -> Vec<&Standing> {
    let mut standings: Vec<&Standing> = results.optimizers.iter().collect();
    standings.sort_by(|a, b| a.order(b));
    standings
}

const NONE: &str = "–";

fn row(standing: &Standing) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.into());
    let place =
        standing.places.map(|[best, worst]| if best == worst { best.to_string() } else { format!("{best}–{worst}") });
    let mut cells = vec![or_none(place), standing.name.clone(), loss(standing)];
    for reach in &standing.targets {
        let times = reach.mean.map(|[steps, tokens, seconds]| {
            [format!("{steps:.0}"), thousands(tokens.round() as u64), format!("{seconds:.1}")]
        });
        cells.extend(times.unwrap_or_else(|| [format!("{} of {}", reach.reached, reach.of), NONE.into(), NONE.into()]));
    }
    cells.push(or_none(standing.seconds_per_step.map(|seconds| format!("{:.1}", seconds * 1e3))));
    cells.push(or_none(standing.optimizer_share.map(|share| format!("{:.1} %", share * 100.0))));
    cells.push(or_none(standing.state_bytes_per_parameter.map(|bytes| format!("{bytes:.1} B"))));
    cells.push(or_none(standing.chosen.as_ref().map(describe_candidate)));
    cells.extend(standing.sensitivity.iter().map(sensitivity));
    cells.push(standing.tuning_runs.to_string());
    cells.push(thousands(standing.tuning_steps));
    cells.push(format!("{} of {}", standing.diverged, standing.runs.len()));
    cells
}

fn loss(standing: &Standing) -> String {
    match (standing.loss, standing.loss_half_width) {
        (Some(loss), Some(half)) => format!("{loss:.4} ± {half:.4}"),
        (Some(loss), None) => format!("{loss:.4}"),
        (None, _) => NONE.into(),
    }
}

/// "0.02, optimizer.weight_decay 0.1".
pub fn describe_candidate(candidate: &Candidate) -> String {
    let swept = candidate.swept.iter().map(|(key, value)| format!(", {key} {value}")).collect::<String>();
    format!("{}{swept}", candidate.lr)
}

/// How much worse the tuning loss is at another rate: "×3: +0.017".
fn sensitivity(side: &Option<(f64, Option<f64>)>) -> String {
    let Some((factor, worse)) = side else { return NONE.into() };
    let times = if *factor < 1.0 { format!("÷{:.2}", 1.0 / factor) } else { format!("×{factor:.2}") };
    let times = times.trim_end_matches('0').trim_end_matches('.').to_owned();
    worse.map_or_else(|| format!("{times}: diverged"), |worse| format!("{times}: {worse:+.3}"))
}

/// Header and rows of a table of the tuning losses at multiples of the best learning rate, best optimizer first.
pub fn rates(results: &Results) -> Vec<Vec<String>> {
    let factor = |factor: &f64| if *factor < 1.0 { format!("÷{}", 1.0 / factor) } else { format!("×{factor}") };
    let mut lines =
        vec![["optimizer".into(), "best lr".into()].into_iter().chain(FACTORS.iter().map(factor)).collect()];
    for standing in ranked(results) {
        let Some(chosen) = &standing.chosen else { continue };
        let mut line = vec![standing.name.clone(), describe_candidate(chosen)];
        line.extend(standing.at_factors.iter().map(at_factor));
        lines.push(line);
    }
    lines
}

/// What the symbols in [`rates`] mean; a tuning run has `steps` steps.
pub fn rates_note(steps: u64) -> String {
    format!(
        "Validation loss after {steps} steps on the tuning seeds, at fractions and multiples of the best learning rate. ≈: \
         not run, but interpolated between the two neighbouring rates, linearly in the logarithm of the rate; –: not \
         measured, since it is outside the rates that were run or next to one that diverged."
    )
}

fn at_factor(at: &AtFactor) -> String {
    match (at.known, at.loss) {
        (Known::Measured, Some(loss)) => format!("{loss:.4}"),
        (Known::Interpolated, Some(loss)) => format!("≈ {loss:.3}"),
        (Known::Diverged, _) => "diverged".into(),
        _ => NONE.into(),
    }
}

/// Header and rows of a table of the pairs: the figures behind the sentences.
pub fn pairs(results: &Results) -> Vec<Vec<String>> {
    let head = [
        "better",
        "other",
        "seeds won",
        "difference",
        "95 % t",
        "95 % bootstrap",
        "p",
        "p (Holm)",
        "seeds needed",
        "detectable",
    ];
    let mut head: Vec<String> = head.map(String::from).into();
    for target in &results.targets {
        head.extend([format!("steps to {target}, ratio"), "95 % t".into(), "p (Holm)".into(), "seconds, ratio".into()]);
    }
    let mut lines = vec![head];
    lines.extend(results.pairs.iter().map(pair_line));
    lines
}

fn pair_line(pair: &Pair) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.into());
    let number = |x: Option<f64>| or_none(x.map(|x| format!("{x:.4}")));
    let range = |ends: Option<[f64; 2]>, digits: usize| {
        or_none(ends.map(|[low, high]| format!("{low:.digits$} to {high:.digits$}")))
    };
    let small = |p: Option<f64>| or_none(p.map(|p| if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }));
    let loss = pair.loss;
    let times = if pair.times_comparable { "" } else { " (not comparable)" };
    let mut cells = vec![
        pair.a.clone(),
        pair.b.clone(),
        format!("{} : {}", pair.wins[0], pair.wins[1]),
        number(loss.map(|loss| loss.mean)),
        range(loss.and_then(|loss| loss.interval), 4),
        range(loss.and_then(|loss| loss.bootstrap), 4),
        small(loss.and_then(|loss| loss.p)),
        small(pair.p_loss),
        or_none(pair.seeds_needed.map(|seeds| seeds.to_string())),
        number(pair.detectable),
    ];
    for reach in &pair.targets {
        let bound = if reach.complete { "" } else { " (bound)" };
        cells.extend([
            or_none(reach.steps.map(|steps| format!("{:.3}{bound}", steps.mean))),
            range(reach.steps.and_then(|steps| steps.interval), 3),
            small(reach.p),
            or_none(reach.seconds.map(|seconds| format!("{:.3}{bound}{times}", seconds.mean))),
        ]);
    }
    cells
}

/// The table for a terminal, where a dozen columns do not fit.
pub fn text(results: &Results) -> String {
    table(columns(results), &[])
}

/// The same table with a column for every optimizer; the first line is the header.
pub fn columns(results: &Results) -> Vec<Vec<String>> {
    let (head, rows) = rows(results);
    let line = |(index, name): (usize, &String)| {
        std::iter::once(name.clone()).chain(rows.iter().map(|row| row[index].clone())).collect()
    };
    let mut lines: Vec<Vec<String>> = head.iter().enumerate().map(line).collect();
    // Names on top, then places.
    lines.swap(0, 1);
    lines
}

/// `results.md`: verdict, tables and notes; a tuning run has `tune_steps` steps.
pub fn markdown(results: &Results, tune_steps: u64) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("* {item}\n")).collect::<String>();
    let (head, rows) = rows(results);
    let rates = rates(results);
    let sensitivity = match rates.as_slice() {
        [head, rows @ ..] if !rows.is_empty() => {
            format!("{}\n{}\n\n", markdown_table(head, rows, &[]), rates_note(tune_steps))
        }
        _ => String::new(),
    };
    format!(
        "Ranking: {}\n\n{}\n{}\n{sensitivity}{}",
        results.ranking,
        list(&results.verdict),
        markdown_table(head, rows, &[]),
        list(&results.notes)
    )
}

/// The results for a terminal; `out` is their folder.
pub fn summary(results: &Results, out: &Path) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("* {item}\n")).collect::<String>();
    format!(
        "\n{}\nranking: {}\n\n{}\n{}\nresults in {}\n",
        list(&results.verdict),
        results.ranking,
        text(results),
        list(&results.notes),
        out.display()
    )
}

/// `results.csv`: one line for every run.
pub fn csv(plan: &Plan, results: &Results, ended: &HashMap<String, Outcome>) -> String {
    let swept: Vec<String> = swept_keys(plan);
    let mut head: Vec<String> = ["run", "purpose", "optimizer", "seed", "lr"].map(String::from).into();
    head.extend(swept.iter().cloned());
    head.extend(["status", "final_loss", "steps", "tokens", "seconds", "optimizer_seconds", "cpu"].map(String::from));
    for target in &results.targets {
        head.extend(["steps", "tokens", "seconds"].map(|unit| format!("{unit}_to_{target}")));
    }
    let mut lines = vec![head];
    for (index, standing) in results.optimizers.iter().enumerate() {
        for run in runs(plan, index, &standing.tuning) {
            if let Some(outcome) = ended.get(&run.name) {
                lines.push(csv_line(&run, &standing.name, outcome, &swept, &results.targets));
            }
        }
    }
    polaron_common::csv(lines)
}

fn swept_keys(plan: &Plan) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let swept = plan.contenders.iter().flat_map(|contender| contender.sweep.iter().map(|(key, _)| key));
    let searched = plan.contenders.iter().flat_map(|contender| contender.search.iter().map(|(key, _)| key));
    for key in swept.chain(searched) {
        if key != LR && !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys
}

/// Every run of an optimizer whose tuning has ended.
fn runs(plan: &Plan, contender: usize, tuning: &Tuning) -> Vec<Run> {
    let mut runs = Vec::new();
    for (index, trial) in tuning.trials.iter().enumerate() {
        let of_round = |round: &Round| tuning_runs(plan, contender, index, &trial.candidate, round.steps);
        runs.extend(trial.rounds().flat_map(of_round));
    }
    runs.extend(tuning.probes.iter().flat_map(|probe| sensitivity_runs(plan, contender, &probe.candidate)));
    runs.extend(verdict_runs(plan, contender, tuning));
    runs
}

fn csv_line(run: &Run, name: &str, outcome: &Outcome, swept: &[String], targets: &[f64]) -> Vec<String> {
    let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    let value = |key: &String| {
        let found = run.candidate.swept.iter().find(|(k, _)| k == key);
        found.map_or(String::new(), |(_, value)| value.as_str().map_or_else(|| value.to_string(), String::from))
    };
    let mut cells = vec![
        run.name.clone(),
        run.purpose.name().into(),
        name.into(),
        run.seed.to_string(),
        run.candidate.lr.to_string(),
    ];
    cells.extend(swept.iter().map(value));
    let status = if outcome.diverged.is_some() { "diverged" } else { "finished" };
    let end = &outcome.end;
    cells.extend([status.into(), number(outcome.loss), end.step.to_string(), end.tokens.to_string()]);
    cells.extend([end.seconds.to_string(), end.optimizer_seconds.to_string(), outcome.cpus.join(" and ")]);
    for target in targets {
        let point = first_reach(&outcome.curve, *target);
        cells.extend([point.map(|p| p.step), point.map(|p| p.tokens), point.map(|p| p.seconds)].map(number));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_shows_how_it_is_known() {
        let at = |loss, known| at_factor(&AtFactor { factor: 2.0, lr: 0.1, loss, known });
        let shown = [
            at(Some(1.23456), Known::Measured),
            at(Some(1.23456), Known::Interpolated),
            at(None, Known::Diverged),
            at(None, Known::NotMeasured),
        ];
        assert_eq!(shown, ["1.2346", "≈ 1.235", "diverged", "–"]);
    }
}
