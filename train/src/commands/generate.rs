//! `polaron generate`: text that continues prompts.

use std::path::PathBuf;

use clap::Args;
use polaron_datasets::Tokenizer;
use polaron_models::LanguageModel;
use serde_json::json;

use super::run_args::RunArgs;
use super::usage;
use crate::error::{ConfigError, EXIT_DONE, Error, WeightsError};
use crate::host::progress::print;
use crate::networks::generate::{Generated, Sampling, generate};
use crate::run::loaded::LoadedRun;
use crate::run::prompt::{self, Prompt};

/// Arguments of `polaron generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Text to continue; may be empty.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "prompts")]
    pub prompt: Option<String>,
    /// File of prompts: one a line, blank lines left out; or, with the ending .jsonl, the text `prompt` of every line. The
    /// first is continued with --seed, the next with --seed + 1, and so on.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompts: Option<PathBuf>,
    /// Tokens to generate, at most: the text ends earlier at the end-of-text token of the tokenizer, if it has one.
    #[arg(long, value_name = "N", default_value_t = 300, allow_negative_numbers = true, value_parser = usage::count)]
    pub tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true, value_parser = usage::real)]
    pub temperature: f64,
    /// Sample from the K most likely tokens; 0 samples from all.
    #[arg(long, value_name = "K", default_value_t = 0, allow_negative_numbers = true, value_parser = usage::count)]
    pub top_k: usize,
    /// Sample from the fewest most likely tokens that have at least the probability P together; 1 samples from all.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true, value_parser = usage::real)]
    pub top_p: f64,
    /// Seed of the sampling; the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = usage::whole)]
    pub seed: u64,
    /// End the text before this one; can be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Go on after an end-of-text token.
    #[arg(long)]
    pub ignore_eot: bool,
    /// Print one line of JSON for each prompt when its text is complete: index, seed, prompt, text, tokens, ended.
    #[arg(long)]
    pub json: bool,
}

/// Prints the prompts and their continuations.
///
/// # Errors
///
/// A run that cannot be read, or whose model does not write text; a prompt that its tokenizer does not know.
pub fn run(args: &GenerateArgs) -> Result<u8, Error> {
    check(args)?;
    let prompts = match (&args.prompt, &args.prompts) {
        (_, Some(file)) => prompt::read(file)?,
        (prompt, None) => vec![Prompt { place: "--prompt".into(), text: prompt.clone().unwrap_or_default() }],
    };
    let run = args.run.load()?;
    let model = run.network.as_any().downcast_ref::<LanguageModel>();
    let Some(model) = model else {
        let (folder, noun) = (args.run.run.display(), run.config.model.noun());
        return Err(Error::Usage(format!(
            "`{folder}` holds a {noun}, which does not write text: give the run of a decoder"
        )));
    };
    let Some(tokenizer) = &run.tokenizer else {
        let (path, what) = (run.path.clone(), "the model cannot write text".into());
        return Err(WeightsError::NoTokenizer { path, what }.into());
    };
    for Prompt { place, text } in &prompts {
        prompt::check(place, text, tokenizer, model.context())?;
    }
    let writer = Writer { args, run: &run, model, tokenizer, count: prompts.len() };
    for (index, prompt) in prompts.iter().enumerate() {
        writer.write(index, &prompt.text)?;
    }
    Ok(EXIT_DONE)
}

fn check(args: &GenerateArgs) -> Result<(), ConfigError> {
    let GenerateArgs { temperature, top_p, stop, .. } = args;
    let holds = temperature.is_finite() && *temperature >= 0.0;
    ConfigError::ensure(holds, "--temperature", temperature, "it must be a finite number and not negative")?;
    ConfigError::ensure(*top_p > 0.0 && *top_p <= 1.0, "--top-p", top_p, "it must be above 0 and at most 1")?;
    let holds = stop.iter().all(|text| !text.is_empty());
    ConfigError::ensure(holds, "--stop", "an empty text", "that would end every text: give at least a character")
}

/// Continues one prompt after the other.
struct Writer<'a> {
    args: &'a GenerateArgs,
    run: &'a LoadedRun,
    model: &'a LanguageModel,
    tokenizer: &'a Tokenizer,
    /// Number of prompts.
    count: usize,
}

impl Writer<'_> {
    fn write(&self, index: usize, prompt: &str) -> Result<(), Error> {
        let GenerateArgs { seed, json, .. } = *self.args;
        let seed = seed.wrapping_add(index as u64);
        if json {
            let Generated { text, tokens, ended } = self.generate(prompt, seed, |_| {})?;
            let ended = ended.name();
            let line = json!({
                "index": index, "seed": seed, "prompt": prompt, "text": text, "tokens": tokens, "ended": ended
            });
            print(&format!("{line}\n"));
            return Ok(());
        }
        if self.count > 1 {
            print(&format!("=== {} of {} ===\n", index + 1, self.count));
        }
        print(prompt);
        let written = self.generate(prompt, seed, print);
        print("\n");
        written.map(drop)
    }

    fn generate(&self, prompt: &str, seed: u64, show: impl FnMut(&str) + Send) -> Result<Generated, Error> {
        let GenerateArgs { tokens, temperature, top_k, top_p, ignore_eot: ignore_end, .. } = *self.args;
        let stop = self.args.stop.clone();
        let sampling = Sampling { tokens, temperature, top_k, top_p, seed, stop, ignore_end };
        let Self { run: LoadedRun { device, worker, .. }, model, tokenizer, .. } = self;
        worker.alone(|| generate(model, tokenizer, prompt, &sampling, device, show))
    }
}
