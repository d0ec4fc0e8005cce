//! The plan of a comparison in Rust, and the comparison itself.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use polaron::{Layerwise, LayerwiseConfig, Schedule};
use toml::{Table, Value};

use crate::compare::{
    ComparisonFolder, Contender, LOOP, Measurement, Plan, Results, Runs, Settings, Shared, Subject, Trial, check_grids,
    check_names, check_rates, complete, complete_search, contender, grid, section, trials,
};
use crate::error::{CompareError, ConfigError, Error, one_line};
use crate::report::page::{FILE, page};
use crate::store::files::write_atomically;

/// Where the errors say that a value comes from.
const PLACE: &str = "in the comparison";

/// A comparison of optimizers on a training loop of one's own.
///
/// The function that [`run`](Self::run) is given is called once for every run that the comparison needs, and for nothing else: a run
/// that has ended is read from its folder. It has to make the first weights and the batches from [`Trial::seed`] alone, and to return
/// its [`Measurement`]s step by step; [`train`](crate::own::train) is a loop that does.
///
/// ```no_run
/// # use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, tensor::{Device, Tensor}};
/// use polaron::{Role, Schedule};
/// use polaron_train::{Comparison, Trial, own};
/// # #[derive(Module, Debug)]
/// # struct Net { hidden: Linear, output: Linear }
/// # impl Net {
/// #     fn new(_seed: u64, device: &Device) -> Self {
/// #         let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Ones);
/// #         Self { hidden: linear(8, 32).init(device), output: linear(32, 1).init(device) }
/// #     }
/// #     fn loss(&self, [inputs, targets]: [Tensor<2>; 2]) -> Tensor<1> {
/// #         (self.output.forward(self.hidden.forward(inputs).tanh()) - targets).square().mean()
/// #     }
/// # }
/// # fn batch(_seed: u64, _step: u64, device: &Device) -> [Tensor<2>; 2] {
/// #     [Tensor::ones([16, 8], device), Tensor::ones([16, 1], device)]
/// # }
/// # fn validation(device: &Device) -> [Tensor<2>; 2] { batch(0, 0, device) }
///
/// let comparison = Comparison::new("runs/mine")
///     .optimizers(["adamw", "muon", "muon_eq"])
///     .schedule(Schedule::cosine(20))
///     .steps(300);
/// let results = comparison.run(|trial: Trial| {
///     let device = Device::flex().autodiff();
///     let model = Net::new(trial.seed(), &device); // Burn's initializers draw from `Device::seed`
///     let optimizer = trial.layerwise()?.assign("output", Role::Head).build(&model)?;
///     let (seed, plain) = (trial.seed(), device.clone().inner());
///     let loss = move |model: &Net, step| model.loss(batch(seed, step, &device));
///     let valid = move |model: &Net| model.loss(validation(&plain)).into_scalar::<f64>();
///     Ok::<_, polaron::LayerwiseError>(own::train(trial, model, optimizer, loss, valid))
/// })?;
/// println!("{}", results.ranking); // runs/mine/report.html has everything else
/// # Ok::<(), polaron_train::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Comparison {
    folder: PathBuf,
    settings: Settings,
    tune_steps: Option<u64>,
    valid_every: Option<u64>,
    optimizers: Vec<Value>,
    sweep: Table,
    search: Table,
    schedule: Option<Schedule>,
    about: Table,
}

impl Comparison {
    /// A comparison in this folder, which is new or holds the same comparison.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let title = folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
        let about = Table::from_iter([
            ("title".to_owned(), Value::from(title)),
            ("unit".to_owned(), "steps".into()),
            ("per_step".to_owned(), 1.into()),
        ]);
        Self {
            folder,
            settings: Settings::of(400, 1),
            tune_steps: None,
            valid_every: None,
            optimizers: Vec::new(),
            sweep: Table::new(),
            search: Table::new(),
            schedule: None,
            about,
        }
    }

    /// Optimizers by the names of their stacks.
    #[must_use]
    pub fn optimizers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.optimizers.extend(names.into_iter().map(|name| Value::from(name.into())));
        self
    }

    /// One more optimizer: the TOML of a table with a name of its own, as in a plan of `polaron compare`:
    /// `name = "hot"`, `stack = "muon"`, `lr = 0.05`, `matrix = { momentum = 0.9 }`, `lrs = [0.02, 0.05, 0.1]`, …
    ///
    /// # Errors
    ///
    /// A text that is not TOML.
    pub fn optimizer(mut self, toml: &str) -> Result<Self, Error> {
        let table: Table = toml::from_str(toml).map_err(ConfigError::misfit)?;
        self.optimizers.push(Value::Table(table));
        Ok(self)
    }

    /// Steps of a verdict run; 400 if not given.
    #[must_use]
    pub fn steps(mut self, steps: u64) -> Self {
        self.settings.steps = steps;
        self
    }

    /// Steps of a tuning run; 3/5 of those of a verdict run if not given.
    #[must_use]
    pub fn tune_steps(mut self, steps: u64) -> Self {
        self.tune_steps = Some(steps);
        self
    }

    /// Steps between the validations of a verdict run; a fortieth of its steps if not given.
    #[must_use]
    pub fn valid_every(mut self, steps: u64) -> Self {
        self.valid_every = Some(steps);
        self
    }

    /// Number of verdict seeds; 3 if not given. More may be asked for later.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.settings.seeds = seeds;
        self
    }

    /// Number of tuning seeds, which are never verdict seeds; 1 if not given.
    #[must_use]
    pub fn tune_seeds(mut self, seeds: u64) -> Self {
        self.settings.tune_seeds = seeds;
        self
    }

    /// Learning rates for every optimizer; if not given, three around the default of each, a factor of 3 apart.
    #[must_use]
    pub fn lrs(mut self, lrs: impl IntoIterator<Item = f64>) -> Self {
        self.settings.lrs = lrs.into_iter().collect();
        self
    }

    /// How many times a grid of rates may grow by one if its best is at its edge; 3 if not given.
    #[must_use]
    pub fn extensions(mut self, extensions: u64) -> Self {
        self.settings.extensions = extensions;
        self
    }

    /// Values to try for a further key, `optimizer.…` or `schedule.…`, with every optimizer and every rate.
    #[must_use]
    pub fn sweep<V: Into<Value>>(mut self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.sweep.insert(key.into(), values.into_iter().map(Into::into).collect::<Vec<Value>>().into());
        self
    }

    /// Tunes over several keys at once: so many candidates for every optimizer, drawn evenly from the ranges of [`search`](Self::search),
    /// or from those that are usual: rates, decay and momentum around their defaults. In place of `lrs` and `sweep`.
    #[must_use]
    pub fn trials(mut self, trials: u64) -> Self {
        self.settings.trials = trials;
        self
    }

    /// How many times the candidates of a search are halved: each time the better half runs for twice as many steps, so that the
    /// last round has the steps of [`tune_steps`](Self::tune_steps).
    #[must_use]
    pub fn halvings(mut self, halvings: u64) -> Self {
        self.settings.halvings = halvings;
        self
    }

    /// The range of a key, `optimizer.…` or `schedule.…`, in a search of every optimizer; its logarithm is covered evenly.
    #[must_use]
    pub fn search(mut self, key: &str, low: f64, high: f64) -> Self {
        self.search.insert(key.into(), vec![low, high].into());
        self
    }

    /// Losses to reach; if not given, the lowest one that every verdict run reached.
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = f64>) -> Self {
        self.settings.targets = targets.into_iter().collect();
        self
    }

    /// Also runs the best rate divided and multiplied by 2 and by 4.
    #[must_use]
    pub fn sensitivity(mut self) -> Self {
        self.settings.sensitivity = true;
        self
    }

    /// The schedule of the learning rates, see [`Trial::factor`]; constant if not given.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// Runs at a time; 1 if not given. With more, the function is called on several threads at once, so it must not draw from a
    /// generator that they share: `Device::seed` sets such a one.
    #[must_use]
    pub fn jobs(mut self, jobs: u64) -> Self {
        self.settings.jobs = jobs;
        self
    }

    /// What the model is called on the page.
    #[must_use]
    pub fn model(self, title: &str) -> Self {
        self.noted("title", title)
    }

    /// What a step sees: so many images, tokens, …
    #[must_use]
    pub fn counts(self, per_step: u64, unit: &str) -> Self {
        self.noted("unit", unit).noted("per_step", i64::try_from(per_step).unwrap_or(i64::MAX))
    }

    /// Writes a setting of the training into the plan, so that resuming with another value is an error: width, batch size, data.
    #[must_use]
    pub fn setting(self, key: &str, value: impl Into<Value>) -> Self {
        let mut settings = section(&self.about, "settings");
        settings.insert(key.into(), value.into());
        self.noted("settings", settings)
    }

    fn noted(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.about.insert(key.into(), value.into());
        self
    }

    /// Makes every run that the comparison lacks, by calling `train` with its trial; then writes the results and the page into the
    /// folder. If the process ends before, however it does, calling this again resumes: at most the runs under way are made again.
    ///
    /// A loss that is not finite is a result, a divergence.
    ///
    /// # Errors
    ///
    /// A plan that is not valid, or another one than that of the folder, with the key that differs; an error or a panic of `train`,
    /// with the name of the trial; files that cannot be read or written.
    pub fn run<I, E>(&self, train: impl Fn(Trial) -> Result<I, E> + Sync) -> Result<Results, Error>
    where
        I: IntoIterator<Item = Measurement>,
        E: Display,
    {
        let plan = self.plan()?;
        let folder = ComparisonFolder::new(&self.folder);
        folder.check(&plan)?;
        let (_lock, plan) = folder.claim(&plan, Duration::ZERO)?;
        folder.write_plan(&plan)?;
        let runs = Runs::read(&plan, &folder, &Trial::check)?;
        let subject = Subject::of_loop(&self.about);
        let train = |trial: Trial| {
            let run = trial.name().to_owned();
            train(trial).map_err(|error| {
                let message = one_line(&error.to_string());
                Error::from(CompareError::TrialFailed { run, message })
            })
        };
        let results = complete(runs, &subject, &|_| None, &train)?.ok_or_else(|| self.interrupted())?;
        write_atomically(&self.folder.join(FILE), page(std::slice::from_ref(&self.folder), None)?.as_bytes())?;
        Ok(results)
    }

    fn interrupted(&self) -> Error {
        Error::Usage(format!("the comparison in `{}` was interrupted: run the program again", self.folder.display()))
    }

    /// The complete plan.
    fn plan(&self) -> Result<Plan, Error> {
        let mut settings = self.settings.clone();
        let defaults = Settings::of(settings.steps, settings.jobs);
        settings.tune_steps = self.tune_steps.unwrap_or(defaults.tune_steps);
        settings.valid_every = self.valid_every.unwrap_or(defaults.valid_every);
        let mut contenders = self.contenders(&settings)?;
        settings.trials = trials(&settings, &contenders);
        settings.check()?;
        check_names(&contenders, 2)?;
        for contender in &mut contenders {
            settle(contender, &settings)?;
        }
        check_grids(&contenders)?;
        settings.lrs = Vec::new();
        let mut base = Table::new();
        if let Some(schedule) = &self.schedule {
            base.insert("schedule".into(), Value::try_from(schedule).map_err(ConfigError::misfit)?);
        }
        base.insert(LOOP.into(), Value::Table(self.about.clone()));
        let plan = Plan { settings, contenders, base };
        check_candidates(&plan)?;
        Ok(plan)
    }

    fn contenders(&self, settings: &Settings) -> Result<Vec<Contender>, Error> {
        let [sweep, search] = [&self.sweep, &self.search].map(|table| Value::Table(table.clone()));
        let shared = Shared::read(Some(&sweep), Some(&search), PLACE)?;
        let one = |item: &Value| {
            let mut contender = contender(item, &shared, PLACE)?;
            if contender.lrs.is_empty() {
                contender.lrs.clone_from(&settings.lrs);
            }
            check_rates(&mut contender.lrs, &contender.name)?;
            Ok(contender)
        };
        self.optimizers.iter().map(one).collect()
    }
}

/// Replaces the given settings of an optimizer by the complete ones, with the defaults of its stack.
fn settle(contender: &mut Contender, settings: &Settings) -> Result<(), Error> {
    let config = LayerwiseConfig::from_toml(&contender.optimizer.to_string())?;
    contender.optimizer = Table::try_from(&config).map_err(ConfigError::misfit)?;
    contender.optimizer.remove("lr");
    complete_search(contender, settings, config.lr)?;
    if contender.lrs.is_empty() && contender.search.is_empty() {
        contender.lrs = grid(config.lr, settings.lr_points, settings.lr_factor);
    }
    Ok(())
}

/// Every candidate is checked before the first run begins.
fn check_candidates(plan: &Plan) -> Result<(), Error> {
    for index in 0..plan.contenders.len() {
        for candidate in plan.candidates(index) {
            let sections = plan.sections(index, &candidate.swept)?;
            let mut optimizer = section(&sections, "optimizer");
            optimizer.insert("lr".into(), candidate.lr.into());
            Layerwise::from_toml(&optimizer.to_string())?;
            if let Some((key, _)) = candidate.swept.iter().find(|(key, _)| key.starts_with("schedule."))
                && !plan.base.contains_key("schedule")
            {
                return Err(CompareError::NotSwept { key: key.clone() }.into());
            }
            if let Some(schedule) = sections.get("schedule") {
                schedule.clone().try_into::<Schedule>().map_err(ConfigError::misfit)?;
            }
        }
    }
    Ok(())
}
