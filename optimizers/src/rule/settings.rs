//! The declaration of the settings of a rule on matrices.

/// Declares the settings of a rule on matrices: the keys that all of them share, with this kind's
/// defaults, then its own.
macro_rules! matrix_settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { momentum: $mu:expr, $form:ident, nesterov: $nesterov:expr $(, scale: $scale:ident)?; $($own:tt)* }
    ) => {
        $crate::setting::settings! {
            $(#[$meta])*
            pub struct $name {
                /// Decoupled weight decay, at least 0; multiplied by the learning rate, never by the scale.
                weight_decay, with_weight_decay: f64 = 0.0, in $crate::setting::Numbers::SIZE;
                /// Decay only entries where update and weight do not have opposite signs.
                cautious, with_cautious: bool = false;
                /// Momentum μ in [0, 1).
                momentum, with_momentum: f64 = $mu, in $crate::setting::Numbers::FACTOR;
                /// How the momentum buffer is formed.
                momentum_form, with_momentum_form: $crate::rule::MomentumForm = $crate::rule::MomentumForm::$form;
                /// Look ahead by one step.
                nesterov, with_nesterov: bool = $nesterov;
                $(
                    /// Factor of the update by the shape of the matrix.
                    scale, with_scale: $crate::rule::Scale = $crate::rule::Scale::$scale;
                )?
                $($own)*
            }
        }

        impl $name {
            /// The bare optimizer, for one parameter group stored `[d_in, d_out]`.
            ///
            /// For another layout or for blocks follow with
            /// [`with_placement`]($crate::rule::Pipeline::with_placement). Values out of range
            /// are not looked for here; [`OptimizerConfig::validate`]($crate::OptimizerConfig::validate) does.
            #[must_use]
            pub fn build(&self) -> $crate::rule::Pipeline {
                $crate::rule::Kind::pipeline(self)
            }

            /// The optimizer of a module that has only matrices and stacks of them.
            ///
            /// A module with vectors as well wants [`Layerwise`]($crate::Layerwise).
            #[must_use]
            pub fn init(&self) -> burn::optim::ModuleOptimizer {
                self.build().into()
            }

            fn momentum_settings(&self) -> $crate::rule::Momentum {
                let (factor, form, nesterov) = (self.momentum, self.momentum_form, self.nesterov);
                $crate::rule::Momentum { factor, form, nesterov }
            }

            /// The formula of the direction d, then this one.
            fn formula(&self, rest: &str) -> String {
                format!("{}, {rest}", self.momentum_settings().formula())
            }

            /// A rule with the momentum, the scale and the decay of these settings.
            fn assemble(&self, rule: impl $crate::rule::Rule) -> $crate::rule::Pipeline {
                $crate::rule::Pipeline::new(rule)
                    .with_momentum(self.momentum_settings())
                    .with_decay($crate::rule::Decay { rate: self.weight_decay, cautious: self.cautious })
                    $(.with_scale({ let _ = $crate::rule::Scale::$scale; self.scale }))?
            }
        }
    };
}
pub(crate) use matrix_settings;
