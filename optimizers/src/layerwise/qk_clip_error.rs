//! Why attention heads cannot be clipped.

use thiserror::Error;

/// Why heads cannot be clipped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkClipError {
    /// A logit that is NaN or infinite.
    #[error("a logit of \"{path}\" is not finite")]
    NotFinite {
        /// Path of the query projection.
        path: String,
    },
    /// A projection of which a rule keeps directions.
    #[error(
        "it would scale \"{path}\", of which the rule's project keeps directions: leave out qk_clip, or the project of queries and \
         keys"
    )]
    Projected {
        /// Path of the parameter.
        path: String,
    },
    /// A projection that is not in the model.
    #[error("the model has no projection \"{path}\"")]
    NoProjection {
        /// The path.
        path: String,
    },
    /// Key heads that do not divide the query heads.
    #[error("{key_heads} key heads do not divide the {heads} query heads of \"{path}\"")]
    KeyHeads {
        /// Path of the query projection.
        path: String,
        /// Number of key heads.
        key_heads: usize,
        /// Number of query heads.
        heads: usize,
    },
    /// Heads that do not divide the outputs of their projection.
    #[error("{heads} heads do not divide the {outputs} outputs of \"{path}\"")]
    Heads {
        /// Path of the projection.
        path: String,
        /// Number of heads.
        heads: usize,
        /// Number of outputs.
        outputs: usize,
    },
}
