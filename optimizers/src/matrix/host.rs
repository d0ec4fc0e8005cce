//! Stacks of matrices on the host, in f64, row after row.

use burn::tensor::{DType, Device, Tensor, TensorData};
use faer::{MatMut, MatRef};

/// Where a tensor is, and its element type.
pub(super) struct Place {
    device: Device,
    pub dtype: DType,
}

impl Place {
    pub fn of(tensor: &Tensor<3>) -> Self {
        Self { device: tensor.device(), dtype: tensor.dtype() }
    }

    /// A stack of these numbers there.
    pub fn tensor(&self, values: Vec<f64>, shape: [usize; 3]) -> Tensor<3> {
        // Burn converts every number through a virtual call.
        let data = match self.dtype {
            DType::F32 => TensorData::new(values.iter().map(|x| *x as f32).collect::<Vec<f32>>(), shape),
            other => TensorData::new(values, shape).convert_dtype(other),
        };
        Tensor::from_data(data, (&self.device, self.dtype))
    }
}

/// The numbers of a stack.
pub(super) fn host(stack: Tensor<3>) -> Vec<f64> {
    let data = stack.into_data();
    match data.as_slice::<f32>() {
        Ok(values) => values.iter().map(|x| f64::from(*x)).collect(),
        Err(_) => data.iter::<f64>().collect(),
    }
}

/// The entries of a matrix, row after row.
pub(super) fn write_rows(matrix: MatRef<'_, f64>, out: &mut [f64]) {
    MatMut::from_row_major_slice_mut(out, matrix.nrows(), matrix.ncols()).copy_from(matrix);
}

/// The same in a list of their own.
pub(super) fn by_rows(matrix: MatRef<'_, f64>) -> Vec<f64> {
    let mut rows = vec![0.0; matrix.nrows() * matrix.ncols()];
    write_rows(matrix, &mut rows);
    rows
}
