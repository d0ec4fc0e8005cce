//! The declaration of a kind's settings.

use crate::matrix::{Axis, EpsMode};
use crate::setting::choices_of;

choices_of!(Axis { Output, Input });
choices_of!(EpsMode { Relative, Absolute });

/// Declares the settings of a kind: the keys that all kinds share, with this kind's defaults, then its own. A kind without
/// `momentum` works on gradients, and may have another default for the decay; one without `scale` has no factor by the shape.
macro_rules! kind_settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            momentum: $mu:expr, $form:ident, nesterov: $nesterov:expr $(, $scale:ident: $factor:ident)?; $($own:tt)*
        }
    ) => {
        $crate::rule::kind_settings! {
            @shared
            $(#[$meta])*
            pub struct $name {
                decay: 0.0;
                /// Momentum μ in [0, 1).
                momentum, with_momentum: f64 = $mu, in $crate::setting::Numbers::FACTOR;
                /// How the momentum buffer is formed.
                momentum_form, with_momentum_form: $crate::rule::MomentumForm = $crate::rule::MomentumForm::$form;
                /// Look ahead by one step.
                nesterov, with_nesterov: bool = $nesterov;
                /// What the rule works on is divided by the root of an average of squared gradients; default none.
                #[serde(skip_serializing_if = "Option::is_none")]
                second_moment, with_second_moment: Option<$crate::rule::Preconditioner> = None;
                $(
                    /// Factor of the update by the shape of the matrix.
                    $scale, with_scale: $crate::rule::Scale = $crate::rule::Scale::$factor;
                )?
                $($own)*
            }
        }

        impl $name {
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
                let pipeline = $crate::rule::Pipeline::new(rule).with_momentum(self.momentum_settings());
                let pipeline = pipeline.with_preconditioner(self.second_moment).with_norm_control(self.norm_control);
                pipeline.with_decay(self.decay()) $(.with_scale(self.$scale))?
            }
        }
    };
    ($(#[$meta:meta])* pub struct $name:ident { weight_decay: $decay:expr; $($own:tt)* }) => {
        $crate::rule::kind_settings! { @plain $(#[$meta])* pub struct $name { decay: $decay; $($own)* } }
    };
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $crate::rule::kind_settings! { @plain $(#[$meta])* pub struct $name { decay: 0.0; $($own)* } }
    };
    (@plain $(#[$meta:meta])* pub struct $name:ident { decay: $decay:expr; $($own:tt)* }) => {
        $crate::rule::kind_settings! { @shared $(#[$meta])* pub struct $name { decay: $decay; $($own)* } }

        impl $name {
            /// A rule with the decay of these settings.
            fn assemble(&self, rule: impl $crate::rule::Rule) -> $crate::rule::Pipeline {
                let pipeline = $crate::rule::Pipeline::new(rule).without_momentum();
                pipeline.with_decay(self.decay()).with_norm_control(self.norm_control)
            }
        }
    };
    (@shared $(#[$meta:meta])* pub struct $name:ident { decay: $decay:expr; $($own:tt)* }) => {
        $crate::setting::settings! {
            $(#[$meta])*
            pub struct $name {
                /// Decoupled weight decay, at least 0; multiplied as `decay` says, never by the scale.
                weight_decay, with_weight_decay: f64 = $decay, in $crate::setting::Numbers::SIZE;
                /// Decay only entries where update and weight do not have opposite signs.
                cautious, with_cautious: bool = false;
                /// What the weight decay is multiplied by: the learning rate, or the factor of the schedule alone.
                #[serde(skip_serializing_if = "crate::setting::is_default")]
                decay, with_decay: $crate::rule::DecayForm = $crate::rule::DecayForm::Coupled;
                /// How steps depend on the norms of weights and update; default not at all.
                #[serde(skip_serializing_if = "Option::is_none")]
                norm_control, with_norm_control: Option<$crate::rule::NormControl> = None;
                $($own)*
            }
        }

        impl $name {
            /// The optimizer of one parameter group, stored `[d_in, d_out]`.
            ///
            /// For another layout or for blocks, follow with [`with_placement`]($crate::rule::Pipeline::with_placement).
            /// Values are not checked here but by [`OptimizerConfig::validate`]($crate::OptimizerConfig::validate).
            #[must_use]
            pub fn build(&self) -> $crate::rule::Pipeline {
                $crate::rule::Kind::pipeline(self)
            }

            /// The optimizer of a whole module. A matrix rule needs a module that has only matrices and stacks of them; for
            /// one with vectors as well, use [`Layerwise`]($crate::Layerwise).
            #[must_use]
            pub fn init(&self) -> burn::optim::ModuleOptimizer {
                self.build().into()
            }

            fn decay(&self) -> $crate::rule::Decay {
                $crate::rule::Decay { rate: self.weight_decay, cautious: self.cautious, form: self.decay }
            }
        }
    };
}
pub(crate) use kind_settings;
