//! `polaron generate`: text that continues a prompt.

use clap::Args;
use polaron_models::LanguageModel;

use super::run_args::RunArgs;
use super::usage;
use crate::error::{ConfigError, EXIT_DONE, Error};
use crate::host::progress::print;
use crate::networks::generate::{Sampling, generate};
use crate::run::prompt;

/// Arguments of `polaron generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Text to continue; may be empty.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: String,
    /// Tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 300, allow_negative_numbers = true, value_parser = usage::count)]
    pub tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true, value_parser = usage::real)]
    pub temperature: f64,
    /// Sample from the K most likely tokens; 0 samples from all.
    #[arg(long, value_name = "K", default_value_t = 0, allow_negative_numbers = true, value_parser = usage::count)]
    pub top_k: usize,
    /// Seed of the sampling; the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = usage::whole)]
    pub seed: u64,
}

/// Prints the prompt and its continuation.
///
/// # Errors
///
/// A run that cannot be read, or whose model does not write text; a prompt that its tokenizer does not know.
pub fn run(args: &GenerateArgs) -> Result<u8, Error> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        let rule = "it must be a finite number and not negative".into();
        let value = args.temperature.to_string();
        return Err(ConfigError::BadValue { key: "--temperature".into(), value, rule }.into());
    }
    let run = args.run.load()?;
    let model = run.network.as_any().downcast_ref::<LanguageModel>();
    let (Some(model), Some(tokenizer)) = (model, &run.tokenizer) else {
        let (folder, noun) = (args.run.run.display(), run.config.model.noun());
        return Err(Error::Usage(format!(
            "`{folder}` holds a {noun}, which does not write text: give the run of a decoder"
        )));
    };
    let sampling = Sampling { tokens: args.tokens, temperature: args.temperature, top_k: args.top_k, seed: args.seed };
    prompt::check("--prompt", &args.prompt, tokenizer, model.context())?;
    let text = run.worker.alone(|| generate(model, tokenizer, &args.prompt, &sampling, &run.device))?;
    print(&format!("{}{text}\n", args.prompt));
    Ok(EXIT_DONE)
}
