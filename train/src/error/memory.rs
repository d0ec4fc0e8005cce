//! Why a model does not fit into memory.

/// A model that does not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TooLarge {
    /// Its weights alone are larger than the memory.
    #[error(
        "the weights of this model alone need at least {} of memory, but {} are available: lower {keys}",
        bytes(*.needed), bytes(*.available)
    )]
    Weights {
        /// Bytes that it needs.
        needed: f64,
        /// Bytes that are available.
        available: f64,
        /// Keys that decide its size, with their values.
        keys: String,
    },
    /// Training would need nearly all of the memory.
    #[error(
        "training needs about {} of memory ({parts}), which is more than {share:.0} % of the {} that are available: {remedy}, or train \
         anyway with --force",
        bytes(*.needed), bytes(*.available)
    )]
    Training {
        /// Bytes that it needs.
        needed: f64,
        /// Bytes that are available.
        available: f64,
        /// How much of them a run may take, in per cent.
        share: f64,
        /// What needs them.
        parts: String,
        /// What would need less.
        remedy: String,
    },
}

/// A number of bytes with its unit.
pub fn bytes(number: f64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut scaled = number / 1e3;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while scaled >= 999.5 {
        let Some(next) = units.next() else { break };
        (scaled, unit) = (scaled / 1e3, Some(next));
    }
    let unit = unit.copied().unwrap_or_default();
    if scaled < 9.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_a_unit() {
        for (number, text) in
            [(0.0, "0.0 kB"), (1.5e6, "1.5 MB"), (16e9, "16 GB"), (999.6e9, "1.0 TB"), (1e22, "10000 EB")]
        {
            assert_eq!(bytes(number), text);
        }
    }
}
