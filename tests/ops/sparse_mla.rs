//! `ops::sparse_mla` against f64 loops.

use crate::common_attn::*;
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{Fp8Row, row_dequant, row_quant};
use deepseek_v32::ops::sparse_mla::sparse_mla;
use deepseek_v32::ops::{dense_mla, indexer_topk, mqa_logits};
use rand::Rng;

/// f32 sums of up to a few hundred products of numbers below 1.
const TOLERANCE: f64 = 3e-6;

/// `[T, H * V]` outputs and `[T, H]` lse by f64 loops.
fn oracle(q: &Tensor, kv: &Tensor, indices: &[Vec<i32>], value_dim: usize, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let (tokens, heads, dim) = q.dims3().unwrap();
    let (q, kv) = (values(q), values(kv));
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for t in 0..tokens {
        let rows = indices[t].iter().filter(|&&slot| slot >= 0).map(|&slot| &kv[slot as usize * dim..][..dim]);
        let rows = rows.collect::<Vec<_>>();
        for h in 0..heads {
            let (out, lse) = attention(&q[(t * heads + h) * dim..][..dim], &rows, &rows, value_dim, scale);
            outs.extend(out);
            lses.push(lse);
        }
    }
    (outs, lses)
}

/// Rows of `k` slots; about a quarter of them -1, at any place.
fn draw_indices(rng: &mut impl Rng, tokens: usize, k: usize, slots: usize) -> Vec<Vec<i32>> {
    let mut draw = || if rng.random_bool(0.25) { -1 } else { rng.random_range(0..slots as i32) };
    (0..tokens).map(|_| (0..k).map(|_| draw()).collect()).collect()
}

fn index_tensor(indices: &[Vec<i32>], k: usize) -> Tensor {
    Tensor::from_vec(indices.concat(), (indices.len(), k), &Device::Cpu).unwrap()
}

#[test]
fn matches_loops_for_every_shape() {
    let mut rng = rng(1);
    for (tokens, heads, dim, value_dim, k) in [
        (3, 16, 576, 512, 40),
        (2, 8, 80, 64, 130),
        (1, 1, 1, 1, 1),
        (2, 3, 17, 5, 64),
        (1, 12, 33, 33, 65),
        (2, 20, 48, 31, 700),
        (1, 128, 96, 64, 100),
        (1, 16, 64, 0, 10),
        (5, 4, 16, 16, 0),
        (2, 0, 16, 16, 8),
        (2, 3, 0, 0, 8),
        (0, 4, 16, 16, 8),
    ] {
        let (q, kv) = (tensor(&mut rng, &[tokens, heads, dim]), tensor(&mut rng, &[300, dim]));
        let indices = draw_indices(&mut rng, tokens, k, 300);
        let (out, lse) = oracle(&q, &kv, &indices, value_dim, 0.3);
        every_backend(|name| {
            let case = format!("{name} T={tokens} H={heads} D={dim} V={value_dim} K={k}");
            let got = sparse_mla(&q, &kv, &index_tensor(&indices, k), value_dim, 0.3).unwrap();
            assert_eq!(got.0.dims(), [tokens, heads, value_dim], "{case}");
            assert_eq!((got.1.dims(), got.1.dtype()), (&[tokens, heads][..], DType::F32), "{case}");
            assert_close(&case, &values(&got.0), &out, TOLERANCE);
            assert_close(&case, &values(&got.1), &lse, TOLERANCE);
        });
    }
}

#[test]
fn reads_half_precision_strided_and_offset_tensors() {
    let mut rng = rng(2);
    let q = tensor(&mut rng, &[12, 4, 40]).transpose(0, 1).unwrap().narrow(2, 3, 36).unwrap().narrow(0, 1, 3).unwrap();
    let kv = tensor(&mut rng, &[201, 80]).narrow(1, 44, 36).unwrap().narrow(0, 1, 200).unwrap();
    let indices = draw_indices(&mut rng, 3, 90, 200);
    let index = index_tensor(&indices, 90);
    let wide = Tensor::cat(&[&index, &index], 1).unwrap().narrow(1, 90, 90).unwrap().to_dtype(DType::I64).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        let (q, kv) = (q.to_dtype(dtype).unwrap(), kv.to_dtype(dtype).unwrap());
        let (out, lse) = oracle(&q, &kv, &indices, 24, 0.2);
        // The result is rounded to the query's dtype: 8 bits of mantissa for bf16, 11 for f16.
        let tolerance = match dtype {
            DType::BF16 => 4e-3,
            DType::F16 => 5e-4,
            _ => TOLERANCE,
        };
        every_backend(|name| {
            for index in [&index, &wide] {
                let got = sparse_mla(&q, &kv, index, 24, 0.2).unwrap();
                assert_eq!((got.0.dtype(), got.1.dtype()), (dtype, DType::F32));
                assert_close(&format!("{name} {dtype:?}"), &values(&got.0), &out, tolerance);
                assert_close(&format!("{name} {dtype:?}"), &values(&got.1), &lse, TOLERANCE);
            }
        });
    }
}

#[test]
fn rows_without_slots_are_zero() {
    let mut rng = rng(3);
    let (q, kv) = (tensor(&mut rng, &[3, 5, 20]), tensor(&mut rng, &[64, 20]));
    let indices = vec![vec![-1; 6], vec![-1, -1, 7, -1, -1, -1], vec![-1; 6]];
    every_backend(|name| {
        let (out, lse) = sparse_mla(&q, &kv, &index_tensor(&indices, 6), 20, 1.).unwrap();
        let (out, lse) = (out.to_vec3::<f32>().unwrap(), lse.to_vec2::<f32>().unwrap());
        for row in [0, 2] {
            assert_eq!((&out[row], &lse[row]), (&vec![vec![0.; 20]; 5], &vec![f32::NEG_INFINITY; 5]), "{name}");
        }
        assert_eq!(out[1][0], kv.get(7).unwrap().to_vec1::<f32>().unwrap(), "{name}: one key gives its value");
    });
    let empty = Tensor::zeros((0, 20), DType::F32, &Device::Cpu).unwrap();
    every_backend(|name| {
        let (out, _) = sparse_mla(&q, &empty, &index_tensor(&vec![vec![-1; 6]; 3], 6), 20, 1.).unwrap();
        assert!(values(&out).iter().all(|&x| x == 0.), "{name}: an empty cache");
    });
}

#[test]
fn wide_scores_do_not_overflow() {
    let mut rng = rng(4);
    let q = (tensor(&mut rng, &[2, 9, 32]) * 1e4).unwrap();
    let kv = (tensor(&mut rng, &[256, 32]) * 1e3).unwrap();
    let indices = vec![(0..256).collect::<Vec<i32>>(), (0..256).rev().collect()];
    for scale in [1., -1., 1e-9, 0.] {
        let (out, lse) = oracle(&q, &kv, &indices, 32, scale);
        every_backend(|name| {
            let got = sparse_mla(&q, &kv, &index_tensor(&indices, 256), 32, scale).unwrap();
            assert!(values(&got.0).iter().chain(&values(&got.1)).all(|x| x.is_finite()), "{name} {scale}");
            // Scores near 1e8 carry an f32 error near 10, so only the log-sum-exp can be compared.
            assert_close(&format!("{name} {scale}"), &values(&got.1), &lse, TOLERANCE);
            if scale.abs() < 1e-3 {
                assert_close(&format!("{name} {scale}"), &values(&got.0), &out, 1e-4);
            }
        });
    }
}

#[test]
fn a_slot_named_twice_counts_twice() {
    let mut rng = rng(5);
    let (q, kv) = (tensor(&mut rng, &[1, 4, 16]), tensor(&mut rng, &[64, 16]));
    let indices = vec![vec![3, 3, 9, 3]];
    let (out, lse) = oracle(&q, &kv, &indices, 16, 1.);
    every_backend(|name| {
        let got = sparse_mla(&q, &kv, &index_tensor(&indices, 4), 16, 1.).unwrap();
        assert_close(name, &values(&got.0), &out, TOLERANCE);
        assert_close(name, &values(&got.1), &lse, TOLERANCE);
    });
}

#[test]
fn neither_the_batch_nor_the_threads_change_a_bit() {
    let mut rng = rng(6);
    for (tokens, heads) in [(3, 16), (40, 20)] {
        let (q, kv) = (tensor(&mut rng, &[tokens, heads, 144]), tensor(&mut rng, &[1000, 144]));
        let index = index_tensor(&draw_indices(&mut rng, tokens, 900, 1000), 900);
        let run = |threads, row, rows| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (q, index) = (q.narrow(0, row, rows).unwrap(), index.narrow(0, row, rows).unwrap());
            let (out, lse) = pool.install(|| sparse_mla(&q, &kv, &index, 128, 0.1).unwrap());
            (bits(&out), bits(&lse))
        };
        let all = run(1, 0, tokens);
        assert!(all == run(2, 0, tokens) && all == run(5, 0, tokens));
        for row in 0..tokens {
            let (out, lse) = run(1 + row % 3, row, 1);
            assert!(out == all.0[row * heads * 128..][..heads * 128], "row {row}");
            assert!(lse == all.1[row * heads..][..heads], "row {row}");
        }
    }
}

#[test]
fn the_reference_has_gradients() {
    let mut rng = rng(7);
    let (q, kv) = (tensor(&mut rng, &[2, 2, 6]), tensor(&mut rng, &[8, 6]));
    let index = index_tensor(&[vec![1, -1, 5], vec![-1, -1, -1]], 3);
    let loss = |q: &Tensor, kv: &Tensor| {
        let (out, lse) = sparse_mla(q, kv, &index, 4, 0.5).unwrap();
        (out.sqr().unwrap().sum_all().unwrap() + lse.narrow(0, 0, 1).unwrap().sum_all().unwrap()).unwrap()
    };
    let (qv, kvv) = (candle_core::Var::from_tensor(&q).unwrap(), candle_core::Var::from_tensor(&kv).unwrap());
    let grads = loss(&qv, &kvv).backward().unwrap();
    let (dq, dkv) = (values(grads.get(&qv).unwrap()), values(grads.get(&kvv).unwrap()));
    let nudge = |t: &Tensor, i: usize, by: f32| {
        let mut data = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        data[i] += by;
        Tensor::from_vec(data, t.shape(), &Device::Cpu).unwrap()
    };
    let value = |q: &Tensor, kv: &Tensor| values(&loss(q, kv))[0];
    for (i, got) in dq.iter().enumerate() {
        let expected = (value(&nudge(&q, i, 0.01), &kv) - value(&nudge(&q, i, -0.01), &kv)) / 0.02;
        assert!((got - expected).abs() < 1e-3, "dq[{i}] {got} {expected}");
    }
    for (i, got) in dkv.iter().enumerate() {
        let expected = (value(&q, &nudge(&kv, i, 0.01)) - value(&q, &nudge(&kv, i, -0.01))) / 0.02;
        assert!((got - expected).abs() < 1e-3, "dkv[{i}] {got} {expected}");
    }
}

#[test]
fn names_what_is_wrong() {
    let mut rng = rng(8);
    let (q, kv) = (tensor(&mut rng, &[2, 4, 8]), tensor(&mut rng, &[64, 8]));
    let index = |data: [i32; 4]| Tensor::from_slice(&data, (2, 2), &Device::Cpu).unwrap();
    let good = index([0, 1, 2, 3]);
    every_backend(|_| {
        assert_error(sparse_mla(&q, &kv, &index([0, 1, 2, 64]), 8, 1.), "indices[1, 1] is 64, the cache has 64 slots");
        assert_error(sparse_mla(&q, &kv, &index([0, -2, 2, 3]), 8, 1.), "indices[0, 1] is -2");
        assert_error(sparse_mla(&q, &kv, &index([i32::MIN, 1, 2, 3]), 8, 1.), "indices[0, 0] is -2147483648");
        assert_error(sparse_mla(&kv, &kv, &good, 8, 1.), "sparse_mla: q must be [T, H, D]");
        assert_error(sparse_mla(&q, &q, &good, 8, 1.), "kv must be [slots, D = 8]");
        assert_error(sparse_mla(&q, &kv, &q, 8, 1.), "indices must be i32 or i64, got f32");
        assert_error(
            sparse_mla(&q, &kv, &good.to_dtype(DType::F32).unwrap(), 8, 1.),
            "indices must be i32 or i64, got f32",
        );
        assert_error(
            sparse_mla(&q, &kv.narrow(1, 0, 7).unwrap(), &good, 7, 1.),
            "kv must be [slots, D = 8], got [64, 7]",
        );
        assert_error(
            sparse_mla(&q.narrow(0, 0, 1).unwrap(), &kv, &good, 8, 1.),
            "indices must be [T = 1, K], got [2, 2]",
        );
        assert_error(sparse_mla(&q, &kv, &good, 9, 1.), "value_dim must be in 0..=8, got 9");
        assert_error(sparse_mla(&q, &kv, &good, 8, f64::NAN), "softmax_scale must be a finite");
        assert_error(
            sparse_mla(&q.to_dtype(DType::U32).unwrap(), &kv, &good, 8, 1.),
            "q must be f32, bf16, f16, f64 or f8e4m3",
        );
    });
}

/// The rows of an FP8 cache count as the values that they hold, for every op that reads keys.
#[test]
fn packed_keys_count_as_their_values() {
    let mut rng = rng(9);
    let row = Fp8Row { quantized: 160, plain: 16 };
    let kv = tensor(&mut rng, &[SLOTS, row.width()]);
    let packed = row_quant(&kv, row, false).unwrap();
    let values = row_dequant(&packed, row).unwrap();
    let layout = layout(&mut rng, &[(70, 5), (0, 3), (200, 1)]);
    let q = tensor(&mut rng, &[9, 6, row.width()]);
    let indices = index_tensor(&draw_indices(&mut rng, 9, 50, SLOTS), 50);
    let index_row = Fp8Row { quantized: 128, plain: 0 };
    let index_k = row_quant(&tensor(&mut rng, &[SLOTS, 128]), index_row, true).unwrap();
    let index_values = row_dequant(&index_k, index_row).unwrap();
    let (index_q, weights) = (tensor(&mut rng, &[9, 4, 128]), tensor(&mut rng, &[9, 4]));
    every_backend(|case| {
        let sparse = |kv: &Tensor| sparse_mla(&q, kv, &indices, 160, 0.2).unwrap();
        let dense = |kv: &Tensor| dense_mla(&q, kv, &layout, 160, 0.2).unwrap();
        for ((out, lse), (packed_out, packed_lse)) in
            [(sparse(&values), sparse(&packed)), (dense(&values), dense(&packed))]
        {
            assert_eq!((bits(&out), bits(&lse)), (bits(&packed_out), bits(&packed_lse)), "{case}");
        }
        let logits = |keys: &Tensor| bits(&mqa_logits(&index_q, keys, &weights, &layout).unwrap());
        assert_eq!(logits(&index_values), logits(&index_k), "{case}");
        let chosen = |keys: &Tensor| ints(&indexer_topk(&index_q, keys, &weights, &layout, 30).unwrap());
        assert_eq!(chosen(&index_values), chosen(&index_k), "{case}");
    });
    assert_error(sparse_mla(&q, &packed, &indices, 150, 0.2), "kv must be [slots, bytes of a row = 210], got");
}
