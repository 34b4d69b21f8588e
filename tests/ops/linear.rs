//! `linear`, `linear_fp8` and `linear_many` against f64 loops and golden vectors.

use crate::common::{ISAS, assert_close, bits, codes, strided, tensor, to_f64, unit};
use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::ops::fp8::{BLOCK, act_dequant, act_quant, block_dequant, block_quant};
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, linear, linear_fp8, linear_many};
use deepseek_v32::ops::simd::{Isa, with_isa};
use deepseek_v32::ops::{Backend, with_backend};

/// f32 accumulation of up to 2300 products of values below 1.
const F32_TOLERANCE: f64 = 2e-5;
/// Half a unit in the last place of bf16.
const BF16_TOLERANCE: f64 = 4e-3;
/// Half a unit in the last place of f16.
const F16_TOLERANCE: f64 = 5e-4;

const WEIGHT_DTYPES: [DType; 4] = [DType::F32, DType::BF16, DType::F16, DType::F8E4M3];

fn weight(seed: u64, n: usize, k: usize, dtype: DType, ue8m0: bool) -> LinearWeight {
    let weight = tensor(seed, &[n, k], DType::F32);
    if dtype == DType::F8E4M3 {
        let (codes, scale) = block_quant(&weight, BLOCK, ue8m0).unwrap();
        return LinearWeight { weight: codes, weight_scale_inv: Some(scale) };
    }
    LinearWeight { weight: weight.to_dtype(dtype).unwrap(), weight_scale_inv: None }
}

/// The weight's values, by the reference.
fn dequantised(weight: &LinearWeight) -> Tensor {
    match &weight.weight_scale_inv {
        Some(scale) => with_backend(Backend::Reference, || block_dequant(&weight.weight, scale, BLOCK)).unwrap(),
        None => weight.weight.to_dtype(DType::F32).unwrap(),
    }
}

/// `x · weightᵀ` in f64.
fn naive(x: &Tensor, weight: &Tensor) -> Vec<f64> {
    let (n, k) = weight.dims2().unwrap();
    let (x, weight) = (to_f64(x), to_f64(weight));
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    x.chunks(k).flat_map(|x| (0..n).map(move |j| (x, j))).map(|(x, j)| dot(x, &weight[j * k..][..k])).collect()
}

#[test]
fn linear_matches_f64_loops_for_every_dtype_isa_and_shape() {
    // Fewer and more columns than lanes, blocks, and chunks; rows below, at and beyond a tile.
    let shapes =
        [(1, 1, 1), (1, 9, 15), (2, 3, 17), (3, 130, 129), (5, 37, 300), (7, 33, 1100), (13, 6, 2300), (100, 35, 70)];
    for (m, n, k) in shapes {
        for dtype in WEIGHT_DTYPES {
            let weight = weight(1, n, k, dtype, false);
            let x = tensor(2, &[m, k], DType::F32);
            let expected = naive(&x, &dequantised(&weight));
            for isa in ISAS {
                let y = with_isa(isa, || weight.forward(&x, LinearMode::Dequant)).unwrap();
                assert_eq!(y.dims(), [m, n]);
                assert_close(&to_f64(&y), &expected, F32_TOLERANCE, &format!("{m}x{n}x{k} {dtype:?} {isa:?}"));
            }
            let y = with_backend(Backend::Reference, || weight.forward(&x, LinearMode::Dequant)).unwrap();
            assert_close(&to_f64(&y), &expected, F32_TOLERANCE, &format!("{m}x{n}x{k} {dtype:?} reference"));
        }
    }
}

#[test]
fn linear_takes_any_activation_dtype_layout_and_rank() {
    for (dtype, tolerance) in [
        (DType::F32, F32_TOLERANCE),
        (DType::BF16, BF16_TOLERANCE),
        (DType::F16, F16_TOLERANCE),
        (DType::F64, F32_TOLERANCE),
    ] {
        let x = tensor(3, &[2, 3, 40], dtype);
        let weight = weight(4, 21, 40, DType::BF16, false);
        let expected = naive(&x, &dequantised(&weight));
        let transposed = x.transpose(0, 1).unwrap().contiguous().unwrap().transpose(0, 1).unwrap();
        let column_major = x.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap();
        for x in [x.clone(), strided(&x), transposed, column_major] {
            let y = weight.forward(&x, LinearMode::Dequant).unwrap();
            assert_eq!((y.dims(), y.dtype()), ([2, 3, 21].as_slice(), dtype));
            assert_close(&to_f64(&y), &expected, tolerance, &format!("{dtype:?} {:?}", x.stride()));
        }
    }
}

#[test]
fn linear_takes_views_of_weights() {
    let x = tensor(5, &[3, 40], DType::F32);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let stacked = tensor(6, &[3, 20, 40], dtype);
        let expert = stacked.get(1).unwrap();
        let expected = naive(&x, &expert);
        for view in [expert.clone(), strided(&expert), expert.t().unwrap().contiguous().unwrap().t().unwrap()] {
            assert_close(&to_f64(&linear(&x, &view, None).unwrap()), &expected, F32_TOLERANCE, &format!("{dtype:?}"));
        }
    }
    let weight = weight(6, 256, 40, DType::F8E4M3, true);
    let half = weight.weight.narrow(0, 128, 128).unwrap();
    let scale = weight.weight_scale_inv.as_ref().unwrap().narrow(0, 1, 1).unwrap();
    let expected = naive(&x, &dequantised(&weight).narrow(0, 128, 128).unwrap());
    assert_close(&to_f64(&linear(&x, &half, Some(&scale)).unwrap()), &expected, F32_TOLERANCE, "f8e4m3");
}

#[test]
fn a_row_has_the_same_bits_whatever_the_batch() {
    // The last shapes are large enough for several threads.
    for (m, n, k) in [(14, 10, 30), (14, 70, 1300), (31, 970, 1030), (200, 150, 1030)] {
        for dtype in WEIGHT_DTYPES {
            let weight = weight(7, n, k, dtype, false);
            let x = tensor(8, &[m, k], DType::F32);
            for isa in ISAS {
                // From 32 rows on the matrix unit may add in another order; see `ops_linear_amx`.
                if m >= 32 && isa == Isa::Avx512 && matches!(dtype, DType::BF16 | DType::F8E4M3) {
                    continue;
                }
                let forward = |x: &Tensor| bits(&with_isa(isa, || weight.forward(x, LinearMode::Dequant)).unwrap());
                let together = forward(&x);
                for row in [0, 1, m / 2, m - 1] {
                    let alone = forward(&x.narrow(0, row, 1).unwrap());
                    assert_eq!(alone, together[row * n..][..n], "row {row} of {m}x{n}x{k} {dtype:?} {isa:?}");
                }
                let few = forward(&x.narrow(0, 3, 5).unwrap());
                assert_eq!(few, together[3 * n..][..5 * n], "rows 3..8 of {m}x{n}x{k} {dtype:?} {isa:?}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_bits() {
    let weight = weight(9, 300, 2050, DType::BF16, false);
    let x = tensor(10, &[130, 2050], DType::F32);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            [
                bits(&weight.forward(&x, LinearMode::Dequant).unwrap()),
                bits(&weight.forward(&x.narrow(0, 0, 1).unwrap(), LinearMode::Dequant).unwrap()),
            ]
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn every_e4m3_code_is_decoded_in_registers_as_in_the_reference() {
    let all: Vec<u8> = (0..=255).collect();
    let all = codes(&Tensor::from_vec(all, (256, 1), &Device::Cpu).unwrap());
    let one = Tensor::ones((1, 1), DType::F32, &Device::Cpu).unwrap();
    let expected = to_f64(&unit()["e4m3.decode"]);
    let wide = all.to_dtype(DType::F32).unwrap();
    assert_close(&to_f64(&wide), &expected, 0.0, "candle");
    for isa in ISAS {
        let narrow = with_isa(isa, || linear(&one, &all, None)).unwrap();
        assert_close(&to_f64(&narrow), &expected, 0.0, &format!("partial register, {isa:?}"));
        let padded: Vec<u8> =
            (0..=255).flat_map(|code| (0..32).map(move |k| if k == code % 32 { code as u8 } else { 0 })).collect();
        let padded = codes(&Tensor::from_vec(padded, (256, 32), &Device::Cpu).unwrap());
        for rows in [1, 2] {
            let ones = Tensor::ones((rows, 32), DType::F32, &Device::Cpu).unwrap();
            let full = with_isa(isa, || linear(&ones, &padded, None)).unwrap();
            assert_close(
                &to_f64(&full.get(0).unwrap()),
                &expected,
                0.0,
                &format!("full register, {rows} rows, {isa:?}"),
            );
        }
    }
}

#[test]
fn every_half_is_decoded_in_registers_as_in_candle() {
    for dtype in [DType::F16, DType::BF16] {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let all = match dtype {
            DType::F16 => {
                Tensor::from_vec(all.into_iter().map(half::f16::from_bits).collect(), (65536, 1), &Device::Cpu)
            }
            _ => Tensor::from_vec(all.into_iter().map(half::bf16::from_bits).collect(), (65536, 1), &Device::Cpu),
        };
        // One value in a full register.
        let all = all.unwrap().pad_with_zeros(1, 0, 15).unwrap();
        let expected = to_f64(&all.narrow(1, 0, 1).unwrap());
        let ones = Tensor::ones((1, 16), DType::F32, &Device::Cpu).unwrap();
        for isa in ISAS {
            let y = to_f64(&with_isa(isa, || linear(&ones, &all, None)).unwrap());
            let same = |(y, e): (&f64, &f64)| y == e || (y.is_nan() && e.is_nan());
            assert!(y.iter().zip(&expected).all(same), "{dtype:?} {isa:?}");
        }
    }
}

#[test]
fn scaled_codes_are_rounded_as_the_reference_rounds_them() {
    let weight = weight(11, 130, 140, DType::F8E4M3, false);
    let identity = Tensor::eye(140, DType::F32, &Device::Cpu).unwrap();
    let expected = dequantised(&weight).t().unwrap().contiguous().unwrap();
    for isa in ISAS {
        let y = with_isa(isa, || weight.forward(&identity, LinearMode::Dequant)).unwrap();
        assert_eq!(bits(&y), bits(&expected), "{isa:?}");
        let row = with_isa(isa, || weight.forward(&identity.narrow(0, 77, 1).unwrap(), LinearMode::Dequant)).unwrap();
        assert_eq!(bits(&row), bits(&expected.narrow(0, 77, 1).unwrap()), "{isa:?}");
    }
}

#[test]
fn fp8_linear_matches_the_golden_vectors() {
    let unit = unit();
    let (x, scale) = (&unit["fp8_linear.x"], &unit["fp8_linear.w_scale_inv"]);
    let weight = codes(&unit["fp8_linear.w_u8"]);
    for backend in [Backend::Cpu, Backend::Reference] {
        with_backend(backend, || {
            let check = |y: Tensor, key: &str| assert_close(&to_f64(&y), &to_f64(&unit[key]), F32_TOLERANCE, key);
            check(linear_fp8(x, &weight, scale, true).unwrap(), "fp8_linear.y_act_ue8m0");
            check(linear_fp8(x, &weight, scale, false).unwrap(), "fp8_linear.y_act_float");
            check(linear(x, &weight, Some(scale)).unwrap(), "fp8_linear.y_dequant_weight_only");
        });
    }
}

#[test]
fn fp8_linear_matches_f64_loops_on_ragged_shapes() {
    for (m, n, k) in [(1, 130, 200), (4, 5, 1), (9, 129, 257)] {
        for ue8m0 in [true, false] {
            let weight = weight(12, n, k, DType::F8E4M3, ue8m0);
            let x = tensor(13, &[m, k], DType::F32);
            let seen = with_backend(Backend::Reference, || -> Result<Tensor> {
                let (codes, scale) = act_quant(&x, BLOCK, ue8m0)?;
                act_dequant(&codes, &scale, BLOCK)
            });
            let expected = naive(&seen.unwrap(), &dequantised(&weight));
            for isa in ISAS {
                let y = with_isa(isa, || weight.forward(&x, LinearMode::Fp8 { ue8m0 })).unwrap();
                assert_close(&to_f64(&y), &expected, F32_TOLERANCE, &format!("{m}x{n}x{k} {isa:?}"));
            }
            let y = with_backend(Backend::Reference, || weight.forward(&x, LinearMode::Fp8 { ue8m0 })).unwrap();
            assert_close(&to_f64(&y), &expected, F32_TOLERANCE, &format!("{m}x{n}x{k} reference"));
        }
    }
}

#[test]
fn fp8_linear_adds_the_products_of_a_block_in_order_and_then_scales_them() {
    // Ragged blocks, panels and tiles; rows enough for a matrix unit, and for several chunks of them.
    for (m, n, k) in [(1, 130, 200), (5, 33, 1), (7, 129, 257), (40, 70, 300), (103, 37, 130)] {
        for ue8m0 in [true, false] {
            let weight = weight(26, n, k, DType::F8E4M3, ue8m0);
            let x = tensor(27, &[m, k], DType::F32);
            let (codes, x_scale) = with_backend(Backend::Reference, || act_quant(&x, BLOCK, ue8m0)).unwrap();
            let rows = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
            let (codes, x_scale) = (rows(&codes), rows(&x_scale));
            let (weights, weight_scale) = (rows(&weight.weight), rows(weight.weight_scale_inv.as_ref().unwrap()));
            let output = |row: usize, column: usize| {
                let blocks = codes[row].chunks(BLOCK).zip(weights[column].chunks(BLOCK)).enumerate();
                blocks.fold(0.0f32, |sum, (block, (x, w))| {
                    let dot = x.iter().zip(w).fold(0.0f32, |dot, (x, w)| dot + x * w);
                    sum + dot * (x_scale[row][block] * weight_scale[column / BLOCK][block])
                })
            };
            let expected: Vec<u32> = (0..m * n).map(|i| output(i / n, i % n).to_bits()).collect();
            for isa in ISAS {
                let run = |x: &Tensor| bits(&with_isa(isa, || weight.forward(x, LinearMode::Fp8 { ue8m0 })).unwrap());
                assert_eq!(run(&x), expected, "{m}x{n}x{k} {isa:?}");
                assert_eq!(run(&x.narrow(0, m - 1, 1).unwrap()), expected[(m - 1) * n..], "a row alone, {isa:?}");
            }
        }
    }
}

#[test]
fn linear_many_has_the_bits_of_single_layers() {
    let weights = [
        weight(14, 20, 150, DType::F8E4M3, true),
        weight(15, 7, 150, DType::BF16, false),
        weight(16, 33, 150, DType::F32, false),
    ];
    let borrowed: Vec<&LinearWeight> = weights.iter().collect();
    for mode in [LinearMode::Dequant, LinearMode::Fp8 { ue8m0: true }] {
        for m in [0, 1, 4] {
            let x = tensor(17, &[m, 150], DType::BF16);
            let together = linear_many(&x, &borrowed, mode).unwrap();
            assert_eq!(together.len(), 3);
            for (y, weight) in together.iter().zip(&weights) {
                let alone = weight.forward(&x, mode).unwrap();
                assert_eq!((y.dims(), y.dtype(), bits(y)), (alone.dims(), alone.dtype(), bits(&alone)));
            }
        }
    }
}

#[test]
fn empty_inputs_give_empty_or_zero_outputs() {
    for backend in [Backend::Cpu, Backend::Reference] {
        with_backend(backend, || {
            for (m, n, k) in [(0, 4, 8), (3, 0, 8), (3, 4, 0)] {
                for dtype in WEIGHT_DTYPES {
                    let weight = weight(18, n, k, dtype, true);
                    let x = Tensor::zeros((m, k), DType::F32, &Device::Cpu).unwrap();
                    for mode in [LinearMode::Dequant, LinearMode::Fp8 { ue8m0: true }] {
                        let y = weight.forward(&x, mode).unwrap();
                        assert_eq!(y.dims(), [m, n]);
                        assert!(to_f64(&y).iter().all(|&y| y == 0.0));
                    }
                }
            }
        });
    }
}

#[test]
fn not_finite_values_reach_the_outputs_that_depend_on_them() {
    let weight = weight(19, 5, 20, DType::BF16, false);
    let mut values = crate::common::values(20, 60);
    values[25] = f32::NAN;
    let x = Tensor::from_vec(values, (3, 20), &Device::Cpu).unwrap();
    let y = to_f64(&weight.forward(&x, LinearMode::Dequant).unwrap());
    assert!(y[..5].iter().chain(&y[10..]).all(|y| y.is_finite()) && y[5..10].iter().all(|y| y.is_nan()));
}

#[test]
fn gradients_flow_to_x() {
    let x = candle_core::Var::from_tensor(&tensor(21, &[2, 6], DType::F32)).unwrap();
    let weight = weight(22, 4, 6, DType::F32, false);
    let y = weight.forward(x.as_tensor(), LinearMode::Dequant).unwrap();
    let gradient = y.sum_all().unwrap().backward().unwrap().get(x.as_tensor()).unwrap().clone();
    let column_sums = weight.weight.sum(0).unwrap().broadcast_as((2, 6)).unwrap();
    assert_close(&to_f64(&gradient), &to_f64(&column_sums), F32_TOLERANCE, "gradient");
}

#[test]
fn wrong_arguments_are_named() {
    let x = tensor(23, &[2, 6], DType::F32);
    let good = tensor(24, &[4, 6], DType::F32);
    let (fp8, scale) = block_quant(&good, BLOCK, true).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let expect = |message: String, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(message.contains(part), "{message:?} should name {part:?}"));
    };
    expect(message(linear(&x, &tensor(1, &[4, 7], DType::F32), None)), &["linear: x must be [.., K = 7], got [2, 6]"]);
    expect(message(linear(&x, &tensor(1, &[6], DType::F32), None)), &["weight", "[N, K]", "[6]"]);
    expect(
        message(linear(&x, &good.to_dtype(DType::U32).unwrap(), None)),
        &["weight must be f32, bf16, f16 or f8e4m3, got u32"],
    );
    expect(
        message(linear(&x.to_dtype(DType::U32).unwrap(), &good, None)),
        &["x must be f32, bf16, f16 or f64, got u32"],
    );
    expect(message(linear(&x, &good, Some(&scale))), &["weight with a scale must be f8e4m3, got f32"]);
    expect(
        message(linear(&x, &fp8, Some(&tensor(1, &[2, 1], DType::F32)))),
        &["weight_scale_inv must be [blocks of N = 1, blocks of K = 1], got [2, 1]"],
    );
    expect(message(linear_fp8(&x, &good, &scale, true)), &["linear_fp8", "f8e4m3"]);
    expect(
        message(linear(&Tensor::new(1.0f32, &Device::Cpu).unwrap(), &good, None)),
        &["x must be [.., K = 6], got a scalar"],
    );
    let bad = LinearWeight { weight: tensor(1, &[4, 7], DType::F32), weight_scale_inv: None };
    expect(
        linear_many(&x, &[&bad], LinearMode::Dequant).unwrap_err().to_string(),
        &["linear_many: x must be [.., K = 7], got [2, 6]"],
    );
}
