//! What is selected: experts, columns, slots. Exactly that of the CPU.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{Fp8Row, act_quant, row_quant};
use deepseek_v32::ops::gate::GateConfig;
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::ops::{Backend, backend_report_on, backends_on, gate, indexer_topk, indices_i64, mqa_logits, topk};

use crate::common::{tensor, to_f64, values};
use crate::common_attn::{self, SLOTS, assert_close, ints, rng};
use crate::{both, check, gpu};

/// Weights of experts, and indexer scores: f32 rounding of some hundred additions.
const TOLERANCE: f64 = 1e-5;
/// Indexer scores of some ten from products in e4m3: tensor cores add them with about 14 bits.
const E4M3_TOLERANCE: f64 = 1e-2;

#[test]
fn every_op_has_a_cuda_path() {
    let Some(device) = gpu() else { return };
    for op in backends_on(&device) {
        assert_eq!(op.inference, Backend::Cuda, "{}", op.op);
    }
    let report = backend_report_on(&device);
    assert!(report.starts_with("cuda (") && report.contains("): all ops"), "{report}");
    println!("{report}");
}

#[test]
fn experts() {
    let Some(device) = gpu() else { return };
    let configs = [(1, 1, 8, 8), (8, 4, 256, 8), (4, 2, 8, 3), (2, 1, 6, 6), (1, 1, 1, 1), (4, 2, 4, 2)];
    for (n_group, topk_group, experts, k) in configs {
        for norm_topk_prob in [true, false] {
            let cfg =
                GateConfig { n_group, topk_group, num_experts_per_tok: k, norm_topk_prob, routed_scaling_factor: 2.5 };
            // Near and far scores, and many ties.
            let logits = (tensor(1, &[50, experts], DType::F32) * 4.0).unwrap();
            let tied = (&logits * 0.5).unwrap().round().unwrap();
            let bias = tensor(2, &[experts], DType::F32);
            let zeros = bias.zeros_like().unwrap();
            for (logits, bias) in [(&logits, Some(&bias)), (&tied, Some(&zeros)), (&tied, None)] {
                let arguments: Vec<_> = [Some(logits), bias].into_iter().flatten().collect();
                let [cpu, gpu] = both(&device, &arguments, |a| {
                    let (indices, weights) = gate(&a[0], a.get(1), &cfg)?;
                    Ok(vec![indices, weights])
                });
                assert_eq!(gpu[0].to_vec2::<u32>().unwrap(), cpu[0].to_vec2::<u32>().unwrap(), "{cfg:?}");
                assert_close("weights", &to_f64(&gpu[1]), &to_f64(&cpu[1]), TOLERANCE);
            }
        }
    }
    let cfg = GateConfig {
        n_group: 1,
        topk_group: 1,
        num_experts_per_tok: 2,
        norm_topk_prob: true,
        routed_scaling_factor: 1.0,
    };
    let logits = Tensor::new(&[[0f32, f32::NAN, 1.0], [0.0, 2.0, 1.0]], &device).unwrap();
    let weights = gate(&logits, None, &cfg).unwrap().1.to_vec2::<f32>().unwrap();
    assert!(weights[0].iter().all(|x| x.is_nan()) && weights[1].iter().all(|x| x.is_finite()), "{weights:?}");
}

#[test]
fn columns() {
    let Some(device) = gpu() else { return };
    let row = |kind: usize, columns: usize| -> Vec<f32> {
        let draw = values(kind as u64, columns);
        let value = |(i, x): (usize, f32)| match kind {
            0 => x,
            1 => (x * 3.0).round() * 0.5,
            2 => 1.0 + x * 1e-6,
            3 => [0.0, -0.0, f32::NEG_INFINITY, f32::MIN_POSITIVE / 2.0][i % 4],
            4 if i % 3 > 0 => f32::NEG_INFINITY,
            5 => [f32::INFINITY, f32::MAX, f32::MIN, x * 1e30][i % 4],
            _ => 0.25,
        };
        draw.into_iter().enumerate().map(value).collect()
    };
    let rows = |rows: usize, columns: usize| {
        let rows_of: Vec<f32> = (0..rows).flat_map(|i| row(i % 7, columns)).collect();
        Tensor::from_vec(rows_of, (rows, columns), &Device::Cpu).unwrap()
    };
    for columns in [1, 31, 256, 1000, 5000, 70_000] {
        let logits = rows(7, columns);
        for k in [1, 2, 100, columns.saturating_sub(1).max(1), columns, columns + 3] {
            for logits in [logits.clone(), crate::common::strided(&logits)] {
                let [cpu, gpu] = both(&device, &[&logits], |a| Ok(vec![topk(&a[0], k)?]));
                assert!(ints(&gpu[0]) == ints(&cpu[0]), "{k} of {columns}");
            }
        }
    }
    // A row by itself, and as the work of two, four and eight blocks.
    for (count, columns) in [(140, 8200), (50, 9001), (20, 12_288), (3, 200_001)] {
        let logits = rows(count, columns);
        for k in [1, 2048, 4096, 4097] {
            let [cpu, gpu] = both(&device, &[&logits], |a| Ok(vec![topk(&a[0], k)?]));
            assert!(ints(&gpu[0]) == ints(&cpu[0]), "{k} of {columns} in {count} rows");
        }
    }
    let indices = Tensor::new(&[[1i32, -1], [i32::MIN, i32::MAX]], &device).unwrap();
    let wide = indices_i64(&indices.t().unwrap()).unwrap();
    assert_eq!(wide.to_vec2::<i64>().unwrap(), [[1, i64::from(i32::MIN)], [-1, i64::from(i32::MAX)]]);
    let logits = Tensor::new(&[[1f32, f32::NAN, 3.0], [1.0, 2.0, 3.0]], &device).unwrap();
    assert_eq!(ints(&topk(&logits, 2).unwrap()), [[-1, -1], [1, 2]]);
    assert_eq!(topk(&logits, 0).unwrap().dims(), [2, 0]);
    assert_eq!(topk(&logits.narrow(0, 0, 0).unwrap(), 2).unwrap().dims(), [0, 2]);
}

/// Sequences of (tokens already cached, new tokens).
const BATCHES: [&[(usize, usize)]; 5] =
    [&[(0, 1)], &[(0, 70)], &[(5, 3), (0, 64), (200, 1)], &[(63, 2), (64, 1)], &[(900, 40)]];

fn scored(layout: &BatchLayout, heads: usize, dim: usize, dtype: DType) -> [Tensor; 3] {
    let tokens = layout.tokens();
    let make = |seed, shape: &[usize]| tensor(seed, shape, dtype);
    [make(1, &[tokens, heads, dim]), make(2, &[SLOTS, dim]), tensor(3, &[tokens, heads], DType::F32)]
}

#[test]
fn scores_and_slots() {
    let Some(device) = gpu() else { return };
    for batch in BATCHES {
        let layout = common_attn::layout(&mut rng(7), batch);
        for (heads, dim) in [(1, 1), (4, 32), (64, 128), (3, 200)] {
            for dtype in [DType::F32, DType::BF16] {
                let [q, index_k, weights] = &scored(&layout, heads, dim, dtype);
                check("mqa_logits", &device, TOLERANCE, &[q, index_k, weights], |a| {
                    Ok(vec![mqa_logits(&a[0], &a[1], &a[2], &layout)?])
                });
                let packed = row_quant(index_k, Fp8Row { quantized: dim, plain: 0 }, true).unwrap();
                check("mqa_logits of packed rows", &device, TOLERANCE, &[q, &packed, weights], |a| {
                    Ok(vec![mqa_logits(&a[0], &a[1], &a[2], &layout)?])
                });
                let q = crate::common::strided(q);
                check("mqa_logits of a view", &device, TOLERANCE, &[&q, index_k, weights], |a| {
                    Ok(vec![mqa_logits(&a[0], &a[1], &a[2], &layout)?])
                });
            }
            // Keys and queries of few values: the scores are exact, with ties.
            let [q, index_k, weights] =
                scored(&layout, heads, dim, DType::F32).map(|x| (x * 2.0).unwrap().round().unwrap());
            for k in [1, 8, 64, 300] {
                let [cpu, gpu] = both(&device, &[&q, &index_k, &weights], |a| {
                    Ok(vec![indexer_topk(&a[0], &a[1], &a[2], &layout, k)?])
                });
                assert_eq!(ints(&gpu[0]), ints(&cpu[0]), "{batch:?} {heads} {dim} {k}");
            }
        }
    }
}

/// Queries in e4m3 with their scales in the head weights, and the rows of an FP8 cache.
#[test]
fn scores_and_slots_of_codes() {
    let Some(device) = gpu() else { return };
    let batches =
        [&BATCHES[..], &[&[(100, 1), (0, 1), (700, 1)], &[(100, 2), (0, 1)], &[(300, 4), (1200, 3)]]].concat();
    for batch in batches {
        let layout = common_attn::layout(&mut rng(7), batch);
        for (heads, dim) in [(64, 128), (5, 128), (64, 64)] {
            let row = Fp8Row { quantized: dim, plain: 0 };
            let coded = |q: &Tensor, weights: &Tensor| {
                let (codes, scale) = act_quant(q, dim, true).unwrap();
                (codes, (weights * scale.squeeze(2).unwrap()).unwrap())
            };
            let [q, index_k, weights] = &scored(&layout, heads, dim, DType::F32);
            let (codes, folded) = coded(q, weights);
            let packed = row_quant(index_k, row, true).unwrap();
            check("mqa_logits of codes", &device, E4M3_TOLERANCE, &[&codes, &packed, &folded], |a| {
                Ok(vec![mqa_logits(&a[0], &a[1], &a[2], &layout)?])
            });
            // Of few values: the scores are exact, with ties.
            let [q, index_k, weights] =
                scored(&layout, heads, dim, DType::F32).map(|x| (x * 2.0).unwrap().round().unwrap());
            let (codes, folded) = coded(&q, &weights);
            let packed = row_quant(&index_k, row, true).unwrap();
            check("exact mqa_logits of codes", &device, 0.0, &[&codes, &packed, &folded], |a| {
                Ok(vec![mqa_logits(&a[0], &a[1], &a[2], &layout)?])
            });
            for k in [1, 64, 300] {
                let [cpu, gpu] = both(&device, &[&codes, &packed, &folded], |a| {
                    Ok(vec![indexer_topk(&a[0], &a[1], &a[2], &layout, k)?])
                });
                assert_eq!(ints(&gpu[0]), ints(&cpu[0]), "{batch:?} {heads} {dim} {k}");
            }
        }
    }
}
