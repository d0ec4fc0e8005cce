//! `polaron data`: packs texts into tokens, and describes packed tokens.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use polaron_common::{table, thousands};
use polaron_datasets::import::{self, ImportOptions, ImportTokenizer};
use polaron_datasets::pack::{self, PackOptions, PackProgress};
use polaron_datasets::{DataError, Packed, quoted};

use super::usage;
use crate::error::{EXIT_DONE, Error};
use crate::host::memory;
use crate::host::progress::{Reading, duration, print};

/// Commands on packed tokens.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Pack text files (.txt, .md, .jsonl, .ndjson, also .gz and .zst, .parquet) of any size into a folder for `polaron train
    /// --data`.
    Pack(PackArgs),
    /// Import files of tokens (nanoGPT's train.bin and val.bin, shards of llm.c and modded-nanogpt) into such a folder.
    Import(ImportArgs),
    /// Show what a folder of packed tokens holds.
    Info {
        /// Folder that `polaron data pack` wrote.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Check all tokens against their checksums; small sets are always checked.
        #[arg(long)]
        verify: bool,
    },
}

/// Arguments of `polaron data pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// Text files and folders, packed in this order; the files of a folder are sorted by path.
    #[arg(value_name = "FILE|DIR", required = true)]
    pub inputs: Vec<PathBuf>,
    /// char, byte, bpe:N (learnt from the text, at most N tokens) or a tokenizer.json.
    #[arg(long, value_name = "char|byte|bpe:N|FILE")]
    pub tokenizer: String,
    /// Folder to write; must be new or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Key under which the objects of .jsonl files hold the text; column of .parquet files.
    #[arg(long, value_name = "KEY", default_value = "text")]
    pub key: String,
    /// Token between two documents, as the tokenizer writes it, or `none`; by default its end-of-text token, or a line break.
    #[arg(long, value_name = "TOKEN")]
    pub eot: Option<String>,
    /// Leave out lines that are not documents, and count them; without it, the first is an error.
    #[arg(long)]
    pub skip_bad: bool,
    /// Pack even if the tokenizer.json does not know more than 0.1 % of the text, which is then lost.
    #[arg(long)]
    pub allow_unknown: bool,
    /// Share of the tokens, taken from the end, that is kept for validation.
    #[arg(long, value_name = "X", default_value_t = 0.1, allow_negative_numbers = true, value_parser = usage::real)]
    pub valid_fraction: f64,
    /// Tokens per file of the folder.
    #[arg(long, value_name = "N", default_value_t = 1 << 26, allow_negative_numbers = true, value_parser = usage::whole)]
    pub shard_tokens: u64,
}

/// Arguments of `polaron data import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files of tokens, in this order. Those with the word `val` in their name are for validation, if there are others too.
    #[arg(value_name = "FILE", required = true)]
    pub inputs: Vec<PathBuf>,
    /// The tokenizer.json that made the tokens.
    #[arg(long, value_name = "FILE", conflicts_with = "vocab", required_unless_present = "vocab")]
    pub tokenizer: Option<PathBuf>,
    /// Number of different tokens, if their tokenizer is not at hand: a run on them neither reads nor writes text.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::count)]
    pub vocab: Option<usize>,
    /// Folder to write; must be new or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Share of the tokens, taken from the end, that is kept for validation [default: as the names say, or else 0.1].
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = usage::real)]
    pub valid_fraction: Option<f64>,
    /// Tokens per file of the folder.
    #[arg(long, value_name = "N", default_value_t = 1 << 26, allow_negative_numbers = true, value_parser = usage::whole)]
    pub shard_tokens: u64,
}

/// Packs texts, imports tokens or describes packed tokens, and prints a summary.
///
/// # Errors
///
/// Those of [`polaron_datasets::pack::pack`] and [`polaron_datasets::import::import`], and of opening and checking packed tokens.
pub fn run(command: DataCommand) -> Result<u8, Error> {
    print(&match command {
        DataCommand::Pack(args) => pack_texts(args)?,
        DataCommand::Import(args) => import_tokens(args)?,
        DataCommand::Info { folder, verify } => info(&folder, verify)?,
    });
    Ok(EXIT_DONE)
}

fn pack_texts(args: PackArgs) -> Result<String, Error> {
    let mut options = PackOptions::new(args.inputs, args.tokenizer.parse()?);
    options.key = args.key;
    options.eot = args.eot;
    options.skip_bad = args.skip_bad;
    options.allow_unknown = args.allow_unknown;
    options.valid_fraction = args.valid_fraction;
    options.shard_tokens = args.shard_tokens;
    fill(&args.out, |progress| pack::pack(&options, &args.out, progress).map(drop))
}

fn import_tokens(args: ImportArgs) -> Result<String, Error> {
    // Without a tokenizer, the parser has made sure that there is a vocabulary.
    let vocabulary = ImportTokenizer::Vocabulary(args.vocab.unwrap_or_default());
    let mut options = ImportOptions::new(args.inputs, args.tokenizer.map_or(vocabulary, ImportTokenizer::File));
    options.valid_fraction = args.valid_fraction;
    options.shard_tokens = args.shard_tokens;
    fill(&args.out, |progress| import::import(&options, &args.out, progress).map(drop))
}

/// Shows the progress of `work`, which fills the folder `out` with packed tokens; returns a summary.
fn fill(
    out: &Path,
    work: impl FnOnce(&mut (dyn FnMut(PackProgress) + Send)) -> Result<(), DataError>,
) -> Result<String, Error> {
    let start = Instant::now();
    let (mut reading, mut total) = (None::<Reading>, 0);
    work(&mut |now: PackProgress| {
        if reading.as_ref().is_none_or(|reading| reading.doing() != now.doing) {
            // The old bar must leave the screen before the new one appears.
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

/// Describes the packed tokens in `folder`; with `verify`, after checking every one of them.
///
/// # Errors
///
/// Those of opening and checking packed tokens.
fn info(folder: &Path, verify: bool) -> Result<String, Error> {
    if !Packed::is_at(folder) {
        return Err(Error::Usage(format!(
            "`{}` holds no packed tokens: give a folder that `polaron data pack` wrote",
            folder.display()
        )));
    }
    let packed = Packed::open(folder)?;
    if verify {
        packed.verify().map_err(DataError::from)?;
    }
    let mut rows = facts(&packed);
    let checked = if verify || packed.is_checked() { "good" } else { "not checked; --verify checks them" };
    rows.push(["checksums".into(), checked.into()]);
    rows.extend(packed.manifest.notes.iter().map(|note| ["note".into(), note.clone()]));
    rows.extend(packed.manifest.sources.iter().take(SOURCES).map(|source| ["source".into(), source.clone()]));
    let more = packed.manifest.sources.len().saturating_sub(SOURCES);
    if more > 0 {
        rows.push(["source".into(), format!("... and {} more", thousands(more as u64))]);
    }
    Ok(table(rows, &[]))
}

/// How many source files are listed by name.
const SOURCES: usize = 10;

fn facts(packed: &Packed) -> Vec<[String; 2]> {
    let manifest = &packed.manifest;
    let [train, valid] = manifest.tokens();
    let shards = manifest.train.len() + manifest.valid.len();
    let number =
        |count: u64, one: &str, many: &str| format!("{} {}", thousands(count), if count == 1 { one } else { many });
    let mut tokenizer = format!("{}, vocabulary {}", manifest.tokenizer, thousands(manifest.vocab_size as u64));
    let mut text = format!(
        "{}, {}",
        number(manifest.sources.len() as u64, "file", "files"),
        number(manifest.documents, "document", "documents")
    );
    if !packed.tokenizer.has_text() {
        tokenizer = format!("none, the text is not known; vocabulary {}", thousands(manifest.vocab_size as u64));
    }
    if manifest.characters > 0 {
        let per_token = manifest.characters as f64 / (train + valid).max(1) as f64;
        tokenizer.push_str(&format!(", {per_token:.2} characters per token"));
        text.push_str(&format!(", {} characters", thousands(manifest.characters)));
    }
    let tokens = format!("{} training and {} validation tokens", thousands(train), thousands(valid));
    vec![
        ["text".into(), text],
        ["tokenizer".into(), tokenizer],
        ["tokens".into(), tokens],
        ["shards".into(), format!("{shards}, {} MB", thousands(packed.bytes().div_ceil(1_000_000)))],
    ]
}
