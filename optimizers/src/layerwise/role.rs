//! Roles: the purpose of a parameter, and how it is found.
//!
//! A role is decided by, in rising order of precedence:
//!
//! 1. the **owner** of the parameter (`Linear`, `Embedding`, a norm, …) and its rank,
//! 2. the model's own **hints** ([`Roles`]),
//! 3. the user's **assignments** (`Layerwise::assign`).
//!
//! If none of them decides, building the optimizer is an error; roles are never guessed.

use serde::{Deserialize, Serialize};

use crate::matrix::Layout;

/// Declares the roles, in the order in which plans list them, by families.
macro_rules! roles {
    ($($(#[$about:meta])* $family:ident { $($(#[$doc:meta])* $role:ident = $name:literal,)* })*) => {
        /// The purpose of a parameter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Role {
            $($($(#[$doc])* #[serde(rename = $name)] $role,)*)*
        }

        impl Role {
            /// Every role, in the order in which plans list them.
            pub const ALL: [Role; [$($($name),*),*].len()] = [$($(Role::$role),*),*];

            $(
                $(#[$about])*
                pub const $family: [Role; [$($name),*].len()] = [$(Role::$role),*];
            )*

            /// The name used in configurations and plans, for example `attention_query`.
            pub fn name(&self) -> &'static str {
                match self {
                    $($(Role::$role => $name,)*)*
                }
            }
        }
    };
}

roles! {
    /// Roles of the matrices inside the blocks of a network: what Muon and its relatives are for.
    MATRICES {
        /// A hidden matrix without a more specific role (every `Linear` by default).
        Hidden = "hidden",
        /// Query projection of attention.
        AttentionQuery = "attention_query",
        /// Key projection of attention.
        AttentionKey = "attention_key",
        /// Value projection of attention.
        AttentionValue = "attention_value",
        /// Output projection of attention.
        AttentionOutput = "attention_output",
        /// Gate projection of a gated feed-forward layer.
        Gate = "gate",
        /// Up projection of a feed-forward layer.
        Up = "up",
        /// Down projection of a feed-forward layer.
        Down = "down",
        /// Stack of gate projections, `[E, d_in, d_out]`.
        ExpertGate = "expert_gate",
        /// Stack of up projections, `[E, d_in, d_out]`.
        ExpertUp = "expert_up",
        /// Stack of down projections, `[E, d_in, d_out]`.
        ExpertDown = "expert_down",
        /// Weight of a convolution, `[out, in/groups, k…]`, or transposed `[in, out/groups, k…]`: one matrix, out × (in ·
        /// window).
        Kernel = "kernel",
        /// First factor of an adapter of low rank (LoRA), `[d_in, r]`, or a stack `[E, d_in, r]`.
        LoraA = "lora_a",
        /// Second factor of such an adapter, `[r, d_out]`, or a stack `[E, r, d_out]`.
        LoraB = "lora_b",
    }
    /// Matrices at the edges: embeddings, head, router.
    EDGES {
        /// Router of a mixture of experts, `[d_model, E]`.
        Router = "router",
        /// Embedding table, `[vocab, d_model]`.
        Embedding = "embedding",
        /// Embedding table that is also the head, `[vocab, d_model]`.
        TiedEmbedding = "tied_embedding",
        /// Language-model or classification head, `[d_model, vocab]`.
        Head = "head",
    }
    /// Vectors: depthwise kernels, gains and biases. No stack applies weight decay to them.
    VECTORS {
        /// Weight of a convolution with one input channel per output channel, `[out, 1, k…]`: a vector for every channel.
        Depthwise = "depthwise",
        /// Gain of a norm, or another 1-D factor.
        Gain = "gain",
        /// Bias.
        Bias = "bias",
    }
}

impl Role {
    /// The factors of adapters: what [`Layerwise::train_only`](crate::Layerwise::train_only) trains with LoRA.
    pub const ADAPTERS: [Role; 2] = [Role::LoraA, Role::LoraB];

    /// Whether a parameter of this role and rank 3 is a stack of matrices, and not the weight of a convolution.
    pub(crate) fn is_stack(self) -> bool {
        matches!(self, Role::ExpertGate | Role::ExpertUp | Role::ExpertDown | Role::LoraA | Role::LoraB)
    }

    /// The role of a name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The role of the parameters that a pattern matches, from a model or a user.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleHint {
    /// Glob or `/regex/` on parameter paths, see [`Pattern`](super::Pattern).
    pub pattern: String,
    /// Their role.
    pub role: Role,
    /// Number of attention heads along the output axis (query, key, value) or the input axis
    /// (output projection), when the role has heads.
    pub heads: Option<usize>,
    /// Sizes of the parts along the output axis, if the matrix is several projections in one; empty otherwise.
    pub parts: Vec<usize>,
    /// How they are stored; by default `in_out`, as in Burn's `Linear` and `Embedding`.
    pub layout: Layout,
}

impl RoleHint {
    /// Parameters matching `pattern` have `role`, no heads, and are stored `[d_in, d_out]`.
    pub fn new(pattern: impl Into<String>, role: Role) -> Self {
        Self { pattern: pattern.into(), role, heads: None, parts: Vec::new(), layout: Layout::InOut }
    }

    /// Sets the number of attention heads in the matrix.
    #[must_use]
    pub fn with_heads(mut self, heads: usize) -> Self {
        self.heads = Some(heads);
        self
    }

    /// Says that the matrix is several projections in one, one after another along the output axis, of these sizes: at most
    /// eight. A rule with `blocks = "parts"` ([`Rule::per_part`](super::Rule::per_part)) updates each by itself; all others
    /// take the matrix as one.
    ///
    /// ```
    /// use polaron::{Role, RoleHint};
    ///
    /// // Queries of 4 heads, keys and values of 2, each of 16 entries.
    /// let fused = RoleHint::new("blocks.*.attn.qkv.weight", Role::Hidden).with_parts([64, 32, 32]);
    /// assert_eq!(fused.parts, [64, 32, 32]);
    /// ```
    #[must_use]
    pub fn with_parts(mut self, sizes: impl Into<Vec<usize>>) -> Self {
        self.parts = sizes.into();
        self
    }

    /// Sets the layout in which the matrices are stored.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }
}

/// A model that knows the roles of its parameters.
///
/// Optional: without it, the parameters of Burn's own modules have these roles, and every vector is a [`Role::Gain`] or
/// [`Role::Bias`]:
///
/// | owner | field | role |
/// |---|---|---|
/// | `Linear`; recurrent gates | `weight` | [`Role::Hidden`] |
/// | `MultiHeadAttention`, `CrossAttention` | `query`, `key`, `value`, `output` | attention query, key, value, output; a hint adds the number of heads |
/// | `PositionWiseFeedForward` | `linear_inner`, `linear_outer` | up, down |
/// | `SwiGlu` | `linear_inner`, `linear_outer` | gate, up |
/// | `Embedding` | `weight` | [`Role::Embedding`] |
/// | `Conv1d` to `3d`, `ConvTranspose1d` to `3d`, `DeformConv2d` | `weight` | [`Role::Kernel`]; with one input channel per output [`Role::Depthwise`] |
///
/// The number of groups of a convolution is not visible from outside: a kernel is one matrix unless a rule cuts it into
/// blocks along the output axis (transposed: the input axis), and a first layer with one input channel counts as depthwise
/// unless it is assigned [`Role::Kernel`]. A parameter of your own with rank 3 or more and a role is a convolution's
/// weight, `[out, in/groups, k…]` unless a rule sets the layout; only the roles of experts and adapters make it a stack. Running
/// statistics of `BatchNorm` are not parameters.
///
/// A type of your own with the name `Linear`, for example, is distinguished from Burn's by its fields, ranks and the length
/// of its bias. If it agrees in all of them but stores `[d_out, d_in]`, add
/// `assign_hint(RoleHint::new("my.layer.weight", Role::Hidden).with_layout(Layout::OutIn))`.
pub trait Roles {
    /// Hints, each for the parameters that its pattern matches.
    fn roles(&self) -> Vec<RoleHint>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_one_name_and_belongs_to_one_family() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
            assert_eq!(
                serde_json::to_value(role).unwrap(),
                serde_json::Value::from(role.name()),
                "the name in files and the name in plans are the same"
            );
            let families = [Role::MATRICES.contains(&role), Role::EDGES.contains(&role), Role::VECTORS.contains(&role)];
            assert_eq!(families.iter().filter(|held| **held).count(), 1, "{role}");
        }
    }
}
