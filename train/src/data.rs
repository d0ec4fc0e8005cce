//! `polaron data`: texts to packed tokens, and what is in them.

use std::path::Path;
use std::time::Instant;

use polaron_common::{table, thousands};
use polaron_datasets::pack::{self, PackOptions, PackProgress};
use polaron_datasets::{DataError, Packed, TextData, quoted};

use crate::config::DataConfig;
use crate::error::Error;
use crate::memory;
use crate::progress::{Reading, duration, say};

/// Packs texts into the folder `out`; returns what there is to say about it.
///
/// # Errors
///
/// Those of [`polaron_datasets::pack::pack`].
pub fn pack(options: &PackOptions, out: &Path) -> Result<String, Error> {
    let start = Instant::now();
    let (mut reading, mut total) = (None::<Reading>, 0);
    pack::pack(options, out, &mut |now: PackProgress| {
        if reading.as_ref().is_none_or(|reading| reading.doing() != now.doing) {
            // The old one takes its bar off the screen before the new one puts its own there.
            reading = None;
            reading = Some(Reading::start(now.doing, now.total));
        }
        if let Some(reading) = &mut reading {
            reading.at(now.read);
        }
        total = now.total;
    })?;
    drop(reading);
    let seconds = start.elapsed().as_secs_f64();
    let rate = total as f64 / 1e6 / seconds.max(1e-9);
    let memory = memory::peak_bytes().map(|bytes| format!(", peak memory {} MB", thousands(bytes / 1_000_000)));
    let packed = Packed::open(out)?;
    let mut rows = facts(&packed);
    rows.extend(packed.manifest.notes.iter().map(|note| ["note".into(), note.clone()]));
    rows.push(["time".into(), format!("{} ({rate:.1} MB/s){}", duration(seconds), memory.unwrap_or_default())]);
    rows.push(["train on it".into(), format!("polaron train --data {}", quoted(out))]);
    Ok(table(rows, &[]))
}

/// Loads the text of a configuration and says what there is to say about it.
///
/// # Errors
///
/// Those of [`TextData::load`].
pub fn load_text(config: &DataConfig) -> Result<TextData, DataError> {
    let data = TextData::load(&config.source, config.tokenizer, config.valid_fraction)?;
    data.notes.iter().for_each(|note| say(&format!("note: {note}")));
    Ok(data)
}

/// Describes the packed tokens in `folder`; with `verify`, after checking every one of them.
///
/// # Errors
///
/// Those of opening and checking packed tokens.
pub fn info(folder: &Path, verify: bool) -> Result<String, Error> {
    if !Packed::is_at(folder) {
        return Err(Error::Usage(format!(
            "`{}` holds no packed tokens: give a folder that `polaron data pack` wrote",
            folder.display()
        )));
    }
    let packed = Packed::open(folder)?;
    if verify {
        packed.verify().map_err(polaron_datasets::DataError::from)?;
    }
    let mut rows = facts(&packed);
    let checked = if verify || packed.is_checked() { "good" } else { "not looked at; --verify does" };
    rows.push(["checksums".into(), checked.into()]);
    rows.extend(packed.manifest.notes.iter().map(|note| ["note".into(), note.clone()]));
    rows.extend(packed.manifest.sources.iter().take(SOURCES).map(|source| ["source".into(), source.clone()]));
    let more = packed.manifest.sources.len().saturating_sub(SOURCES);
    if more > 0 {
        rows.push(["source".into(), format!("... and {} more", thousands(more as u64))]);
    }
    Ok(table(rows, &[]))
}

/// Files that are listed by name.
const SOURCES: usize = 10;

fn facts(packed: &Packed) -> Vec<[String; 2]> {
    let manifest = &packed.manifest;
    let [train, valid] = manifest.tokens();
    let shards = manifest.train.len() + manifest.valid.len();
    let per_token = manifest.characters as f64 / (train + valid).max(1) as f64;
    let tokenizer = format!(
        "{}, vocabulary {}, {per_token:.2} characters per token",
        manifest.tokenizer,
        thousands(manifest.vocab_size as u64)
    );
    let tokens = format!("{} training and {} validation tokens", thousands(train), thousands(valid));
    let text = format!(
        "{} {}, {} {}, {} characters",
        thousands(manifest.sources.len() as u64),
        if manifest.sources.len() == 1 { "file" } else { "files" },
        thousands(manifest.documents),
        if manifest.documents == 1 { "document" } else { "documents" },
        thousands(manifest.characters)
    );
    vec![
        ["text".into(), text],
        ["tokenizer".into(), tokenizer],
        ["tokens".into(), tokens],
        ["shards".into(), format!("{shards}, {} MB", thousands(packed.bytes().div_ceil(1_000_000)))],
    ]
}
