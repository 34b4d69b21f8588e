//! Block FP8 against golden vectors and the reference.

use crate::common::{ISAS, assert_close, bits, code_bytes, codes, strided, tensor, to_f64, unit};
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{Fp8Row, act_dequant, act_quant, block_dequant, block_quant, row_dequant, row_quant};
use deepseek_v32::ops::simd::with_isa;
use deepseek_v32::ops::{Backend, with_backend};

const BACKENDS: [Backend; 2] = [Backend::Cpu, Backend::Reference];
/// Half a step of the largest codes, relative.
const E4M3_TOLERANCE: f64 = 1.0 / 16.0;

#[test]
fn codes_of_hand_picked_values_match() {
    let unit = unit();
    let x = &unit["e4m3.encode_in"];
    let expected: Vec<u8> = unit["e4m3.encode_out_u8"].to_vec1().unwrap();
    // A leading 448 makes the scale 1; groups of two keep the others from mattering.
    let (first, count) = (Tensor::full(448.0f32, x.dims(), &Device::Cpu).unwrap(), expected.len());
    let pairs = Tensor::stack(&[&first, x], 1).unwrap();
    for backend in BACKENDS {
        for isa in ISAS {
            let (codes, scale) = with_backend(backend, || with_isa(isa, || act_quant(&pairs, 2, true))).unwrap();
            assert!(to_f64(&scale).iter().all(|&scale| scale == 1.0));
            let codes: Vec<u8> = code_bytes(&codes).into_iter().skip(1).step_by(2).collect();
            assert_eq!((codes.len(), codes), (count, expected.clone()), "{backend:?} {isa:?}");
        }
    }
}

#[test]
fn every_value_between_two_codes_goes_to_the_nearer_one() {
    let table: Vec<f32> = unit()["e4m3.decode"].to_vec1().unwrap();
    let mut values = vec![];
    for code in 0..0x7eusize {
        let (low, high) = (table[code], table[code + 1]);
        let middle = (low + high) / 2.0;
        let even = if code % 2 == 0 { low } else { high };
        values.extend([(low, low), (middle.next_down(), low), (middle, even), (middle.next_up(), high)]);
    }
    let inputs: Vec<f32> = values.iter().flat_map(|&(value, _)| [448.0, -value]).collect();
    let x = Tensor::from_vec(inputs, (values.len(), 2), &Device::Cpu).unwrap();
    let expected: Vec<f64> = values.iter().flat_map(|&(_, rounded)| [448.0, -f64::from(rounded)]).collect();
    for backend in BACKENDS {
        let (codes, _) = with_backend(backend, || act_quant(&x, 2, true)).unwrap();
        assert_close(&to_f64(&codes), &expected, 0.0, &format!("{backend:?}"));
    }
}

#[test]
fn activations_match_the_golden_vectors_exactly() {
    let unit = unit();
    for (name, ue8m0) in [("ue8m0", true), ("float", false)] {
        let golden = |what: &str| &unit[&format!("act_quant.{name}.{what}")];
        for backend in BACKENDS {
            let (quantised, scale) = with_backend(backend, || act_quant(&unit["act_quant.x"], 128, ue8m0)).unwrap();
            assert_eq!(code_bytes(&quantised), code_bytes(&codes(golden("codes_u8"))), "{name} {backend:?}");
            assert_eq!(bits(&scale), bits(golden("scale")), "{name} {backend:?}");
            let back = with_backend(backend, || act_dequant(&quantised, &scale, 128)).unwrap();
            assert_eq!(bits(&back), bits(golden("dequant")), "{name} {backend:?}");
        }
    }
}

#[test]
fn ragged_weight_blocks_match_the_golden_vectors_exactly() {
    let unit = unit();
    for (name, ue8m0) in [("ue8m0", true), ("float", false)] {
        let golden = |what: &str| &unit[&format!("block.{name}.{what}")];
        for backend in BACKENDS {
            let (quantised, scale) = with_backend(backend, || block_quant(&unit["block.w"], 128, ue8m0)).unwrap();
            assert_eq!(code_bytes(&quantised), code_bytes(&codes(golden("codes_u8"))), "{name} {backend:?}");
            assert_eq!(bits(&scale), bits(golden("scale_inv")), "{name} {backend:?}");
            let back = with_backend(backend, || block_dequant(&quantised, &scale, 128)).unwrap();
            assert_eq!(bits(&back), bits(golden("dequant")), "{name} {backend:?}");
        }
    }
}

#[test]
fn scales_are_rounded_up_to_powers_of_two_exactly() {
    let unit = unit();
    let wanted: Vec<f32> = unit["pow2_ceil.y"].to_vec1().unwrap();
    for (value, expected) in unit["pow2_ceil.x"].to_vec1::<f32>().unwrap().into_iter().zip(wanted) {
        // One value of amax `448·value` in a group of its own; the product is exact or rounds as the scale does.
        let x = Tensor::new(&[[value * 448.0]], &Device::Cpu).unwrap();
        let exact: Vec<f32> = act_quant(&x, 1, false).unwrap().1.flatten_all().unwrap().to_vec1().unwrap();
        if exact[0] != value {
            continue;
        }
        for backend in BACKENDS {
            let (_, scale) = with_backend(backend, || act_quant(&x, 1, true)).unwrap();
            assert_eq!(to_f64(&scale), [f64::from(expected)], "{value} {backend:?}");
        }
    }
}

#[test]
fn groups_may_be_ragged_and_inputs_strided() {
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        let x = strided(&tensor(1, &[3, 2, 75], dtype));
        for ue8m0 in [true, false] {
            let (codes, scale) = act_quant(&x, 32, ue8m0).unwrap();
            assert_eq!((codes.dims(), scale.dims()), ([3, 2, 75].as_slice(), [3, 2, 3].as_slice()));
            let reference = with_backend(Backend::Reference, || act_quant(&x, 32, ue8m0)).unwrap();
            assert_eq!(code_bytes(&codes), code_bytes(&reference.0));
            assert_eq!(bits(&scale), bits(&reference.1));
            let back = act_dequant(
                &strided(&codes.to_dtype(DType::F32).unwrap()).to_dtype(DType::F8E4M3).unwrap(),
                &scale,
                32,
            )
            .unwrap();
            assert_close(&to_f64(&back), &to_f64(&x), E4M3_TOLERANCE, "round trip");
        }
    }
}

#[test]
fn a_group_may_be_larger_than_the_input() {
    let x = tensor(2, &[3, 7], DType::F32);
    for backend in BACKENDS {
        with_backend(backend, || {
            let (codes, scale) = act_quant(&x, usize::MAX, true).unwrap();
            assert_eq!(scale.dims(), [3, 1]);
            assert_close(
                &to_f64(&act_dequant(&codes, &scale, usize::MAX).unwrap()),
                &to_f64(&x),
                E4M3_TOLERANCE,
                "group",
            );
            let (codes, scale) = block_quant(&x, usize::MAX, true).unwrap();
            assert_eq!(scale.dims(), [1, 1]);
            assert_close(
                &to_f64(&block_dequant(&codes, &scale, usize::MAX).unwrap()),
                &to_f64(&x),
                E4M3_TOLERANCE,
                "block",
            );
        });
    }
}

#[test]
fn a_nan_becomes_a_nan_code_and_leaves_its_neighbours() {
    let x = Tensor::new(&[[1.0f32, f32::NAN, 0.5, -2.0]], &Device::Cpu).unwrap();
    for backend in BACKENDS {
        with_backend(backend, || {
            for (codes, scale) in [act_quant(&x, 4, false).unwrap(), block_quant(&x, 4, false).unwrap()] {
                let back = to_f64(&act_dequant(&codes, &scale, 4).unwrap());
                assert!(back[1].is_nan(), "{backend:?}");
                assert_close(&[back[0], back[2], back[3]], &[1.0, 0.5, -2.0], E4M3_TOLERANCE, &format!("{backend:?}"));
            }
        });
    }
}

#[test]
fn empty_inputs_give_empty_outputs() {
    for backend in BACKENDS {
        with_backend(backend, || {
            for (n, k) in [(0, 5), (5, 0)] {
                let x = Tensor::zeros((n, k), DType::F32, &Device::Cpu).unwrap();
                let (codes, scale) = act_quant(&x, 2, true).unwrap();
                assert_eq!((codes.dims(), scale.dims()), ([n, k].as_slice(), [n, k.div_ceil(2)].as_slice()));
                assert_eq!(act_dequant(&codes, &scale, 2).unwrap().dims(), [n, k]);
                let (codes, scale) = block_quant(&x, 2, true).unwrap();
                assert_eq!(block_dequant(&codes, &scale, 2).unwrap().dims(), [n, k]);
            }
        });
    }
}

#[test]
fn wrong_arguments_are_named() {
    let x = tensor(1, &[2, 6], DType::F32);
    let (codes, scale) = act_quant(&x, 4, true).unwrap();
    let expect = |message: String, part: &str| assert!(message.contains(part), "{message:?} should name {part:?}");
    expect(act_quant(&x, 0, true).unwrap_err().to_string(), "group");
    expect(act_quant(&codes, 4, true).unwrap_err().to_string(), "got f8e4m3");
    expect(act_quant(&Tensor::new(1.0f32, &Device::Cpu).unwrap(), 4, true).unwrap_err().to_string(), "scalar");
    expect(act_dequant(&x, &scale, 4).unwrap_err().to_string(), "codes");
    expect(act_dequant(&codes, &scale, 6).unwrap_err().to_string(), "[2, 1]");
    expect(block_quant(&x.flatten_all().unwrap(), 4, true).unwrap_err().to_string(), "[N, K]");
    expect(block_quant(&x, 0, true).unwrap_err().to_string(), "block");
    expect(block_dequant(&codes, &scale, 4).unwrap_err().to_string(), "[blocks of N = 1, blocks of K = 2], got [2, 2]");
    expect(block_dequant(&codes, &scale, 0).unwrap_err().to_string(), "block");
}

/// A packed row is codes and scales as `act_quant` makes them, then bf16; and it gives the values back.
#[test]
fn rows_are_packed_codes_scales_and_bf16() {
    for (quantized, plain, ue8m0) in [(512, 64, false), (512, 64, true), (128, 0, true), (130, 6, false), (0, 3, false)]
    {
        let row = Fp8Row { quantized, plain };
        assert_eq!(row.bytes(), quantized + 4 * quantized.div_ceil(128) + 2 * plain);
        let x = (tensor(7, &[5, quantized + plain], DType::F32) * 300.0).unwrap();
        let (codes, scale) = act_quant(&x.narrow(1, 0, quantized).unwrap(), 128, ue8m0).unwrap();
        let plain_values = x.narrow(1, quantized, plain).unwrap().to_dtype(DType::BF16).unwrap();
        let (code_bytes, scales) = (code_bytes(&codes), to_f64(&scale));
        let mut expected = Vec::new();
        for t in 0..5 {
            expected.extend(&code_bytes[t * quantized..][..quantized]);
            let groups = quantized.div_ceil(128);
            expected.extend(scales[t * groups..][..groups].iter().flat_map(|&scale| (scale as f32).to_le_bytes()));
            for value in plain_values.get(t).unwrap().to_vec1::<half::bf16>().unwrap() {
                expected.extend(value.to_le_bytes());
            }
        }
        let quantised = act_dequant(&codes, &scale, 128).unwrap();
        let values = Tensor::cat(&[quantised, plain_values.to_dtype(DType::F32).unwrap()], 1).unwrap();
        for backend in BACKENDS {
            let case = format!("{backend:?} {row:?}");
            let packed = with_backend(backend, || row_quant(&strided(&x), row, ue8m0)).unwrap();
            assert_eq!(packed.flatten_all().unwrap().to_vec1::<u8>().unwrap(), expected, "{case}");
            let back = with_backend(backend, || row_dequant(&packed, row)).unwrap();
            assert_eq!(bits(&back), bits(&values), "{case}");
            let none = with_backend(backend, || row_quant(&x.narrow(0, 0, 0).unwrap(), row, ue8m0)).unwrap();
            assert_eq!(with_backend(backend, || row_dequant(&none, row)).unwrap().dims(), [0, row.width()], "{case}");
        }
    }
    let row = Fp8Row { quantized: 4, plain: 1 };
    let x = tensor(1, &[2, 4], DType::F32);
    assert!(row_quant(&x, row, true).unwrap_err().to_string().contains("x must be [T, width = 5]"));
    let bytes = Tensor::zeros((2, 9), DType::U8, &Device::Cpu).unwrap();
    assert!(row_dequant(&bytes, row).unwrap_err().to_string().contains("rows must be [T, bytes = 10]"));
}
