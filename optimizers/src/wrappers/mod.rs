//! What goes around the steps of an optimizer: look-ahead, outer momentum, averages of the weights.
//!
//! A wrapper keeps copies of the trained parameters, does not know which rules update them, and works around any optimizer:
//! that of [`Layerwise`](crate::Layerwise), which has one if its configuration says so
//! (`wrapper = { kind = "ema_nesterov" }`), or any of Burn's, if the training loop calls the methods of [`Wrap`].
//!
//! | wrapper | what it does | copies | source |
//! |---|---|---|---|
//! | [`EmaNesterov`] | gradients are taken ahead, along the mean of the last steps | 2 | arXiv 2605.25395 |
//! | [`OuterNesterov`] | every K steps, a Nesterov step along what they changed | 2 | arXiv 2311.08105, one worker |
//! | [`ScheduleFree`] | gradients are taken near the mean of all steps, which is evaluated | 2 | arXiv 2405.15682 |
//! | [`WeightAverage`] | a moving average is evaluated; training does not see it | 1 | |
//!
//! Copies are in f32, in f64 for parameters in f64. Frozen parameters have none and are never changed. No method waits for
//! the device but those of records.
//!
//! # Around any optimizer
//!
//! ```
//! # use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, tensor::{Device, Tensor}};
//! # use burn::optim::GradientsParams;
//! use polaron::Layerwise;
//! use polaron::wrappers::{Moment, Trained, WeightAverage, WeightAverageConfig, Wrap};
//! # let device = Device::flex().autodiff();
//! # let ones = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Ones);
//! # let mut model = ones(8, 4).init(&device);
//! # let inputs = Tensor::<2>::ones([2, 8], &device);
//! # let mut optimizer = Layerwise::muon().build(&model)?;
//!
//! let mut average = WeightAverage::new(&WeightAverageConfig::new(), Trained::of(&model, |_path| true))?;
//! for _ in 0..3 {
//!     let moment = Moment { factor: 1.0, progress: 0.0 };
//!     model = average.before_forward(model, moment)?;
//!     let loss = model.forward(inputs.clone()).square().mean();
//!     let grads = GradientsParams::from_grads(loss.backward(), &model);
//!     model = average.before_step(model)?;
//!     model = optimizer.step(1.0, model, grads); // or that of a ModuleOptimizer
//!     model = average.after_step(model, moment)?;
//! }
//! let evaluated = average.evaluation_weights(model.clone())?; // for validation; the next step takes `model`
//! # let _ = evaluated;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod average;
mod ema_nesterov;
mod error;
mod outer_nesterov;
mod record;
mod schedule_free;
mod settings;
mod trained;
mod wrap;
mod wrapper;

pub use average::WeightAverage;
pub use ema_nesterov::EmaNesterov;
pub use error::WrapperError;
pub use outer_nesterov::OuterNesterov;
pub use record::WrapperRecord;
pub use schedule_free::ScheduleFree;
pub use settings::{EmaNesterovConfig, OuterNesterovConfig, ScheduleFreeConfig, WeightAverageConfig, WrapperConfig};
pub(crate) use trained::Copies;
pub use trained::Trained;
pub use wrap::{Moment, Wrap};
pub use wrapper::Wrapper;
