//! The loss of a trained model on data that it may never have seen.

use std::path::Path;

use polaron_common::thousands;
use polaron_datasets::Tokens;
use polaron_models::{LanguageModel, ModelConfig, to_named};

use crate::error::{ConfigError, Error, WeightsError};
use crate::host::progress::say;
use crate::host::ranks::Crew;
use crate::host::workers::Workers;
use crate::networks::data::DataConfig;
use crate::networks::evaluate::{Measured, Span, measure_all};
use crate::networks::family::{Family, Validation};
use crate::networks::registry::ForFamily;
use crate::run::loaded::LoadedRun;
use crate::store::run_folder::RunFolder;

/// A part of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training and validation split together.
    All,
    /// The validation split.
    Valid,
}

/// A trained model, and what it is to be measured on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The folder of the model.
    pub folder: &'a Path,
    /// The model.
    pub run: &'a LoadedRun,
    /// Name or path of the data; None for those of the run.
    pub data: Option<&'a str>,
    /// The part of them.
    pub split: Split,
    /// The workers that share the windows.
    pub workers: &'a Workers,
}

impl Question<'_> {
    /// The data to measure on, with the tokenizer and the split of the run.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] without a path, if the model is no run, or if nothing is at the path of its data.
    pub fn data(&self) -> Result<DataConfig, Error> {
        let (config, folder) = (&self.run.config, self.folder.display());
        let needed = |why: String| Err(Error::Usage(format!("{why}: write `--data TEXT`, with a text to evaluate on")));
        match self.data {
            Some(source) => Ok(DataConfig { source: source.into(), ..config.data.clone() }),
            None if RunFolder::existing(self.folder).is_err() => needed(format!("`{folder}` names no data of its own")),
            None if config.lacks_data() => {
                needed(format!("the data of `{folder}` are not at `{}`", config.data.source))
            }
            None => Ok(config.data.clone()),
        }
    }

    /// Checks that the data of the run are still those that it was trained on. `sha256` is their fingerprint.
    fn check_own(&self, sha256: &str) -> Result<(), Error> {
        let state = RunFolder::new(self.folder).store().newest_state();
        if self.data.is_some() || state.is_none_or(|state| state.data_sha256 == sha256) {
            return Ok(());
        }
        let (source, folder) = (&self.run.config.data.source, self.folder.display());
        Err(Error::Usage(format!(
            "`{source}` has changed since `{folder}` was trained on it, and so has its validation split: write `--data TEXT` to \
             evaluate on the text as it is now"
        )))
    }

    /// Measures a decoder on all tokens of the data but the first, in windows of `context` tokens, or as many as the model sees.
    /// Returns the number of tokens of a window too.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, or do not fit the tokenizer; a context that the model does not have; a single token.
    pub fn text(&self, model: &LanguageModel, context: Option<usize>) -> Result<(usize, Measured), Error> {
        let Some(tokenizer) = &self.run.tokenizer else {
            let (path, what) = (self.folder.into(), "no text can be evaluated".into());
            return Err(WeightsError::NoTokenizer { path, what }.into());
        };
        let (most, context) = (model.context(), context.unwrap_or(model.context()));
        let rule = format!("it must be from 1 to {most}, which the model sees at once");
        ConfigError::ensure((1..=most).contains(&context), "--context", context, &rule)?;
        let data = <ModelConfig as Family>::load(&self.data()?, Some(tokenizer))?;
        self.check_own(&<ModelConfig as Family>::fingerprint(&data)?)?;
        let tokens: Tokens = match self.split {
            Split::All => data.train.followed_by(&data.valid),
            Split::Valid => data.valid,
        };
        if tokens.len() < 2 {
            let (name, count) = (&data.name, tokens.len());
            return Err(Error::Usage(format!(
                "the text `{name}` has {count} tokens there: give one with at least 2, since the first is only read"
            )));
        }
        say(&format!("predicting {} tokens", thousands(tokens.len() as u64 - 1)));
        let lengths = tokenizer.byte_lengths();
        let span = Span { tokens: &tokens, lengths: lengths.as_ref(), context };
        Ok((context, measure_all(model, &span, &self.run.device, self.workers)?))
    }

    /// Measures another model on the validation split of the data, and describes these.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, or have other sizes.
    pub fn items(&self) -> Result<(String, Validation), Error> {
        self.run.config.model.with(Items(self))
    }
}

/// Data of items that are scored one by one, such as images.
struct Items<'a>(&'a Question<'a>);

impl ForFamily for Items<'_> {
    type Output = Result<(String, Validation), Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let Question { run, workers, .. } = *self.0;
        let data = F::load(&self.0.data()?, None)?;
        self.0.check_own(&F::fingerprint(&data)?)?;
        let broken = || Error::Usage(format!("`{}` holds no {}", self.0.folder.display(), settings.noun()));
        let model = run.network.as_any().downcast_ref::<F::Network>().ok_or_else(broken)?;
        let (wanted, sizes) = (settings.stored_sizes(&to_named(model), None)?, F::data_sizes(&data));
        if wanted != sizes {
            let [wanted, sizes] = [wanted, sizes].map(F::describe_sizes);
            return Err(Error::Usage(format!(
                "the data have {sizes}, but the model has {wanted}: give data like its own"
            )));
        }
        let validation =
            F::validation(model, &data, 0, &run.device, Crew::alone(workers), &|| false)?.ok_or_else(broken)?;
        Ok((F::describe_data(&data), validation))
    }
}
