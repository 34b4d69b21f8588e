//! `linear` with at least 32 rows, which the matrix unit computes where there is one, against f64 loops.

use crate::common::{bits, tensor, to_f64, values};
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{BLOCK, block_dequant, block_quant};
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, linear, linear_many};
use deepseek_v32::ops::{Backend, with_backend};

/// Error of an output over the sum of the magnitudes of its products: f32 accumulation.
const RELATIVE: f64 = 1e-6;
/// What taking subnormals for zero can cost, for values up to 1 and each element of k.
const SUBNORMAL: f64 = 4.0 * f32::MIN_POSITIVE as f64;

fn weight(seed: u64, n: usize, k: usize, dtype: DType) -> LinearWeight {
    let weight = tensor(seed, &[n, k], DType::F32);
    match dtype {
        DType::F8E4M3 => {
            let (codes, scale) = block_quant(&weight, BLOCK, false).unwrap();
            LinearWeight { weight: codes, weight_scale_inv: Some(scale) }
        }
        _ => LinearWeight { weight: weight.to_dtype(dtype).unwrap(), weight_scale_inv: None },
    }
}

fn dequantised(weight: &LinearWeight) -> Vec<f64> {
    let values = match &weight.weight_scale_inv {
        // In f64: the unit applies the scale to sums of codes.
        Some(scale) => {
            let ones = Tensor::ones(scale.dims(), DType::F32, &Device::Cpu).unwrap();
            let codes = with_backend(Backend::Reference, || block_dequant(&weight.weight, &ones, BLOCK)).unwrap();
            let (n, k) = weight.weight.dims2().unwrap();
            let (codes, scale) = (to_f64(&codes), to_f64(scale));
            let factor = |i: usize| scale[i / k / BLOCK * k.div_ceil(BLOCK) + i % k / BLOCK];
            return (0..n * k).map(|i| codes[i] * factor(i)).collect();
        }
        None => weight.weight.to_dtype(DType::F32).unwrap(),
    };
    to_f64(&values)
}

/// Asserts that `x · weightᵀ` is within the tolerance of f64 loops.
fn check(x: &Tensor, weight: &LinearWeight, what: &str) {
    let (k, y) = (weight.weight.dim(1).unwrap(), to_f64(&weight.forward(x, LinearMode::Dequant).unwrap()));
    let (x, w) = (to_f64(x), dequantised(weight));
    let n = w.len() / k;
    let mut worst = 0.0f64;
    for (i, y) in y.iter().enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        let products = || x.iter().zip(w).map(|(x, w)| x * w);
        let (sum, magnitude) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
        let error = (y - sum).abs();
        worst = worst.max(error / magnitude);
        assert!(error <= RELATIVE * magnitude + SUBNORMAL * k as f64, "{what}: element {i} is {y}, not {sum}");
    }
    println!("{what}: {worst:e}");
}

#[test]
fn outputs_are_those_of_f64_loops_to_f32_precision() {
    let shapes =
        [(32, 16, 32), (33, 47, 33), (48, 130, 129), (65, 33, 1100), (96, 256, 256), (70, 35, 7168), (530, 300, 40)];
    for (m, n, k) in shapes {
        for dtype in [DType::BF16, DType::F8E4M3] {
            let weight = weight(1, n, k, dtype);
            let x = tensor(2, &[m, k], DType::F32);
            check(&x, &weight, &format!("{m}x{n}x{k} {dtype:?}"));
            check(&x.abs().unwrap(), &weight, &format!("{m}x{n}x{k} {dtype:?}, positive"));
            let mut wide = values(3, m * k);
            wide.iter_mut().enumerate().for_each(|(i, x)| *x *= 2f32.powi(i as i32 % 60 - 30));
            check(&Tensor::from_vec(wide, (m, k), &Device::Cpu).unwrap(), &weight, "many magnitudes");
        }
    }
    let x = tensor(2, &[40, 7168], DType::F32).abs().unwrap();
    let weight = weight(1, 32, 7168, DType::BF16).weight.abs().unwrap();
    check(&x, &LinearWeight { weight, weight_scale_inv: None }, "all products positive");
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_of_32_rows_and_more() {
    for dtype in [DType::BF16, DType::F8E4M3] {
        for (m, n, k) in [(40, 33, 130), (600, 300, 700)] {
            let weight = weight(4, n, k, dtype);
            // Rows that are exact in bf16, in two parts, and in none, side by side and apart.
            let exact = tensor(5, &[m, k], DType::BF16).to_dtype(DType::F32).unwrap();
            let x = Tensor::cat(&[&exact, &tensor(6, &[m, k], DType::F32)], 0).unwrap();
            let run = |x: &Tensor| weight.forward(x, LinearMode::Dequant).unwrap();
            let all = run(&x);
            for (start, len) in [(0, 32), (3, 33), (m - 7, 36), (m, 32), (m + 1, m - 1)] {
                let some = run(&x.narrow(0, start, len).unwrap());
                assert_eq!(bits(&some), bits(&all.narrow(0, start, len).unwrap()), "{dtype:?} {start} {len}");
            }
            for threads in [1, 3, 7] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(bits(&pool.install(|| run(&x))), bits(&all), "{threads} threads");
            }
            let (one, other) = (
                LinearWeight {
                    weight: weight.weight.narrow(0, 0, 32).unwrap(),
                    weight_scale_inv: weight.weight_scale_inv.as_ref().map(|s| s.narrow(0, 0, 1).unwrap()),
                },
                &weight,
            );
            let many = linear_many(&x, &[&one, other], LinearMode::Dequant).unwrap();
            assert_eq!(bits(&many[1]), bits(&all));
            assert_eq!(bits(&many[0]), bits(&all.narrow(1, 0, 32).unwrap().contiguous().unwrap()));
        }
    }
}

#[test]
fn every_weight_code_and_every_part_of_x_counts() {
    // Every e4m3 code, and every finite normal bf16, times one: rows of the identity select a column.
    let identity = Tensor::eye(64, DType::F32, &Device::Cpu).unwrap();
    let same = |y: &Tensor, expected: &Tensor| {
        let (y, expected) = (to_f64(y), to_f64(expected));
        assert!(y.iter().zip(&expected).all(|(y, e)| y == e || (y.is_nan() && e.is_nan())));
    };
    let bytes: Vec<u8> = (0..=255u8).map(|code| if code & 0x7f == 0x7f { 0 } else { code }).collect();
    let codes = crate::common::codes(&Tensor::from_vec(bytes, (4, 64), &Device::Cpu).unwrap());
    let codes = Tensor::cat(&[&codes; 4], 0).unwrap();
    same(
        &linear(&identity, &codes, None).unwrap(),
        &codes.to_dtype(DType::F32).unwrap().t().unwrap().contiguous().unwrap(),
    );
    let nan = crate::common::codes(&Tensor::from_vec([0x7fu8, 0xff].repeat(16 * 16), (16, 32), &Device::Cpu).unwrap());
    let y = linear(&Tensor::ones((32, 32), DType::F32, &Device::Cpu).unwrap(), &nan, None).unwrap();
    assert!(to_f64(&y).iter().all(|y| y.is_nan()));

    let halves: Vec<half::bf16> =
        (0..=u16::MAX).map(half::bf16::from_bits).map(|h| if h.is_normal() { h } else { half::bf16::ZERO }).collect();
    let halves = Tensor::from_vec(halves, (1024, 64), &Device::Cpu).unwrap();
    same(
        &linear(&identity, &halves, None).unwrap(),
        &halves.to_dtype(DType::F32).unwrap().t().unwrap().contiguous().unwrap(),
    );

    // And every bit of an f32 survives a weight of one, near the largest value too.
    let mut x: Vec<f32> = (0..64 * 64).map(|i: u32| f32::from_bits(0x3f80_0000 + i * 2047 % 0x0080_0000)).collect();
    x[0] = f32::MAX;
    x[1] = -f32::MAX;
    x[2] = 2f32.powi(-100) * 1.234_567_8;
    let x = Tensor::from_vec(x, (64, 64), &Device::Cpu).unwrap();
    let one = Tensor::eye(64, DType::F32, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
    assert_eq!(bits(&linear(&x, &one, None).unwrap()), bits(&x));
}

#[test]
fn subnormals_count_as_zero_at_most() {
    let (m, n, k) = (32, 16, 64);
    for tiny in [1e-38f32, 3e-39, 1e-42, f32::from_bits(1), f32::MIN_POSITIVE * 1.999] {
        let x = Tensor::full(tiny, (m, k), &Device::Cpu).unwrap();
        check(&x, &weight(7, n, k, DType::BF16), "tiny x");
        let mixed = (tensor(8, &[m, k], DType::F32) + x).unwrap();
        check(&mixed, &weight(7, n, k, DType::F8E4M3), "x with tiny values");
        let tiny_weight = Tensor::full(tiny, (n, k), &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
        check(&mixed, &LinearWeight { weight: tiny_weight, weight_scale_inv: None }, "tiny weight");
    }
}

#[test]
fn nan_and_infinity_of_x_reach_their_row_alone() {
    for dtype in [DType::BF16, DType::F8E4M3] {
        let (m, n, k) = (70, 40, 150);
        let weight = weight(9, n, k, dtype);
        for special in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(10, m * k);
            x[17 * k + 140] = special;
            let y = to_f64(
                &linear(
                    &Tensor::from_vec(x, (m, k), &Device::Cpu).unwrap(),
                    &weight.weight,
                    weight.weight_scale_inv.as_ref(),
                )
                .unwrap(),
            );
            let w = dequantised(&weight);
            for (i, y) in y.iter().enumerate() {
                let expected = if i / n == 17 { f64::from(special) * w[i % n * k + 140] } else { 0.0 };
                let right = match expected {
                    e if e.is_nan() => y.is_nan(),
                    e if e.is_infinite() => *y == e,
                    _ => y.is_finite(),
                };
                assert!(right, "{special} {dtype:?}: element {i} is {y}, expected {expected}");
            }
        }
    }
}
