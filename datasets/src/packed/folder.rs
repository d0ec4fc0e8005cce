//! The folder that packing fills: locked, complete only with its manifest, cleared after a failure.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{MANIFEST, Manifest, TOKENIZER, is_shard};
use crate::errors::{DataError, PackError};
use crate::tokens::Tokenizer;

const LOCK: &str = "pack.lock";
/// The manifest before it has its name.
const UNNAMED: &str = ".manifest.json.tmp";

/// The folder that is being filled, locked for other processes.
pub(super) struct Folder {
    path: PathBuf,
    /// Whether this packing created it.
    is_new: bool,
    _lock: File,
}

impl Folder {
    /// Creates the folder if needed, locks it and removes what an interrupted packing left.
    pub fn claim(path: &Path) -> Result<Self, PackError> {
        let is_new = !path.exists();
        std::fs::create_dir_all(path).map_err(PackError::writing(path))?;
        check_free(path)?;
        let lock_path = path.join(LOCK);
        let lock =
            File::options().create(true).append(true).open(&lock_path).map_err(PackError::writing(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PackError::Locked { folder: path.into() }),
            Err(TryLockError::Error(source)) => return Err(PackError::Unwritable { path: lock_path, source }),
        }
        // Another process may have finished between the first check and the lock.
        check_free(path)?;
        let folder = Self { path: path.into(), is_new, _lock: lock };
        folder.remove_leftovers();
        Ok(folder)
    }

    pub fn shard(&self, kind: &str, number: usize) -> PathBuf {
        self.path.join(format!("{kind}-{number:05}.bin"))
    }

    /// Writes a file and waits until it is on the disk.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PackError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(PackError::writing(&path))
    }

    /// Writes the tokenizer, then the manifest, which makes the folder a data set.
    pub fn finish(&self, tokenizer: &Tokenizer, manifest: &mut Manifest) -> Result<(), DataError> {
        let stored =
            serde_json::to_vec(tokenizer).map_err(|error| DataError::BadTokenizer { problem: error.into() })?;
        manifest.tokenizer_sha256 = hex::encode(Sha256::digest(&stored));
        manifest.vocab_size = tokenizer.vocab_size();
        self.write(TOKENIZER, &stored)?;
        let path = self.path.join(MANIFEST);
        let problem = |error: serde_json::Error| PackError::BadManifest { path: path.clone(), problem: error.into() };
        let mut json = serde_json::to_vec_pretty(manifest).map_err(problem)?;
        json.push(b'\n');
        self.write(UNNAMED, &json)?;
        // The names of the shards must be on the disk before the name of the manifest.
        self.sync()?;
        std::fs::rename(self.path.join(UNNAMED), &path).map_err(PackError::writing(&path))?;
        self.sync()?;
        let _ = std::fs::remove_file(self.path.join(LOCK));
        Ok(())
    }

    fn sync(&self) -> Result<(), PackError> {
        // Windows cannot open a folder as a file; its renames are written through.
        if cfg!(unix) {
            let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
            synced.map_err(PackError::writing(&self.path))?;
        }
        Ok(())
    }

    /// Removes everything after a failure. Best effort: the error to report is the earlier one, and the next packing tries
    /// again.
    pub fn clear(&self) {
        self.remove_leftovers();
        let _ = std::fs::remove_file(self.path.join(LOCK));
        if self.is_new {
            let _ = std::fs::remove_dir(&self.path);
        }
    }

    fn remove_leftovers(&self) {
        for name in names(&self.path).unwrap_or_default() {
            if is_leftover(&name) && name != LOCK {
                let _ = std::fs::remove_file(self.path.join(name));
            }
        }
    }
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn is_leftover(name: &str) -> bool {
    [LOCK, UNNAMED, TOKENIZER].contains(&name) || is_shard(name)
}

/// Refuses a folder with a data set, or with anything that packing did not put there.
fn check_free(folder: &Path) -> Result<(), PackError> {
    let names = match names(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotADirectory => Vec::new(),
        Err(source) => return Err(PackError::Unwritable { path: folder.into(), source }),
    };
    if names.iter().any(|name| name == MANIFEST) {
        return Err(PackError::Exists { folder: folder.into() });
    }
    // A tokenizer without shards may be a file of the user.
    let begun = names.iter().any(|name| name == LOCK || is_shard(name));
    let foreign = names.into_iter().find(|name| !is_leftover(name) || (name == TOKENIZER && !begun));
    match foreign {
        None => Ok(()),
        Some(name) => Err(PackError::Occupied { folder: folder.into(), name }),
    }
}
