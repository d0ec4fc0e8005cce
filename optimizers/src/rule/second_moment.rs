//! Averages of squares for numbers of any size.
//!
//! f32 holds the squares of numbers from 1e-19 to 1e19 only. Outside of that an entry of a second moment v is stored as
//! the negative of its root, `-√v`: a spike of 1e30 would otherwise become infinite and freeze its entry forever. Between
//! 2^-120 and 2^100, and in f64, v is stored as it is.

use burn::tensor::{DType, Tensor};

use crate::matrix::hypotenuse;

const LOW: f32 = 1.0 / (1_u128 << 120) as f32;
const HIGH: f32 = (1_u128 << 100) as f32;

/// Powers of two, which do not round, that scale the squares of large numbers into the range of f32 and their roots back.
const DOWN: f64 = 1.0 / (1_u128 << 65) as f64;
const UP: f64 = (1_u128 << 65) as f64;

/// The average of squares with decay β.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecondMoment {
    beta: f64,
    /// Smallest v other than 0 that is stored as it is.
    low: f32,
    /// Whether x can be so large that v is not stored as it is.
    unbounded: bool,
}

impl SecondMoment {
    /// For a rule that adds `eps` to the root: if `eps` is much larger than 1e-18, small v need not be stored as roots.
    pub fn new(beta: f64, eps: f64) -> Self {
        Self { beta, low: if eps >= 1e-10 { 0.0 } else { LOW }, unbounded: true }
    }

    /// The same for numbers that are never large.
    pub fn of_small_numbers(beta: f64, eps: f64) -> Self {
        Self { unbounded: false, ..Self::new(beta, eps) }
    }

    /// Whether every v is stored as it is.
    fn always_plain(&self, dtype: DType) -> bool {
        dtype != DType::F32 || (self.low == 0.0 && !self.unbounded)
    }

    /// `β old + (1-β) x²`
    pub fn advance<const D: usize>(&self, old: Option<Tensor<D>>, x: Tensor<D>) -> Tensor<D> {
        let fresh = x.clone().square() * (1.0 - self.beta);
        let plain = self.always_plain(fresh.dtype());
        if !plain && self.low == 0.0 {
            return self.advance_large(old, x, fresh);
        }
        let second = match old.clone() {
            Some(old) => old * self.beta + fresh,
            None => fresh,
        };
        if plain {
            return second;
        }
        let new_root = x.abs() * (1.0 - self.beta).sqrt();
        let (second, root) = match old {
            Some(old) => {
                let rooted = old.clone().lower_scalar(0.0);
                let old_root = old.clone().clamp_min(0.0).sqrt().max_pair(-old) * self.beta.sqrt();
                let root = hypotenuse(old_root, new_root);
                (second.mask_where(rooted, root.clone().square()), root)
            }
            None => (second, new_root),
        };
        let outside = second.clone().greater_scalar(HIGH).bool_or(second.clone().lower_scalar(self.low));
        let outside = outside.bool_and(root.clone().greater_scalar(0.0));
        second.mask_where(outside, -root)
    }

    /// The same if only large v are stored as roots: with fewer launches, each of which costs time on a GPU.
    fn advance_large<const D: usize>(&self, old: Option<Tensor<D>>, x: Tensor<D>, fresh: Tensor<D>) -> Tensor<D> {
        let new = (x * ((1.0 - self.beta).sqrt() * DOWN)).square();
        let (plain, squares) = match old {
            Some(old) => {
                let rooted = old.clone().lower_scalar(0.0);
                let root = old.clone().sqrt().mask_where(rooted.clone(), old.clone()) * self.beta.sqrt();
                // If it is no longer large, the square of the decayed old root fits.
                let back = root.clone().square() + fresh.clone();
                ((old * self.beta + fresh).mask_where(rooted, back), (root * DOWN).square() + new)
            }
            None => (fresh, new),
        };
        let negative_root = squares.sqrt() * -UP;
        let large = negative_root.clone().lower_scalar(-HIGH.sqrt());
        plain.mask_where(large, negative_root)
    }

    /// `√(factor v)`
    pub fn root<const D: usize>(&self, second: Tensor<D>, factor: f64) -> Tensor<D> {
        let plain = (second.clone() * factor).sqrt();
        if self.always_plain(plain.dtype()) {
            return plain;
        }
        let rooted = second.clone().lower_scalar(0.0);
        plain.mask_where(rooted, second * -factor.sqrt())
    }

    /// The constants of a step in place.
    pub fn in_place(&self, debias: f64) -> InPlace {
        InPlace {
            beta: self.beta as f32,
            new: (1.0 - self.beta) as f32,
            roots: [self.beta.sqrt() as f32, (1.0 - self.beta).sqrt() as f32, debias.sqrt() as f32],
            down: ((1.0 - self.beta).sqrt() * DOWN) as f32,
            debias: debias as f32,
            low: self.low,
        }
    }
}

/// The same for one entry, with bit-identical results.
#[derive(Clone, Copy)]
pub(crate) struct InPlace {
    beta: f32,
    new: f32,
    /// Of β, 1-β and the factor of v.
    roots: [f32; 3],
    /// The root of 1-β, for large numbers.
    down: f32,
    debias: f32,
    low: f32,
}

impl InPlace {
    /// v after a gradient, if it is stored as it is before and after.
    #[inline(always)]
    pub fn plain(&self, v: f32, g: f32) -> f32 {
        v * self.beta + g * g * self.new
    }

    /// `√(factor v)`, if v is stored as it is.
    #[inline(always)]
    pub fn plain_root(&self, v: f32) -> f32 {
        (v * self.debias).sqrt()
    }

    /// Whether [`InPlace::plain`] is valid for all entries.
    #[inline(always)]
    pub fn all_plain(&self, second: &[f32], gradient: &[f32]) -> bool {
        let mut plain = true;
        for (v, g) in second.iter().zip(gradient) {
            let new = self.plain(*v, *g);
            plain &= (*v >= 0.0) & (new <= HIGH) & ((new >= self.low) | ((new == 0.0) & (*g == 0.0)));
        }
        plain
    }

    /// v after a gradient.
    pub fn any(&self, v: f32, g: f32) -> f32 {
        let plain = self.plain(v, g);
        if self.low == 0.0 {
            let old = if v < 0.0 { v } else { v.sqrt() } * self.roots[0];
            let second = if v < 0.0 { old * old + g * g * self.new } else { plain };
            let (down, new) = (old * DOWN as f32, g * self.down);
            let root = (down * down + new * new).sqrt() * UP as f32;
            return if -root < -HIGH.sqrt() { -root } else { second };
        }
        let old_root = if v < 0.0 { -v } else { v.sqrt() } * self.roots[0];
        let (high, low) = (old_root.max(g.abs() * self.roots[1]), old_root.min(g.abs() * self.roots[1]));
        let ratio = low / if high == 0.0 { 1.0 } else { high };
        let root = high * (ratio * ratio + 1.0).sqrt();
        let second = if v < 0.0 { root * root } else { plain };
        if (second > HIGH || second < self.low) && root > 0.0 { -root } else { second }
    }

    /// `√(factor v)`
    pub fn any_root(&self, v: f32) -> f32 {
        if v < 0.0 { v * -self.roots[2] } else { self.plain_root(v) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Roots after every step, in f32 through the stored form and in f64.
    fn roots(moment: SecondMoment, gradients: &[f64]) -> Vec<(f64, f64)> {
        let (mut stored, mut exact) = (None, 0.0_f64);
        gradients
            .iter()
            .map(|g| {
                let second = moment.advance(stored.take(), Tensor::<1>::from_floats([*g], &Device::flex()));
                stored = Some(second.clone());
                exact = moment.beta * exact + (1.0 - moment.beta) * g * g;
                (moment.root(second, 2.0).into_scalar::<f64>(), (2.0 * exact).sqrt())
            })
            .collect()
    }

    #[test]
    fn roots_of_gradients_of_any_size_are_those_of_f64() {
        let moment = SecondMoment::new(0.9, 0.0);
        for scale in [1e-37, 1e-30, 1e-12, 1.0, 1e12, 1e30, 1e37] {
            for (got, want) in roots(moment, &[scale, -0.5 * scale, 0.0, scale]) {
                assert!((got / want - 1.0).abs() < 1e-6, "{scale}: {got} instead of {want}");
            }
        }
        // through the range and back
        let mut wild = vec![1e-30, 1e-3, 1e30, 0.0, 1e-30, 1e20];
        wild.extend([0.0; 300]);
        for (step, (got, want)) in roots(moment, &wild).into_iter().enumerate() {
            // 300 roundings
            assert!((got / want - 1.0).abs() < 1e-4, "step {step}: {got} instead of {want}");
        }
    }

    #[test]
    fn moments_of_ordinary_gradients_and_of_none_are_stored_as_they_are() {
        let moment = SecondMoment::new(0.999, 0.0);
        for g in [0.0_f32, 1e-15, 1.0, 1e15] {
            let second = moment.advance(None, Tensor::<1>::from_floats([g], &Device::flex()));
            assert_eq!(second.into_scalar::<f32>(), g * g * (1.0 - 0.999_f64) as f32);
        }
    }
}
