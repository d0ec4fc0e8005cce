//! Does the base of the rotary positions suit the context? Advice about settings, never an error.
//!
//! For a context of L tokens, N layers and a similarity of 0.95 (arXiv 2602.10959; formulas from a secondary source):
//!
//! ```text
//! aliasing   base > L / 2π                      the slowest pair must not turn full circle within the context
//! stability  base ≥ L / arccos(0.95)            the slowest pair hardly turns
//! depth      base ≥ L / arccos(0.95^(1/N))      the same through all layers
//! precision  base ≤ 1 / ε                       of the type in which the angles are computed
//! ```
//!
//! The slowest pair of a head of dimension h turns with `base^(-(h-2)/h)`, not `base^-1`: for a small head the bounds are raised
//! to the power `h / (h - 2)` (our correction). Public models that work well fail stability and depth.

use super::choices::PositionKind;
use super::model::ModelConfig;

/// How much a bound matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth changing.
    Warning,
}

/// One bound on the base.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeBound {
    /// `aliasing`, `stability`, `depth` or `precision`.
    pub name: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The smallest base, for `precision` the largest.
    pub bound: f64,
    /// Whether the base satisfies it.
    pub holds: bool,
}

impl RopeBound {
    /// Whether the bound is a largest base, not a smallest one.
    #[must_use]
    pub fn is_upper(&self) -> bool {
        self.name == "precision"
    }
}

/// Layers whose queries see equally far and whose rotary positions have the same base.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeLayers {
    /// Whether they see only a sliding window of the context.
    pub sliding: bool,
    /// The base.
    pub base: f64,
    /// How many tokens a query sees, itself included.
    pub context: usize,
    /// The longest context within which the slowest pair does not turn full circle with this base.
    pub largest_context: f64,
    /// The longest context within which it hardly turns: its similarity stays at least 0.95.
    pub stable_context: f64,
    /// The bounds on the base for that context.
    pub bounds: [RopeBound; 4],
}

impl RopeLayers {
    pub(crate) fn new(sliding: bool, base: f64, context: usize, layers: usize, head_dim: usize) -> Self {
        let bounds = rope_bounds(base, context, layers, head_dim);
        let slowest = base.powf(1.0 / head_power(head_dim));
        let [largest_context, stable_context] = [std::f64::consts::TAU, SIMILARITY.acos()].map(|turn| turn * slowest);
        Self { sliding, base, context, largest_context, stable_context, bounds }
    }

    /// The smallest and the largest base without a warning; if the first is larger than the second, there is no such base.
    #[must_use]
    pub fn feasible(&self) -> (f64, f64) {
        let warnings = |upper| {
            let counts = move |bound: &&RopeBound| bound.severity == Severity::Warning && bound.is_upper() == upper;
            self.bounds.iter().filter(counts).map(|bound| bound.bound)
        };
        (warnings(false).fold(0.0, f64::max), warnings(true).fold(f64::INFINITY, f64::min))
    }
}

/// Similarity that the slowest pair should retain over the context.
const SIMILARITY: f64 = 0.95;

/// The bounds for a context, a number of layers and heads of `head_dim` features, whose angles are computed in f64.
///
/// ```
/// use polaron_models::rope_bounds;
/// let bounds = rope_bounds(10_000.0, 4096, 32, 128);
/// assert!(bounds[0].holds && !bounds[1].holds); // no aliasing, but the slowest pair turns noticeably
/// ```
#[must_use]
pub fn rope_bounds(base: f64, context: usize, layers: usize, head_dim: usize) -> [RopeBound; 4] {
    let (length, exact) = (context as f64, head_power(head_dim));
    let depth = SIMILARITY.powf(1.0 / layers as f64);
    let least = |name, severity, bound: f64| {
        let bound = bound.powf(exact);
        RopeBound { name, severity, bound, holds: base >= bound }
    };
    let largest = 1.0 / f64::EPSILON;
    [
        least("aliasing", Severity::Warning, length / std::f64::consts::TAU),
        least("stability", Severity::Info, length / SIMILARITY.acos()),
        least("depth", Severity::Info, length / depth.acos()),
        RopeBound { name: "precision", severity: Severity::Warning, bound: largest, holds: base <= largest },
    ]
}

/// `h / (h - 2)`; 1 for a head with a single pair.
fn head_power(head_dim: usize) -> f64 {
    let h = head_dim as f64;
    if head_dim > 2 { h / (h - 2.0) } else { 1.0 }
}

impl ModelConfig {
    /// Bounds on the base of the rotary positions, in the layers that see the whole context; `None` with learned
    /// positions.
    #[must_use]
    pub fn rope_bounds(&self) -> Option<[RopeBound; 4]> {
        let rotary = self.position == PositionKind::Rotary;
        rotary.then(|| rope_bounds(self.rope_base, self.context, self.layers, self.head_dim()))
    }

    /// The same for each kind of layer that the model has: those that see the whole context, and those with a sliding
    /// window, with their own base and window. Empty with learned positions.
    #[must_use]
    pub fn rope_layers(&self) -> Vec<RopeLayers> {
        if self.position != PositionKind::Rotary {
            return Vec::new();
        }
        let (any_full, any_sliding) = (self.layers >= self.full_every, self.full_every > 1);
        let kinds = [
            (any_full, false, self.rope_base, self.context),
            (any_sliding, true, self.sliding_base(), self.sliding_window.min(self.context)),
        ];
        let present = kinds.into_iter().filter(|(present, ..)| *present);
        present
            .map(|(_, sliding, base, context)| RopeLayers::new(sliding, base, context, self.layers, self.head_dim()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_table_comes_out_to_the_integer() {
        for (layers, context, head_dim, expected) in [
            (2, 128, 32, [25.0, 601.0, 866.0]),
            (4, 256, 32, [52.0, 1259.0, 2620.0]),
            (12, 1024, 64, [192.0, 4185.0, 14967.0]),
        ] {
            let bounds = rope_bounds(1e4, context, layers, head_dim);
            assert_eq!([0, 1, 2].map(|i| bounds[i].bound.round()), expected, "{layers} layers");
        }
    }

    #[test]
    fn the_largest_base_is_an_upper_bound() {
        let largest = 2.0_f64.powi(52);
        for (base, holds) in [(1.0, true), (1e4, true), (largest, true), (largest * 1.001, false), (1e300, false)] {
            let [.., precision] = rope_bounds(base, 64, 4, 16);
            assert!(precision.is_upper() && precision.bound == largest && precision.holds == holds, "{base}");
        }
    }

    #[test]
    fn the_longest_context_of_a_base_is_the_known_one() {
        let layers = RopeLayers::new(false, 1e4, 4096, 32, 128);
        assert_eq!(layers.largest_context.floor(), 54_410.0);
        assert_eq!(layers.stable_context.round(), 2_750.0);
        assert_eq!((layers.feasible().0.round(), layers.feasible().1), (723.0, 2.0_f64.powi(52)));
    }

    #[test]
    fn public_models_fail_only_what_is_information() {
        for (base, context) in [(1e4, 4096), (5e5, 131_072)] {
            let bounds = rope_bounds(base, context, 32, 128);
            let failed: Vec<&RopeBound> = bounds.iter().filter(|bound| !bound.holds).collect();
            assert!(!failed.is_empty() && failed.iter().all(|bound| bound.severity == Severity::Info), "{bounds:?}");
        }
    }
}
