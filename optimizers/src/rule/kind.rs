//! What is known about every kind from its settings.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::{Extent, Gain, Kept, Pipeline};
use crate::matrix::Axis;
use crate::setting::{ConfigError, Keys};

/// The settings of a kind: the step that they build, and what is known about it.
pub(crate) trait Kind: Keys {
    /// The step that they describe.
    fn pipeline(&self) -> Pipeline;

    /// What is known about the rule under these settings.
    fn about(&self) -> About;

    /// Whether units or entries get a fixed size: how far that moves a hidden layer also depends on the number of tokens in
    /// a batch.
    fn fixes_units(&self) -> bool {
        false
    }

    /// Whether the decay follows the learning rate alone, so that the rate cannot follow the width.
    fn decays_by_rate(&self) -> bool {
        false
    }

    /// Whether units are neurons, so that `axis` follows the role: outputs of most matrices, inputs of down and output
    /// projections.
    fn axis_follows_role(&self) -> bool {
        false
    }

    /// The key that chooses how an exact target is computed, with its exact value, or another key whose default has changed since
    /// a release, with the former one; none without such a choice.
    fn exact_method(&self) -> Option<(&'static str, Value)> {
        None
    }

    /// The level of a rule whose update is U diag(s / √(s² + l²)) Vᵀ of the momentum, and so has an energy; `None` for others.
    #[cfg(feature = "exact")]
    fn smoothing(&self) -> Option<super::Smoothing> {
        None
    }

    /// Refuses combinations of values that are not valid.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// What is known about a rule under some settings.
pub(crate) struct About {
    pub formula: String,
    pub source: &'static str,
    /// Of one step.
    pub cost: Cost,
    /// What distinguishes these settings, for plans; may be empty.
    pub detail: String,
    /// The stack of the kind's name.
    pub stack: StackRow,
    /// The symmetries that the kind has with which options.
    pub symmetries: Vec<SymmetryRow>,
    /// How the effect of the direction grows with the sides of the matrix, before the shape scale; or why no power law
    /// holds, and which settings have one.
    pub gain: Result<Gain, &'static str>,
}

/// Why steps as large as the gradient have no width rule, and what has one.
macro_rules! follows_gradient {
    () => {
        $crate::rule::follows_gradient!("choose a rule with normalised steps, such as muon or adamuon")
    };
    ($advice:literal) => {
        Err(concat!("its steps are as large as the gradient, whose size follows the width in its own way: ", $advice))
    };
}
pub(crate) use follows_gradient;

/// Why an update whose size depends on the rank of the gradient has no width rule, and what has one.
macro_rules! follows_rank {
    ($advice:literal) => {
        Err(concat!(
            "the size of its update depends on the rank of the gradient, which the width does not decide: ",
            $advice
        ))
    };
}
pub(crate) use follows_rank;

/// The key by which a kind chooses how its exact target is computed, or where draws come from. Its default may change between versions; who stores a
/// configuration writes it down.
///
/// ```
/// use polaron::OptimizerConfig;
///
/// let freon = OptimizerConfig::exact_target("freon").expect("it has a choice");
/// assert_eq!((freon.key, freon.exact.as_str()), ("method", Some("svd")));
/// assert_eq!(OptimizerConfig::exact_target("adamw"), None);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExactTarget {
    /// The key.
    pub key: &'static str,
    /// The value that means an exact decomposition, or what was the only way before the key existed.
    pub exact: Value,
    /// The value of this version if the key is absent.
    pub default: Value,
}

/// The stack named after a kind: it uses the kind for the matrices of the blocks, or for everything if it is entrywise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackRow {
    /// Learning rate of the main rule.
    pub lr: f64,
    /// Its weight decay.
    pub weight_decay: f64,
    /// What the stack is, in one line.
    pub about: &'static str,
}

impl StackRow {
    pub(crate) const fn new(lr: f64, weight_decay: f64, about: &'static str) -> Self {
        Self { lr, weight_decay, about }
    }
}

/// One row of the symmetry audit: a kind with options, and its symmetries.
#[derive(Clone, Debug, PartialEq)]
pub struct SymmetryRow {
    /// Kind and options in words.
    pub name: &'static str,
    /// The options as JSON, without the kind; empty for the defaults.
    pub options: &'static str,
    /// Rotation and permutation of outputs, the same of inputs, shift invariance, zero sum.
    pub has: [bool; 6],
    /// Degree in the gradient.
    pub degree: i32,
}

impl SymmetryRow {
    /// Both rotations and permutations, as every function of the singular values has them.
    pub const SPECTRAL: [bool; 6] = [true, true, true, true, false, true];
    /// Depends on the choice of output units.
    pub const OUTPUT_UNITS: [bool; 6] = [false, true, true, true, false, false];
    /// Depends on the choice of input units.
    pub const INPUT_UNITS: [bool; 6] = [true, true, false, true, false, true];
    /// Depends on the choice of output units for some shapes, and of input units for others.
    pub const EITHER_UNITS: [bool; 6] = [false, true, false, true, false, false];
    /// Depends on the choice of entries.
    pub const ENTRIES: [bool; 6] = [false, true, false, true, false, false];
    /// Output units with their mean removed, for heads and routers.
    pub const CENTERED: [bool; 6] = [false, true, true, true, true, true];
    /// The same, but with the mean removed only before the rule, so that the update has a mean.
    pub const CENTERED_ONCE: [bool; 6] = [false, true, true, true, true, false];

    pub(crate) const fn new(name: &'static str, options: &'static str, has: [bool; 6], degree: i32) -> Self {
        Self { name, options, has, degree }
    }
}

/// Work of one step on an m × n matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// Whether the matrix is copied to the host, decomposed there and copied back.
    pub on_host: bool,
    /// Operations, in words.
    pub work: String,
    /// The operations of matrix products: how many r²R and r³, where r is the shorter side and R the longer.
    #[serde(skip)]
    products: [usize; 2],
    /// How many rR² beside them.
    #[serde(skip)]
    long_products: usize,
    /// What is done on the host.
    #[serde(skip)]
    decomposition: String,
}

impl Cost {
    /// Work on the device of the parameter.
    pub(crate) fn device(work: impl Into<String>) -> Self {
        Self { on_host: false, work: work.into(), products: [0; 2], long_products: 0, decomposition: String::new() }
    }

    /// A decomposition on the host, and other work if any.
    pub(crate) fn host(work: impl Into<String>) -> Self {
        Self { on_host: true, decomposition: "a host SVD".into(), ..Self::device(work) }
    }

    /// The same with so many r²R and r³ in matrix products.
    pub(crate) fn with_products(self, products: [usize; 2]) -> Self {
        Self { products, ..self }
    }

    /// The same work so many times.
    pub(crate) fn times(self, count: usize) -> Self {
        match count {
            1 => self,
            _ => Self {
                work: format!("{count} × ({})", self.work),
                products: self.products.map(|products| count * products),
                ..self
            },
        }
    }

    /// The same with more work, given as ` + 6 mn`.
    pub(crate) fn plus(mut self, more: &str) -> Self {
        self.work = format!("{}{more}", self.work).trim_start_matches(" + ").to_string();
        self
    }

    /// The same with bases of both sides, decomposed on the host every so many steps, and `count` (r²R + rR²) in products.
    #[cfg(feature = "exact")]
    pub(crate) fn with_bases(mut self, every: u64, count: usize) -> Self {
        self.products[0] += count;
        let every = if every == 1 { "every step".to_string() } else { format!("every {every} steps") };
        Self { on_host: true, long_products: count, decomposition: format!("a host QR {every}"), ..self }
    }

    /// Operations of the matrix products for one matrix on its device, for all but small matrices nearly all of the work; a
    /// decomposition on the host is not counted.
    pub fn product_operations(&self, rows: usize, columns: usize) -> f64 {
        let (short, long) = (rows.min(columns) as f64, rows.max(columns) as f64);
        let [mixed, cubes] = self.products.map(|count| count as f64);
        short * (short * (mixed * long + cubes * short) + self.long_products as f64 * long * long)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.on_host, self.work.as_str()) {
            (true, "") => f.write_str(&self.decomposition),
            (true, work) => write!(f, "{} + {work}", self.decomposition),
            (false, work) => f.write_str(work),
        }
    }
}

/// What an optimizer with these settings does, in words: for listings, plans and reports.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The `kind`.
    pub kind: &'static str,
    /// The update U of `W ← (1 - lr wd) W - lr U`, and what else the options of the step do.
    pub formula: String,
    /// Where the rule is defined.
    pub source: &'static str,
    /// What is kept between steps for every parameter.
    pub memories: Vec<Kept>,
    /// Work of one step on an m × n matrix.
    pub cost: Cost,
}

impl Description {
    /// The kept buffers in words.
    pub fn state(&self) -> String {
        state_in_words(&self.memories)
    }
}

/// `2 buffers + 1 per unit`, or `none`.
pub(crate) fn state_in_words(memories: &[Kept]) -> String {
    let count = |extent| memories.iter().filter(|kept| kept.extent == extent).count();
    let entries = match count(Extent::Entries) {
        0 => None,
        1 => Some("1 buffer".to_string()),
        n => Some(format!("{n} buffers")),
    };
    let some = |n: usize, words: &str| (n > 0).then(|| format!("{n} {words}"));
    let units = some(count(Extent::Units), "per unit");
    let squares = |axis| {
        let of = |kept: &&Kept| matches!(kept.extent, Extent::Pairs { axis: of, .. } if of == axis);
        memories.iter().filter(of).count()
    };
    let squares = [some(squares(Axis::Output), "of out × out"), some(squares(Axis::Input), "of in × in")];
    let words: Vec<String> = entries.into_iter().chain(units).chain(squares.into_iter().flatten()).collect();
    if words.is_empty() { "none".into() } else { words.join(" + ") }
}
