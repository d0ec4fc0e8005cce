//! Positions, as the attention layers of a model use them.

use burn::tensor::Tensor;

use super::mask::Masks;
use super::rotary::Rotary;
use crate::settings::choices::PositionKind;
use crate::settings::model::ModelConfig;
use crate::shapes::Windows;

/// Rotary positions and masks, shared by all layers of a model and all its clones.
#[derive(Debug)]
pub(crate) struct Positions {
    /// None with learned positions.
    full: Option<Rotary>,
    /// For layers with a sliding window, if their base differs.
    sliding: Option<Rotary>,
    pub masks: Masks,
}

impl Positions {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let rotary = |base| Rotary::new(base, config.head_dim(), config.context);
        let rotates = config.position == PositionKind::Rotary;
        let (full, sliding) = (config.rope_base, config.sliding_base());
        let differ = config.full_every > 1 && sliding != full;
        Self {
            full: rotates.then(|| rotary(full)),
            sliding: (rotates && differ).then(|| rotary(sliding)),
            masks: Masks::new(),
        }
    }

    /// Whether queries and keys are rotated by their positions.
    #[cfg(feature = "flex")]
    pub(crate) fn turn_heads(&self) -> bool {
        self.full.is_some()
    }

    /// Queries or keys, `[batch · context, heads · head_dim]`, rotated by their positions; unchanged with learned positions.
    pub(crate) fn turn(&self, x: Tensor<2>, windows: Windows, slides: bool) -> Tensor<2> {
        match self.of_layer(slides) {
            Some(rotary) => rotary.turn(x, windows),
            None => x,
        }
    }

    /// The rotary positions of a layer, by whether it has a sliding window.
    fn of_layer(&self, slides: bool) -> Option<&Rotary> {
        self.sliding.as_ref().filter(|_| slides).or(self.full.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, TensorData};

    use super::*;
    use crate::layers::kept::MADE;

    #[test]
    fn a_model_writes_each_mask_and_table_to_a_device_once() {
        // With recomputed activations no fused kernel applies, as on a GPU. One mask per window, and cosines and sines per
        // base and width; made anew in every layer they would be 4, 20, 30 and 20 in a single pass.
        let device = Device::flex().autodiff().gradient_checkpointing();
        for (preset, masks, tables) in
            [("nanogpt-char", 1, 0), ("llama-d64", 1, 2), ("gemma3-tiny", 2, 2 * 2 * 2), ("gpt-oss-tiny", 2, 2 * 2)]
        {
            let model = ModelConfig::preset(preset).unwrap().init(5, 1, &device).unwrap();
            let before = MADE.get();
            let made = |context: usize| {
                let tokens = TensorData::new(vec![1i32; 2 * context], [2, context]);
                let tokens = Tensor::<2, Int>::from_data(tokens, &device);
                let _ = model.clone().loss(tokens.clone(), tokens).backward();
                MADE.get() - before
            };
            assert_eq!(made(48), masks + tables, "{preset}");
            assert_eq!(made(48), masks + tables, "{preset}, a second step");
            assert_eq!(made(40), 2 * masks + tables, "{preset}, shorter windows");
        }
    }

    #[test]
    fn sliding_layers_have_a_separate_base() {
        let mut config = ModelConfig::preset("gemma3-tiny").unwrap();
        let angles = |positions: &Positions, slides| positions.of_layer(slides).unwrap().angles.cos.clone();
        let positions = Positions::new(&config);
        assert_ne!(angles(&positions, true), angles(&positions, false));
        config.rope_base_sliding = 0.0;
        let positions = Positions::new(&config);
        assert_eq!(angles(&positions, true), angles(&positions, false));
    }
}
