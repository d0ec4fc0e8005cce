//! Repeatable numbers for tests.

use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron_common::splitmix64;

/// Numbers in [-1, 1) that depend only on `seed`. Those of the generator of a device do not: all threads of the test binary
/// share it, and it is seeded with entropy.
pub(crate) fn numbers<const D: usize>(shape: [usize; D], seed: u64, dtype: DType) -> Tensor<D> {
    let number = |i| (splitmix64(seed << 32 | i) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(number).collect();
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (&Device::flex(), dtype))
}
