//! Roles: what a parameter is for, and how that is found out.
//!
//! A role is decided, in rising order of precedence, by
//!
//! 1. the **owner** of the parameter (`Linear`, `Embedding`, a norm, …) and its rank,
//! 2. the model's own **hints** ([`Roles`]),
//! 3. the user's **assignments** (`Layerwise::assign`).
//!
//! What none of them decides is an error when the optimizer is built, never a guess.

use serde::{Deserialize, Serialize};

use crate::matrix::Layout;
use crate::step::Gain;

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A hidden matrix with no finer role (every `Linear` unless something says otherwise).
    Hidden,
    /// Query projection of attention.
    AttentionQuery,
    /// Key projection of attention.
    AttentionKey,
    /// Value projection of attention.
    AttentionValue,
    /// Output projection of attention.
    AttentionOutput,
    /// Gate projection of a gated feed-forward layer.
    Gate,
    /// Up projection of a feed-forward layer.
    Up,
    /// Down projection of a feed-forward layer.
    Down,
    /// Stack of gate projections, `[E, d_in, d_out]`.
    ExpertGate,
    /// Stack of up projections, `[E, d_in, d_out]`.
    ExpertUp,
    /// Stack of down projections, `[E, d_in, d_out]`.
    ExpertDown,
    /// Router of a mixture of experts, `[d_model, E]`.
    Router,
    /// Embedding table, `[vocab, d_model]`.
    Embedding,
    /// Embedding table that is also the head, `[vocab, d_model]`.
    TiedEmbedding,
    /// Language-model or classification head, `[d_model, vocab]`.
    Head,
    /// Gain of a norm, or another 1-D factor.
    Gain,
    /// Bias.
    Bias,
}

impl Role {
    /// Every role, in the order in which plans list them.
    pub const ALL: [Role; 17] = [
        Role::Hidden,
        Role::AttentionQuery,
        Role::AttentionKey,
        Role::AttentionValue,
        Role::AttentionOutput,
        Role::Gate,
        Role::Up,
        Role::Down,
        Role::ExpertGate,
        Role::ExpertUp,
        Role::ExpertDown,
        Role::Router,
        Role::Embedding,
        Role::TiedEmbedding,
        Role::Head,
        Role::Gain,
        Role::Bias,
    ];

    /// Roles of the matrices inside the blocks of a network: what Muon and its relatives are for.
    pub const MATRICES: [Role; 11] = [
        Role::Hidden,
        Role::AttentionQuery,
        Role::AttentionKey,
        Role::AttentionValue,
        Role::AttentionOutput,
        Role::Gate,
        Role::Up,
        Role::Down,
        Role::ExpertGate,
        Role::ExpertUp,
        Role::ExpertDown,
    ];

    /// Matrices at the edges: embeddings, head, router.
    pub const EDGES: [Role; 4] = [Role::Router, Role::Embedding, Role::TiedEmbedding, Role::Head];

    /// Vectors: gains and biases. Weight decay is not applied to them by any stack.
    pub const VECTORS: [Role; 2] = [Role::Gain, Role::Bias];

    /// The name used in configurations and plans, for example `attention_query`.
    pub fn name(&self) -> &'static str {
        match self {
            Role::Hidden => "hidden",
            Role::AttentionQuery => "attention_query",
            Role::AttentionKey => "attention_key",
            Role::AttentionValue => "attention_value",
            Role::AttentionOutput => "attention_output",
            Role::Gate => "gate",
            Role::Up => "up",
            Role::Down => "down",
            Role::ExpertGate => "expert_gate",
            Role::ExpertUp => "expert_up",
            Role::ExpertDown => "expert_down",
            Role::Router => "router",
            Role::Embedding => "embedding",
            Role::TiedEmbedding => "tied_embedding",
            Role::Head => "head",
            Role::Gain => "gain",
            Role::Bias => "bias",
        }
    }

    /// By which power of the width the effect grows of an update with this gain for a parameter of this role, in a network whose logits are divided by
    /// the width. Embeddings read one row, so only their outputs count.
    pub(crate) fn width_exponent(self, gain: Gain) -> Result<f64, &'static str> {
        match self {
            Role::Embedding => Ok(gain.outputs),
            Role::Head => Ok(gain.inputs - 1.0),
            Role::Router => Ok(gain.inputs),
            // Both uses of the table must agree.
            Role::TiedEmbedding if gain == Gain::ENTRYWISE => Ok(0.0),
            Role::TiedEmbedding if gain == Gain::INPUT_UNITS || gain == Gain::ORTHOGONAL => Ok(-0.5),
            Role::TiedEmbedding => {
                Err("as an embedding and as a head it would need different learning rates: choose adamw or row_norm")
            }
            Role::Gain | Role::Bias => Ok(0.0),
            _ => Ok(gain.outputs + gain.inputs),
        }
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

/// What a model, or a user, says about the parameters that a pattern matches.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleHint {
    /// Glob or `/regex/` on parameter paths, see [`Pattern`](super::Pattern).
    pub pattern: String,
    /// Their role.
    pub role: Role,
    /// Number of attention heads along the output axis (query, key, value) or the input axis
    /// (output projection), when the role has heads.
    pub heads: Option<usize>,
    /// How they are stored; `in_out` (Burn's `Linear` and `Embedding`) unless said otherwise.
    pub layout: Layout,
}

impl RoleHint {
    /// Parameters matching `pattern` have `role`, no heads, and are stored `[d_in, d_out]`.
    pub fn new(pattern: impl Into<String>, role: Role) -> Self {
        Self { pattern: pattern.into(), role, heads: None, layout: Layout::InOut }
    }

    /// Says how many attention heads the matrix holds.
    pub fn with_heads(mut self, heads: usize) -> Self {
        self.heads = Some(heads);
        self
    }

    /// Says that the matrices are stored in another layout.
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }
}

/// A model that knows the roles of its parameters.
///
/// Optional: without it every `Linear` is [`Role::Hidden`], every `Embedding`
/// [`Role::Embedding`], every vector a [`Role::Gain`] or [`Role::Bias`].
pub trait Roles {
    /// Hints, each for the parameters that its pattern matches.
    fn roles(&self) -> Vec<RoleHint>;
}

/// Role and layout by the type of the owner, the field name and the rank; `None` if they do not decide it.
///
/// `container` is what Burn's `ModuleVisitor::enter_module` reports, for example `Struct:Linear`.
pub(crate) fn infer(container: &str, field: &str, rank: usize) -> Option<(Role, Layout)> {
    let owner = container.strip_prefix("Struct:").unwrap_or(container);
    let vector = |role| Some((role, Layout::InOut));
    match (owner, rank) {
        ("Linear", 2) => Some((Role::Hidden, Layout::InOut)),
        ("Embedding", 2) => Some((Role::Embedding, Layout::InOut)),
        (_, 0 | 1) if matches!(field, "bias" | "beta") => vector(Role::Bias),
        (_, 0 | 1) => vector(Role::Gain),
        _ => None,
    }
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

    #[test]
    fn a_rank_3_tensor_of_an_unknown_owner_is_not_guessed() {
        // A Conv1d weight has rank 3 as well: calling it a stack of experts would be wrong.
        assert_eq!(infer("Struct:Conv1d", "weight", 3), None);
        assert_eq!(infer("Struct:Mine", "table", 2), None);
    }

    #[test]
    fn owners_decide_the_common_roles() {
        assert_eq!(infer("Struct:Linear", "weight", 2).map(|r| r.0), Some(Role::Hidden));
        assert_eq!(infer("Struct:Linear", "bias", 1).map(|r| r.0), Some(Role::Bias));
        assert_eq!(infer("Struct:Embedding", "weight", 2).map(|r| r.0), Some(Role::Embedding));
        assert_eq!(infer("Struct:LayerNorm", "gamma", 1).map(|r| r.0), Some(Role::Gain));
        assert_eq!(infer("Struct:LayerNorm", "beta", 1).map(|r| r.0), Some(Role::Bias));
    }
}
