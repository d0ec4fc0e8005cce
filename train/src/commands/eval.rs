//! `polaron eval`: the loss of a trained model.

use clap::{Args, ValueEnum};
use polaron_common::{table, thousands};
use polaron_models::LanguageModel;
use serde_json::{Value, json};

use super::run_args::RunArgs;
use super::usage;
use crate::error::{EXIT_DONE, Error};
use crate::host::device;
use crate::host::progress::print;
use crate::host::workers::Workers;
use crate::networks::evaluate::Measured;
use crate::networks::family::Validation;
use crate::run::evaluation::{Question, Split};

/// Arguments of `polaron eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Embedded data, path of a text or of a folder of packed tokens, or of images. [default: the data of the run]
    #[arg(long, value_name = "NAME|PATH")]
    pub data: Option<String>,
    /// The whole text or its validation split. [default: all with --data, otherwise valid]
    #[arg(long, value_name = "PART")]
    pub split: Option<Part>,
    /// Tokens of a window, whose first tokens are predicted from few others. [default: what the model sees at once]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::count)]
    pub context: Option<usize>,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Everything.
    All,
    /// The validation split.
    Valid,
}

impl Part {
    fn split(self) -> Split {
        match self {
            Self::All => Split::All,
            Self::Valid => Split::Valid,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Valid => "valid",
        }
    }
}

/// Prints the loss of a model on data.
///
/// Every token of the text but the first is predicted once, in windows that do not overlap, the last of which may be shorter.
///
/// # Errors
///
/// A model or data that cannot be read, or do not fit each other.
pub fn run(args: &EvalArgs) -> Result<u8, Error> {
    let run = args.run.load()?;
    let name = args.run.device.as_deref().unwrap_or(device::default_name());
    let threads = if args.run.threads == 0 { device::all_threads() } else { args.run.threads };
    let workers = Workers::new(device::workers(name, threads)?)?;
    let default = if args.data.is_some() { Part::All } else { Part::Valid };
    let part = args.split.unwrap_or(default);
    let (folder, data, split) = (args.run.run.as_path(), args.data.as_deref(), part.split());
    let question = Question { folder, run: &run, data, split, workers: &workers };
    let source = question.data()?.source;
    let facts = match run.network.as_any().downcast_ref::<LanguageModel>() {
        Some(model) => {
            let (context, measured) = question.text(model, args.context)?;
            of_text(&measured, context)
        }
        None if args.context.is_some() || args.split == Some(Part::All) => {
            let noun = run.config.model.noun();
            return Err(Error::Usage(format!(
                "a {noun} has no windows, and is measured on its validation split: leave out --context and --split"
            )));
        }
        None => of_items(&question.items()?),
    };
    let head = [
        Fact::new(
            "model",
            format!("{}, step {}", folder.display(), thousands(run.step)),
            json!(folder.display().to_string()),
        ),
        Fact::new("step", String::new(), json!(run.step)),
        Fact::new("data", format!("{source} ({})", part.name()), json!(source)),
        Fact::new("split", String::new(), json!(part.name())),
    ];
    show(head.into_iter().chain(facts), args.json);
    Ok(EXIT_DONE)
}

/// One line of the result.
struct Fact {
    name: &'static str,
    /// For people; empty where another line says it.
    text: String,
    value: Value,
}

impl Fact {
    fn new(name: &'static str, text: String, value: Value) -> Self {
        Self { name, text, value }
    }
}

fn of_text(measured: &Measured, context: usize) -> Vec<Fact> {
    let (loss, bits) = (measured.loss(), measured.bits_per_byte());
    let Measured { windows, tokens, bytes, .. } = *measured;
    let unknown = || "unknown: this tokenizer does not count the bytes of its tokens".into();
    let of = bytes.map(|bytes| format!(" ({} bytes)", thousands(bytes))).unwrap_or_default();
    vec![
        Fact::new("loss", format!("{loss:.4} nats per token"), json!(loss)),
        Fact::new("perplexity", format!("{:.4}", loss.exp()), json!(loss.exp())),
        Fact::new("bits_per_byte", bits.map_or_else(unknown, |bits| format!("{bits:.4}")), json!(bits)),
        Fact::new("tokens", format!("{}{of}", thousands(tokens)), json!(tokens)),
        Fact::new("bytes", String::new(), json!(bytes)),
        Fact::new("windows", windows_text(windows, tokens, context), json!(windows)),
        Fact::new("context", String::new(), json!(context)),
    ]
}

/// The windows in words; the last may be shorter.
fn windows_text(windows: u64, tokens: u64, context: usize) -> String {
    match tokens % context as u64 {
        0 => format!("{} of {context} tokens", thousands(windows)),
        rest => format!("{} of {context} tokens and one of {rest}", thousands(windows - 1)),
    }
}

fn of_items((data, validation): &(String, Validation)) -> Vec<Fact> {
    let Validation { loss, accuracy, .. } = *validation;
    let mut facts =
        vec![Fact::new("items", data.clone(), json!(data)), Fact::new("loss", format!("{loss:.4} nats"), json!(loss))];
    facts.extend(accuracy.map(|share| Fact::new("accuracy", format!("{:.2} %", 100.0 * share), json!(share))));
    facts
}

fn show(facts: impl Iterator<Item = Fact>, as_json: bool) {
    if as_json {
        let object: serde_json::Map<String, Value> = facts.map(|fact| (fact.name.to_owned(), fact.value)).collect();
        print(&format!("{}\n", Value::Object(object)));
        return;
    }
    let rows = facts.filter(|fact| !fact.text.is_empty()).map(|fact| [fact.name.replace('_', " "), fact.text]);
    print(&table(rows, &[]));
}
