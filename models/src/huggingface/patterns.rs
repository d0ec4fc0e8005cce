//! Which layers have a sliding window.

use serde_json::{Value, json};

use super::keys::{Keys, refused};
use crate::error::ModelError;
use crate::settings::model::ModelConfig;

/// The kinds of layers.
pub(super) const FULL: &str = "full_attention";
pub(super) const SLIDING: &str = "sliding_attention";

/// `full_every` for these layers, which are `true` where the window slides.
fn full_every(slides: &[bool]) -> Option<usize> {
    let follows =
        |n: &usize| slides.iter().enumerate().all(|(layer, slides)| *slides != (layer + 1).is_multiple_of(*n));
    (1..=slides.len() + 1).find(follows)
}

/// `full_every` from the `layer_types` of `layers` layers; without them, `default` says which slide.
pub(super) fn read(keys: &Keys, layers: usize, default: impl Fn(usize) -> bool) -> Result<usize, ModelError> {
    const KEY: &str = "layer_types";
    let Some(value) = keys.get(KEY) else {
        let slides: Vec<bool> = (0..layers).map(default).collect();
        return full_every(&slides).ok_or_else(|| {
            let shown = Value::from(layer_types(&slides));
            refused(KEY, &shown, "the decoder can only let every n-th layer see the whole context")
        });
    };
    let kinds = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let slides = kinds.iter().map(|kind| match kind.as_str() {
        Some(FULL) => Some(false),
        Some(SLIDING) => Some(true),
        _ => None,
    });
    let Some(slides) = slides.collect::<Option<Vec<bool>>>() else {
        return Err(refused(KEY, value, "the decoder knows only full_attention and sliding_attention"));
    };
    if slides.len() != layers {
        return Err(refused(KEY, value, &format!("it must name one kind for each of {layers} layers")));
    }
    full_every(&slides)
        .ok_or_else(|| refused(KEY, value, "the decoder can only let every n-th layer see the whole context"))
}

/// The `layer_types` of a model.
pub(super) fn write(config: &ModelConfig) -> Value {
    let slides: Vec<bool> = (0..config.layers).map(|layer| config.window(layer).is_some()).collect();
    json!(layer_types(&slides))
}

fn layer_types(slides: &[bool]) -> Vec<&'static str> {
    slides.iter().map(|slides| if *slides { SLIDING } else { FULL }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_patterns_of_every_nth_layer_are_found() {
        let of = |text: &str| full_every(&text.bytes().map(|byte| byte == b's').collect::<Vec<_>>());
        for (text, expected) in [
            ("ffff", Some(1)),
            ("sfsf", Some(2)),
            ("sssssf", Some(6)),
            ("ssss", Some(5)),
            ("s", Some(2)),
            ("fsfs", None),
            ("ffss", None),
            ("sfff", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
