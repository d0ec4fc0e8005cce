//! What the user sees while waiting: a progress bar on a terminal, plain lines elsewhere; all of it on stderr.

use std::fs::File;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use polaron_common::thousands;

/// The bar on the screen, if any; every other line on stderr is written above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the lines of a process go that does not talk to the user.
#[derive(Debug)]
enum Aside {
    /// There is no file for them yet.
    Kept(Vec<u8>),
    File(File),
}

static ASIDE: Mutex<Option<Aside>> = Mutex::new(None);

fn aside() -> MutexGuard<'static, Option<Aside>> {
    ASIDE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on nothing is shown: another process of the same run talks to the user. What would have been shown is kept.
pub fn step_aside() {
    aside().get_or_insert(Aside::Kept(Vec::new()));
}

/// Writes what was and will be kept into this file.
pub fn log_aside(mut file: File) {
    let mut aside = aside();
    if let Some(Aside::Kept(kept)) = aside.as_ref() {
        // A log that cannot be written is no reason to end a run.
        let _ = file.write_all(kept);
        *aside = Some(Aside::File(file));
    }
}

/// Writes bytes aside, if this process does not talk to the user; returns whether that is so.
fn put_aside(bytes: &[u8]) -> bool {
    match aside().as_mut() {
        None => return false,
        Some(Aside::Kept(kept)) => kept.extend_from_slice(bytes),
        // As above.
        Some(Aside::File(file)) => drop(file.write_all(bytes)),
    }
    true
}

/// Writes one line to stderr, above the progress bar if there is one. A closed stderr is not an error.
pub fn say(line: &str) {
    let _ = LogWriter.write_all(format!("{line}\n").as_bytes());
}

/// The same, even if another process talks to the user: why this one ends all of them.
pub fn cry(line: &str) {
    if put_aside(format!("{line}\n").as_bytes()) {
        let _ = stderr().lock().write_all(format!("{line}\n").as_bytes());
    } else {
        say(line);
    }
}

/// Writes a result to stdout. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) {
    if put_aside(text.as_bytes()) {
        return;
    }
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Stderr for the log, above the progress bar.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if put_aside(bytes) {
            return Ok(bytes.len());
        }
        match bar().as_ref() {
            Some(bar) => bar.suspend(|| stderr().lock().write_all(bytes)),
            None => stderr().lock().write_all(bytes),
        }
        .map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        stderr().lock().flush()
    }
}

/// Progress of one training session.
#[derive(Debug)]
pub struct Progress {
    first: u64,
    steps: u64,
    every: u64,
    tokens_per_step: u64,
    unit: &'static str,
    on_terminal: bool,
}

/// What one step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Finished steps.
    pub step: u64,
    /// Loss of the step's batch.
    pub loss: f64,
    /// Learning rate of the main rule.
    pub lr: f64,
    /// Training seconds of this session.
    pub session_seconds: f64,
}

impl Progress {
    /// Progress from step `first` (already done) to `steps`, with a plain line every `every` steps. A step reads
    /// `tokens_per_step` of `unit` ("tokens", "images").
    pub fn start(first: u64, steps: u64, every: u64, tokens_per_step: u64, unit: &'static str) -> Self {
        let on_terminal = stderr().is_terminal();
        if on_terminal {
            let new = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(8));
            // The template is a constant; should the library ever reject it, its default bar is used.
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}");
            new.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            new.set_position(first);
            *bar() = Some(new);
        }
        Self { first, steps, every, tokens_per_step, unit, on_terminal }
    }

    /// Shows a finished step.
    pub fn step(&self, report: StepReport) {
        if !self.on_terminal {
            if report.step.is_multiple_of(self.every) || report.step == self.first + 1 || report.step == self.steps {
                say(&format!("step {}/{}  {}", report.step, self.steps, self.describe(report)));
            }
        } else if let Some(bar) = bar().as_ref() {
            bar.set_position(report.step);
            bar.set_message(self.describe(report));
        }
    }

    fn describe(&self, report: StepReport) -> String {
        let done = report.step.saturating_sub(self.first).max(1) as f64;
        let seconds = report.session_seconds.max(1e-9);
        let left = self.steps.saturating_sub(report.step) as f64 * seconds / done;
        format!(
            "loss {:.4}  lr {:.3e}  {} {}/s  {} left",
            report.loss,
            report.lr,
            thousands((done * self.tokens_per_step as f64 / seconds) as u64),
            self.unit,
            duration(left)
        )
    }
}

/// Progress of one pass over files.
#[derive(Debug)]
pub struct Reading {
    doing: &'static str,
    total: u64,
    start: Instant,
    /// When the last plain line was written.
    said: Instant,
    on_terminal: bool,
}

impl Reading {
    /// How often a plain line is written: a pass may take a moment or hours, so no number of bytes suits all.
    const EVERY: Duration = Duration::from_secs(5);

    /// A pass over `total` bytes; `doing` names it.
    pub fn start(doing: &'static str, total: u64) -> Self {
        let (start, on_terminal) = (Instant::now(), stderr().is_terminal());
        if on_terminal {
            let new = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{wide_bar} {msg}");
            new.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            *bar() = Some(new);
        }
        Self { doing, total, start, said: start, on_terminal }
    }

    /// What is being done.
    pub fn doing(&self) -> &'static str {
        self.doing
    }

    /// Shows that `read` bytes are done.
    pub fn at(&mut self, read: u64) {
        if self.on_terminal {
            if let Some(bar) = bar().as_ref() {
                bar.set_position(read);
                bar.set_message(self.describe(read));
            }
        } else if self.said.elapsed() >= Self::EVERY {
            self.said = Instant::now();
            say(&self.describe(read));
        }
    }

    fn describe(&self, read: u64) -> String {
        let (doing, seconds) = (self.doing, self.start.elapsed().as_secs_f64().max(1e-9));
        let left = self.total.saturating_sub(read) as f64 * seconds / (read.max(1) as f64);
        let rate = read as f64 / 1e6 / seconds;
        let (read, total) = (thousands(read / 1_000_000), thousands(self.total / 1_000_000));
        format!("{doing}: {read} of {total} MB  {rate:.1} MB/s  {} left", duration(left))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        clear();
    }
}

/// Progress of many runs at once: a bar with a table below it on a terminal. What happened is printed elsewhere.
#[derive(Debug)]
pub struct Live;

impl Live {
    /// Shows the bar, if stderr is a terminal.
    pub fn start() -> Self {
        if stderr().is_terminal() {
            let new = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(4));
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} steps  {msg}");
            new.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            *bar() = Some(new);
        }
        Self
    }

    /// Whether there is a terminal to show it on.
    pub fn is_visible(&self) -> bool {
        bar().is_some()
    }

    /// Shows how much of `total` is done; the lines of `text` after the first are below the bar.
    pub fn show(&self, done: u64, total: u64, text: &str) {
        if let Some(bar) = bar().as_ref() {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(text.to_owned());
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        clear();
    }
}

/// Removes the bar from the screen.
fn clear() {
    if let Some(bar) = bar().take() {
        bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        clear();
    }
}

/// Seconds as "1h02m", "3m05s" or "7s".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!([0.4, 59.6, 185.0, 3720.0].map(duration), ["0s", "1m00s", "3m05s", "1h02m"]);
    }
}
