//! From preset, file, flags and `--set` to one checked configuration.

use std::path::{Path, PathBuf};

use polaron::wrappers::WrapperConfig;
use polaron_datasets::decode_utf8;
use toml::{Table, Value};

use crate::error::{ConfigError, Error, FileError, one_line};
use crate::host::progress::say;
use crate::networks::registry::NetworkConfig;
use crate::settings::config::{AVERAGE, Config, LORA, WRAPPER};
use crate::settings::given_model::{GivenModel, INIT, INIT_CONTINUES};
use crate::settings::merge;
use crate::settings::methods::{self, Unnamed};
use crate::settings::recipe::{self, Choices};

/// Where a configuration comes from, in rising priority; the preset defaults have the lowest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layers {
    /// A TOML file, read with [`read_file`].
    pub file: Option<(PathBuf, Table)>,
    /// Named flags: the flag, the key that it sets, the value.
    pub flags: Vec<(&'static str, &'static str, Value)>,
    /// `--set` arguments: key and raw value.
    pub sets: Vec<(String, String)>,
    /// The model of the weights that the run starts from: it takes the place of the preset, and no layer may contradict it.
    pub model: Option<GivenModel>,
}

impl Layers {
    /// Resolves the layers into one checked configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first key or value that is wrong, or the model's own error.
    pub fn resolve(&self) -> Result<Config, Error> {
        let mut config = Config::from_table(self.table()?)?;
        if config.init_is_open() && self.model.is_none() {
            let rule = "only `polaron train` and `polaron inspect` can start from given weights: leave the key out";
            ConfigError::ensure(false, INIT, &config.train.init, rule)?;
        }
        config.settle(self.model.as_ref())?;
        if self.pick("data.valid_fraction").is_none() {
            config.adopt_split();
        }
        config.validate()?;
        Ok(config)
    }

    /// The layers over the defaults, with every key that a default has or a layer gives, before any check of a value's range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first key or type that is wrong.
    pub fn table(&self) -> Result<Table, Error> {
        let defaults = recipe::defaults(&self.choices()?)?;
        let mut table = defaults.to_table()?;
        if let Some(model) = &self.model {
            table.insert("model".into(), Value::Table(model.keys.clone()));
        }
        if let Some((path, file)) = &self.file {
            let file = dated(file, self.text("optimizer.stack")?.as_deref())?;
            merge::merge(&mut table, &file, &format!("in `{}`", path.display()))?;
        }
        for (flag, key, value) in &self.flags {
            let layer = single(key, value.clone(), flag)?;
            merge::merge(&mut table, &layer, &format!("from {flag}"))?;
        }
        let set: Vec<&str> = self.sets.iter().map(|(key, _)| key.as_str()).collect();
        merge::check_alternatives(&set, "by --set")?;
        for (key, raw) in &self.sets {
            let value = merge::parse_set(raw, merge::lookup(&table, key));
            merge_set(&mut table, key, value)?;
        }
        if let Some(model) = &self.model {
            model.fill_vocabulary(&mut table);
            model.check(&table)?;
        }
        if let Some(Value::Table(optimizer)) = table.get_mut("optimizer") {
            methods::name(optimizer, Unnamed::Default)?;
        }
        Ok(table)
    }

    fn choices(&self) -> Result<Choices, ConfigError> {
        let given = |key: &str| Some((key.to_owned(), self.pick(&format!("model.{key}"))?));
        Ok(Choices {
            preset: self
                .text("model.preset")?
                .or_else(|| self.model.as_ref()?.keys.get("preset")?.as_str().map(String::from)),
            model: NetworkConfig::followed().into_iter().filter_map(given).collect(),
            stack: self.text("optimizer.stack")?,
            batch: self.number("train.batch").and_then(|number| usize::try_from(number).ok()),
            steps: self.number("train.steps").and_then(|number| u64::try_from(number).ok()),
            seed: self.number("train.seed").and_then(|number| u64::try_from(number).ok()),
            trained: self.text(INIT)?.is_some_and(|path| !path.is_empty()) && !self.continues(),
            lora: self.names(LORA),
            average: self.names(AVERAGE),
            wrapper: self.wrapper()?,
        })
    }

    /// The kind of the wrapper, if a layer has one.
    fn wrapper(&self) -> Result<Option<String>, ConfigError> {
        let key = format!("{WRAPPER}.kind");
        if !self.names(WRAPPER) {
            return Ok(None);
        }
        let whole = || Some(self.pick(WRAPPER)?.get("kind")?.as_str()?.to_owned());
        match self.text(&key)?.or_else(whole) {
            Some(kind) => Ok(Some(kind)),
            None => Err(ConfigError::bad_choice(&key, "", &WrapperConfig::KINDS)),
        }
    }

    /// Whether two keys have their values from the file, and neither of them is empty: such a file was written by a run.
    pub fn is_resolved(&self, key: &str, other: &str) -> bool {
        let flagged = self.flags.iter().any(|(_, flag, _)| *flag == key) || self.sets.iter().any(|(set, _)| set == key);
        let full = |key: &str| {
            let value = self.file.as_ref().and_then(|(_, table)| merge::lookup(table, key)?.as_str());
            value.is_some_and(|text| !text.is_empty())
        };
        !flagged && full(key) && full(other)
    }

    /// Whether the run continues the one whose weights it starts from.
    pub fn continues(&self) -> bool {
        self.pick(INIT_CONTINUES) == Some(Value::Boolean(true))
    }

    /// The highest-priority value of a key, before any check.
    fn pick(&self, key: &str) -> Option<Value> {
        let set = self.sets.iter().rev().find(|(k, _)| k == key).map(|(_, raw)| merge::parse_set(raw, None));
        let flag = || self.flags.iter().rev().find(|(_, k, _)| *k == key).map(|(_, _, value)| value.clone());
        let file = || self.file.as_ref().and_then(|(_, table)| merge::lookup(table, key)).cloned();
        set.or_else(flag).or_else(file)
    }

    /// Whether a layer has this section, or sets a key of it.
    fn names(&self, section: &str) -> bool {
        let inside = |key: &str| key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.pick(section).is_some() || self.sets.iter().any(|(key, _)| inside(key))
    }

    /// The highest-priority value of a key that is a text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`] for anything else.
    pub fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.pick(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ConfigError::WrongType {
                key: key.into(),
                expected: "a string",
                found: one_line(&format!("{} {other}", other.type_str())),
                place: "given".into(),
            }),
        }
    }

    /// The highest-priority value of a key that is a whole number.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.pick(key).and_then(|value| value.as_integer())
    }
}

/// The file with what a version of this program meant that it did not write, if it wrote the file: then it has every key of
/// the optimizer, and its runs must resume unchanged. `stack` is the stack that is asked for.
///
/// Every rule has `inherit`: whether the rule takes what it does not set from the rule that it overrides. Rules inherit by
/// default; in a version that wrote no `inherit`, no rule inherited. A version that wrote no method of a rule with an exact
/// target computed it exactly.
fn dated(file: &Table, stack: Option<&str>) -> Result<Table, ConfigError> {
    let mut file = file.clone();
    let Some(Value::Table(optimizer)) = file.get_mut("optimizer") else { return Ok(file) };
    let resolved = ["stack", "weight_decay", "clip", "matrix", "adamw"].iter().all(|key| optimizer.contains_key(*key));
    if let Some(Value::Array(rules)) = optimizer.get_mut("rule") {
        let old = resolved && rules.iter().all(|rule| rule.get("inherit").is_none());
        say_inherit(rules, !old);
    }
    if resolved {
        methods::name(optimizer, Unnamed::Exact)?;
        if optimizer.get("stack").and_then(Value::as_str) != stack {
            methods::forget(optimizer);
        }
    }
    Ok(file)
}

/// Writes down whether rules inherit where they do not say it.
fn say_inherit(rules: &mut [Value], inherits: bool) {
    for rule in rules.iter_mut().filter_map(Value::as_table_mut) {
        rule.entry("inherit").or_insert(Value::Boolean(inherits));
    }
}

fn single(key: &str, value: Value, place: &str) -> Result<Table, ConfigError> {
    let mut layer = Table::new();
    merge::assign(&mut layer, key, value, place)?;
    Ok(layer)
}

/// `--set` can set single keys of the free-form tables too, where a plain merge would replace the whole table.
fn merge_set(table: &mut Table, key: &str, mut value: Value) -> Result<(), ConfigError> {
    if let ("optimizer.rule", Value::Array(rules)) = (key, &mut value) {
        say_inherit(rules, true);
    }
    if key.starts_with("optimizer.matrix.") {
        return merge::assign(table, key, value, "from --set");
    }
    merge::merge(table, &single(key, value, "--set")?, "from --set")
}

/// Reads a TOML file.
///
/// # Errors
///
/// [`Error::File`] when it cannot be read, [`ConfigError::NotToml`] with line and column.
pub fn read_file(path: &Path) -> Result<Table, Error> {
    parse(path, &read_text(path)?)
}

/// Reads the text of a TOML file; a byte order mark at its front is ignored, with a note.
///
/// # Errors
///
/// When it cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(FileError::at("read the configuration", path))?;
    let (text, marked) = decode_utf8(path, bytes)?;
    if marked {
        say(&format!("note: the byte order mark at the front of `{}` is ignored", path.display()));
    }
    Ok(text)
}

/// The text of the TOML file at `path` as a table.
///
/// # Errors
///
/// [`ConfigError::NotToml`] with line and column.
pub fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    toml::from_str::<Table>(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ConfigError::NotToml { path: path.into(), line, column, message: one_line(error.message()) }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use polaron::LayerwiseConfig;

    fn with_sets(sets: &[(&str, &str)]) -> Result<Config, Error> {
        let sets = sets.iter().map(|(key, raw)| ((*key).into(), (*raw).into())).collect();
        Layers { sets, ..Layers::default() }.resolve()
    }

    fn refusal(key: &str, raw: &str) -> String {
        with_sets(&[(key, raw)]).unwrap_err().to_string()
    }

    #[test]
    fn set_beats_flag_beats_file_beats_preset() {
        let file: Table = toml::from_str("[train]\nsteps = 11\nbatch = 5\nseed = 7").unwrap();
        let layers = Layers {
            file: Some(("x.toml".into(), file)),
            flags: vec![("--steps", "train.steps", Value::Integer(12)), ("--lr", "optimizer.lr", Value::Float(0.5))],
            sets: vec![("optimizer.lr".into(), "0.25".into())],
            ..Layers::default()
        };
        let config = layers.resolve().unwrap();
        assert_eq!((config.train.steps, config.train.batch, config.optimizer.lr), (12, 5, 0.25));
        assert_eq!((config.train.seed, config.train.data_seed), (7, 8));
        assert_eq!(config.model.preset(), "llama-d64");
    }

    #[test]
    fn a_resolved_configuration_resolves_to_itself() {
        for stack in LayerwiseConfig::STACKS {
            let sets = [("optimizer.stack", *stack), ("optimizer.clip", "0"), ("model.preset", "llama-d64")];
            let config = with_sets(&sets).unwrap();
            let file = toml::from_str::<Table>(&config.to_toml().unwrap()).unwrap();
            let again = Layers { file: Some(("config.toml".into(), file)), ..Layers::default() }.resolve().unwrap();
            assert_eq!(again, config, "{stack}");
            assert_eq!(again.to_toml().unwrap(), config.to_toml().unwrap(), "{stack}");
        }
    }

    #[test]
    fn keys_that_no_default_has_are_kept_and_take_the_place_of_others() {
        let plain = with_sets(&[]).unwrap().to_toml().unwrap();
        for key in ["lr_ratio", "decay_vectors", "power", "momentum", "[[schedule"] {
            assert!(!plain.contains(key), "{key}: {plain}");
        }
        let text = "[schedule]\nkind = 'power'\npower = 2\n[[schedule.rule]]\nrole = 'head'\nkind = 'wsd'\n\
                    [schedule.momentum]\nstart = 0.8\n[optimizer]\nstack = 'symmetric'\n\
                    [optimizer.edges]\nrouter_rms = 2e-3\n[optimizer.adamw]\nlr_ratio = 0.5\ndecay_vectors = true\n";
        let config = with_file(text);
        assert_eq!((config.schedule.main.power, config.schedule.rule.len()), (Some(2.0), 1));
        assert_eq!(config.schedule.momentum.map(|momentum| (momentum.start, momentum.peak)), Some((0.8, 0.95)));
        assert_eq!(config.optimizer.adamw.rate(0.3), 0.15);
        let written = config.to_toml().unwrap();
        assert!(!written.contains("router_lr") && written.contains("head_lr"), "{written}");
        assert_eq!(with_file(&written), config);
        assert_eq!(with_file(&written).to_toml().unwrap(), written);
    }

    #[test]
    fn a_later_layer_decides_between_two_forms_of_a_rate() {
        let file: Table = toml::from_str("[optimizer.adamw]\nlr = 0.25").unwrap();
        let with = |file: &str, sets: &[(&str, &str)]| {
            let sets = sets.iter().map(|(key, raw)| ((*key).into(), (*raw).into())).collect();
            let file = Some(("x.toml".into(), toml::from_str(file).unwrap()));
            Layers { file, sets, ..Layers::default() }.resolve()
        };
        assert_eq!(with(&file.to_string(), &[]).unwrap().optimizer.adamw.rate(1.0), 0.25);
        let (lr, ratio) = ("optimizer.adamw.lr", "optimizer.adamw.lr_ratio");
        assert_eq!(with(&file.to_string(), &[(ratio, "0.5")]).unwrap().optimizer.adamw.rate(1.0), 0.5);
        let back = with("[optimizer.adamw]\nlr_ratio = 0.5", &[(lr, "0.125")]).unwrap();
        assert_eq!(back.optimizer.adamw.rate(1.0), 0.125);
        for both in
            [with("[optimizer.adamw]\nlr = 0.25\nlr_ratio = 0.5", &[]), with("", &[(lr, "0.25"), (ratio, "0.5")])]
        {
            let said = both.unwrap_err().to_string();
            assert!(said.contains("`optimizer.adamw.lr_ratio`") && said.contains("leave one of them out"), "{said}");
        }
    }

    #[test]
    fn sections_that_are_absent_by_default_are_written_whole_once_a_key_of_them_is_given() {
        for kind in WrapperConfig::KINDS {
            let average = ("train.average.mix", if kind == "schedule_free" { None } else { Some("0.5") });
            let sets = [("optimizer.wrapper.kind", Some(kind)), average];
            let sets: Vec<(&str, &str)> = sets.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let config = with_sets(&sets).unwrap();
            assert_eq!(config.optimizer.wrapper, Some(WrapperConfig::of_kind(kind).unwrap()));
            let text = config.to_toml().unwrap();
            assert_eq!(text.contains("horizon = 150.0"), kind != "schedule_free", "{text}");
            assert_eq!(with_file(&text).to_toml().unwrap(), text, "{kind}");
        }
        let plain = with_sets(&[]).unwrap().to_toml().unwrap();
        assert!(!plain.contains("average") && !plain.contains("wrapper"), "{plain}");
    }

    #[test]
    fn values_outside_their_range_are_refused_by_name() {
        let cases = [
            ("train.steps", "0"),
            ("train.batch", "0"),
            ("train.accumulation", "5"),
            ("train.keep", "0"),
            ("data.valid_fraction", "1.5"),
            ("data.valid_fraction", "nan"),
            ("schedule.min_factor", "-0.1"),
            ("schedule.decay_fraction", "2"),
            ("optimizer.lr", "-1"),
            ("optimizer.lr", "NaN"),
            ("optimizer.weight_decay", "inf"),
            ("train.sample_temperature", "-1.0"),
            ("train.batch", "12000000"),
            ("device.threads", "100000"),
        ];
        for (key, raw) in cases {
            let said = refusal(key, raw);
            assert!(said.contains(&format!("`{key}` is ")), "{key} = {raw}: {said}");
        }
    }

    #[test]
    fn a_wrong_name_names_the_nearest() {
        for (key, raw, near) in [
            ("schedule.kind", "cosin", "cosine"),
            ("data.tokenizer", "bytes", "byte"),
            ("model.preset", "llama-d65", "llama-d64"),
            ("optimizer.stack", "moun", "muon"),
            ("schedule.momentum.strat", "0.5", "schedule.momentum.start"),
            ("optimizer.adamw.lr_ration", "0.5", "optimizer.adamw.lr_ratio"),
            ("schedule.powr", "2", "schedule.power"),
            ("train.stepz", "3", "train.steps"),
        ] {
            let said = refusal(key, raw);
            assert!(said.contains(&format!("did you mean `{near}`?")), "{key} = {raw}: {said}");
        }
    }

    fn with_file(text: &str) -> Config {
        let file = toml::from_str(text).unwrap();
        Layers { file: Some(("x.toml".into(), file)), ..Layers::default() }.resolve().unwrap()
    }

    #[test]
    fn a_rule_inherits_unless_a_resolved_file_of_an_earlier_version_has_it() {
        let rule = "[[optimizer.rule]]\nmatch = \"blocks.*.attn.wq\"\nkind = \"muon\"\n";
        let mine = with_file(&format!("[optimizer]\nstack = \"muon\"\n{rule}"));
        let written = mine.to_toml().unwrap();
        assert!(written.contains("inherit = true"), "{written}");
        assert_eq!(with_file(&written), mine, "a run's own file repeats the run");
        let earlier = with_file(&written.replace("inherit = true\n", ""));
        assert_eq!(earlier.optimizer.rule[0]["inherit"], false);
        assert_eq!(with_file(&earlier.to_toml().unwrap()), earlier);
    }

    #[test]
    fn a_rule_that_is_set_inherits_in_the_file_of_its_run_too() {
        let mine = with_sets(&[("optimizer.rule", "[{ match = \"blocks\", lr = 0.01 }]")]).unwrap();
        assert_eq!(mine.optimizer.rule[0]["inherit"], true);
        assert_eq!(with_file(&mine.to_toml().unwrap()), mine, "a run's own file repeats the run");
    }

    #[test]
    fn a_resolved_file_of_an_earlier_version_keeps_its_exact_method_and_every_new_one_names_its_own() {
        let methods =
            |config: &Config| [&config.optimizer.matrix, &config.optimizer.rule[0]].map(|keys| keys["method"].clone());
        let rule = "[[optimizer.rule]]\nmatch = \"blocks.*.attn.wq\"\nkind = \"freon\"\nc = 0.5\n";
        let mine = with_file(&format!("[optimizer]\nstack = \"freon\"\n{rule}"));
        assert_eq!(methods(&mine), ["polynomial", "polynomial"]);
        let written = mine.to_toml().unwrap();
        assert_eq!(with_file(&written), mine, "a run's own file repeats the run");
        let earlier = written.replace("method = \"polynomial\"\n", "");
        assert_eq!(methods(&with_file(&earlier)), ["svd", "svd"]);
        let muon = ("--optimizer", "optimizer.stack", Value::String("muon".into()));
        for text in [&written, &earlier] {
            let mut table: Table = toml::from_str(text).unwrap();
            table["optimizer"].as_table_mut().unwrap().remove("rule");
            let file = Some(("x.toml".into(), table));
            let other = Layers { file, flags: vec![muon.clone()], ..Layers::default() }.resolve().unwrap();
            assert_eq!(other.optimizer.matrix.get("method"), None);
        }
    }

    #[test]
    fn free_form_keys_can_be_set_one_by_one() {
        let config = with_sets(&[("optimizer.matrix.scale", "match_rms_adamw")]).unwrap();
        assert_eq!(config.optimizer.matrix.get("scale").and_then(|v| v.as_str()), Some("match_rms_adamw"));
    }

    #[test]
    fn a_file_that_is_not_toml_names_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "[train]\nsteps = = 3\n").unwrap();
        let said = read_file(&path).unwrap_err().to_string();
        assert!(said.contains("line 2, column 9"), "{said}");
    }
}
