//! The ops that put the others together, and those of few rows.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::generation::{Largest, largest};
use deepseek_v32::ops::linear::LinearWeight;
use deepseek_v32::ops::residual::NOTHING;
use deepseek_v32::ops::{
    absorb_query, absorb_value, add, add_rms_norm, cast, gather, join, join_rows, mark_not_finite, rope_join, scale,
};

use crate::common::{strided, tensor};
use crate::{check, gpu, views};

/// f32: another order of some thousand additions; bf16: one rounding of the result.
const TOLERANCES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::BF16, 8e-3)];
/// Products of a latent of 512 numbers below one, in f32 and with one rounding to bf16 of numbers of a size of ten.
const PRODUCTS: [(DType, f64); 2] = [(DType::F32, 5e-5), (DType::BF16, 5e-2)];

#[test]
fn rows_and_parts() {
    let Some(device) = gpu() else { return };
    for (from, _) in TOLERANCES {
        for (to, _) in TOLERANCES {
            let indices = Tensor::new(&[4u32, 0, 4, 2], &Device::Cpu).unwrap();
            for table in views(&tensor(1, &[5, 33], from)) {
                check("gather", &device, 0.0, &[&table, &indices], |a| Ok(vec![gather(&a[0], &a[1], to)?]));
            }
            for x in views(&tensor(1, &[3, 5, 7], from)) {
                check("cast", &device, 0.0, &[&x], |a| Ok(vec![cast(&a[0], to)?]));
            }
        }
        let b = tensor(2, &[3, 2, 5], from);
        for a in views(&tensor(1, &[3, 2, 7], from)) {
            check("join", &device, 0.0, &[&a, &b], |a| Ok(vec![join(&a[0], &a[1])?]));
            check("join", &device, 0.0, &[&b, &a], |a| Ok(vec![join(&a[0], &a[1])?]));
        }
        let [above, below] = [2, 3].map(|seed| tensor(seed, &[seed as usize, 6], from));
        for above in views(&above) {
            check("join_rows", &device, 0.0, &[&above, &below], |a| Ok(vec![join_rows(a)?]));
        }
        let shared = tensor(3, &[3, 1, 4], from);
        check("join with a broadcast", &device, 0.0, &[&b, &shared], |a| {
            Ok(vec![join(&a[0], &a[1].broadcast_as((3, 2, 4))?)?])
        });
    }
    let (codes, indices) = (tensor(1, &[5, 656], DType::F32), Tensor::new(&[4u32, 0], &Device::Cpu).unwrap());
    let codes = ((codes + 1.0).unwrap() * 100.0).unwrap().to_dtype(DType::U8).unwrap();
    check("gather of bytes", &device, 0.0, &[&codes, &indices], |a| Ok(vec![gather(&a[0], &a[1], DType::U8)?]));
}

#[test]
fn rotations_beside_the_rest() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for (tokens, heads, rotated, others) in [(1, 1, 2, 1), (3, 5, 8, 6), (17, 128, 64, 512), (2, 3, 64, 0)] {
            let [cos, sin] = [2, 3].map(|seed| tensor(seed, &[tokens, rotated / 2], DType::F32));
            let rest = tensor(4, &[tokens, heads, others], dtype);
            for pe in views(&tensor(1, &[tokens, heads, rotated], dtype)) {
                for flags in [(true, true), (true, false), (false, true), (false, false)] {
                    check("rope_join", &device, tolerance, &[&pe, &rest, &cos, &sin], |a| {
                        Ok(vec![rope_join(&a[0], &a[1], &a[2], &a[3], flags.0, flags.1)?])
                    });
                }
            }
        }
    }
}

#[test]
fn sums() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for shape in [&[1, 1][..], &[2, 33], &[3, 7168], &[2, 3, 64]] {
            let [a, b] = [2, 3].map(|seed| tensor(seed, shape, dtype));
            let weight = tensor(4, &[shape[shape.len() - 1]], DType::F32);
            for x in views(&tensor(1, shape, dtype)) {
                check("add", &device, 0.0, &[&x, &a], |a| Ok(vec![add(&a[0], &a[1], None)?]));
                check("add", &device, 0.0, &[&x, &a, &b], |a| Ok(vec![add(&a[0], &a[1], Some(&a[2]))?]));
                check("add_rms_norm", &device, tolerance, &[&x, &a, &weight], |a| {
                    let (sum, normed) = add_rms_norm(&a[0], &a[1], &a[2], 1e-6)?;
                    Ok(vec![sum, normed])
                });
            }
        }
    }
    let (x, by) = (tensor(1, &[5, 9], DType::F32), tensor(2, &[5, 9], DType::F32));
    for x in views(&x) {
        check("scale", &device, 0.0, &[&x, &by], |a| {
            Ok(vec![scale(&a[0], 0.37, Some(&a[1]))?, scale(&a[0], 3.1, None)?])
        });
    }
}

#[test]
fn numbers_that_are_not_finite() {
    let Some(device) = gpu() else { return };
    for (dtype, _) in TOLERANCES {
        for (rows, width) in [(1, 1), (5, 33), (70, 3000)] {
            let fine = tensor(1, &[rows, width], dtype);
            for (bad, row) in [(f32::NAN, rows - 1), (f32::INFINITY, rows / 2), (f32::NEG_INFINITY, 0)] {
                let mut values = fine.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
                values[row][width - 1] = bad;
                values[rows - 1][0] = bad;
                let spoilt = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                for spoilt in views(&spoilt) {
                    check("mark_not_finite", &device, 0.0, &[&fine, &spoilt], |a| {
                        let first = Tensor::new(&[NOTHING, NOTHING], a[0].device())?;
                        for (index, x) in [(0, &a[0]), (1, &a[1]), (2, &a[1].narrow(0, 0, 1)?)] {
                            mark_not_finite(x, index, &first)?;
                        }
                        Ok(vec![first])
                    });
                }
            }
        }
    }
}

#[test]
fn products_with_kv_b_proj() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in PRODUCTS {
        for (heads, nope, value, latent) in [(1, 3, 5, 7), (8, 32, 32, 64), (5, 128, 128, 512)] {
            let weight = tensor(2, &[heads * (nope + value), latent], DType::F32);
            let (codes, scale) = deepseek_v32::ops::fp8::block_quant(&weight, 128, false).unwrap();
            let forms = [vec![weight.clone()], vec![weight.to_dtype(DType::BF16).unwrap()], vec![codes, scale]];
            for (rows, form) in
                [1, 3, 8, 9, 64, 65, 130].into_iter().flat_map(|rows| forms.iter().map(move |form| (rows, form)))
            {
                let of = |a: &[Tensor]| LinearWeight { weight: a[1].clone(), weight_scale_inv: a.get(2).cloned() };
                let query = tensor(1, &[rows, heads, nope], dtype);
                for query in [query.clone(), strided(&query)] {
                    let arguments: Vec<_> = [&query].into_iter().chain(form).collect();
                    check("absorb_query", &device, tolerance, &arguments, |a| {
                        Ok(vec![absorb_query(&a[0], &of(a), value)?])
                    });
                }
                let attended = tensor(3, &[rows, heads, latent], dtype);
                for attended in [attended.clone(), strided(&attended)] {
                    let arguments: Vec<_> = [&attended].into_iter().chain(form).collect();
                    check("absorb_value", &device, tolerance, &arguments, |a| {
                        Ok(vec![absorb_value(&a[0], &of(a), nope)?])
                    });
                }
            }
        }
    }
}

#[test]
fn largest_logits() {
    let Some(device) = gpu() else { return };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for columns in [1, 7, 2560, 129_280] {
        let mut rows = tensor(1, &[6, columns], DType::F32).to_vec2::<f32>().unwrap();
        let last = columns - 1;
        rows[1][last] = 2.0;
        rows[1][last / 2] = 2.0;
        rows[2] = vec![-inf; columns];
        rows[3][last] = nan;
        rows[3][last / 2] = inf;
        rows[4][last / 3] = nan;
        rows[5] = vec![-0.0; columns];
        rows[5][last] = 0.0;
        let expected: Vec<_> = rows.iter().map(|row| Largest::of(row)).collect();
        let logits = Tensor::new(rows, &device).unwrap();
        for (found, expected) in largest(&logits).unwrap().iter().zip(&expected) {
            assert_eq!(
                (found.id, found.logit.to_bits() << 1),
                (expected.id, expected.logit.to_bits() << 1),
                "{columns}"
            );
        }
        let narrow = largest(&logits.narrow(0, 1, 2).unwrap()).unwrap();
        assert_eq!(narrow.iter().map(|largest| largest.id).collect::<Vec<_>>(), [expected[1].id, expected[2].id]);
    }
}
