//! Eight clients that train an adapter together, with re-factorisation (FedSVD, arXiv 2505.12805; problem and constants ours).
//!
//! Client i has inputs X with `X Xᵀ / n = I` and targets `D_i X`, so that its loss is `½ ‖B A - D_i‖²`, B `[outputs, r]` and A
//! `[r, inputs]`. In a round every client takes K steps on its B, the server takes the mean, and `B A = U S Vᵀ` becomes `B = U S`,
//! `A = Vᵀ`. What follows exactly:
//!
//! * A is common, so the product of the mean B is the mean of the products. Where both factors are trained and averaged, it
//!   is not: what is missing is the covariance of the factors.
//! * With orthonormal A and gradient descent of rate η, the product is `(1 - η)^(K t)` of the first distance away from its optimum
//!   `D̄ AᵀA` after t rounds, D̄ the mean of all `D_i`.
//! * The rows of the new A span what those of the old one did. Gradient descent does not see which basis of that space it has:
//!   its products are those of a fixed orthonormal A. AdamW's are others.
//! * A gradient `G Aᵀ` of B is not larger than G, for every example, so that fewer are clipped; and noise on B alone is as large in
//!   the product as in B, while noise on both factors has a part that is quadratic in it.

mod both;
mod noise;
mod problem;

use problem::{Federation, LR, apart};

use super::problem::{Finding, SGD, Setting, TaskError, config};

pub(in crate::tasks) fn run(setting: &Setting<'_>) -> Result<Vec<Finding>, TaskError> {
    let federation = Federation::new(setting.device);
    let course = federation.train(&config(SGD), LR, true)?;
    let fixed = federation.train(&config(SGD), LR, false)?;
    let adamw = config(r#"{"kind": "adamw"}"#);
    let turned = apart(&federation.train(&adamw, 0.1, true)?.last(), &federation.train(&adamw, 0.1, false)?.last());
    let same = apart(&course.last(), &fixed.last());
    let mut findings = vec![
        within("product of the mean B, off the mean of the clients' products", course.aggregation, 1e-14),
        within("product, changed by the re-factorisation", course.changed, 3e-15),
        within("A Aᵀ, off the identity", course.skew, 1e-14),
        within("distance from the optimum after every round, off (1 - η)^(K t)", federation.off_course(&course), 1e-8),
        within("gradient descent: product, off that of a fixed orthonormal A", same, 1e-12),
        Finding::judged(
            "AdamW: the same, share of the product",
            format!("{:.1} %", 100.0 * turned),
            "above 1 %: it sees the basis",
            turned > 0.01,
        ),
    ];
    findings.extend(both::findings(&federation, &course));
    findings.extend(noise::findings(&federation, &course, setting.quick));
    if let Some((config, lr)) = &setting.optimizer {
        let left = federation.excess(&federation.train(config, *lr, true)?.last());
        let what = format!("{}, lr {lr}: loss above that of the optimum in the space of A", config.kind());
        findings.push(Finding::shown(what, format!("{left:.1e}"), ""));
    }
    Ok(findings)
}

fn within(what: &str, measured: f64, most: f64) -> Finding {
    Finding::judged(what, format!("{measured:.1e}"), format!("at most {most:.0e}"), measured <= most)
}
