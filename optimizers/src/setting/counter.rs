//! The one random number generator of this crate.

/// One output of the SplitMix64 generator whose state is `z`: a number decided by a counter, which other
/// programs can repeat.
///
/// ```
/// assert_eq!(polaron::splitmix64(0), 0xE220_A839_7B1D_CDAF);
/// ```
pub fn splitmix64(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::splitmix64;
    use burn::tensor::{DType, Device, Tensor, TensorData};

    /// Numbers in [-1, 1) that `seed` alone decides. The generator of a device does not: all threads of the test binary
    /// share it, and it begins with entropy.
    pub(crate) fn numbers<const D: usize>(shape: [usize; D], seed: u64, dtype: DType) -> Tensor<D> {
        let number = |i| (splitmix64(seed << 32 | i) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(number).collect();
        Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (&Device::flex(), dtype))
    }
}
