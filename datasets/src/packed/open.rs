//! Reading a folder of packed tokens.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{MANIFEST, Manifest, ShardEntry, TOKENIZER, is_shard, sum};
use crate::errors::{DataError, PackError};
use crate::tokens::{Shard, Tokenizer, Tokens, token_bytes};

/// Up to this many bytes of shards, every checksum and every token is checked whenever the folder is opened, which takes
/// at most 0.2 s on a slow processor.
const CHECKED_AT_ONCE: u64 = 64 << 20;

/// Packed tokens, open for reading.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// The tokenizer that made the tokens.
    pub tokenizer: Tokenizer,
    /// The training split, memory mapped.
    pub train: Tokens,
    /// The validation split, memory mapped.
    pub valid: Tokens,
}

impl Packed {
    /// Whether `folder` has packed tokens, complete or not: a manifest, or shards.
    pub fn is_at(folder: &Path) -> bool {
        let names = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        names.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name == MANIFEST || is_shard(&name))
    }

    /// The manifest in `folder`; None if there is none that can be read.
    pub fn manifest_at(folder: &Path) -> Option<Manifest> {
        Manifest::read(folder).ok()
    }

    /// Opens the tokens in `folder`. Headers and lengths are checked against the manifest; checksums and token numbers
    /// as well if the shards have at most 64 MiB in total; [`verify`](Self::verify) checks
    /// larger ones.
    ///
    /// # Errors
    ///
    /// One [`PackError`] each for: an interrupted packing, a damaged manifest, another version, a tokenizer that
    /// does not belong to the tokens, a missing, damaged or truncated shard.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let manifest = Manifest::read(folder)?;
        let tokenizer = read_tokenizer(folder, &manifest)?;
        let open = |entries: &[ShardEntry]| -> Result<Tokens, PackError> {
            let shards: Result<_, _> = entries.iter().map(|entry| open_shard(folder, entry, &manifest)).collect();
            Ok(Tokens::from_shards(shards?))
        };
        let (train, valid) = (open(&manifest.train)?, open(&manifest.valid)?);
        check_names(folder, &manifest)?;
        let packed = Self { folder: folder.into(), train, valid, tokenizer, manifest };
        if packed.is_checked() {
            packed.verify()?;
        }
        Ok(packed)
    }

    /// Whether opening checked every byte.
    pub fn is_checked(&self) -> bool {
        self.bytes() <= CHECKED_AT_ONCE
    }

    /// Bytes of all tokens on the disk.
    pub fn bytes(&self) -> u64 {
        sum(self.manifest.entries()).saturating_mul(token_bytes(self.manifest.vocab_size) as u64)
    }

    /// Checks every shard against its checksum, and every token against the vocabulary.
    ///
    /// # Errors
    ///
    /// [`PackError::BadChecksum`], [`PackError::TokenOutside`].
    pub fn verify(&self) -> Result<(), PackError> {
        self.train.verify()?;
        self.valid.verify()
    }
}

/// Refuses a folder with shards that its manifest does not list, or lists twice.
fn check_names(folder: &Path, manifest: &Manifest) -> Result<(), PackError> {
    let path = folder.join(MANIFEST);
    let mut listed: Vec<&str> = manifest.entries().map(|entry| entry.file.as_str()).collect();
    listed.sort_unstable();
    if let Some((name, _)) = listed.iter().zip(listed.iter().skip(1)).find(|(left, right)| left == right) {
        return Err(PackError::BadManifest { path, problem: format!("it lists `{name}` twice").into() });
    }
    let unreadable = |source| PackError::Unreadable { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if is_shard(&name) && listed.binary_search(&name.as_str()).is_err() {
            let problem = format!("it does not list the shard `{name}` beside it").into();
            return Err(PackError::BadManifest { path, problem });
        }
    }
    Ok(())
}

fn read_tokenizer(folder: &Path, manifest: &Manifest) -> Result<Tokenizer, DataError> {
    let path = folder.join(TOKENIZER);
    let bytes = std::fs::read(&path).map_err(|source| PackError::Unreadable { path: path.clone(), source })?;
    if hex::encode(Sha256::digest(&bytes)) != manifest.tokenizer_sha256 {
        return Err(PackError::ForeignTokenizer { path }.into());
    }
    let tokenizer = Tokenizer::from_file(&path)?;
    if tokenizer.vocab_size() != manifest.vocab_size {
        return Err(PackError::ForeignTokenizer { path }.into());
    }
    Ok(tokenizer)
}

fn open_shard(folder: &Path, entry: &ShardEntry, manifest: &Manifest) -> Result<Shard, PackError> {
    let path = folder.join(&entry.file);
    // A manifest may come from anywhere: it must not lead out of the folder.
    if !is_shard(&entry.file) {
        let problem = format!("`{}` is not the name of a shard", entry.file).into();
        return Err(PackError::BadManifest { path: folder.join(MANIFEST), problem });
    }
    let shard = Shard::open(&path)?;
    let header = shard.header;
    let agrees = header.tokens == entry.tokens
        && hex::encode(header.sha256) == entry.sha256
        && header.vocab_size as usize == manifest.vocab_size
        && header.token_bytes == token_bytes(manifest.vocab_size);
    if agrees { Ok(shard) } else { Err(PackError::ForeignShard { path }) }
}
