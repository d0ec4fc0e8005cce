//! `polaron verify`: checks the optimizers on a device against reference vectors.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device};
use clap::Args;
use polaron_common::Align::{Left, Right};
use polaron_common::table;
use polaron_datasets::decode_utf8;
use polaron_verify::vectors::{BUILT_IN, CaseReport, VectorFile};

use crate::error::{EXIT_DONE, EXIT_FAILED, Error, FileError};
use crate::host::device;
use crate::host::progress::print;

/// Arguments of `polaron verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Files of reference vectors. [default: the built-in ones]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Device; see `polaron list devices`. [default: flex]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

/// Prints the table of errors.
///
/// # Errors
///
/// Those of [`verify`]; an unknown device.
pub fn run(args: &VerifyArgs) -> Result<u8, Error> {
    let device = device::open(args.device.as_deref().unwrap_or(device::default_name()))?;
    let (table, passed) = verify(&args.files, &device)?;
    print(&table);
    Ok(if passed { EXIT_DONE } else { EXIT_FAILED })
}

/// The result of a file of cases on one device, in one dtype.
struct Row {
    kind: String,
    dtype: &'static str,
    cases: usize,
    worst: f64,
    time: Duration,
    misses: Vec<String>,
}

/// Runs the given files, or else the built-in vectors, in f32 and, if the device supports it, in f64.
///
/// Returns the table, and whether every case passed.
///
/// # Errors
///
/// A file that cannot be read, or that is not a vector file.
pub fn verify(paths: &[PathBuf], device: &Device) -> Result<(String, bool), Error> {
    let files = read(paths)?;
    let mut rows = Vec::new();
    for (dtype, name) in [(DType::F32, "f32"), (DType::F64, "f64")] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        for (path, file) in &files {
            rows.push(check(path, file, device, dtype, name)?);
        }
    }
    let passed = rows.iter().all(|row| row.misses.is_empty());
    Ok((report(&rows), passed))
}

fn read(paths: &[PathBuf]) -> Result<Vec<(String, VectorFile)>, Error> {
    let parse = |name: String, text: &str| match VectorFile::parse(text) {
        Ok(file) => Ok((name, file)),
        Err(error) => Err(Error::Usage(format!("{name}: {error}"))),
    };
    if paths.is_empty() {
        return BUILT_IN.iter().map(|(name, text)| parse((*name).to_owned(), text)).collect();
    }
    paths
        .iter()
        .map(|path| {
            let bytes = std::fs::read(path).map_err(FileError::at("read", path))?;
            let (text, _) = decode_utf8(path, bytes)?;
            parse(path.display().to_string(), &text)
        })
        .collect()
}

fn check(path: &str, file: &VectorFile, device: &Device, dtype: DType, name: &'static str) -> Result<Row, Error> {
    let started = Instant::now();
    let (mut worst, mut misses) = (0.0_f64, Vec::new());
    for case in &file.cases {
        let report = case.run(device, dtype).map_err(|error| Error::Usage(format!("{path}: {error}")))?;
        worst = if report.worst > worst || report.worst.is_nan() { report.worst } else { worst };
        if !report.passed() {
            misses.push(describe(&case.name, &report));
        }
    }
    let kind = path.to_owned();
    Ok(Row { kind, dtype: name, cases: file.cases.len(), worst, time: started.elapsed(), misses })
}

fn describe(case: &str, report: &CaseReport) -> String {
    let CaseReport { worst, step, entry, got, expected } = report;
    format!(
        "case {case}, step {step}, entry {entry}: got {got:e}, expected {expected:e}, {worst:.2} times the tolerance"
    )
}

fn report(rows: &[Row]) -> String {
    let head = ["vectors", "dtype", "cases", "worst error / tolerance", "time", ""].map(String::from);
    let lines = rows.iter().map(|row| {
        let verdict = if row.misses.is_empty() { "ok" } else { "MISS" };
        let (worst, seconds) = (format!("{:.3}", row.worst), format!("{:.2} s", row.time.as_secs_f64()));
        [row.kind.clone(), row.dtype.to_string(), row.cases.to_string(), worst, seconds, verdict.to_owned()]
    });
    let mut text = table(std::iter::once(head).chain(lines), &[Left, Left, Right, Right, Right]);
    for row in rows {
        for miss in &row.misses {
            text.push_str(&format!("{} {}: {miss}\n", row.kind, row.dtype));
        }
    }
    text
}
