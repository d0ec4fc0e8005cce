//! The random generator of the project: weights, batches and samples are computed from a counter.

/// The output of the SplitMix64 generator for the state `z`: a number that depends only on a counter, so that other
/// programs can reproduce it.
///
/// ```
/// assert_eq!(polaron_common::splitmix64(0), 0xE220_A839_7B1D_CDAF);
/// ```
pub fn splitmix64(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::splitmix64;

    #[test]
    fn the_generator_returns_its_published_outputs() {
        assert_eq!(splitmix64(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
        assert_eq!(splitmix64(u64::MAX), 0xE4D9_7177_1B65_2C20);
    }
}
