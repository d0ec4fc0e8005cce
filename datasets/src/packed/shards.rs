//! The shards of a packing: written one after the other, then divided into the two splits.

use std::path::Path;

use super::folder::Folder;
use super::manifest::{Manifest, ShardEntry};
use crate::errors::{DataError, PackError};
use crate::tokens::{Header, ShardWriter, split};

/// Shards of the same length, one after the other.
pub(super) struct Shards<'a> {
    folder: &'a Folder,
    vocab_size: usize,
    length: u64,
    current: Option<ShardWriter>,
    finished: Vec<Header>,
    tokens: u64,
}

impl<'a> Shards<'a> {
    pub fn new(folder: &'a Folder, vocab_size: usize, length: u64) -> Self {
        Self { folder, vocab_size, length, current: None, finished: Vec::new(), tokens: 0 }
    }

    /// Number of all tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    pub fn push(&mut self, mut tokens: &[u32]) -> Result<(), PackError> {
        self.tokens += tokens.len() as u64;
        while !tokens.is_empty() {
            let mut writer = match self.current.take() {
                Some(writer) => writer,
                None => ShardWriter::create(&self.folder.shard("part", self.finished.len()), self.vocab_size)?,
            };
            let room = usize::try_from(self.length - writer.tokens()).unwrap_or(usize::MAX);
            let (now, later) = tokens.split_at(tokens.len().min(room));
            writer.push(now)?;
            if writer.tokens() == self.length {
                self.finished.push(writer.finish()?);
            } else {
                self.current = Some(writer);
            }
            tokens = later;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Vec<Header>, PackError> {
        if let Some(writer) = self.current.take() {
            self.finished.push(writer.finish()?);
        }
        Ok(self.finished)
    }
}

/// Names the parts as shards of the two splits, cuts the part that contains the `border`, the number of training tokens,
/// and lists them in the manifest.
pub(super) fn divide(
    folder: &Folder,
    parts: Vec<Header>,
    border: u64,
    manifest: &mut Manifest,
) -> Result<(), DataError> {
    let (total, valid_fraction) = (parts.iter().map(|part| part.tokens).sum(), manifest.valid_fraction);
    if border == 0 || border == total {
        return Err(PackError::TooFew { tokens: total, valid_fraction }.into());
    }
    let names = ["train", "valid"];
    let mut splits = [Vec::new(), Vec::new()];
    let mut begin = 0;
    for (index, part) in parts.into_iter().enumerate() {
        let path = folder.shard("part", index);
        let inside = border.saturating_sub(begin).min(part.tokens);
        begin += part.tokens;
        if inside > 0 && inside < part.tokens {
            let numbers = [splits[0].len(), splits[1].len()];
            let targets = [folder.shard(names[0], numbers[0]), folder.shard(names[1], numbers[1])];
            let headers = split(&path, inside, [&targets[0], &targets[1]])?;
            std::fs::remove_file(&path).map_err(PackError::writing(&path))?;
            for ((split, header), target) in splits.iter_mut().zip(headers).zip(&targets) {
                split.push(entry(target, header));
            }
        } else {
            let side = usize::from(inside == 0);
            let target = folder.shard(names[side], splits[side].len());
            std::fs::rename(&path, &target).map_err(PackError::writing(&target))?;
            splits[side].push(entry(&target, part));
        }
    }
    [manifest.train, manifest.valid] = splits;
    Ok(())
}

fn entry(path: &Path, header: Header) -> ShardEntry {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    ShardEntry { file, tokens: header.tokens, sha256: hex::encode(header.sha256) }
}
