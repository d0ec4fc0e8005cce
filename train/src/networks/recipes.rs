//! How the presets of decoders are trained by default: published recipes, which can be repeated with other programs.

use polaron::schedule::WarmupRule;

use super::family::{Recipe, valid_every};

/// The recipe of a preset, in `steps` steps if that is given.
pub fn of(preset: &str, steps: Option<u64>) -> Recipe {
    match preset {
        "nanogpt-char" => {
            let steps = steps.unwrap_or(2000);
            Recipe {
                steps,
                batch: 12,
                micro_batch: None,
                valid_every: valid_every(steps),
                checkpoint_every: 500,
                warmup: 100,
                warmup_rule: WarmupRule::Nanogpt,
                muon_decay: 0.01,
                part_lr: 1e-3,
                part_decay: 0.0,
            }
        }
        "llama-d64" => llama(steps.unwrap_or(1500), 32, 500, 6e-3),
        "llama-d256" => llama(steps.unwrap_or(100), 16, 50, 3e-3),
        "gemma3-tiny" => llama(steps.unwrap_or(300), 16, 100, 3e-3),
        // Ten billion tokens, as in llm.c's repetition of GPT-2.
        "gpt2-124m" => paper(steps, 19_073, [512, 8], 700, 6e-4, 0.1),
        // GaLore, arXiv 2403.03507: 2.6 and 7.9 billion tokens, a tenth of the steps is warm-up.
        "llama2-130m" => paper(steps, 20_000, [512, 32], 2000, 1e-3, 0.0),
        "llama2-350m" => paper(steps, 60_000, [512, 32], 6000, 1e-3, 0.0),
        // arXiv 2605.18106, eight GPUs with 28, 18, 20 and 8 windows each; the warm-up is ours.
        "qwen3-0.6b" => paper(steps, 30_000, [224, 4], 300, 1e-3, 0.1),
        "gemma3-1b" => paper(steps, 50_000, [144, 2], 500, 5e-4, 0.1),
        "olmoe-1b-7b" => paper(steps, 30_000, [160, 4], 300, 5e-4, 0.1),
        "gpt-oss-small" => paper(steps, 60_000, [64, 4], 600, 5e-4, 0.1),
        // llama-d128, and any preset without a published recipe.
        _ => llama(steps.unwrap_or(300), 32, 100, 3e-3),
    }
}

fn llama(steps: u64, batch: usize, checkpoint_every: u64, part_lr: f64) -> Recipe {
    Recipe {
        steps,
        batch,
        micro_batch: None,
        valid_every: valid_every(steps),
        checkpoint_every,
        warmup: (steps / 10).clamp(10, 100),
        warmup_rule: WarmupRule::Llama,
        muon_decay: 0.1,
        part_lr,
        part_decay: 0.1,
    }
}

/// The recipe of a size of a paper: its steps, windows of a batch and of a micro-batch, warm-up, learning rate and decay of
/// AdamW.
fn paper(
    given: Option<u64>,
    steps: u64,
    [batch, micro_batch]: [usize; 2],
    warmup: u64,
    part_lr: f64,
    part_decay: f64,
) -> Recipe {
    let steps = given.unwrap_or(steps);
    let warmup = (steps / 10).clamp(10, warmup);
    Recipe { micro_batch: Some(micro_batch), warmup, part_decay, ..llama(steps, batch, 1000, part_lr) }
}
