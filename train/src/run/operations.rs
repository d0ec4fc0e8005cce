//! Operations of a step in which some parameters are frozen, or adapters take part.

use polaron::Role;
use polaron::layerwise::{Plan, PlanEntry};

/// Floating-point operations for a token by which a step differs from one of the same model without adapters that trains
/// everything. Three products of two operations a weight are made of every matrix: the outputs, the gradient of the inputs and
/// that of the weight, which a frozen matrix does not need. `idle` parameters are in experts that a token does not use.
pub fn difference(plan: &Plan, idle: usize) -> f64 {
    let sum = |counted: &dyn Fn(&PlanEntry) -> bool| -> f64 {
        let entries = plan.entries().iter().filter(|entry| counted(entry));
        entries.map(|entry| entry.count() as f64).sum()
    };
    let idle_share = match sum(&|entry| is_stack(entry) && !is_factor(entry)) {
        0.0 => 0.0,
        experts => (idle as f64 / experts).min(1.0),
    };
    let used = |counted: fn(&PlanEntry) -> bool| {
        sum(&|entry| counted(entry) && !is_stack(entry))
            + sum(&|entry| counted(entry) && is_stack(entry)) * (1.0 - idle_share)
    };
    6.0 * used(is_factor) - 2.0 * used(|entry| entry.is_frozen() && is_multiplied(entry))
}

fn is_stack(entry: &PlanEntry) -> bool {
    entry.shape.len() > 2
}

/// Whether it is a factor of an adapter.
fn is_factor(entry: &PlanEntry) -> bool {
    entry.role.is_some_and(|role| Role::ADAPTERS.contains(&role))
}

/// Whether activations are multiplied by it. Embeddings are looked up.
fn is_multiplied(entry: &PlanEntry) -> bool {
    entry.role.is_none_or(|role| role != Role::Embedding && !Role::VECTORS.contains(&role))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use polaron::{Layerwise, Roles};
    use polaron_models::{LoraSettings, ModelConfig, with_lora};

    use super::*;

    fn plan(preset: &str, freeze: &[&str], lora: bool) -> Plan {
        let model = ModelConfig::preset(preset).unwrap().init(65, 1, &Device::flex()).unwrap();
        let builder = Layerwise::adamw().hints(model.roles());
        let builder = freeze.iter().fold(builder, |builder, pattern| builder.freeze(*pattern));
        if !lora {
            return builder.build(&model).unwrap().plan().clone();
        }
        let model = with_lora(model, &LoraSettings::default(), 1).unwrap();
        let builder = Layerwise::adamw().hints(model.roles()).train_only(Role::ADAPTERS);
        builder.build(&model).unwrap().plan().clone()
    }

    #[test]
    fn a_frozen_matrix_saves_a_third_of_its_work_and_an_embedding_nothing() {
        assert_eq!(difference(&plan("llama-d64", &[], false), 0), 0.0);
        assert_eq!(difference(&plan("llama-d64", &["embed*"], false), 0), 0.0);
        assert_eq!(difference(&plan("llama-d64", &["embed*", "head"], false), 0), -2.0 * 64.0 * 65.0);
        assert_eq!(difference(&plan("llama-d64", &["blocks.0.attn"], false), 0), -2.0 * 4.0 * 64.0 * 64.0);
    }

    #[test]
    fn adapters_work_and_their_base_saves_a_third() {
        let factors = 4.0 * 4.0 * 8.0 * 128.0;
        let matrices = 212_992.0 + 64.0 * 65.0;
        assert_eq!(difference(&plan("llama-d64", &[], true), 0), 6.0 * factors - 2.0 * matrices);
    }

    #[test]
    fn experts_that_a_token_does_not_use_save_nothing() {
        let config = ModelConfig::preset("olmoe-tiny").unwrap();
        let idle = config.parameters(65) - config.active_parameters(65);
        let used = config.top_k * 3 * config.d_model * config.hidden;
        let saved = difference(
            &plan("olmoe-tiny", &["blocks.0.moe.gate", "blocks.0.moe.up", "blocks.0.moe.down"], false),
            idle,
        );
        assert!((saved + 2.0 * used as f64).abs() < 1e-6 * used as f64, "{saved} {used}");
    }
}
