use super::*;
use burn::tensor::{Device, TensorData};

fn counted<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

#[test]
fn join_undoes_split_for_every_layout_axis_and_rank() {
    for layout in [Layout::InOut, Layout::OutIn] {
        for axis in [Axis::Output, Axis::Input] {
            let placement = Placement::new(layout).with_blocks(axis, 2);
            let flat = counted([4, 6]);
            let stack = counted([3, 4, 6]);
            let back = placement.join(placement.split(flat.clone()), flat.dims());
            assert_eq!(back.into_data(), flat.into_data());
            let back = placement.join(placement.split(stack.clone()), stack.dims());
            assert_eq!(back.into_data(), stack.into_data());
        }
    }
}

#[test]
fn the_weight_of_a_convolution_is_one_matrix_of_outputs_and_inputs_times_window() {
    for (layout, features) in [(Layout::OutIn, [4, 18]), (Layout::InOut, [6, 12])] {
        let placement = Placement::kernel(layout);
        let weight = counted([4, 6, 3]);
        let matrix = placement.split(weight.clone());
        assert_eq!([matrix.outputs(), matrix.inputs()], features);
        assert_eq!(placement.features(&[4, 6, 3]), features);
        for (axis, count) in [(Axis::Output, 2), (Axis::Input, 2)] {
            let grouped = placement.with_blocks(axis, count);
            let back = grouped.join(grouped.split(weight.clone()), weight.dims());
            assert_eq!(back.into_data(), weight.clone().into_data());
        }
        for image in [counted([4, 6, 3, 5]).into_data(), counted([4, 6, 1, 1]).into_data()] {
            let weight = Tensor::<4>::from_data(image.clone(), &Device::flex());
            assert_eq!(placement.join(placement.split(weight.clone()), weight.dims()).into_data(), image);
        }
    }
    // The output of a transposed convolution is its second dimension: unit 1 holds what stands there.
    let matrix = Placement::kernel(Layout::InOut).split(counted([2, 3, 2]));
    let unit: Vec<f32> = matrix.into_tensor().slice([0..1, 0..4, 1..2]).into_data().try_to_vec().unwrap();
    assert_eq!(unit, [2.0, 3.0, 8.0, 9.0]);
}

#[test]
fn blocks_are_contiguous_parts_of_the_named_axis() {
    // [d_in = 2, d_out = 4] cut into 2 along the output axis: columns 0..2 and 2..4 of the stored tensor.
    let placement = Placement::new(Layout::InOut).with_blocks(Axis::Output, 2);
    let matrix = placement.split(counted([2, 4]));
    assert_eq!((matrix.outputs(), matrix.inputs()), (2, 2));
    let values: Vec<f32> = matrix.into_tensor().into_data().try_to_vec().unwrap();
    assert_eq!(values, [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
}

#[test]
fn outputs_and_inputs_follow_the_layout_not_the_storage_order() {
    let in_out = Placement::new(Layout::InOut).split(counted([64, 256]));
    assert_eq!((in_out.outputs(), in_out.inputs()), (256, 64));
    let out_in = Placement::new(Layout::OutIn).split(counted([64, 256]));
    assert_eq!((out_in.outputs(), out_in.inputs()), (64, 256));
}

#[test]
fn shapes_that_are_no_matrices_are_refused() {
    let plain = Placement::default();
    assert!(matches!(plain.check(&[5]), Err(LayoutError::Rank(_))));
    assert!(matches!(plain.check(&[2, 3, 4, 5]), Err(LayoutError::Rank(_))));
    assert!(matches!(plain.check(&[2, 0]), Err(LayoutError::Empty(_))));
    let blocks = plain.with_blocks(Axis::Output, 3);
    let error = blocks.check(&[6, 8]).unwrap_err();
    assert!(error.to_string().contains("do not divide the 8 output features"), "{error}");
    assert!(blocks.check(&[8, 6]).is_ok());
}
