//! The model classes of `transformers` that the decoder can be. A new one is a file of this folder and a line in the list.

mod gemma3;
mod gpt2;
mod gpt_oss;
mod llama;
mod olmoe;
mod qwen3;

use super::class::Class;

/// All classes. A model belongs to the first that it resembles.
pub(super) static CLASSES: [&Class; 6] =
    [&gpt2::CLASS, &gpt_oss::CLASS, &olmoe::CLASS, &gemma3::CLASS, &qwen3::CLASS, &llama::CLASS];
