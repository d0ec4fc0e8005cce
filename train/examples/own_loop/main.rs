//! Compares AdamW, Muon and MuonEq on two training loops of one's own: a convolutional network on images and a small transformer
//! of burn-nn on sentences.
//!
//! ```text
//! cargo run --release -p polaron-train --example own_loop                     # both
//! cargo run --release -p polaron-train --example own_loop -- --quick          # fewer steps: to see that it works, not who wins
//! cargo run --release -p polaron-train --example own_loop -- --mnist FOLDER   # the IDX files of MNIST in place of embedded digits
//! ```
//!
//! Results and pages are in `runs/own-images` and `runs/own-sentences` (`--out FOLDER` for another place than `runs`). If the program
//! is stopped or killed, the same command resumes it.

mod images;
mod sentences;

use std::error::Error;
use std::path::PathBuf;

/// What the command asks for.
struct Asked {
    quick: bool,
    mnist: Option<String>,
    out: PathBuf,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked { quick: false, mnist: None, out: "runs".into() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().ok_or(format!("{word} needs a folder"));
        match word.as_str() {
            "--quick" => asked.quick = true,
            "--mnist" => asked.mnist = Some(next()?),
            "--out" => asked.out = next()?.into(),
            _ => return Err(format!("{word} is none of --quick, --mnist FOLDER, --out FOLDER")),
        }
    }
    Ok(asked)
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = asked()?;
    let results = images::compare(asked.out.join("own-images"), asked.mnist.as_deref(), asked.quick)?;
    println!("images: {}\n  {}", results.ranking, results.verdict.join("\n  "));
    let results = sentences::compare(asked.out.join("own-sentences"), asked.quick)?;
    println!("sentences: {}\n  {}", results.ranking, results.verdict.join("\n  "));
    Ok(())
}
