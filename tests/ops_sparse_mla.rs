//! `ops::sparse_mla` against f64 loops.

mod common_attn;

use candle_core::{DType, Device, Tensor};
use common_attn::*;
use deepseek_v32::ops::sparse_mla::sparse_mla;
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
