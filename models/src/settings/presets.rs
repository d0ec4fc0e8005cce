//! The presets: named settings of the same decoder, a row of a table each.

use polaron_common::did_you_mean_or_list;
use serde::de::{Deserialize, Deserializer, Error};

use super::model::{ModelConfig, Overrides};
use super::papers::PAPERS;
use super::small::SMALL;
use super::table::{Preset, names};
use crate::error::ModelError;

impl ModelConfig {
    /// Names of the presets.
    pub const PRESETS: &'static [&'static str] = &names::<{ SMALL.len() + PAPERS.len() }>([SMALL, PAPERS]);

    /// Those of them that take less than a second to build.
    pub const SMALL_PRESETS: &'static [&'static str] = &names::<{ SMALL.len() }>([SMALL, PAPERS]);

    /// The preset of that name; [`describe_preset`](Self::describe_preset) describes each in a line.
    ///
    /// | preset | width | layers | heads | context | hidden | norm | positions | projections | feed-forward | head | parameters at 65 tokens |
    /// |---|---|---|---|---|---|---|---|---|---|---|---|
    /// | `nanogpt-char` | 128 | 4 | 4 | 64 | 512 | LayerNorm | learned | `qkv` | exact GELU | tied | 804,096 |
    /// | `llama-d64` | 64 | 4 | 4 | 64 | 192 | RMSNorm | rotary | `wq` `wk` `wv` | SwiGLU | not tied | 221,888 |
    /// | `llama-d128` | 128 | 4 | 4 | 128 | 384 | RMSNorm | rotary | `wq` `wk` `wv` | SwiGLU | not tied | 869,760 |
    /// | `llama-d256` | 256 | 6 | 4 | 256 | 704 | RMSNorm | rotary | `wq` `wk` `wv` | SwiGLU | not tied | 4,853,504 |
    ///
    /// Norms add 1e-5 to the variance or mean square. Scores are scaled by `1 / sqrt(head dimension)`. Rotary positions have base
    /// 10,000 and pair feature i of a head's first half with feature i of its second half.
    ///
    /// Four more are small versions of the architectures on which arXiv 2605.18106 compares optimizers. All have a context of 128,
    /// RMSNorm, rotary positions, separate projections and a head that is not tied.
    ///
    /// | | `qwen3-tiny` | `gemma3-tiny` | `olmoe-tiny` | `gpt-oss-tiny` |
    /// |---|---|---|---|---|
    /// | layers x width | 4 x 128 | 6 x 144 | 4 x 128 | 4 x 128 |
    /// | heads of queries / of keys x features | 4 / 2 x 64 | 2 / 1 x 64 | 4 / 4 x 32 | 8 / 1 x 32 |
    /// | feed-forward | SwiGLU of 384 | GeGLU (tanh) of 864 | 16 SwiGLU experts of 64, 4 per token | 8 clamped experts of 128, 2 per token |
    /// | weights of the experts | | | softmax over all, not renormalised | softmax over the chosen |
    /// | norms | before, 1e-6 | before and after, times (1 + gain), 1e-6 | before, 1e-5 | before, 1e-5 |
    /// | norm of queries and keys | per head | per head | over the full width | none |
    /// | rotary base | 1e6 | 1e6, sliding layers 1e4 | 1e4 | 1.5e5 |
    /// | a query sees | all | the last 32 tokens in five layers, all in the sixth | all | the last 32 tokens and all in turn |
    /// | also | | embeddings times `sqrt(width)` | | sinks; biases in attention, router and experts |
    /// | parameters at 65 tokens | 1,001,344 | 2,594,352 | 1,862,016 | 1,903,808 |
    /// | of these used by one token | 1,001,344 | 2,594,352 | 682,368 | 714,944 |
    ///
    /// The others have sizes on which papers compare optimizers; their parameters are counted at the vocabulary of the model, and are
    /// the published numbers. Rotary positions leave the context open: it is that of GaLore's experiments (256) or of those of
    /// arXiv 2605.18106 (1024). `gpt-oss-small` is the latter's smaller gpt-oss: half of the 24 layers, a width of 2048 instead of
    /// 2880, 16 experts instead of 32.
    ///
    /// | | layers x width | heads of queries / of keys x features | feed-forward | context | a query sees | head | vocabulary | parameters | of these used by one token |
    /// |---|---|---|---|---|---|---|---|---|---|
    /// | `gpt2-124m` | 12 x 768 | 12 / 12 x 64 | GELU (tanh) of 3072, all biases | 1024 | all | tied | 50,257 | 124,439,808 | all |
    /// | `llama2-130m` | 12 x 768 | 12 / 12 x 64 | SwiGLU of 2048 | 256 | all | not tied | 32,000 | 134,105,856 | all |
    /// | `llama2-350m` | 24 x 1024 | 16 / 16 x 64 | SwiGLU of 2736 | 256 | all | not tied | 32,000 | 367,969,280 | all |
    /// | `qwen3-0.6b` | 28 x 1024 | 16 / 8 x 128 | SwiGLU of 3072 | 1024 | all | tied | 151,936 | 596,049,920 | all |
    /// | `gemma3-1b` | 26 x 1152 | 4 / 1 x 256 | GeGLU of 6912 | 1024 | 512 tokens, every sixth layer all | tied | 262,144 | 999,885,952 | all |
    /// | `olmoe-1b-7b` | 16 x 2048 | 16 / 16 x 128 | 64 experts of 1024, 8 per token | 1024 | all | not tied | 50,304 | 6,919,161,856 | 1,282,017,280 |
    /// | `gpt-oss-small` | 12 x 2048 | 64 / 8 x 64 | 16 experts of 2048, 4 per token | 1024 | 128 tokens, every other layer all | not tied | 201,088 | 3,467,779,008 | 1,654,954,944 |
    ///
    /// The clamped expert is `down(g · sigmoid(1.702 g) · (u + 1))` with `g = min(gate, 7)` and u = up clamped to [-7, 7]. A sink is
    /// a learned score of a query head that takes part in its softmax and has no value vector.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnknownPreset`] names the nearest valid name.
    pub fn preset(name: &str) -> Result<Self, ModelError> {
        match row(name) {
            Some(row) => Ok(Self { preset: name.into(), ..(row.settings)() }),
            None => {
                let hint = did_you_mean_or_list(name, Self::PRESETS.iter().copied());
                Err(ModelError::UnknownPreset { name: name.into(), hint })
            }
        }
    }

    /// One line about a preset; empty for an unknown name.
    pub fn describe_preset(name: &str) -> &'static str {
        row(name).map_or("", |row| row.about)
    }
}

fn row(name: &str) -> Option<&'static Preset> {
    SMALL.iter().chain(PAPERS).find(|row| row.name == name)
}

/// A file: a preset, and the keys that differ from it.
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let overrides = Overrides::deserialize(deserializer)?;
        let preset = Self::preset(&overrides.preset).map_err(D::Error::custom)?;
        Ok(overrides.apply(&preset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_described() {
        for name in ModelConfig::PRESETS {
            assert_eq!(ModelConfig::preset(name).unwrap().preset, *name);
            assert!(!ModelConfig::describe_preset(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn every_choice_is_read_and_written_by_its_name() {
        let keys: Vec<&str> = ModelConfig::choices().map(|(key, _)| key).collect();
        assert_eq!(keys, ["norm", "qk_norm", "position", "projection", "feed_forward", "router", "parametrization"]);
        for (key, names) in ModelConfig::choices() {
            for name in names {
                let line = format!("{key} = \"{name}\"\n");
                let config: ModelConfig = toml::from_str(&format!("preset = \"llama-d64\"\n{line}")).unwrap();
                assert!(toml::to_string(&config).unwrap().contains(&line), "{line}");
            }
        }
    }

    #[test]
    fn an_unknown_preset_names_the_nearest_one() {
        let error = ModelConfig::preset("llama-d65").unwrap_err().to_string();
        assert!(error.contains("`llama-d65`") && error.contains("did you mean `llama-d6"), "{error}");
        let error = ModelConfig::preset("zzz").unwrap_err().to_string();
        assert!(error.contains("nanogpt-char, llama-d64"), "{error}");
    }

    #[test]
    fn new_presets_have_the_sizes_of_their_families() {
        for (name, heads, head_dim, windows) in [
            ("qwen3-tiny", [4, 2], 64, [None, None]),
            ("gemma3-tiny", [2, 1], 64, [Some(32), None]),
            ("olmoe-tiny", [4, 4], 32, [None, None]),
            ("gpt-oss-tiny", [8, 1], 32, [Some(32), None]),
        ] {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(([config.heads, config.kv_heads()], config.head_dim()), (heads, head_dim), "{name}");
            assert_eq!([0, config.layers - 1].map(|layer| config.window(layer)), windows, "{name}");
        }
    }

    #[test]
    fn the_width_of_the_experts_follows_the_model_in_proportion() {
        for (name, d_model, hidden) in
            [("olmoe-tiny", 256, 128), ("gpt-oss-tiny", 64, 64), ("gemma3-tiny", 72, 432), ("qwen3-tiny", 64, 192)]
        {
            let config: ModelConfig = toml::from_str(&format!("preset = \"{name}\"\nd_model = {d_model}")).unwrap();
            assert_eq!(config.hidden, hidden, "{name}");
        }
    }

    #[test]
    fn a_file_written_before_newer_keys_existed_gives_the_same_model() {
        let old = "preset = \"llama-d64\"\nd_model = 64\nlayers = 4\nheads = 4\ncontext = 64\nhidden = 192\n\
                   norm = \"rms_norm\"\nposition = \"rotary\"\nprojection = \"separate\"\n\
                   feed_forward = \"swi_glu\"\ntied_head = false\n";
        assert_eq!(toml::from_str::<ModelConfig>(old).unwrap(), ModelConfig::preset("llama-d64").unwrap());
    }

    #[test]
    fn a_configuration_is_unchanged_after_writing_and_reading() {
        for name in ModelConfig::PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<ModelConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_presets_in_a_file_are_errors() {
        let error = toml::from_str::<ModelConfig>("preset = \"llama-d64\"\nlayer = 3").unwrap_err();
        assert!(error.to_string().contains("layer"), "{error}");
        let error = toml::from_str::<ModelConfig>("preset = \"lama-d64\"").unwrap_err();
        assert!(error.to_string().contains("did you mean `llama-d64`"), "{error}");
    }
}
