//! What an orthonormal A does to gradients that are clipped and to noise on the factors, for the task `federation`.

use burn::tensor::Tensor;

use super::super::problem::{Finding, gaussian, values};
use super::problem::{
    CLIENTS, Client, Course, Federation, INPUTS, LOCAL, LR, OUTPUTS, Pair, RANK, ROUNDS, SAMPLES, mean, norm,
};

/// Noise on the sum of clipped gradients, as a multiple of the threshold.
const SIGMA: f64 = 0.5;
/// Standard deviation of noise on factors.
const ON_FACTORS: f64 = 0.1;

pub(super) fn findings(federation: &Federation, course: &Course, quick: bool) -> Vec<Finding> {
    let draws = if quick { 10 } else { 40 };
    let trained = &course.pairs[ROUNDS - 1];
    // The usual first A: the size of an input stays on average.
    let device = trained.a.device();
    let plain =
        Pair { a: gaussian([RANK, INPUTS], (RANK as f64).sqrt().recip(), 5, &device), ..federation.start.clone() };
    let [orthonormal, normal] = [&federation.start, &plain].map(|pair| Examples::of(federation, pair));
    let (bound, above) = (orthonormal.largest_ratio(), normal.largest_ratio());
    let threshold = median(orthonormal.whole.clone());
    let shares = [&orthonormal, &normal].map(|examples| 100.0 * examples.share_above(threshold));
    let (ratio, clipped) = private_noise(federation, course, draws);
    let count = (draws * OUTPUTS * RANK) as f64;
    let factors = noise_on_factors(trained, draws);
    // Four standard errors of a mean of squares of normal numbers.
    let tolerance = 4.0 * (2.0 / count).sqrt();
    let near = |ratio: f64| (ratio - 1.0).abs() < tolerance;
    let around = format!("1 ± {tolerance:.2}");
    vec![
        Finding::judged(
            "largest gradient of B over that of the product, of all examples: A orthonormal, normal",
            format!("{bound:.3}, {above:.3}"),
            "at most 1, above 1",
            bound <= 1.0 + 1e-12 && above > 1.0,
        ),
        Finding::judged(
            "examples clipped at the median gradient of the product: A orthonormal, normal",
            format!("{:.1} %, {:.1} %", shares[0], shares[1]),
            "fewer with A orthonormal",
            shares[0] < shares[1],
        ),
        Finding::judged(
            "private steps: mean square noise in the product over its prediction; clipped examples",
            format!("{ratio:.3}; {clipped}"),
            format!("{around}; 0"),
            near(ratio) && clipped == 0,
        ),
        Finding::judged(
            format!("noise of {ON_FACTORS} on B alone, on both factors: mean square over its prediction"),
            format!("{:.3}, {:.3}", factors.of_b, factors.of_both),
            &around,
            near(factors.of_b) && near(factors.of_both),
        ),
        Finding::shown(
            "the same: noise of both over that of B, and the quadratic part of it",
            format!("{:.1}, {:.1}", factors.times, factors.quadratic),
            "",
        ),
    ]
}

/// Norms of gradients, one for every example of every client.
struct Examples {
    whole: Vec<f64>,
    of_b: Vec<f64>,
}

impl Examples {
    fn of(federation: &Federation, pair: &Pair) -> Self {
        let norms = federation.clients.iter().map(|client| client.norms(pair));
        let (whole, of_b): (Vec<_>, Vec<_>) = norms.map(|[whole, of_b]| (values(&whole), values(&of_b))).unzip();
        Self { whole: whole.concat(), of_b: of_b.concat() }
    }

    fn largest_ratio(&self) -> f64 {
        self.of_b.iter().zip(&self.whole).map(|(of_b, whole)| of_b / whole).fold(0.0, f64::max)
    }

    fn share_above(&self, threshold: f64) -> f64 {
        self.of_b.iter().filter(|norm| **norm > threshold).count() as f64 / self.of_b.len() as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Client {
    /// The norms of the gradients of every example, `[1, samples]`: of the product, `‖e‖ ‖x‖`, and of B, `‖e‖ ‖A x‖`.
    fn norms(&self, pair: &Pair) -> [Tensor<2>; 2] {
        let length = |columns: Tensor<2>| columns.square().sum_dim(0).sqrt();
        let errors = length(self.errors(pair.product()));
        let inside = pair.a.clone().matmul(self.inputs.clone());
        [self.inputs.clone(), inside].map(|inputs| errors.clone() * length(inputs))
    }

    /// A step on B by the sum of the examples' gradients, each clipped, with this noise; and how many were clipped.
    fn private_step(&self, pair: Pair, threshold: f64, noise: Tensor<2>) -> (Pair, usize) {
        let [_, norms] = self.norms(&pair);
        let clipped = values(&norms).iter().filter(|norm| **norm > threshold).count();
        let factors = (norms / threshold).clamp_min(1.0).recip();
        let inside = pair.a.clone().matmul(self.inputs.clone());
        let sum = (self.errors(pair.product()) * factors).matmul(inside.transpose());
        let gradient = (sum + noise * (SIGMA * threshold)) / SAMPLES as f64;
        (Pair { b: pair.b - gradient * LR, ..pair }, clipped)
    }
}

/// Private rounds with a threshold above every gradient, so that their noise is known: the mean square difference from the
/// rounds without noise over its prediction, and the number of clipped examples.
fn private_noise(federation: &Federation, course: &Course, draws: usize) -> (f64, usize) {
    let device = federation.start.a.device();
    let pairs = || std::iter::once(&federation.start).chain(&course.pairs);
    let largest = |pair: &Pair| Examples::of(federation, pair).of_b.into_iter().fold(0.0, f64::max);
    let threshold = 2.0 * pairs().map(largest).fold(0.0, f64::max);
    let (mut seed, mut squares, mut clipped) = (1000, 0.0, 0);
    for _ in 0..draws {
        let mut pair = federation.start.clone();
        for _ in 0..ROUNDS {
            let local = |client: &Client| {
                let mut own = pair.clone();
                for _ in 0..LOCAL {
                    seed += 1;
                    let some;
                    (own, some) = client.private_step(own, threshold, gaussian([OUTPUTS, RANK], 1.0, seed, &device));
                    clipped += some;
                }
                own.b
            };
            let factors: Vec<Tensor<2>> = federation.clients.iter().map(local).collect();
            pair = Pair { b: mean(&factors), ..pair }.refactored();
        }
        squares += norm(&(pair.product() - course.last())).powi(2);
    }
    // Every step adds noise and leaves 1 - η of the older one; the mean of the clients divides its variance.
    let (fresh, left) = (LR * SIGMA * threshold / SAMPLES as f64, (1.0_f64 - LR).powi(2));
    let variance = fresh.powi(2) / CLIENTS as f64 * (1.0 - left.powi((ROUNDS * LOCAL) as i32)) / (1.0 - left);
    (squares / (draws * OUTPUTS * RANK) as f64 / variance, clipped)
}

/// Mean square noise in a product whose factors are disturbed.
struct OnFactors {
    /// Over its prediction.
    of_b: f64,
    of_both: f64,
    /// Noise on both over noise on B alone.
    times: f64,
    /// The part of it that is quadratic in the noise.
    quadratic: f64,
}

fn noise_on_factors(pair: &Pair, draws: usize) -> OnFactors {
    let device = pair.a.device();
    let (mut of_b, mut of_both) = (0.0, 0.0);
    for draw in 0..draws as u64 {
        let noise = |shape, seed| gaussian(shape, ON_FACTORS, 2 * draw + seed, &device);
        let b = pair.b.clone() + noise([OUTPUTS, RANK], 900_000);
        let a = pair.a.clone() + noise([RANK, INPUTS], 900_001);
        let square = |product: Tensor<2>| norm(&(product - pair.product())).powi(2) / draws as f64;
        of_b += square(b.clone().matmul(pair.a.clone()));
        of_both += square(b.matmul(a));
    }
    let variance = ON_FACTORS.powi(2);
    let by_b = variance * (RANK * OUTPUTS) as f64;
    let by_a = variance * norm(&pair.b).powi(2) * INPUTS as f64;
    let quadratic = variance.powi(2) * (RANK * INPUTS * OUTPUTS) as f64;
    OnFactors {
        of_b: of_b / by_b,
        of_both: of_both / (by_b + by_a + quadratic),
        times: of_both / of_b,
        quadratic: quadratic / by_b,
    }
}
