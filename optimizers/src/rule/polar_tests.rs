use super::*;
use burn::tensor::{DType, Device};

use crate::setting::numbers;

fn values(tensor: Tensor<3>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().iter::<f64>().collect()
}

#[test]
fn unsafe_schedules_are_refused_with_the_singular_value_that_breaks_them() {
    let aol_old = vec![
        [4.0098, -7.0585, 2.4635],
        [3.4585, -5.5479, 2.5959],
        [2.7573, -3.2939, 1.4254],
        [2.7215, -3.0494, 1.3169],
    ];
    let cans = vec![
        [8.4703, -25.1081, 18.6293],
        [4.1828, -3.1087, 0.5806],
        [3.9619, -2.9541, 0.5630],
        [3.2866, -2.4647, 0.5074],
        [2.2737, -1.6447, 0.4162],
    ];
    for coefficients in [aol_old, cans] {
        let polar = Polar::Polynomial { coefficients, norm_factor: 1.0, eps: 1e-7 };
        let message = polar.validate().unwrap_err().to_string();
        assert!(message.contains("outside [0, 2]"), "{message}");
    }
    let stable = Polar::Polynomial { coefficients: vec![[2.0, -1.5, 0.5]; 12], norm_factor: 1.0, eps: 1e-7 };
    assert!(stable.validate().is_ok());
}

#[test]
fn a_zero_matrix_gives_zero_by_every_method() {
    let zero = Tensor::<3>::zeros([2, 3, 5], &Device::flex());
    for polar in [
        Polar::NewtonSchulz { steps: 5, eps: 0.0 },
        Polar::PolarExpress { steps: 5, eps: 1e-6 },
        Polar::Svd { rcond: 1e-5 },
    ] {
        assert!(values(polar.apply(zero.clone())).into_iter().all(|v| v == 0.0), "{polar:?}");
    }
}

#[test]
fn a_stack_gives_what_its_matrices_give_one_by_one() {
    let stack = numbers([3, 4, 6], 1, DType::F32);
    for polar in [Polar::default(), Polar::Svd { rcond: 1e-5 }] {
        let whole = values(polar.apply(stack.clone()));
        let parts: Vec<f64> = (0..3).flat_map(|i| values(polar.apply(stack.clone().narrow(0, i, 1)))).collect();
        assert_eq!(whole, parts, "{polar:?}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_valid_one() {
    let error = serde_json::from_str::<Polar>(r#"{"method": "newton_schulz", "stepz": 5}"#).unwrap_err();
    assert!(error.to_string().contains("`stepz`; did you mean `steps`"), "{error}");
    let error = serde_json::from_str::<Polar>(r#"{"method": "newton_shulz"}"#).unwrap_err();
    assert!(error.to_string().contains("did you mean `newton_schulz`"), "{error}");
}
