//! Is a Gram matrix of rows in a given order circulant, as that of days or months on a circle (arXiv 2605.12756)?

use polaron_common::splitmix64;

/// How far a Gram matrix is from a circulant one, in the given order and in others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Circle {
    /// `‖K - circ(K)‖ / ‖K‖`, where circ averages along the cyclic diagonals: 0 for a circulant matrix, below 1. `None` for a zero
    /// matrix.
    pub defect: Option<f64>,
    /// The share of [`ORDERS`](Self::ORDERS) random orders with a smaller one: about 0.5 if the order means nothing.
    pub smaller: f64,
}

impl Circle {
    /// Random orders that are compared with the given one, the same in every call.
    pub const ORDERS: usize = 1000;

    /// The circle of a symmetric matrix of `size` rows.
    ///
    /// ```
    /// use polaron_verify::inspect::Circle;
    ///
    /// let circle = Circle::of(&[2.0, 1.0, 0.0, 1.0, 1.0, 2.0, 1.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 2.0], 4);
    /// assert_eq!((circle.defect, circle.smaller), (Some(0.0), 0.0));
    /// ```
    ///
    /// # Panics
    /// If the matrix does not have `size²` entries.
    pub fn of(matrix: &[f64], size: usize) -> Self {
        assert_eq!(matrix.len(), size * size, "a square matrix");
        let given: Vec<usize> = (0..size).collect();
        let defect = defect(matrix, &given);
        // Orders that are the same circle differ by rounding.
        let smaller = defect.map_or(0, |given| {
            let limit = given - 1e-9;
            (0..Self::ORDERS)
                .filter(|draw| self::defect(matrix, &shuffled(size, *draw)).is_some_and(|d| d < limit))
                .count()
        });
        Self { defect, smaller: smaller as f64 / Self::ORDERS as f64 }
    }
}

/// The defect of the matrix with rows and columns in this order.
fn defect(matrix: &[f64], order: &[usize]) -> Option<f64> {
    let size = order.len();
    let entry = |i: usize, j: usize| matrix[order[i] * size + order[j]];
    let total: f64 = matrix.iter().map(|entry| entry * entry).sum();
    let apart = |diagonal: usize| {
        let entries = (0..size).map(|i| entry(i, (i + diagonal) % size));
        let mean = entries.clone().sum::<f64>() / size as f64;
        entries.map(|entry| (entry - mean).powi(2)).sum::<f64>()
    };
    (total > 0.0).then(|| ((0..size).map(apart).sum::<f64>() / total).sqrt())
}

/// 0 to `size - 1`, shuffled by counter-based draws.
fn shuffled(size: usize, draw: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..size).collect();
    for i in (1..size).rev() {
        order.swap(i, (splitmix64((draw * size + i) as u64) % (i as u64 + 1)) as usize);
    }
    order
}

/// The inner products of the rows, minus their mean if they are to be `centred`: `[rows, rows]`, row by row. What all rows share is
/// circulant in every order, and may hide the rest.
pub fn gram(rows: &[Vec<f64>], centred: bool) -> Vec<f64> {
    let width = rows.first().map_or(0, Vec::len);
    let mean = |k: usize| if centred { rows.iter().map(|row| row[k]).sum::<f64>() / rows.len() as f64 } else { 0.0 };
    let means: Vec<f64> = (0..width).map(mean).collect();
    let product = |a: &[f64], b: &[f64]| (0..width).map(|k| (a[k] - means[k]) * (b[k] - means[k])).sum();
    rows.iter().flat_map(|a| rows.iter().map(|b| product(a, b)).collect::<Vec<f64>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// Points of a circle, with a part that all share, in this order.
    fn circle(order: &[usize]) -> Vec<Vec<f64>> {
        let angle = |place: usize| TAU * place as f64 / order.len() as f64;
        order.iter().map(|place| vec![angle(*place).cos(), angle(*place).sin(), 3.0]).collect()
    }

    #[test]
    fn points_on_a_circle_are_circulant_in_their_order_and_in_no_other() {
        for centred in [false, true] {
            let found = Circle::of(&gram(&circle(&[0, 1, 2, 3, 4, 5, 6]), centred), 7);
            assert!(found.defect.unwrap() < 1e-12 && found.smaller == 0.0, "{found:?}");
            let mixed = Circle::of(&gram(&circle(&[0, 2, 1, 5, 4, 3, 6]), centred), 7);
            let share = if centred { 0.3 } else { 0.03 };
            assert!(mixed.defect.unwrap() > share && mixed.smaller > 0.02, "{mixed:?}");
        }
    }

    /// Rows of independent numbers, with a part that all share.
    fn rows(count: usize) -> Vec<Vec<f64>> {
        let entry = |i: usize, k: usize| 3.0 + (splitmix64((100 * i + k) as u64) >> 11) as f64 / (1_u64 << 53) as f64;
        (0..count).map(|i| (0..5).map(|k| entry(i, k)).collect()).collect()
    }

    #[test]
    fn the_mean_of_the_rows_does_not_change_which_orders_are_nearer_to_a_circle() {
        for count in [5, 6, 7, 8, 12] {
            let [raw, centred] = [false, true].map(|centred| Circle::of(&gram(&rows(count), centred), count));
            assert!(raw.defect.unwrap() < 0.1 * centred.defect.unwrap(), "{raw:?} {centred:?}");
            assert!(raw.smaller > 0.0 && raw.smaller == centred.smaller, "{raw:?} {centred:?}");
        }
    }

    #[test]
    fn orders_in_steps_without_a_common_divisor_have_the_same_defect() {
        for (count, step) in [(7, 2), (7, 3), (12, 5), (8, 3)] {
            let matrix = gram(&rows(count), true);
            let given: Vec<usize> = (0..count).collect();
            let stepped: Vec<usize> = (0..count).map(|k| step * k % count).collect();
            let (a, b) = (defect(&matrix, &given).unwrap(), defect(&matrix, &stepped).unwrap());
            assert!((a - b).abs() < 1e-12, "{count} {step}: {a} {b}");
            let mut other = given;
            other.swap(0, 1);
            assert!((defect(&matrix, &other).unwrap() - a).abs() > 1e-3, "{count}");
        }
    }

    #[test]
    fn the_defect_is_the_share_outside_of_the_cyclic_diagonals() {
        // diag(1, 2, 3): the mean diagonal is 2, the rest (1, 0, 1) of (1, 4, 9).
        let found = Circle::of(&[1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0], 3);
        assert!((found.defect.unwrap() - (2.0_f64 / 14.0).sqrt()).abs() < 1e-12, "{found:?}");
        assert_eq!(found.smaller, 0.0, "every order of a diagonal is the same");
        assert_eq!(Circle::of(&[0.0; 9], 3), Circle { defect: None, smaller: 0.0 });
    }
}
