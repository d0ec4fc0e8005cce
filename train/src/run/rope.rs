//! Does the base of the rotary positions suit the context? Said by `inspect` and before training.

use polaron_common::thousands;
use polaron_models::{RopeLayers, Severity};

/// Advice on the rotary base of some layers: the range in which it should be, and the bounds that it violates.
pub fn advice(layers: &RopeLayers) -> String {
    let RopeLayers { base, context, bounds, .. } = layers;
    let tokens = thousands(*context as u64);
    let window = if layers.sliding { "a window" } else { "a context" };
    let (least, most) = layers.feasible();
    let place = if least > most {
        let key = if layers.sliding { "model.sliding_window" } else { "model.context" };
        format!(
            "no base suits {window} of {tokens} tokens, which needs at least {least:.0} and at most {most:.0}: lower {key}"
        )
    } else {
        let verdict = if (least..=most).contains(base) { "suits" } else { "does not suit" };
        format!(
            "{verdict} {window} of {tokens} tokens, which needs at least {least:.0} and at most {most:.0}; free of aliasing \
             up to {} tokens, stable up to {}",
            thousands(layers.largest_context as u64),
            thousands(layers.stable_context as u64)
        )
    };
    let failed = bounds.iter().filter(|bound| !bound.holds).map(|bound| {
        let weight = if bound.severity == Severity::Warning { "warning" } else { "info" };
        let side = if bound.is_upper() { "at most" } else { "at least" };
        format!("; {weight}: {} needs {side} {:.0}", bound.name, bound.bound)
    });
    format!("{base} {place}{}", failed.collect::<String>())
}

/// What is worth changing before training, one line for each kind of layer that its base does not suit.
pub fn warnings(layers: &[RopeLayers]) -> Vec<String> {
    let wrong =
        |layers: &&RopeLayers| layers.bounds.iter().any(|bound| !bound.holds && bound.severity == Severity::Warning);
    let warning = |layers: &RopeLayers| {
        let (of, key) = match layers.sliding {
            true => (" of the sliding layers", "model.rope_base_sliding"),
            false => ("", "model.rope_base"),
        };
        let (least, most) = layers.feasible();
        format!(
            "warning: the rotary base{of}, {}, does not suit the {} tokens that a query sees, which need at least {least:.0} and at \
             most {most:.0}; set {key}",
            layers.base,
            thousands(layers.context as u64)
        )
    };
    layers.iter().filter(wrong).map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use polaron_models::ModelConfig;

    fn changed(change: impl FnOnce(&mut ModelConfig)) -> ModelConfig {
        let mut config = ModelConfig::preset("gemma3-tiny").unwrap();
        change(&mut config);
        config
    }

    fn said_of(change: impl FnOnce(&mut ModelConfig)) -> Vec<String> {
        changed(change).rope_layers().iter().map(advice).collect()
    }

    #[test]
    fn a_base_that_is_too_large_is_reported_with_the_largest_one_in_every_kind_of_layer() {
        let too_large = "warning: precision needs at most 4503599627370496";
        let said = said_of(|config| config.rope_base = 1e17);
        assert!(said[0].contains(too_large) && said[0].contains("does not suit a context of 128"), "{said:?}");
        assert!(!said[1].contains("needs at most 4503599627370496;") || said[1].contains("suits"), "{said:?}");
        assert!(!said[1].contains("warning"), "{said:?}");
        let said = said_of(|config| config.rope_base_sliding = 1e17);
        assert!(said[1].contains(too_large) && said[1].contains("a window of 32"), "{said:?}");
        assert!(!said[0].contains("warning"), "{said:?}");
        assert!(said.iter().all(|line| !line.contains("precision needs at least")), "{said:?}");
    }

    #[test]
    fn a_sliding_layer_is_judged_by_its_window_and_base() {
        // A base of 2 is too small for a window of 32 tokens, but not for one of 8.
        let said = said_of(|config| (config.rope_base, config.rope_base_sliding) = (1e6, 2.0));
        assert!(said[1].contains("warning: aliasing needs at least 5"), "{said:?}");
        let said = said_of(|config| (config.rope_base_sliding, config.sliding_window) = (2.0, 8));
        assert!(!said[1].contains("aliasing needs"), "{said:?}");
        // Without its own base it uses that of the other layers.
        let said = said_of(|config| (config.rope_base, config.rope_base_sliding) = (1e17, 0.0));
        assert!(said.iter().all(|line| line.contains("precision needs at most")), "{said:?}");
        // A window larger than the context counts as the context.
        assert!(said_of(|config| config.sliding_window = 1000)[1].contains("a window of 128 tokens"));
    }

    #[test]
    fn only_the_kinds_of_layers_that_the_model_has_are_judged() {
        assert_eq!(said_of(|config| config.full_every = 1).len(), 1);
        let said = said_of(|config| config.full_every = 100);
        assert!(said.len() == 1 && said[0].contains("a window"), "{said:?}");
    }

    #[test]
    fn a_context_that_no_base_suits_is_reported() {
        let said = said_of(|config| (config.context, config.head_dim) = (1 << 30, 4));
        assert!(said[0].contains("no base suits a context of 1,073,741,824 tokens"), "{said:?}");
    }

    #[test]
    fn only_what_is_worth_changing_is_a_warning_before_training() {
        assert_eq!(warnings(&changed(|_| ()).rope_layers()), Vec::<String>::new());
        let warned = warnings(&changed(|config| config.rope_base_sliding = 2.0).rope_layers());
        assert_eq!(warned.len(), 1);
        let start = "warning: the rotary base of the sliding layers, 2, does not suit";
        assert!(warned[0].starts_with(start) && warned[0].ends_with("set model.rope_base_sliding"), "{warned:?}");
        let warned = warnings(&changed(|config| config.rope_base = 1e17).rope_layers());
        assert!(warned.iter().any(|line| line.ends_with("set model.rope_base")), "{warned:?}");
    }
}
