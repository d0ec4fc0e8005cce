//! What a row of the tables of presets is made of.

use super::model::ModelConfig;

/// A preset.
pub(super) struct Preset {
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    pub settings: fn() -> ModelConfig,
}

/// The default of every other key, for models of these sizes.
pub(super) fn llama(d_model: usize, layers: usize, heads: usize, context: usize) -> ModelConfig {
    let defaults = ModelConfig::defaults();
    let hidden = defaults.feed_forward.usual_hidden(d_model);
    ModelConfig { d_model, layers, heads, context, hidden, base_width: d_model, ..defaults }
}

/// The first `N` names of these tables.
pub(super) const fn names<const N: usize>(tables: [&[Preset]; 2]) -> [&'static str; N] {
    let mut names = [""; N];
    let (mut table, mut row, mut at) = (0, 0, 0);
    while at < N {
        if row == tables[table].len() {
            (table, row) = (table + 1, 0);
            continue;
        }
        names[at] = tables[table][row].name;
        (row, at) = (row + 1, at + 1);
    }
    names
}
