//! Lists the files of reference vectors: a new file is a built-in one without being named anywhere.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=vectors");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("vectors");
    let mut files = list(&root)?;
    // Folders last: an independent program's file of a kind comes before those that a library made.
    files.sort_by_key(|path| (path.components().count(), path.clone()));
    let row = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap_or(path).with_extension("");
        let name = name.to_string_lossy().replace('\\', "/");
        format!("({name:?}, include_str!({path:?})),\n")
    };
    let table: String = files.iter().map(row).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("vectors.rs"), format!("&[\n{table}]\n"))
}

/// Every `.json` file at any depth.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(list(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    Ok(files)
}
