//! Shape and element type of a parameter or a gradient.

use burn::tensor::{DType, Tensor};

/// Shape and element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Vec<usize>,
    pub dtype: DType,
}

impl Form {
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self { shape: tensor.dims().to_vec(), dtype: tensor.dtype() }
    }

    /// The element type that steps compute in.
    pub fn working_dtype(&self) -> DType {
        match self.dtype {
            DType::F16 | DType::BF16 => DType::F32,
            dtype => dtype,
        }
    }

    /// The form of a copy that computes in that type.
    pub fn of_copy(&self) -> Self {
        Self { shape: self.shape.clone(), dtype: self.working_dtype() }
    }

    /// Whether a gradient of that form can be used: in the parameter's element type or the one that steps compute in.
    pub fn takes(&self, gradient: &Self) -> bool {
        self.shape == gradient.shape && [self.dtype, self.working_dtype()].contains(&gradient.dtype)
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.shape, self.dtype)
    }
}
