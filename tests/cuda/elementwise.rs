//! Ops that work on rows or elements.

use candle_core::{DType, Tensor};
use deepseek_v32::ops::{cache_write, hadamard, layer_norm, rms_norm, rope, swiglu};

use crate::common::tensor;
use crate::{check, gpu, views};

/// f32: another order of some thousand additions; bf16: one rounding of the result.
const TOLERANCES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::BF16, 8e-3)];
const SHAPES: [&[usize]; 7] = [&[1, 1], &[3, 1], &[2, 33], &[5, 128], &[2, 7168], &[3, 2, 64], &[2, 3, 2, 100]];

#[test]
fn norms() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for shape in SHAPES {
            let width = shape[shape.len() - 1];
            let (weight, bias) = (tensor(2, &[width], DType::F32), tensor(3, &[width], dtype));
            for x in views(&tensor(1, shape, dtype)) {
                check("rms_norm", &device, tolerance, &[&x, &weight], |a| Ok(vec![rms_norm(&a[0], &a[1], 1e-6)?]));
                check("layer_norm", &device, tolerance, &[&x, &weight, &bias], |a| {
                    Ok(vec![layer_norm(&a[0], &a[1], &a[2], 1e-6)?])
                });
            }
        }
    }
}

#[test]
fn rotations() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for (tokens, heads, width) in [(1, 1, 2), (3, 1, 64), (2, 5, 6), (17, 128, 64)] {
            let (cos, sin) = (tensor(2, &[tokens, width / 2], DType::F32), tensor(3, &[tokens, width / 2], DType::F32));
            for x in views(&tensor(1, &[tokens, heads, width], dtype)) {
                for interleaved in [true, false] {
                    check("rope", &device, tolerance, &[&x, &cos, &sin], |a| {
                        Ok(vec![rope(&a[0], &a[1], &a[2], interleaved)?])
                    });
                }
            }
        }
        for width in [1, 2, 128, 1024, 8192] {
            for x in views(&tensor(1, &[3, width], dtype)) {
                check("hadamard", &device, tolerance, &[&x], |a| Ok(vec![hadamard(&a[0])?]));
            }
        }
    }
}

#[test]
fn activations() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for shape in SHAPES {
            let up = tensor(2, shape, dtype);
            for gate in views(&(tensor(1, shape, dtype) * 9.0).unwrap()) {
                check("swiglu", &device, tolerance, &[&gate, &up], |a| Ok(vec![swiglu(&a[0], &a[1])?]));
            }
        }
    }
}

#[test]
fn cache_rows() {
    let Some(device) = gpu() else { return };
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let (cache, rows) = (tensor(1, &[300, 33], dtype), tensor(2, &[4, 33], dtype));
        let slots = Tensor::new(&[299u32, 0, 64, 7], cache.device()).unwrap();
        for rows in views(&rows) {
            check("cache_write", &device, 0.0, &[&cache, &rows, &slots], |a| {
                let cache = a[0].copy()?;
                cache_write(&cache, &a[1], &a[2])?;
                Ok(vec![cache])
            });
        }
        // A slot outside is not written; the CPU refuses it, and here nobody waits for the device to say so.
        let cache = cache.to_device(&device).unwrap();
        let before = cache.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
        let slots = Tensor::new(&[300u32, u32::MAX], &device).unwrap();
        if dtype != DType::F16 {
            cache_write(&cache, &rows.narrow(0, 0, 2).unwrap().to_device(&device).unwrap(), &slots).unwrap();
            assert_eq!(cache.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap(), before);
        }
    }
}

#[test]
fn nothing_to_do() {
    let Some(device) = gpu() else { return };
    let none = Tensor::zeros((0, 64), DType::F32, &device).unwrap();
    let weight = Tensor::ones(64, DType::F32, &device).unwrap();
    assert_eq!(rms_norm(&none, &weight, 1e-6).unwrap().dims(), [0, 64]);
    assert_eq!(swiglu(&none, &none).unwrap().dims(), [0, 64]);
    let slots = Tensor::zeros(0, DType::U32, &device).unwrap();
    cache_write(&Tensor::ones((64, 64), DType::F32, &device).unwrap(), &none, &slots).unwrap();
}
