//! Files with their checksums, read and written without holding them in memory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes that are read at once.
const PART: usize = 1 << 20;

/// Length and SHA-256 of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Length.
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Sum {
    /// The sum of a file with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: hex::encode(Sha256::digest(bytes)) }
    }

    /// The sum of a file, which is not held in memory.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let (mut file, mut hasher, mut bytes) = (File::open(path)?, Sha256::new(), 0);
        let mut part = vec![0; PART];
        loop {
            match file.read(&mut part)? {
                0 => return Ok(Self { bytes, sha256: hex::encode(hasher.finalize()) }),
                read => {
                    hasher.update(&part[..read]);
                    bytes += read as u64;
                }
            }
        }
    }
}

/// A file that is written in parts, and its sum.
#[derive(Debug)]
pub struct SummedFile {
    file: File,
    hasher: Sha256,
    bytes: u64,
    /// The first failure; nothing is written after it.
    failed: std::io::Result<()>,
}

impl SummedFile {
    /// Creates or replaces the file.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: File::create(path)?, hasher: Sha256::new(), bytes: 0, failed: Ok(()) })
    }

    /// Adds a part; a failure is kept for [`finish`](Self::finish).
    pub fn write(&mut self, part: &[u8]) {
        if self.failed.is_ok() {
            self.failed = self.file.write_all(part);
            self.hasher.update(part);
            self.bytes += part.len() as u64;
        }
    }

    /// Waits until the file is on the disk, and returns its sum.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn finish(self) -> std::io::Result<Sum> {
        self.failed?;
        self.file.sync_all()?;
        Ok(Sum { bytes: self.bytes, sha256: hex::encode(self.hasher.finalize()) })
    }
}
