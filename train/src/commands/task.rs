//! `polaron task`: problems with known answers, measured next to expected values.

use std::time::Instant;

use burn::tensor::DType;
use clap::Args;
use polaron::OptimizerConfig;
use polaron_common::{did_you_mean_or_list, table};
use polaron_verify::tasks::{Finding, Setting, TASKS, Task};

use super::usage;
use crate::error::{EXIT_DONE, EXIT_FAILED, Error};
use crate::host::device;
use crate::host::progress::print;

/// The tasks, one line each.
pub fn names() -> String {
    table(TASKS.iter().map(|task| [task.name.to_owned(), task.about.to_owned()]), &[])
}

/// Arguments of `polaron task`.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// Name of the task (see `polaron list tasks`), or `all`.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Use smaller sizes where the task allows it.
    #[arg(long)]
    pub quick: bool,
    /// An optimizer to run as well: a kind, or a configuration as JSON. A task that has no place for one refuses it.
    #[arg(long, value_name = "KIND|JSON")]
    pub optimizer: Option<String>,
    /// Learning rate of that optimizer. [default: 0.02]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = usage::real)]
    pub lr: Option<f64>,
}

/// Runs one task, or `all`, and prints each report as soon as it is ready.
///
/// # Errors
///
/// An unknown task or optimizer, a learning rate without an optimizer, or an optimizer for a task that takes none.
pub fn run(args: &TaskArgs) -> Result<u8, Error> {
    let TaskArgs { name, quick, optimizer, lr } = args;
    let tasks = chosen(name)?;
    let device = device::open(device::default_name())?;
    if !device.supports_dtype(DType::F64) {
        let name = device::default_name();
        return Err(Error::Usage(format!(
            "tasks compute in f64, which the device `{name}` does not support: build with the feature `flex`"
        )));
    }
    let setting = Setting { device: &device, quick: *quick, optimizer: own(optimizer.as_deref(), *lr)? };
    let (tasks, left_out) = split(name, tasks, setting.optimizer.is_some());
    if !left_out.is_empty() {
        let names = left_out.iter().map(|task| task.name).collect::<Vec<_>>().join(", ");
        print(&format!("left out, as they take no optimizer: {names}\n"));
    }
    let mut passed = true;
    for task in tasks {
        let started = Instant::now();
        let findings = task.run(&setting).map_err(|error| Error::Usage(error.to_string()))?;
        passed &= findings.iter().all(|finding| finding.passed != Some(false));
        print(&report(task, &findings, started.elapsed().as_secs_f64()));
    }
    Ok(if passed { EXIT_DONE } else { EXIT_FAILED })
}

fn chosen(name: &str) -> Result<Vec<&'static Task>, Error> {
    if name == "all" {
        return Ok(TASKS.iter().collect());
    }
    match Task::find(name) {
        Some(task) => Ok(vec![task]),
        None => {
            let names = || TASKS.iter().map(|task| task.name).chain(["all"]);
            Err(Error::Usage(format!("unknown task `{name}`{}", did_you_mean_or_list(name, names()))))
        }
    }
}

/// Those of the tasks that are run, and those of `all` that are left out because they take no optimizer and one is given.
fn split(name: &str, tasks: Vec<&'static Task>, optimizer: bool) -> (Vec<&'static Task>, Vec<&'static Task>) {
    tasks.into_iter().partition(|task| !(optimizer && name == "all" && task.takes_none.is_some()))
}

fn own(optimizer: Option<&str>, lr: Option<f64>) -> Result<Option<(OptimizerConfig, f64)>, Error> {
    let Some(kind) = optimizer else {
        return match lr {
            Some(_) => Err(Error::Usage("--lr applies only to --optimizer: add --optimizer".into())),
            None => Ok(None),
        };
    };
    let config = match kind.starts_with('{') {
        true => serde_json::from_str(kind).map_err(|error| Error::Usage(format!("--optimizer: {error}")))?,
        false => OptimizerConfig::of_kind(kind).map_err(|error| Error::Usage(format!("--optimizer: {error}")))?,
    };
    config.validate().map_err(|error| Error::Usage(format!("--optimizer: {error}")))?;
    let lr = lr.unwrap_or(0.02);
    if !(lr > 0.0 && lr.is_finite()) {
        return Err(Error::Usage(format!("--lr must be a number above 0, got {lr}")));
    }
    Ok(Some((config, lr)))
}

fn report(task: &Task, findings: &[Finding], seconds: f64) -> String {
    let figures = || findings.iter().filter(|finding| !finding.measured.is_empty());
    let width = |f: fn(&Finding) -> &str| figures().map(|finding| f(finding).chars().count()).max().unwrap_or(0);
    let (what, measured) = (width(|f| &f.what), width(|f| &f.measured));
    let mut text = format!("{}: {} ({seconds:.1} s)\n", task.name, task.about);
    for finding in findings {
        let verdict = match finding.passed {
            Some(true) => "ok",
            Some(false) => "MISS",
            None => "",
        };
        let Finding { what: label, measured: value, predicted, .. } = finding;
        let predicted = if predicted.is_empty() { String::new() } else { format!("expected {predicted}") };
        text.push_str(format!("  {label:what$}  {value:>measured$}  {verdict:4}  {predicted}").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_exist_name_the_nearest() {
        let said = chosen("nonsmoth").unwrap_err().to_string();
        assert!(said.contains("did you mean `nonsmooth`?"), "{said}");
        assert_eq!(chosen("all").unwrap().len(), TASKS.len());
    }

    #[test]
    fn a_learning_rate_needs_an_optimizer_and_must_be_a_number() {
        assert!(own(None, Some(0.1)).is_err());
        assert!(own(Some("muon"), Some(f64::NAN)).is_err());
        assert!(own(Some("moun"), None).unwrap_err().to_string().contains("did you mean"));
        assert_eq!(own(Some("kaon"), Some(0.5)).unwrap().map(|(config, lr)| (config.kind(), lr)), Some(("kaon", 0.5)));
    }

    #[test]
    fn all_tasks_leave_out_those_that_take_no_optimizer_and_a_single_one_refuses_it() {
        let count = |name, optimizer| {
            let (run, left_out) = split(name, chosen(name).unwrap(), optimizer);
            (run.len(), left_out.len())
        };
        let none = TASKS.iter().filter(|task| task.takes_none.is_some()).count();
        assert!(none > 0 && none < TASKS.len());
        assert_eq!(count("all", true), (TASKS.len() - none, none));
        assert_eq!(count("all", false), (TASKS.len(), 0));
        assert_eq!(count("spike", true), (1, 0), "it is run, and says why it refuses");
    }

    #[test]
    fn a_sentence_does_not_widen_the_columns() {
        let finding = |what: &str, measured: &str| Finding {
            what: what.into(),
            measured: measured.into(),
            predicted: String::new(),
            passed: None,
        };
        let text = report(&TASKS[0], &[finding("f", "1"), finding("a long sentence", "")], 0.0);
        assert!(text.ends_with("\n  f  1\n  a long sentence\n"), "{text}");
    }

    #[test]
    fn a_miss_is_marked() {
        let finding = |passed| Finding { what: "f".into(), measured: "1".into(), predicted: "2".into(), passed };
        let text = report(&TASKS[0], &[finding(Some(false)), finding(Some(true)), finding(None)], 0.0);
        assert!(text.contains("MISS  expected 2") && text.contains("ok    expected 2"), "{text}");
    }
}
