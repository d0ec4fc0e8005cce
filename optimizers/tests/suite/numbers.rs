//! Numbers that depend only on a seed. Those of the generator of a device do not: all threads of the test binary share it,
//! and it is seeded with entropy.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polaron_common::splitmix64;

/// Numbers in [-1, 1), f64.
pub(crate) fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let number = |i| (splitmix64(seed << 32 | i) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(number).collect();
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}

/// `model` with weights that are the same in every run, in [-1/2, 1/2): for modules that Burn has initialised.
pub(crate) fn repeatable<M: Module>(model: M) -> M {
    struct Fill(u64);
    impl ModuleMapper for Fill {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            let seed = self.0;
            param.map(|old| {
                let data = (random(old.dims(), seed) * 0.5).into_data().convert_dtype(old.dtype());
                Tensor::from_data(data, (&old.device(), old.dtype())).set_require_grad(old.is_require_grad())
            })
        }
    }
    model.map(&mut Fill(0))
}
