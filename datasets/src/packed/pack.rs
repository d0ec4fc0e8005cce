//! Packing: writes texts of any size as a folder of tokens, which training maps into memory.
//!
//! ```no_run
//! use polaron_datasets::pack::{PackOptions, pack};
//! use polaron_datasets::{TextData, TokenizerKind};
//!
//! let options = PackOptions::new(["books".into()], "bpe:4096".parse()?);
//! let manifest = pack(&options, "packed".as_ref(), &mut |_| {})?;
//! println!("{:?} training and validation tokens", manifest.tokens());
//! let data = TextData::load("packed", TokenizerKind::Auto, 0.1)?;
//! # Ok::<(), polaron_datasets::DataError>(())
//! ```
//!
//! # What is read
//!
//! Files in the order given; of a folder, at any depth, the files with an ending of a text format (such as `.txt`, `.md` or
//! `.jsonl`), sorted by path. They may be compressed by gzip or zstd. A text file is one document; in a file of JSON lines,
//! every line is one: the string under a key (`text`) of its object. Everything is UTF-8. Files are read as a stream, once for
//! learning a tokenizer and once for encoding; no file is in memory as a whole.
//!
//! # What is written
//!
//! The tokens of all documents, one after the other. Two documents are separated by the end-of-text token, if the tokenizer
//! has one, otherwise by a line break; nothing is before the first or after the last. So one text file has the same tokens
//! packed and unpacked, and the same split: the first `N * (1 - valid_fraction)` tokens, truncated to a whole number, are the
//! training split. Of several documents, the border is the end of one that is nearest to this, unless a split would change by more
//! than half; then a note says which parts of a document lie on either side.
//!
//! ```text
//! manifest.json      describes the folder; written last
//! tokenizer.json     the tokenizer; a BPE in the format of the `tokenizers` library
//! train-00000.bin    shards: a header of 64 bytes, then the tokens, 2 or 4 bytes each
//! valid-00000.bin
//! ```
//!
//! A shard, all numbers little-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `POLARTOK` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes per token: 2 up to a vocabulary of 65,536, otherwise 4 |
//! | 16 | 8 | number of tokens |
//! | 24 | 4 | size of the vocabulary; every token is below it |
//! | 28 | 4 | zero |
//! | 32 | 32 | SHA-256 of the tokens' bytes |
//! | 64 | | the tokens |
//!
//! Every file is on the disk before the manifest gets its name, and a shard has no header before it is complete: what a
//! killed process leaves is never read as a data set. The next packing into that folder removes it.

use std::path::Path;

use super::encoder::Encoder;
use super::folder::Folder;
use super::learning::make_tokenizer;
use super::manifest::Manifest;
pub use super::options::{PackOptions, PackProgress, PackTokenizer};
use super::shards::{Shards, divide};
use crate::errors::{DataError, PackError};
use crate::split::check_fraction;
use crate::text::Sources;

/// Packs texts into the folder `out`, which must be new, empty, or left by an interrupted packing. `progress` is called
/// often. Returns the manifest of the folder.
///
/// # Errors
///
/// One [`DataError`] each for: an input that does not exist, is unreadable, damaged or not UTF-8, a folder without files of
/// the right kind, a bad JSON record, no text at all, a text too short to split, a bad tokenizer, a folder that is in use, a
/// full disk. After an error, the folder is as before.
pub fn pack(
    options: &PackOptions,
    out: &Path,
    progress: &mut (dyn FnMut(PackProgress) + Send),
) -> Result<Manifest, DataError> {
    check_fraction(options.valid_fraction)?;
    if options.shard_tokens == 0 {
        return Err(DataError::Zero { what: "shard tokens" });
    }
    let sources = Sources::find(&options.inputs, &options.key)?;
    let sources = if options.skip_bad { sources.skipping_bad() } else { sources };
    let folder = Folder::claim(out)?;
    let packed = write(options, &sources, &folder, progress);
    if packed.is_err() {
        folder.clear();
    }
    packed
}

fn write(
    options: &PackOptions,
    sources: &Sources,
    folder: &Folder,
    progress: &mut (dyn FnMut(PackProgress) + Send),
) -> Result<Manifest, DataError> {
    let (kind, tokenizer) = make_tokenizer(&options.tokenizer, sources, progress)?;
    if options.eot.is_some() {
        // Before anything is encoded, which may take long.
        tokenizer.separator_as(options.eot.as_deref())?;
    }
    let mut manifest = Manifest::empty(kind, options.valid_fraction);
    manifest.sources = sources.files().iter().map(|path| path.display().to_string()).collect();
    let shards = Shards::new(folder, tokenizer.vocab_size(), options.shard_tokens);
    let mut encoder = Encoder::new(&tokenizer, options, shards, &mut manifest);
    let total = sources.bytes();
    let mut report = |read| progress(PackProgress { doing: "encoding", read, total });
    sources.read(&mut report, &mut |path, event| encoder.take(path, event))?;
    let (shards, ends, losses) = encoder.finish()?;
    let (border, note) = ends.training_part(shards.tokens(), options.valid_fraction);
    let parts = shards.finish()?;
    manifest.notes.extend(sources.notes());
    if let PackTokenizer::File(path) = &options.tokenizer {
        manifest.notes.extend(losses.judge(path, options.allow_unknown)?);
    }
    if parts.is_empty() {
        if let Some(problem) = sources.left_out() {
            return Err(PackError::OnlyBad { problem }.into());
        }
        let names: Vec<String> = options.inputs.iter().map(|path| path.display().to_string()).collect();
        return Err(DataError::Empty { name: names.join(", ") });
    }
    manifest.notes.extend(note);
    divide(folder, parts, border, &mut manifest)?;
    folder.finish(&tokenizer, &mut manifest)?;
    Ok(manifest)
}
