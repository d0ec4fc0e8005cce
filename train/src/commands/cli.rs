//! The command line.

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use super::{compare, data, eval, export, generate, inspect, launch, list, race, report, task, train, usage, verify};
use crate::error::{EXIT_FAILED, Error};
use crate::host::progress::{self, say};
use crate::host::{panics, ranks};

/// Train small language models with Muon and its relatives.
///
/// Without a command: train. Without any argument: train on the embedded Shakespeare with the defaults.
#[derive(Debug, Parser)]
#[command(
    name = "polaron",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::TrainArgs,
    /// What the log on stderr shows: off, error, warn, info, debug, or a filter such as `polaron_train=debug`.
    /// [default: the variable RUST_LOG, or warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model, or resume a run.
    Train(Box<train::TrainArgs>),
    /// Train one run with several processes, on this machine or on several, through MPI.
    Launch(launch::LaunchArgs),
    /// Write one self-contained HTML page about comparisons and runs.
    Report(report::ReportArgs),
    /// Measure the loss of a trained model on a text: nats per token, perplexity, bits per byte.
    Eval(eval::EvalArgs),
    /// Continue a prompt with the model of a run.
    Generate(generate::GenerateArgs),
    /// Write the weights of a run for other programs: as safetensors, or as a folder for Hugging Face's transformers.
    Export(export::ExportArgs),
    /// Show parameters, optimizer plan and cost of a run folder, a configuration file or a model preset.
    Inspect(inspect::InspectArgs),
    /// Compare optimizers: tune each alike, run each with the same seeds, and report the significant differences.
    ///
    /// Without arguments: adamw, muon, muon_eq and symmetric on the embedded Shakespeare. Rules: docs/COMPARING.md.
    Compare(Box<compare::CompareArgs>),
    /// Race to the loss of a tuned AdamW on a fixed task: does an optimizer reach it in the steps that its settings file claims?
    ///
    /// Rules and results: docs/RACE.md.
    Race(race::RaceArgs),
    /// Check the optimizers on a device against reference vectors; exit code 1 if a result misses its tolerance.
    Verify(verify::VerifyArgs),
    /// Run a problem with a known answer, or `all`: measured next to expected values, exit code 1 if a criterion fails.
    Task(task::TaskArgs),
    /// Pack texts into tokens, or describe packed tokens.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// List the available optimizers, stacks, models, datasets, tasks or devices.
    List(list::ListArgs),
}

/// Runs the program with the arguments of the process. Returns the exit code.
pub fn main() -> u8 {
    panics::install();
    if ranks::follows() {
        progress::step_aside();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    guarded(|| start_log(cli.log.as_deref()).and_then(|()| dispatch(cli)))
}

/// Does the work and says why it failed, if it did. Returns the exit code. Other processes of the run end too.
fn guarded(work: impl FnOnce() -> Result<u8, Error>) -> u8 {
    match panics::catch(work) {
        Ok(Ok(code)) => {
            ranks::leave();
            code
        }
        Ok(Err(error)) if error.is_common() => {
            say(&format!("error: {error}"));
            ranks::leave();
            error.exit_code()
        }
        Ok(Err(error)) => {
            progress::cry(&format!("error: {}{error}", ranks::name()));
            ranks::abort(error.exit_code());
            error.exit_code()
        }
        Err(panic) => {
            progress::cry(&format!(
                "error: {}internal error: {panic}; this is a bug in polaron, please report it with the command",
                ranks::name()
            ));
            ranks::abort(EXIT_FAILED);
            EXIT_FAILED
        }
    }
}

fn start_log(level: Option<&str>) -> Result<(), Error> {
    let from_environment = || std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = level.map(String::from).or_else(from_environment).unwrap_or_else(|| "warn".into());
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        Error::Usage(format!("`{text}` is not a log filter ({error}): use off, error, warn, info or debug"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| progress::LogWriter).with_ansi(false);
    if log.try_init().is_err() {
        tracing::debug!("a logger is already installed");
    }
    Ok(())
}

fn dispatch(cli: Cli) -> Result<u8, Error> {
    match cli.command {
        None => train::run(&cli.train),
        Some(Command::Train(args)) => train::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Race(args)) => race::run(&args),
        Some(Command::Launch(args)) => launch::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Generate(args)) => generate::run(&args),
        Some(Command::Export(args)) => export::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Verify(args)) => verify::run(&args),
        Some(Command::Task(args)) => task::run(&args),
        Some(Command::Data(command)) => data::run(command),
        Some(Command::List(args)) => list::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_commands_are_explained_with_every_command() {
        let command = Cli::command();
        let mut known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut named = usage::COMMANDS.to_vec();
        known.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, known);
    }

    #[cfg(feature = "mpi")]
    mod in_a_world {
        use super::super::*;
        use crate::host::ranks::{tell, tests::start};

        /// Rank 1 does something else while rank 0 waits for it.
        fn fail(work: fn() -> Result<u8, Error>) {
            panics::install();
            let code = guarded(|| match ranks::enter()? {
                Some(ranks) if ranks.rank() == 1 => work(),
                Some(ranks) => tell(ranks.as_ref(), &1).map(|_| 0),
                None => Ok(0),
            });
            std::process::exit(i32::from(code));
        }

        #[test]
        #[ignore = "started below, on two ranks"]
        fn panics() {
            fail(|| panic!("broken"));
        }

        #[test]
        #[ignore = "started below, on two ranks"]
        fn fails() {
            fail(|| Err(Error::device_failed("testing")("broken")));
        }

        #[test]
        fn a_panic_or_an_error_of_one_rank_ends_all_with_its_message() {
            for (test, message) in [
                ("panics", "error: rank 1: internal error: broken (at "),
                ("fails", "error: rank 1: the device failed while testing"),
            ] {
                let said = start(2, &format!("commands::cli::tests::in_a_world::{test}"));
                assert!(!said.status.success());
                let text = String::from_utf8_lossy(&said.stderr).into_owned();
                assert_eq!(text.matches(message).count(), 1, "{text}");
            }
        }
    }

    #[test]
    fn no_command_means_train() {
        let cli = Cli::try_parse_from(["polaron", "--steps", "3", "--log", "info"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.train.steps, Some(3));
        let cli = Cli::try_parse_from(["polaron", "train", "x.toml", "--lr", "-1"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Train(args)) if args.lr == Some(-1.0)));
    }
}
