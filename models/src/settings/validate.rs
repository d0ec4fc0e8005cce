//! Whether a decoder with given settings can exist.

use super::choices::PositionKind;
use super::model::ModelConfig;
use crate::error::ModelError;

impl ModelConfig {
    /// Checks that a model of these sizes can exist.
    ///
    /// # Errors
    ///
    /// [`ModelError::Zero`], [`ModelError::HeadsDoNotDivide`], [`ModelError::KeyHeadsDoNotDivide`],
    /// [`ModelError::OddHeadDimension`], [`ModelError::OutOfRange`], [`ModelError::TopK`], [`ModelError::ExpertsWithoutGate`],
    /// [`ModelError::WithoutExperts`], [`ModelError::BiasOfExperts`].
    pub fn validate(&self) -> Result<(), ModelError> {
        self.check_ranges()?;
        self.check_heads()?;
        self.check_experts()
    }

    fn check_heads(&self) -> Result<(), ModelError> {
        let (d_model, heads) = (self.d_model, self.heads);
        if self.head_dim == 0 && !d_model.is_multiple_of(heads) {
            let suggestion = self.next_width();
            return Err(ModelError::HeadsDoNotDivide { d_model, heads, suggestion });
        }
        let kv_heads = self.kv_heads();
        if !heads.is_multiple_of(kv_heads) {
            return Err(ModelError::KeyHeadsDoNotDivide { heads, kv_heads });
        }
        let head_dim = self.head_dim();
        if self.position == PositionKind::Rotary && !head_dim.is_multiple_of(2) {
            let remedy = match self.head_dim {
                0 => format!("change `d_model` or `heads`, for example `d_model` = {}", self.next_width()),
                _ => format!("choose for example `head_dim` = {}", head_dim.saturating_add(1)),
            };
            return Err(ModelError::OddHeadDimension { d_model, heads, head_dim, remedy });
        }
        Ok(())
    }

    fn check_experts(&self) -> Result<(), ModelError> {
        let (experts, top_k) = (self.experts, self.top_k);
        if experts == 0 {
            let set = [
                ("top_k", top_k > 0, "0"),
                ("expert_bias", self.expert_bias, "false"),
                ("aux_load_balance", self.aux_load_balance > 0.0, "0"),
                ("aux_z", self.aux_z > 0.0, "0"),
            ];
            let stray = set.into_iter().find(|(_, set, _)| *set);
            return stray.map_or(Ok(()), |(key, _, off)| Err(ModelError::WithoutExperts { key, off }));
        }
        if !(1..=experts).contains(&top_k) {
            return Err(ModelError::TopK { top_k, experts });
        }
        if self.feed_forward_bias {
            return Err(ModelError::BiasOfExperts);
        }
        if self.feed_forward.is_gated() { Ok(()) } else { Err(ModelError::ExpertsWithoutGate) }
    }

    /// The smallest width, `d_model` or more, that suits the number of heads and the kind of positions.
    fn next_width(&self) -> usize {
        let step = match self.position {
            PositionKind::Learned => self.heads,
            PositionKind::Rotary => self.heads.saturating_mul(2),
        };
        self.d_model.div_ceil(step).saturating_mul(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_of_zero_is_refused_by_name() {
        for key in ["d_model", "layers", "heads", "context", "hidden"] {
            let text = format!("preset = \"llama-d64\"\n{key} = 0");
            let config: ModelConfig = toml::from_str(&text).unwrap();
            assert_eq!(config.validate(), Err(ModelError::Zero { key }));
        }
    }

    #[test]
    fn a_width_that_the_heads_do_not_divide_is_refused() {
        let mut config = ModelConfig::preset("nanogpt-char").unwrap();
        config.heads = 5;
        let error = config.validate().unwrap_err();
        let expected = ModelError::HeadsDoNotDivide { d_model: 128, heads: 5, suggestion: 130 };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("`d_model` = 128 is not divisible by `heads` = 5"));
    }

    #[test]
    fn rotary_positions_refuse_an_odd_head_dimension() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        (config.d_model, config.heads) = (12, 4);
        let error = config.validate().unwrap_err();
        assert!(matches!(error, ModelError::OddHeadDimension { head_dim: 3, .. }), "{error}");
        assert!(error.to_string().contains("`d_model` = 16"), "{error}");
        config.position = PositionKind::Learned;
        config.validate().unwrap();
    }

    /// The error of `validate` for a preset with these keys changed.
    fn refusal(preset: &str, keys: &str) -> String {
        let config: ModelConfig = toml::from_str(&format!("preset = \"{preset}\"\n{keys}")).unwrap();
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn impossible_settings_are_refused_with_a_remedy() {
        for (preset, keys, said) in [
            ("olmoe-tiny", "top_k = 17", "`top_k` = 17 experts per token with `experts` = 16"),
            ("olmoe-tiny", "top_k = 0", "choose `top_k` between 1 and 16"),
            ("llama-d64", "experts = 4", "choose `top_k` between 1 and 4"),
            ("llama-d64", "top_k = 2", "set `experts` too"),
            ("llama-d64", "expert_bias = true", "set `experts` too"),
            ("llama-d64", "aux_z = 0.1", "set `experts` too"),
            ("nanogpt-char", "experts = 4\ntop_k = 1", "choose \"swi_glu\""),
            ("nanogpt-char", "experts = 4\ntop_k = 1\nfeed_forward = \"gelu_tanh\"", "choose \"swi_glu\""),
            ("olmoe-tiny", "feed_forward_bias = true", "set `expert_bias` instead"),
            ("qwen3-tiny", "head_dim = 33", "`head_dim` = 34"),
            ("qwen3-tiny", "kv_heads = 3", "`heads` = 4 is not divisible by `kv_heads` = 3"),
            ("gemma3-tiny", "sliding_window = 0", "`sliding_window` is 0"),
            ("gemma3-tiny", "full_every = 0", "`full_every` is 0"),
            ("gemma3-tiny", "base_width = 0", "`base_width` is 0"),
            ("gemma3-tiny", "rope_base = -1.0", "`rope_base` is -1"),
            ("gemma3-tiny", "rope_base_sliding = inf", "`rope_base_sliding` is inf"),
            ("gemma3-tiny", "norm_eps = 0.0", "`norm_eps` is 0"),
            ("olmoe-tiny", "aux_load_balance = nan", "`aux_load_balance` is NaN"),
        ] {
            let found = refusal(preset, keys);
            assert!(found.contains(said), "{preset}, {keys}: {found}");
        }
    }

    #[test]
    fn huge_sizes_saturate_instead_of_overflowing() {
        let mut config = ModelConfig::preset("llama-d64").unwrap();
        config.d_model = usize::MAX;
        assert_eq!(config.parameters(65), usize::MAX);
        assert!(config.validate().is_err());
    }
}
