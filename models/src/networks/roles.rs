//! The role of every parameter of a decoder.

use polaron::{Role, RoleHint, Roles};

use super::decoder::LanguageModel;
use super::lora::adapter_roles;
use crate::settings::choices::QkNormKind;

impl Roles for LanguageModel {
    fn roles(&self) -> Vec<RoleHint> {
        let config = self.config();
        let embed = if self.head.is_some() { Role::Embedding } else { Role::TiedEmbedding };
        let mut hints = vec![RoleHint::new("embed.weight", embed), RoleHint::new("norm.gain", Role::Gain)];
        let mut hint = |present: bool, pattern: &str, role: Role| {
            if present {
                hints.push(RoleHint::new(pattern, role));
            }
        };
        let Some(block) = self.blocks.first() else { return hints };
        hint(self.position.is_some(), "position.weight", Role::Embedding);
        hint(self.head.is_some(), "head.weight", Role::Head);
        hint(true, "blocks.*.norm1.gain", Role::Gain);
        hint(true, "blocks.*.norm2.gain", Role::Gain);
        hint(config.post_norm, "blocks.*.post_norm1.gain", Role::Gain);
        hint(config.post_norm, "blocks.*.post_norm2.gain", Role::Gain);
        hint(config.qk_norm != QkNormKind::None, "blocks.*.attn.q_norm.gain", Role::Gain);
        hint(config.qk_norm != QkNormKind::None, "blocks.*.attn.k_norm.gain", Role::Gain);
        hint(config.sinks, "blocks.*.attn.sinks", Role::Bias);
        let gate = block.mlp.as_ref().is_some_and(|mlp| mlp.gate.is_some());
        hint(gate, "blocks.*.mlp.gate.weight", Role::Gate);
        hint(block.mlp.is_some(), "blocks.*.mlp.up.weight", Role::Up);
        hint(block.mlp.is_some(), "blocks.*.mlp.down.weight", Role::Down);
        hint(block.moe.is_some(), "blocks.*.moe.router.weight", Role::Router);
        hint(block.moe.is_some(), "blocks.*.moe.gate.weight", Role::ExpertGate);
        hint(block.moe.is_some(), "blocks.*.moe.up.weight", Role::ExpertUp);
        hint(block.moe.is_some(), "blocks.*.moe.down.weight", Role::ExpertDown);
        let norm_between = config.norm_bias && config.qk_norm != QkNormKind::None;
        let projected = config.attention_bias || config.feed_forward_bias || config.expert_bias;
        hint(projected || norm_between, "blocks.*.*.*.bias", Role::Bias);
        hint(config.norm_bias, "blocks.*.*.bias", Role::Bias);
        hint(config.norm_bias, "norm.bias", Role::Bias);
        let (heads, kv_heads) = (config.heads, config.kv_heads());
        if block.attn.qkv.is_some() {
            let parts = [heads, kv_heads, kv_heads].map(|heads| heads * config.head_dim());
            hints.push(RoleHint::new("blocks.*.attn.qkv.weight", Role::Hidden).with_parts(parts));
        } else {
            let attention =
                |name, role, heads| RoleHint::new(format!("blocks.*.attn.{name}.weight"), role).with_heads(heads);
            hints.push(attention("wq", Role::AttentionQuery, heads));
            hints.push(attention("wk", Role::AttentionKey, kv_heads));
            hints.push(attention("wv", Role::AttentionValue, kv_heads));
        }
        hints.push(RoleHint::new("blocks.*.attn.wo.weight", Role::AttentionOutput).with_heads(heads));
        hints.extend(adapter_roles(self));
        hints
    }
}
