//! What another library said, or a sentence of this one.

/// What is wrong, inside a longer message: the error of another library, or a few words.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
