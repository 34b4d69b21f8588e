//! FP8 codes and scales, bit for bit.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{Fp8Row, act_dequant, act_quant, block_dequant, block_quant, row_dequant, row_quant};

use crate::common::{bits, code_bytes, tensor, values};
use crate::{both, check, gpu, views};

/// Values of every size that e4m3 tells apart, ties, zeros and numbers beyond its range.
fn numbers(rows: usize, width: usize) -> Tensor {
    let draw = values(5, rows * width);
    let spread = |(i, x): (usize, &f32)| match i % 7 {
        0 => 0.0,
        1 => x * 1e-6,
        2 => x * 500.0,
        3 => (x * 16.0).round() / 16.0,
        _ => *x,
    };
    let numbers: Vec<f32> = draw.iter().enumerate().map(spread).collect();
    Tensor::from_vec(numbers, (rows, width), &Device::Cpu).unwrap()
}

#[test]
fn codes_and_scales_are_those_of_the_cpu() {
    let Some(device) = gpu() else { return };
    for (rows, width) in [(1, 1), (3, 128), (2, 300), (130, 257), (16, 512)] {
        for dtype in [DType::F32, DType::BF16] {
            for x in views(&numbers(rows, width).to_dtype(dtype).unwrap()) {
                for ue8m0 in [false, true] {
                    for group in [128, 64, usize::MAX] {
                        let [cpu, gpu] = both(&device, &[&x], |a| {
                            let (codes, scale) = act_quant(&a[0], group, ue8m0)?;
                            Ok(vec![codes, scale])
                        });
                        assert_eq!(code_bytes(&gpu[0]), code_bytes(&cpu[0]), "{rows} {width} {group}");
                        assert_eq!(bits(&gpu[1]), bits(&cpu[1]), "{rows} {width} {group}");
                        check("act_dequant", &device, 0.0, &[&cpu[0], &cpu[1]], |a| {
                            Ok(vec![act_dequant(&a[0], &a[1], group)?])
                        });
                    }
                    let [cpu, gpu] = both(&device, &[&x], |a| {
                        let (codes, scale) = block_quant(&a[0], 128, ue8m0)?;
                        Ok(vec![codes, scale])
                    });
                    assert_eq!(code_bytes(&gpu[0]), code_bytes(&cpu[0]), "{rows} {width} block");
                    assert_eq!(bits(&gpu[1]), bits(&cpu[1]), "{rows} {width} block");
                    check("block_dequant", &device, 0.0, &[&cpu[0], &cpu[1]], |a| {
                        Ok(vec![block_dequant(&a[0], &a[1], 128)?])
                    });
                }
            }
        }
    }
    let scale = |x: &Tensor| act_quant(x, 128, false).unwrap();
    let x = tensor(1, &[2, 128], DType::F32).to_device(&device).unwrap();
    let nan = (x.narrow(1, 3, 1).unwrap() * f64::NAN).unwrap();
    let spoilt = Tensor::cat(&[&x.narrow(1, 0, 127).unwrap(), &nan], 1).unwrap();
    let (codes, scales) = scale(&spoilt);
    let last: Vec<_> = code_bytes(&codes.to_device(&Device::Cpu).unwrap()).into_iter().skip(127).step_by(128).collect();
    assert!(last.iter().all(|code| code & 0x7f == 0x7f), "NaN becomes {last:?}");
    assert_eq!(bits(&scales), bits(&scale(&spoilt.narrow(1, 0, 127).unwrap()).1), "NaN does not count for the scale");
}

#[test]
fn packed_rows_are_those_of_the_cpu() {
    let Some(device) = gpu() else { return };
    for (quantized, plain) in [(512, 64), (128, 0), (33, 7), (0, 5), (200, 1), (1, 0)] {
        let row = Fp8Row { quantized, plain };
        for dtype in [DType::F32, DType::BF16] {
            for x in views(&numbers(5, row.width()).to_dtype(dtype).unwrap()) {
                for ue8m0 in [false, true] {
                    let [cpu, gpu] = both(&device, &[&x], |a| Ok(vec![row_quant(&a[0], row, ue8m0)?]));
                    assert_eq!(gpu[0].to_vec2::<u8>().unwrap(), cpu[0].to_vec2::<u8>().unwrap(), "{row:?}");
                    check("row_dequant", &device, 0.0, &[&cpu[0]], |a| Ok(vec![row_dequant(&a[0], row)?]));
                }
            }
        }
    }
}
