//! Benches of polaron, and in `peers/` the same work in other programs. The README of this folder lists the commands.
//!
//! This library holds what several benches need: matrix products to compare with, training steps cut into their
//! phases, tables.

use std::time::Instant;

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron::LayerwiseOptimizer;
use polaron_common::{Align, markdown_table, splitmix64};
use polaron_datasets::{ImageData, TextData};
use polaron_train::Error;
use polaron_train::config::Config;
use polaron_train::network::{Network, NetworkConfig};
use polaron_train::recipe::{self, Choices};
use polaron_train::train::build_optimizer;

/// That of the program. It gives memory back after a second unless told otherwise (`MIMALLOC_PURGE_DELAY=-1`), which the
/// program does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether the command line asks for the short form of a bench.
pub fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// The names on the command line: only what contains one of them is run, everything if there is none.
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

/// The middle of some numbers; NaN without any.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Floating-point operations per second of the product of two `[side, side]` matrices, the median of nine.
pub fn gemm_rate(side: usize, device: &Device) -> f64 {
    let [x, y] = [(); 2].map(|()| random([side, side], DType::F32, device));
    let seconds = || {
        let start = Instant::now();
        // Reading the result waits for it.
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

/// A preset in training: one step after another on the batches of its recipe.
pub trait Training {
    /// Runs a step and calls `mark` at its beginning and when forward, backward, clip and optimizer are done, each time
    /// with an idle device.
    ///
    /// # Errors
    ///
    /// Data without such a batch.
    fn step(&mut self, mark: &mut dyn FnMut()) -> Result<(), Error>;

    /// Tokens or images of one step.
    fn tokens(&self) -> f64;

    /// Floating-point operations of forward and backward, counted from the sizes of the model.
    fn flop(&self) -> f64;

    /// Number of parameters.
    fn parameters(&self) -> usize;
}

struct Recipe<N: Network> {
    config: Config,
    data: N::Data,
    device: Device,
    /// Taken while a step updates it.
    model: Option<N>,
    optimizer: LayerwiseOptimizer,
    step: u64,
    flop: f64,
}

/// A preset with the recipe of `polaron train`, under an optimizer stack; `rows` replaces the number of rows of a batch.
///
/// # Errors
///
/// Names that do not exist, data that cannot be read.
pub fn training(preset: &str, stack: &str, rows: Option<usize>, device: &Device) -> Result<Box<dyn Training>, Error> {
    let choices = Choices { preset: Some(preset.into()), stack: Some(stack.into()), ..Choices::default() };
    let mut config = recipe::defaults(&choices)?;
    config.train.batch = rows.unwrap_or(config.train.batch);
    let (batch, seed, source) = (config.train.batch, config.train.seed, config.data.clone());
    match config.model.clone() {
        NetworkConfig::Decoder(decoder) => {
            let data = TextData::load(&source.source, source.tokenizer, source.valid_fraction)?;
            let vocab = data.tokenizer.vocab_size();
            let model = decoder.init(vocab, seed, &device.clone().autodiff())?;
            Recipe::boxed(config, data, device, model, decoder.flops_per_step(vocab, batch))
        }
        NetworkConfig::Mlp(mlp) => {
            let data = ImageData::load(&source.source, source.valid_fraction)?;
            let (features, classes) = (data.train.features, data.classes);
            let model = mlp.init(features, classes, seed, &device.clone().autodiff())?;
            Recipe::boxed(config, data, device, model, mlp.flops_per_step(features, classes, batch))
        }
    }
}

impl<N: Network + 'static> Recipe<N>
where
    N::Data: 'static,
{
    fn boxed(config: Config, data: N::Data, device: &Device, model: N, flop: f64) -> Result<Box<dyn Training>, Error> {
        let optimizer = build_optimizer(&config, &model)?;
        Ok(Box::new(Self { config, data, device: device.clone(), model: Some(model), optimizer, step: 0, flop }))
    }
}

impl<N: Network> Training for Recipe<N> {
    fn step(&mut self, mark: &mut dyn FnMut()) -> Result<(), Error> {
        let batch = N::batch(&self.data, &self.config, self.step)?;
        self.step += 1;
        let model = self.model.take().expect("put back after every step");
        let mut idle = |device: &Device| {
            device.sync().expect("the device works");
            mark();
        };
        idle(&self.device);
        let loss = model.loss(&batch, (0, N::rows(&batch)), &self.device.clone().autodiff()).total;
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
