//! Muon and its relatives as optimizers for [Burn](https://burn.dev).
//!
//! # A whole model in three lines
//!
//! Hidden matrices by Muon, everything else by AdamW, every parameter checked to be covered once:
//!
//! ```
//! # use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, tensor::{Device, Tensor}};
//! use burn::optim::GradientsParams;
//! use polaron::{Layerwise, Role, Schedule};
//! # #[derive(Module, Debug)]
//! # struct Model { hidden: Linear, output: Linear }
//! # let device = Device::flex().autodiff();
//! # let ones = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Ones);
//! # let mut model = Model { hidden: ones(8, 16).init(&device), output: ones(16, 4).init(&device) };
//! # let inputs = Tensor::<2>::ones([2, 8], &device);
//!
//! let mut optim = Layerwise::muon().lr(0.02).assign("output", Role::Head).build(&model)?;
//! println!("{}", optim.plan()); // which parameter gets which rule
//!
//! # let loss = model.output.forward(model.hidden.forward(inputs)).mean();
//! let grads = GradientsParams::from_grads(loss.backward(), &model);
//! let factor = Schedule::cosine(100).factor(0, 2000); // step 0 of 2000, 100 of them warm-up
//! model = optim.step(factor, model, grads);
//! # let _ = model;
//! # Ok::<(), polaron::layerwise::LayerwiseError>(())
//! ```
//!
//! # One optimizer in an existing Burn program
//!
//! Every kind is a `burn::optim::Optimizer`; use it in place of Burn's own:
//!
//! ```
//! use burn::{module::ParamGroup, optim::ModuleOptimizer};
//! use polaron::rules::{AdamWConfig, MuonConfig};
//!
//! let hidden = ParamGroup::from_predicates(vec!["blocks", "weight"]); // paths that contain both
//! let optim: ModuleOptimizer = AdamWConfig::new().init().with_group(hidden, MuonConfig::new().build(), None);
//! # let _ = optim;
//! ```
//!
//! or let the plan make the groups, for Burn's `Learner`:
//! `Layerwise::muon().clip(None).build_module_optimizer(&model, |step| 1.0)?` returns a plain
//! `ModuleOptimizer` and `ModuleLrScheduler`.
//!
//! # From a file
//!
//! ```
//! use polaron::Layerwise;
//!
//! let builder = Layerwise::from_toml(r#"
//!     stack = "muon"
//!     lr = 0.02
//!     adamw = { lr = 3e-3 }
//!
//!     [[rule]]                       # a later rule overrides an earlier one
//!     match = "blocks.*.attn.wq"
//!     kind = "muon"
//!     blocks = { axis = "output", count = 4 }   # one update per head; all other settings stay
//! "#)?;
//! # let _ = builder;
//! # Ok::<(), polaron::layerwise::LayerwiseError>(())
//! ```
//!
//! # Your own rule
//!
//! Implement [`Direction`](rule::Direction): momentum in, direction out; or [`Rule`](rule::Rule), if it keeps memory or
//! reads the weights, the gradient or the step number. Momentum, scale, decay, layouts, experts, blocks, records and
//! checkpoints are added by the crate; `polaron-verify` checks that it keeps the promises of every optimizer.
//!
//! # Speed on a CPU
//!
//! With the feature `flex` (turn it on where you turn on Burn's), polynomial polar factors of f32 and f64 tensors are
//! computed in place on that backend; the results are the same up to rounding and do not depend on the number of threads.
//! AdamW, momentum and the update of f32 tensors take one pass over memory each, with bit-identical results.
//!
//! # Exact decompositions
//!
//! With the feature `exact`, singular values are computed on the host. Only with it do the kinds `random_spectrum` and
//! `truncated_sgd` exist, and only with it are `polar = {"method": "svd"}`, which is the default of `error_feedback_muon`,
//! `"gram_eigh"` and the exact methods of `freon` valid. Where else an exact target is wanted, the default computes it by matrix
//! products.
//!
//! # What to use when
//!
//! | parameters | rule |
//! |---|---|
//! | hidden matrices, experts | `muon`, `muon_eq`; the README of this crate has a measured table |
//! | embeddings, head, router | `adamw`; with tuning `row_norm` (stack `symmetric`) |
//! | gains, biases | `adamw` |
//! | a baseline | `sgd` |
//!
//! # Conventions
//!
//! Matrices act from *input* to *output* features. Burn's `Linear` stores `[d_in, d_out]`, PyTorch
//! `[d_out, d_in]`; [`matrix::Layout`] says which; rules are independent of it. (Burn's own Muon reads the
//! stored shape as `out × in`, so its scale is inverted.) A step is
//! `W ← (1 - lr wd) W - lr U`.

mod flex;
pub mod layerwise;
pub mod matrix;
mod power;
pub mod rule;
pub mod rules;
pub mod schedule;
mod setting;
pub mod tensor_file;
mod visit;
pub mod wrappers;

pub use layerwise::{
    Layerwise, LayerwiseConfig, LayerwiseError, LayerwiseOptimizer, LayerwiseRecord, Role, RoleHint, Roles,
    first_non_finite,
};
pub use rule::Description;
pub use rules::OptimizerConfig;
pub use schedule::Schedule;
pub use setting::ConfigError;
