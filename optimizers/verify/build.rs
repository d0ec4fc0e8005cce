//! Lists the files of reference vectors, so that a new file is built in automatically.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=vectors");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("vectors");
    let mut files = json_files(&root)?;
    files.sort();
    let mut table = String::new();
    for path in files {
        let name = path.strip_prefix(&root)?.with_extension("").display().to_string().replace('\\', "/");
        // From the folder of the crate, so that a folder that was moved with its build still compiles.
        let file = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/vectors/{name}.json\")");
        table += &format!("({name:?}, include_str!({file})),\n");
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("vectors.rs"), format!("&[\n{table}]\n"))?;
    Ok(())
}

/// The files in the folder and its subfolders. Those in the folder have the name of their kind.
fn json_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        match entry?.path() {
            path if path.is_dir() => files.extend(json_files(&path)?),
            path if path.extension().is_some_and(|extension| extension == "json") => files.push(path),
            _ => {}
        }
    }
    Ok(files)
}
