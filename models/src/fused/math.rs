//! Functions of 32-bit floats that compilers turn into vector code: no branches, no tables, no calls. Those of the standard
//! library are exact to the last bit but scalar, and took a fifth of a training step.

/// Partial results of sums and maxima, so that one vector instruction updates all of them.
pub(super) const LANES: usize = 16;

/// `e^x` with a relative error below 2e-7; x is clamped to [-87, 88].
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to a whole number and leaves it in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = clamp(x, -87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let r = whole.mul_add(-LN2_LOW, whole.mul_add(-LN2_HIGH, x));
    // Minimax polynomial of the Cephes library for |r| <= ln(2) / 2.
    let p = polynomial(r, [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_58e-2, 1.666_666_6e-1, 5e-1]);
    let p = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    p * power
}

/// Error function, absolute error below 5e-7.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    // Rational minimax approximation of odd numerator and even denominator (Eigen's); erf(4) is 1 in 32 bits.
    let x = clamp(x, -4.0, 4.0);
    let s = x * x;
    let p = polynomial(
        s,
        [
            -2.726_142_3e-10,
            2.770_681_5e-8,
            -2.101_024e-6,
            -5.692_506_3e-5,
            -7.349_906_5e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let q = polynomial(s, [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2]);
    x * p / q
}

/// The polynomial with these coefficients, highest power first. `mul_add` is one instruction where `run` compiles for this
/// processor, and rounds the same everywhere.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut value = coefficients[0];
    for coefficient in &coefficients[1..] {
        value = value.mul_add(x, *coefficient);
    }
    value
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Not `f32::clamp`, whose treatment of NaN keeps it from becoming two vector instructions.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Sum of `term` over `values`, in an order that depends only on the length.
#[inline(always)]
pub(super) fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += term(chunk[lane]);
        }
    }
    across(lanes, |a, b| a + b) + rest.iter().map(|value| term(*value)).sum::<f32>()
}

/// The same over pairs from two slices of the same length.
#[inline(always)]
pub(super) fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    across(lanes, |a, b| a + b) + a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b)).sum::<f32>()
}

/// Replaces every value and returns the sum of the new ones, in the same order as [`sum`].
#[inline(always)]
pub(super) fn replace_and_sum(values: &mut [f32], new: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = new(chunk[lane]);
            lanes[lane] += chunk[lane];
        }
    }
    let mut total = 0.0;
    for value in rest {
        *value = new(*value);
        total += *value;
    }
    across(lanes, |a, b| a + b) + total
}

/// Largest of `values`; minus infinity if there are none.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    rest.iter().copied().fold(across(lanes, larger), larger)
}

/// Joins all lanes, by halves: one after the other, each would wait for the one before it, which on short rows is most of the
/// time.
#[inline(always)]
fn across(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_parts_in_ten_million() {
        for i in -8700..=8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2e-7, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exp_stays_finite_beyond_its_range() {
        assert!(exp(1e30).is_finite() && exp(1e30) > 1e38);
        assert!(exp(-1e30) >= 0.0 && exp(-1e30) < 2e-38);
        assert!(exp(f32::NAN).is_nan(), "a diverged run must not be hidden");
    }

    // Values of the error function to ten digits (Abramowitz and Stegun, table 7.1, and its oddness).
    #[test]
    fn erf_is_right_to_five_parts_in_ten_million() {
        for (x, exact) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_0),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (1.5, 0.966_105_146_5),
            (2.0, 0.995_322_265_0),
            (3.0, 0.999_977_909_5),
            (5.0, 1.0),
        ] {
            for (x, exact) in [(x, exact), (-x, -exact)] {
                assert!((f64::from(erf(x)) - exact).abs() < 5e-7, "{x}: {}", erf(x));
            }
        }
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_every_value_once() {
        for length in [0i32, 1, 15, 16, 17, 40] {
            let values: Vec<f32> = (0..length).map(|i| i as f32).collect();
            // Whole numbers below 2^24 add up without rounding.
            let total = (length * (length - 1).max(0) / 2) as f32;
            assert_eq!(sum(&values, |value| value), total);
            assert_eq!(sum_pairs(&values, &values, |a, b| 2.0 * a - b), total);
            let mut doubled = values.clone();
            assert_eq!(replace_and_sum(&mut doubled, |value| 2.0 * value), 2.0 * values.iter().sum::<f32>());
            assert!(values.iter().zip(doubled).all(|(value, doubled)| 2.0 * value == doubled));
            assert_eq!(max(&values), if length == 0 { f32::NEG_INFINITY } else { length as f32 - 1.0 });
        }
    }
}
