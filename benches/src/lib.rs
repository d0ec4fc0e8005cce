//! Benches of polaron, and in `peers/` the same work in other programs. The README of this folder lists the commands.
//!
//! This library holds what several benches need: matrix products to compare with, training steps split into phases,
//! tables.

use std::time::Instant;

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::LayerwiseOptimizer;
use polaron_common::{Align, markdown_table, splitmix64};
use polaron_train::Error;
use polaron_train::networks::family::Family;
use polaron_train::networks::registry::ForFamily;
use polaron_train::run::prepare::build_optimizer;
use polaron_train::settings::config::Config;
use polaron_train::settings::recipe::{self, Choices};

/// The allocator of the program. By default it returns unused memory to the system after a second. The program turns
/// that off; for a bench, set `MIMALLOC_PURGE_DELAY=-1`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether the command line asks for the short form of a bench.
pub fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// Whether `name` contains one of the names on the command line, or there are none: only such a bench is run.
pub fn chosen(name: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|part| name.contains(&part))
}

/// Numbers between 0 and 1, of any shape; the same in every run.
pub fn random<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let values: Vec<f32> =
        (0..shape.iter().product::<usize>() as u64).map(|i| (splitmix64(i) >> 40) as f32 / (1 << 24) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (device, dtype))
}

/// The median of the numbers (the upper one of an even count); NaN if there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Floating-point operations per second of the product of two `[side, side]` matrices, the median of nine.
pub fn gemm_rate(side: usize, device: &Device) -> f64 {
    let [x, y] = [(); 2].map(|()| random([side, side], DType::F32, device));
    let seconds = || {
        let start = Instant::now();
        // Reading the result waits until it is computed.
        let _ = x.clone().matmul(y.clone()).into_data();
        start.elapsed().as_secs_f64()
    };
    seconds();
    2.0 * (side as f64).powi(3) / median((0..9).map(|_| seconds()).collect())
}

/// A Markdown table whose first column holds names and all others numbers.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let align: Vec<Align> =
        (0..head.len()).map(|column| if column == 0 { Align::Left } else { Align::Right }).collect();
    markdown_table(head.iter().map(|name| (*name).to_owned()), rows, &align)
}

/// A number with about three digits.
pub fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        hundreds if hundreds >= 99.95 => 0,
        tens if tens >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A preset that is being trained, on the batches of its recipe.
pub trait Training {
    /// Runs a step and calls `mark` at its start and after each of forward, backward, clip and optimizer, always when
    /// the device is idle.
    ///
    /// # Errors
    ///
    /// The batch cannot be read from the data.
    fn step(&mut self, mark: &mut dyn FnMut()) -> Result<(), Error>;

    /// Tokens or images of one step.
    fn tokens(&self) -> f64;

    /// Floating-point operations of forward and backward, counted from the sizes of the model.
    fn flop(&self) -> f64;

    /// Number of parameters.
    fn parameters(&self) -> usize;
}

struct Recipe<F: Family> {
    config: Config,
    settings: F,
    data: F::Data,
    device: Device,
    /// Taken while a step updates it.
    model: Option<F::Network>,
    optimizer: LayerwiseOptimizer,
    step: u64,
    flop: f64,
}

/// A preset with the recipe of `polaron train` and an optimizer stack; `rows` replaces the number of rows per batch.
///
/// # Errors
///
/// A name does not exist, or the data cannot be read.
pub fn training(preset: &str, stack: &str, rows: Option<usize>, device: &Device) -> Result<Box<dyn Training>, Error> {
    let choices = Choices { preset: Some(preset.into()), stack: Some(stack.into()), ..Choices::default() };
    let mut config = recipe::defaults(&choices)?;
    config.train.batch = rows.unwrap_or(config.train.batch);
    config.model.with(Built { config: &config, device })
}

/// A configuration, to be built by the family of its model.
struct Built<'a> {
    config: &'a Config,
    device: &'a Device,
}

impl ForFamily for Built<'_> {
    type Output = Result<Box<dyn Training>, Error>;

    fn run<F: Family>(self, settings: &F) -> Self::Output {
        let Self { config, device } = self;
        let data = F::load(&config.data, None)?;
        let sizes = F::data_sizes(&data);
        let model = settings.init(sizes, config.train.seed, &device.clone().autodiff())?;
        let optimizer = build_optimizer::<F>(config, &model)?;
        let flop = settings.work(sizes).flops_per_row * config.train.batch as f64;
        let (settings, config, device) = (settings.clone(), config.clone(), device.clone());
        Ok(Box::new(Recipe { config, settings, data, device, model: Some(model), optimizer, step: 0, flop }))
    }
}

impl<F: Family> Training for Recipe<F> {
    fn step(&mut self, mark: &mut dyn FnMut()) -> Result<(), Error> {
        let train = &self.config.train;
        let batch = self.settings.batch(&self.data, train.data_seed, train.batch, self.step)?;
        self.step += 1;
        let model = self.model.take().expect("put back after every step");
        let mut idle = |device: &Device| {
            device.sync().expect("the device works");
            mark();
        };
        idle(&self.device);
        let loss = F::loss(&model, &batch, (0, F::rows(&batch)), &self.device.clone().autodiff(), None).total;
        idle(&self.device);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        idle(&self.device);
        let (grads, _) = self.optimizer.clip(&model, grads);
        idle(&self.device);
        self.model = Some(self.optimizer.apply(0.1, model, grads));
        idle(&self.device);
        Ok(())
    }

    fn tokens(&self) -> f64 {
        self.config.tokens_per_step() as f64
    }

    fn flop(&self) -> f64 {
        self.flop
    }

    fn parameters(&self) -> usize {
        self.optimizer.plan().parameters()
    }
}
