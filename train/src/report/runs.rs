//! The part of a page about single runs.

use std::path::Path;

use super::curves::{Curve, curve_tabs, keys, smoothed, time_bars};
use super::energy;
use super::heads;
use super::html::{escape, folded, table};
use super::names::name_of;
use super::probes;
use super::sharpness;
use super::weights;
use crate::compare::{Point, snapshots, train_losses, validations};
use crate::error::{Error, FileError};
use crate::host::progress::duration;
use crate::run::summary;
use crate::settings::config::Config;
use crate::store::metrics::{self, End, Event};
use crate::store::run_folder::RunFolder;
use polaron_common::thousands;
use polaron_datasets::quoted;

const COVERAGE: &str = "<p class=\"note\">The curve is over evenly spaced windows of the validation split \
    (<code>train.valid_windows</code>), the dot at its end over <code>train.valid_windows_end</code> of them, by default all.</p>
";

/// A run as far as it has come.
#[derive(Debug)]
pub struct ReportedRun {
    /// Name of its folder.
    pub name: String,
    path: String,
    config: Config,
    config_text: String,
    plan: String,
    /// Fingerprint of its data, once it has a checkpoint.
    pub data_sha256: Option<String>,
    events: Vec<Event>,
}

impl ReportedRun {
    /// Reads the run in a folder.
    ///
    /// # Errors
    ///
    /// A damaged configuration, files that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let folder = RunFolder::existing(dir)?;
        let text = |path: &Path| std::fs::read_to_string(path).map_err(FileError::at("read", path));
        Ok(Self {
            name: name_of(dir),
            path: dir.display().to_string(),
            config: folder.config()?,
            config_text: folder.config_text()?.1,
            plan: text(&folder.plan_file())?,
            data_sha256: folder.store().newest_state().map(|state| state.data_sha256),
            events: metrics::read(&folder.metrics_file())?,
        })
    }

    /// Name or path of its data.
    pub fn source(&self) -> &str {
        &self.config.data.source
    }

    fn end(&self) -> Option<&End> {
        match self.events.last() {
            Some(Event::End(end)) => Some(end),
            _ => None,
        }
    }

    fn status(&self) -> String {
        self.end().map_or_else(|| "not ended".into(), |end| end.status.clone())
    }

    fn last(&self) -> Option<(u64, u64, f64, f64)> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Train { step, tokens, seconds, optimizer_seconds, .. } => {
                Some((*step, *tokens, *seconds, *optimizer_seconds))
            }
            _ => None,
        })
    }

    /// The last validation in bits per byte.
    fn bits_per_byte(&self) -> Option<f64> {
        let validations = self.events.iter().rev().find_map(|event| match event {
            Event::Valid { bits_per_byte, .. } => Some(*bits_per_byte),
            _ => None,
        });
        validations.flatten()
    }

    fn row(&self) -> Vec<String> {
        let (step, tokens, seconds, optimizer_seconds) = self.last().unwrap_or_default();
        let last = validations_of_all(&self.events).last().map(|point| format!("{:.4}", point.loss));
        let best = self.end().and_then(|end| Some(format!("{:.4} at {}", end.best_valid_loss?, end.best_step?)));
        let pace = (seconds > 0.0).then(|| thousands((tokens as f64 / seconds) as u64));
        let share = (seconds > 0.0).then(|| format!("{:.1} %", 100.0 * optimizer_seconds / seconds));
        vec![
            self.name.clone(),
            self.config.model.preset().into(),
            self.config.optimizer.stack.clone(),
            self.config.optimizer.lr.to_string(),
            self.config.train.seed.to_string(),
            self.status(),
            format!("{} of {}", thousands(step), thousands(self.config.train.steps)),
            last.unwrap_or_else(none),
            best.unwrap_or_else(none),
            thousands(tokens),
            duration(seconds),
            pace.unwrap_or_else(none),
            share.unwrap_or_else(none),
        ]
    }
}

/// A cell without a value.
fn none() -> String {
    "–".into()
}

/// All validations, whichever windows they cover.
fn validations_of_all(events: &[Event]) -> Vec<Point> {
    let point = |event: &Event| match event {
        Event::Valid { step, loss, tokens, seconds, .. } => {
            Some(Point { step: *step as f64, tokens: *tokens as f64, seconds: *seconds, loss: *loss })
        }
        _ => None,
    };
    events.iter().filter_map(point).collect()
}

/// The validations over other windows than those of the curve.
fn validations_elsewhere(events: &[Event]) -> Vec<Point> {
    let curve = validations(events);
    validations_of_all(events).into_iter().filter(|point| !curve.contains(point)).collect()
}

/// The spectra of a run's weights; empty if none were recorded. `index` distinguishes the runs of a page.
fn spectra(index: usize, run: &ReportedRun) -> String {
    let (kinds, left_out) = weights::by_kind(&snapshots(&run.events));
    let (names, curves): (Vec<String>, Vec<weights::Curve>) = kinds.into_iter().unzip();
    let charts = weights::charts(&format!("spectra-{index}"), &curves);
    if charts.is_empty() {
        return String::new();
    }
    let more = match left_out {
        0 => String::new(),
        left_out => format!(" Kinds not drawn: {left_out}; <code>metrics.jsonl</code> has them all."),
    };
    format!(
        "{}{charts}<p class=\"note\">Means over the matrices of a kind. {}{more}</p>\n",
        keys(names.iter().map(String::as_str)),
        weights::NOTE
    )
}

/// A section about a run; empty without content.
fn section(title: &str, run: &ReportedRun, named: bool, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    let of = if named { format!(" of {}", escape(&run.name)) } else { String::new() };
    format!("<section><h2>{title}{of}</h2>\n{content}</section>\n")
}

/// The sections about runs.
pub fn sections(runs: &[ReportedRun]) -> String {
    let title = match runs {
        [run] => format!("Run {}", run.name),
        runs => format!("{} runs", runs.len()),
    };
    let many = runs[0].config.model.unit().many;
    let head = [
        "run",
        "model",
        "optimizer",
        "lr",
        "seed",
        "status",
        "steps",
        "last loss",
        "best loss",
        many,
        "time",
        &format!("{many}/s"),
        "optimizer share",
    ];
    let mut head: Vec<String> = head.map(String::from).into();
    let mut rows: Vec<Vec<String>> = runs.iter().map(ReportedRun::row).collect();
    if runs.iter().any(|run| run.bits_per_byte().is_some()) {
        let at = head.iter().position(|title| title == "last loss").map_or(head.len(), |place| place + 1);
        head.insert(at, "bits per byte".into());
        let bits = runs.iter().map(|run| run.bits_per_byte().map_or_else(none, |bits| format!("{bits:.4}")));
        rows.iter_mut().zip(bits).for_each(|(row, bits)| row.insert(at, bits));
    }
    let mut html = format!("<h1>{}</h1>\n{}", escape(&title), table(&head, &rows));
    for run in runs {
        if let Some(reason) = run.end().and_then(|end| end.reason.as_ref()) {
            html.push_str(&format!("<p><strong>{}</strong>: {}</p>\n", escape(&run.name), escape(reason)));
        }
    }
    let curves = |points: fn(&[Event]) -> Vec<Point>, dots: fn(&[Event]) -> Vec<Point>| {
        let curves =
            runs.iter().map(|run| Curve { points: points(&run.events), band: Vec::new(), dots: dots(&run.events) });
        curves.collect::<Vec<Curve>>()
    };
    let names = || keys(runs.iter().map(|run| run.name.as_str()));
    let mixed = runs.iter().any(|run| !validations_elsewhere(&run.events).is_empty());
    let note = if mixed { COVERAGE } else { "" };
    for (group, title, curves, cut, note) in [
        ("run-valid", "Validation loss", curves(validations, validations_elsewhere), false, note),
        (
            "run-train",
            "Training loss, moving average",
            curves(|events| smoothed(&train_losses(events)), |_| Vec::new()),
            true,
            "",
        ),
    ] {
        let tabs = curve_tabs(group, &curves, "nats", many, cut);
        if !tabs.is_empty() {
            html.push_str(&format!("<section><h2>{title}</h2>\n{}{tabs}{note}</section>\n", names()));
        }
    }
    let times = runs.iter().filter_map(|run| {
        let (step, _, seconds, optimizer_seconds) =
            run.last().filter(|(step, _, seconds, _)| *step > 0 && *seconds > 0.0)?;
        Some((run.name.as_str(), seconds / step as f64, optimizer_seconds / seconds))
    });
    html.push_str(&format!("<section><h2>Time per step</h2>\n{}</section>\n", time_bars(times)));
    for (index, run) in runs.iter().enumerate() {
        let mut add = |title: &str, content: String| html.push_str(&section(title, run, runs.len() > 1, &content));
        add("Spectra of the weights", spectra(index, run));
        add("Largest attention logits", heads::chart(&run.events, run.config.optimizer.qk_clip));
        add("Best learning rates", probes::chart(&run.events));
        add("Sharpness", sharpness::chart(&run.events));
        add("Energy", energy::chart(&run.events));
    }
    html.push_str("<section><h2>Details</h2>\n");
    for run in runs {
        html.push_str(&format!("<h3>{}</h3>\n", escape(&run.name)));
        html.push_str(&format!(
            "<p>Repeat it: <code>polaron train {} --out runs/again</code></p>\n",
            escape(&quoted(&Path::new(&run.path).join("config.toml")))
        ));
        if let Some(weights) = summary::weights(&run.config) {
            html.push_str(&format!("<p>First weights: {}</p>\n", escape(&weights)));
        }
        html.push_str(&folded("Plan: which rule updates which parameter", &run.plan));
        html.push_str(&folded("Configuration", &run.config_text));
    }
    html.push_str("</section>\n");
    html
}
