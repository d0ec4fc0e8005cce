//! What a polynomial iteration is: the same for Burn's operations and for those in host memory.

/// How the size of a matrix is measured, so that a polynomial iteration starts with singular values of at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Norm {
    /// The root of the sum of the squared singular values.
    #[default]
    Frobenius,
    /// The fourth root of the sum of their fourth powers: smaller, so that the iteration starts with larger singular values,
    /// and free, as the Gram matrix is formed anyway.
    Schatten4,
    /// Almost orthogonal layers (arXiv 2512.04632): every unit `i` of the shorter side is divided by
    /// `√Σ_j |A_ij|`, A the Gram matrix of that side. Units of different size become alike, which changes the polar factor.
    Aol,
}

/// How a matrix X is made small enough for a polynomial iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// The norm.
    pub norm: Norm,
    /// By how much its singular values stay below 1, at least 1.
    pub factor: f64,
    /// Added to `factor ‖X‖` for the Frobenius norm. The other norms are those of `X / ‖X‖_F`: an eps would cancel.
    pub eps: f64,
}

impl Normalisation {
    /// Factor and eps of the Frobenius norm, by which every matrix is divided first: fourth powers of its entries need not
    /// fit the type.
    pub(crate) fn first(&self) -> (f64, f64) {
        match self.norm {
            Norm::Frobenius => (self.factor, self.eps),
            Norm::Schatten4 | Norm::Aol => (1.0, 0.0),
        }
    }
}

/// The least sum of a unit under [`Norm::Aol`], where the whole matrix has the norm 1.
pub(crate) const LEAST_SUM: f64 = 1e-7;

/// A polynomial iteration on matrices of one shape.
pub(crate) struct Iteration<'a> {
    /// The steps; those of one segment are multiplied together on the Gram matrix.
    pub segments: Vec<&'a [[f64; 3]]>,
    /// What is done before.
    pub normalisation: Normalisation,
}
