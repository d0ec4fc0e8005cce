//! Both factors trained and averaged apart, for the task `federation`.

use burn::tensor::Tensor;

use super::super::problem::Finding;
use super::problem::{Client, Course, Federation, LOCAL, LR, Pair, ROUNDS, mean, norm};

/// Both factors trained by gradient descent and averaged apart, from the same start.
pub(super) fn findings(federation: &Federation, course: &Course) -> [Finding; 2] {
    let mut pair = federation.start.clone();
    let (mut largest, mut unexplained) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        let pairs: Vec<Pair> = federation.clients.iter().map(|client| client.trained_both(pair.clone())).collect();
        let each = |of: fn(&Pair) -> Tensor<2>| mean(&pairs.iter().map(of).collect::<Vec<_>>());
        let (b, a, product) = (each(|pair| pair.b.clone()), each(|pair| pair.a.clone()), each(Pair::product));
        let deviations = |pair: &Pair| (pair.b.clone() - b.clone()).matmul(pair.a.clone() - a.clone());
        let covariance = mean(&pairs.iter().map(deviations).collect::<Vec<_>>());
        pair = Pair { b: b.clone(), a: a.clone() };
        let missing = product.clone() - pair.product();
        largest = largest.max(norm(&missing) / norm(&product));
        unexplained = unexplained.max(norm(&(missing - covariance)) / norm(&product));
    }
    let loss = |product: Tensor<2>| 0.5 * norm(&(product - federation.target.clone())).powi(2);
    let losses = format!("{:.4}, {:.4}", loss(course.last()), loss(pair.product()));
    let measured = format!("{:.2} %, {unexplained:.1e}", 100.0 * largest);
    let holds = largest > 1e-3 && unexplained < 1e-14;
    [
        Finding::judged(
            "both factors averaged: error of the product, and what of it their covariance leaves open",
            measured,
            "above 0.1 %, at most 1e-14",
            holds,
        ),
        Finding::shown(
            "distance from the mean target, ½ ‖B A - D̄‖²: only B, both factors",
            losses,
            "B alone stays in the space of the first A",
        ),
    ]
}

impl Client {
    fn trained_both(&self, mut pair: Pair) -> Pair {
        for _ in 0..LOCAL {
            let gradient = self.gradient(pair.product());
            let by_b = gradient.clone().matmul(pair.a.clone().transpose());
            let by_a = pair.b.clone().transpose().matmul(gradient);
            pair = Pair { b: pair.b - by_b * LR, a: pair.a - by_a * LR };
        }
        pair
    }
}
