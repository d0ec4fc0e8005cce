//! The errors of this crate: of a model's configuration, its input and its stored weights.

use burn::tensor::DType;

/// Why a model could not be created, run or loaded.
///
/// Every message is one sentence that says what is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No preset has that name.
    #[error("unknown model preset `{name}`{hint}")]
    UnknownPreset {
        /// The name given.
        name: String,
        /// The nearest valid name as a question, or all of them, after a semicolon.
        hint: String,
    },
    /// A size is zero.
    #[error("`{key}` is 0, but a model needs at least 1: set it to a positive whole number")]
    Zero {
        /// Name of the size.
        key: &'static str,
    },
    /// The model dimension is not divisible by the number of attention heads.
    #[error(
        "`d_model` = {d_model} is not divisible by `heads` = {heads}: choose a multiple, for \
         example `d_model` = {suggestion}"
    )]
    HeadsDoNotDivide {
        /// Width of the residual stream.
        d_model: usize,
        /// Number of attention heads.
        heads: usize,
        /// The nearest larger width that works.
        suggestion: usize,
    },
    /// Rotary positions rotate pairs of features, so a head needs an even number of them.
    #[error(
        "rotary positions need an even head dimension, but it is {head_dim} (`d_model` = {d_model}, \
         `heads` = {heads}): {remedy}"
    )]
    OddHeadDimension {
        /// Width of the residual stream.
        d_model: usize,
        /// Number of attention heads.
        heads: usize,
        /// Features of one head.
        head_dim: usize,
        /// Which key to change, with the nearest larger value that works.
        remedy: String,
    },
    /// The number of query heads is not divisible by the number of heads of keys and values.
    #[error(
        "`heads` = {heads} is not divisible by `kv_heads` = {kv_heads}: every key head serves the same \
         number of query heads, so choose a divisor of {heads}"
    )]
    KeyHeadsDoNotDivide {
        /// Number of query heads.
        heads: usize,
        /// Number of key heads.
        kv_heads: usize,
    },
    /// A number is outside its range.
    #[error("`{key}` is {value}, but it must be a finite number {rule}")]
    OutOfRange {
        /// Name of the setting.
        key: &'static str,
        /// The value given.
        value: f64,
        /// Its range.
        rule: &'static str,
    },
    /// A token cannot be sent to this many experts.
    #[error("`top_k` = {top_k} experts per token with `experts` = {experts}: choose `top_k` between 1 and {experts}")]
    TopK {
        /// Experts per token.
        top_k: usize,
        /// Experts in a block.
        experts: usize,
    },
    /// Experts need a gate, which these kinds of feed-forward layers do not have.
    #[error(
        "`feed_forward` = \"gelu\" or \"gelu_tanh\" has no gate, but experts need one: choose \"swi_glu\", for example"
    )]
    ExpertsWithoutGate,
    /// The biases of a dense feed-forward layer in a model with experts.
    #[error(
        "`feed_forward_bias` is set, but there are experts and no dense feed-forward layer: set `expert_bias` instead"
    )]
    BiasOfExperts,
    /// A setting of experts or their router in a model without experts.
    #[error("`{key}` is set, but there are no experts: set `experts` too, or `{key}` to {off}")]
    WithoutExperts {
        /// Name of the setting.
        key: &'static str,
        /// The value that a model without experts has.
        off: &'static str,
    },
    /// A pattern of adapters that cannot be read.
    #[error("`lora.match`: {error}")]
    LoraPattern {
        /// Why not.
        error: polaron::LayerwiseError,
    },
    /// An empty list of patterns of adapters.
    #[error("`lora.match` is empty: name at least one projection, for example \"attn.*\"")]
    LoraWithoutPattern,
    /// A pattern of adapters that matches no projection.
    #[error("`lora.match`: `{pattern}` matches no projection{hint}")]
    LoraMatchesNothing {
        /// The pattern.
        pattern: String,
        /// The nearest projection within a block as a question, or all of them, after a semicolon.
        hint: String,
    },
    /// Adapters of a higher rank than their matrix.
    #[error(
        "`lora.rank` = {rank} is higher than the rank of `{path}`, which is {d_in} x {d_out}: choose at most {}",
        d_in.min(d_out)
    )]
    LoraRank {
        /// Path of the projection.
        path: String,
        /// The rank of the adapters.
        rank: usize,
        /// Inputs of the projection.
        d_in: usize,
        /// Outputs of the projection.
        d_out: usize,
    },
    /// A token is negative or not below the vocabulary size.
    #[error(
        "the token {token} at position {position} (counted from 0) is outside the model's \
         vocabulary of {vocab_size}: use the tokenizer that the model was trained with"
    )]
    TokenOutOfRange {
        /// The first such token.
        token: i64,
        /// Its position, from 0.
        position: usize,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A parameter of the model is not among the stored tensors.
    #[error(
        "the stored weights hold no tensor `{name}` (expected shape {expected:?}): load them into the \
         model that wrote them{hint}"
    )]
    MissingTensor {
        /// Path of the parameter.
        name: String,
        /// Its shape in the model.
        expected: Vec<usize>,
        /// The nearest stored name as a question, after a semicolon; or empty.
        hint: String,
    },
    /// A stored tensor does not belong to any parameter.
    #[error(
        "the stored weights hold a tensor `{name}` (shape {found:?}) that the model does not have: \
         load them into the model that wrote them"
    )]
    ExtraTensor {
        /// Stored name.
        name: String,
        /// Stored shape.
        found: Vec<usize>,
    },
    /// A stored name occurs twice.
    #[error(
        "the stored weights hold the tensor `{name}` more than once: keep one of them; a file \
         with two is damaged"
    )]
    DuplicateTensor {
        /// Stored name.
        name: String,
    },
    /// A stored tensor has another shape than the parameter.
    #[error(
        "the stored tensor `{name}` has shape {found:?}, but the model expects {expected:?}: load \
         it into a model of the same sizes"
    )]
    WrongShape {
        /// Path of the parameter.
        name: String,
        /// Shape in the model.
        expected: Vec<usize>,
        /// Stored shape.
        found: Vec<usize>,
    },
    /// A stored tensor has another element type than the parameter.
    #[error(
        "the stored tensor `{name}` has elements of type {found:?}, but the model expects \
         {expected:?}: convert it, or run the model in the stored type"
    )]
    WrongDtype {
        /// Path of the parameter.
        name: String,
        /// Element type in the model.
        expected: DType,
        /// Stored element type.
        found: DType,
    },
    /// A `config.json` of transformers says what the decoder cannot be.
    #[error("`{key}` in config.json is {value}, but {rule}")]
    ForeignKey {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What the decoder can be.
        rule: String,
    },
    /// No model class of transformers can be this decoder.
    #[error(
        "the model class {class} of transformers, the nearest to this model, cannot express it: `{key}` is {value}, but {rule}"
    )]
    NoForeignClass {
        /// The nearest class.
        class: &'static str,
        /// The first key that it cannot follow.
        key: String,
        /// Its value.
        value: String,
        /// What the class needs.
        rule: String,
    },
    /// A tensor of a model of transformers is missing, unknown or wrong.
    #[error("the tensor `{name}` {problem}")]
    ForeignTensor {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}
