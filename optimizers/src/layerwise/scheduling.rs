//! Schedules of their own for part of the parameters, and the `[schedule]` table of a configuration file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rule::{names_or_name, read_roles};
use super::{LayerwiseError, Pattern, Role};
use crate::rules::OptimizerConfig;
use crate::schedule::{MomentumSchedule, Schedule, ScheduleKind};
use crate::setting::{ConfigError, Given, check_keys};

/// A schedule for part of the parameters, in place of the factor that is given to a step. Of all that match a parameter
/// the last one wins.
///
/// ```
/// use polaron::layerwise::{Layerwise, ScheduleRule};
/// use polaron::{Role, Schedule};
///
/// let builder = Layerwise::muon()
///     .schedule(ScheduleRule::optimizer("adamw", Schedule::cosine(100))?)
///     .schedule(ScheduleRule::roles([Role::Head], Schedule::wsd(100)));
/// # let _ = builder;
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScheduleRule {
    covers: Covers,
    schedule: Schedule,
}

/// Which parameters a schedule is for.
#[derive(Clone, Debug)]
enum Covers {
    Roles(Vec<Role>),
    Kinds(Vec<String>),
    Path(Pattern),
}

impl ScheduleRule {
    /// For every parameter of these roles.
    pub fn roles(roles: impl Into<Vec<Role>>, schedule: Schedule) -> Self {
        Self { covers: Covers::Roles(roles.into()), schedule }
    }

    /// For every parameter that is updated by an optimizer of this kind.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn optimizer(kind: &str, schedule: Schedule) -> Result<Self, LayerwiseError> {
        OptimizerConfig::of_kind(kind)?;
        Ok(Self { covers: Covers::Kinds(vec![kind.to_string()]), schedule })
    }

    /// For every parameter whose path matches a glob or a `/regex/`, see [`Pattern`].
    ///
    /// # Errors
    /// If the pattern is not valid.
    pub fn path(pattern: &str, schedule: Schedule) -> Result<Self, LayerwiseError> {
        Ok(Self { covers: Covers::Path(Pattern::new(pattern)?), schedule })
    }

    /// The schedule.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Which parameters it is for, as in a configuration: roles, kinds of optimizers or a pattern.
    pub fn name(&self) -> String {
        match &self.covers {
            Covers::Roles(roles) => roles.iter().map(Role::name).collect::<Vec<_>>().join(","),
            Covers::Kinds(kinds) => kinds.join(","),
            Covers::Path(pattern) => pattern.to_string(),
        }
    }

    /// The name in error messages.
    pub(crate) fn title(&self) -> String {
        let selector = match &self.covers {
            Covers::Roles(_) => "role",
            Covers::Kinds(_) => "optimizer",
            Covers::Path(_) => "path",
        };
        format!("the schedule for {selector} \"{}\"", self.name())
    }

    /// What a model has instead, in a message that nothing matches: a question with the nearest path, or what can be named.
    pub(crate) fn instead<'a>(&self, there: impl Iterator<Item = (&'a str, Option<Role>, Option<&'a str>)>) -> String {
        let mut named: Vec<&str> = match &self.covers {
            Covers::Path(pattern) => return pattern.nearest(there.map(|(path, ..)| path)),
            Covers::Kinds(_) => there.filter_map(|(_, _, kind)| kind).collect(),
            Covers::Roles(_) => there.filter_map(|(_, role, _)| Some(role?.name())).collect(),
        };
        named.sort_unstable();
        named.dedup();
        format!("; there are {}", named.join(", "))
    }

    /// Whether it is for the parameter on this path, with this role and this kind of optimizer, if it has them.
    pub(crate) fn matches(&self, path: &str, role: Option<Role>, kind: Option<&str>) -> bool {
        match &self.covers {
            Covers::Roles(roles) => role.is_some_and(|role| roles.contains(&role)),
            Covers::Kinds(kinds) => kind.is_some_and(|kind| kinds.iter().any(|known| known == kind)),
            Covers::Path(pattern) => pattern.matches(path),
        }
    }

    /// Refuses numbers with which the factors would make no sense.
    pub(crate) fn check(&self) -> Result<(), LayerwiseError> {
        check_schedule(&self.title(), &self.schedule)
    }

    /// Reads a table `{ role | optimizer | match, kind, warmup, … }`; what it leaves out is that of `main`.
    fn from_table(table: &Map<String, Value>, main: &Schedule) -> Result<Self, String> {
        let mut keys = table.clone();
        let selectors = ["role", "optimizer", "match"].map(|key| keys.remove(key));
        let covers = match selectors {
            [Some(roles), None, None] => Covers::Roles(read_roles(roles)?),
            [None, Some(kinds), None] => Covers::Kinds(read_kinds(kinds)?),
            [None, None, Some(Value::String(pattern))] => {
                Covers::Path(Pattern::new(pattern).map_err(|error| error.to_string())?)
            }
            _ => return Err("needs one of role = \"name\", optimizer = \"kind\" and match = \"pattern\"".into()),
        };
        let schedule = changed(main, keys)?;
        Ok(Self { covers, schedule })
    }
}

/// The keys of a schedule.
const KEYS: [&str; 6] = ["kind", "warmup", "warmup_rule", "min_factor", "decay_fraction", "power"];

/// A schedule with some of its keys replaced. A shape without an exponent does not inherit one.
fn changed(main: &Schedule, keys: Map<String, Value>) -> Result<Schedule, String> {
    check_keys(&keys, &KEYS, "schedule").map_err(|error| error.to_string())?;
    check_kind(&keys)?;
    let power_given = keys.contains_key("power");
    let Ok(Value::Object(mut all)) = serde_json::to_value(main) else {
        unreachable!("a schedule serialises to an object")
    };
    all.extend(keys);
    let mut schedule: Schedule = serde_json::from_value(Value::Object(all)).map_err(|error| error.to_string())?;
    let changed = schedule.kind != main.kind;
    if (changed || schedule.kind.exponent().is_none()) && !power_given {
        schedule.power = None;
    }
    Ok(schedule)
}

/// Refuses a shape that does not exist; that of an optimizer is a likely mistake, since `kind` is its key elsewhere.
fn check_kind(keys: &Map<String, Value>) -> Result<(), String> {
    let valid = ScheduleKind::NAMES;
    match keys.get("kind").and_then(Value::as_str) {
        Some(name) if OptimizerConfig::KINDS.contains(&name) => Err(format!(
            "kind is the shape of the schedule ({}): write optimizer = \"{name}\" for the parameters that {name} updates",
            valid.join(", ")
        )),
        Some(name) if !valid.contains(&name) => {
            Err(ConfigError::Name { what: "schedule", name: name.to_string(), valid: valid.to_vec() }.to_string())
        }
        _ => Ok(()),
    }
}

fn read_kinds(value: Value) -> Result<Vec<String>, String> {
    let kinds = names_or_name(value, "optimizer")?;
    kinds.iter().try_for_each(|kind| OptimizerConfig::of_kind(kind).map(drop)).map_err(|error| error.to_string())?;
    Ok(kinds)
}

fn check_schedule(what: &str, schedule: &Schedule) -> Result<(), LayerwiseError> {
    let Schedule { kind, min_factor, decay_fraction, power, .. } = *schedule;
    for (key, value) in [("min_factor", min_factor), ("decay_fraction", decay_fraction)] {
        check_number(format!("{key} of {what}"), value, "from 0 to 1", (0.0..=1.0).contains(&value))?;
    }
    let Some(power) = power else { return Ok(()) };
    check_number(format!("power of {what}"), power, "above 0 and finite", power > 0.0 && power.is_finite())?;
    let rule = "left out, since only the kinds power and inverse_power have an exponent";
    check_number(format!("power of {what}"), power, rule, kind.exponent().is_some())
}

/// Refuses factors with which there would be no average.
pub(crate) fn check_momentum(momentum: &MomentumSchedule) -> Result<(), LayerwiseError> {
    if let Some(power) = momentum.power {
        let key = |key: &str| format!("schedule.momentum.{key}");
        check_number(key("power"), power, "above 0 and finite", power > 0.0 && power.is_finite())?;
        let alone = MomentumSchedule { power: momentum.power, ..MomentumSchedule::default() };
        let rule = "alone: leave start, warmup, peak, cooldown and end out";
        return check_number(key("power"), power, rule, *momentum == alone);
    }
    for (key, value) in [("start", momentum.start), ("peak", momentum.peak), ("end", momentum.end)] {
        check_number(format!("schedule.momentum.{key}"), value, "above 0 and below 1", value > 0.0 && value < 1.0)?;
    }
    Ok(())
}

fn check_number(what: String, value: f64, rule: &'static str, holds: bool) -> Result<(), LayerwiseError> {
    if holds { Ok(()) } else { Err(LayerwiseError::Number { what, rule, value }) }
}

/// The `[schedule]` table of a configuration: the schedule of every parameter, others for some of them, and the momentum.
///
/// ```
/// use polaron::layerwise::ScheduleConfig;
///
/// let config = ScheduleConfig::from_toml(r#"
///     kind = "wsd"
///     warmup = 0
///     warmup_rule = "llama"
///     min_factor = 0.0
///     decay_fraction = 0.4
///
///     [[rule]]                     # `optimizer` is a kind of optimizer, `kind` the shape of the schedule
///     optimizer = "adamw"
///     kind = "cosine"
///     warmup = 100
///     warmup_rule = "transformers"
///
///     [momentum]                   # of the matrix rules; absent: their own
///     start = 0.85
/// "#)?;
/// let adamw = config.rules()?[0].schedule();
/// assert_eq!([599, 800, 1000].map(|step| config.main.factor(step, 1000)), [1.0, 0.5, 0.0]);
/// assert_eq!([50, 100, 550].map(|step| adamw.factor(step, 1000)), [0.5, 1.0, 0.5]);
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given")]
pub struct ScheduleConfig {
    /// Of every parameter that no rule matches.
    #[serde(flatten)]
    pub main: Schedule,
    /// Schedules for some parameters; the last one that matches wins, and one that wins for none is an error:
    /// `{ role = "name" | ["name"] | optimizer = "adamw" | match = "glob", kind = …, warmup = …, … }`. Keys that it leaves out
    /// are those of `main`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<Map<String, Value>>,
    /// The momentum over the steps of the matrix rules that have one, for the matrices of the blocks; without it theirs is
    /// constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<MomentumSchedule>,
}

impl From<Schedule> for ScheduleConfig {
    fn from(main: Schedule) -> Self {
        Self { main, rule: Vec::new(), momentum: None }
    }
}

impl TryFrom<Given> for ScheduleConfig {
    type Error = ConfigError;

    fn try_from(Given(mut map): Given) -> Result<Self, ConfigError> {
        fn read<T: serde::de::DeserializeOwned>(key: &str, value: Value) -> Result<T, ConfigError> {
            serde_json::from_value(value)
                .map_err(|error| ConfigError::value(format!("schedule.{key}"), error.to_string()))
        }
        check_keys(&map, &[KEYS.as_slice(), &["rule", "momentum"]].concat(), "schedule")?;
        let rule = map.remove("rule").map_or(Ok(Vec::new()), |rules| read("rule", rules))?;
        let momentum = map.remove("momentum").map(|momentum| read("momentum", momentum)).transpose()?;
        let main = serde_json::from_value(Value::Object(map))
            .map_err(|error| ConfigError::value("schedule", error.to_string()))?;
        Ok(Self { main, rule, momentum })
    }
}

impl ScheduleConfig {
    /// Reads a TOML table.
    ///
    /// # Errors
    /// On a syntax error, an unknown key (naming the nearest valid one) or a wrong type.
    pub fn from_toml(text: &str) -> Result<Self, LayerwiseError> {
        toml::from_str(text).map_err(|error| LayerwiseError::ScheduleToml { message: error.to_string() })
    }

    /// The schedules of `rule`, checked.
    ///
    /// # Errors
    /// If a rule cannot be read, or a number of it, of the main schedule or of the momentum is out of range.
    pub fn rules(&self) -> Result<Vec<ScheduleRule>, LayerwiseError> {
        check_schedule("the schedule", &self.main)?;
        self.momentum.as_ref().map_or(Ok(()), check_momentum)?;
        let read = |(table, number)| {
            let rule = ScheduleRule::from_table(table, &self.main);
            let rule = rule.map_err(|message| LayerwiseError::Schedule { number, message })?;
            rule.check().map(|()| rule)
        };
        self.rule.iter().zip(1..).map(read).collect()
    }
}
