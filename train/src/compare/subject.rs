//! What the runs of a comparison train, as far as its results speak of it.

/// What the runs train.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// The model, in a word or two.
    pub title: String,
    /// What the data are counted in: "tokens", "images".
    pub unit: String,
    /// How many of them a step sees.
    pub per_step: u64,
    /// A note on which part of the validation data the losses are over, if it differs between them.
    pub coverage: Option<String>,
}
