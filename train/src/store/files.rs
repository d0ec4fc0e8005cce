//! Writing files so that they survive a kill: locked, synced, replaced as a whole.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::error::FileError;

/// Held by the one process that works in a folder; released when dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// How often, and after how long, a lock is tried again: [`is_locked`] holds it for a moment.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);

/// Locks a file, which is created if needed; None when another process holds it.
///
/// # Errors
///
/// [`FileError`] when it cannot be written or locked.
pub fn lock_file(path: &Path) -> Result<Option<Lock>, FileError> {
    let file = File::options().create(true).append(true).open(path).map_err(FileError::at("write", path))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(FileError::at("lock", path)(error)),
        }
    }
    Ok(None)
}

/// Whether a process holds the lock of a file.
pub fn is_locked(path: &Path) -> bool {
    // A lock across machines (NFS) needs a file that is open for writing.
    let file = File::options().append(true).open(path).or_else(|_| File::open(path));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The temporary name under which a file is written before it is renamed to `name`.
pub fn temporary_name(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Writes a file so that, whatever happens, it is either the old one or the complete new one.
///
/// # Errors
///
/// [`FileError`] naming the file; no temporary file is left.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(temporary_name(&name));
    let written = write_synced(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(FileError::at("write", path)))
        .and_then(|()| sync_folder(path.parent().unwrap_or(Path::new("."))));
    written.map_err(|error| {
        // Best effort: the error to report is the one above.
        let _ = std::fs::remove_file(&temporary);
        FileError { path: path.into(), ..error }
    })
}

/// Writes a folder of files so that, whatever happens, it has all of them or does not exist. It may exist only if it is empty.
///
/// # Errors
///
/// [`FileError`] naming the folder or file; nothing is left of it.
pub fn write_folder(path: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), FileError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = parent.join(temporary_name(&name));
    let write = || {
        std::fs::create_dir_all(&temporary).map_err(FileError::at("create", path))?;
        for (name, bytes) in files {
            write_synced(&temporary.join(name), bytes)?;
        }
        sync_folder(&temporary)?;
        if path.is_dir() {
            // Only an empty folder can be removed.
            std::fs::remove_dir(path).map_err(FileError::at("replace", path))?;
        }
        std::fs::rename(&temporary, path).map_err(FileError::at("write", path))?;
        sync_folder(parent)
    };
    write().inspect_err(|_| {
        // Best effort: the error to report is the one above.
        let _ = std::fs::remove_dir_all(&temporary);
    })
}

/// Writes a file and waits until it is on the disk.
///
/// # Errors
///
/// [`FileError`] naming the file.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(FileError::at("write", path))
}

/// Waits until the entries of a folder (a rename, a new file) are on the disk.
///
/// # Errors
///
/// [`FileError`] naming the folder.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Windows cannot open a folder as a file; its renames are written through.
    if cfg!(unix) {
        File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::at("write", path))
    } else {
        Ok(())
    }
}
