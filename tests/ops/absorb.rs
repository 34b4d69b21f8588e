//! `absorb_query` and `absorb_value` against f64 loops.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{block_dequant, block_quant};
use deepseek_v32::ops::linear::LinearWeight;
use deepseek_v32::ops::simd::{Isa, with_isa};
use deepseek_v32::ops::{Backend, absorb_query, absorb_value, with_backend};

/// Greatest difference from f64 loops, relative to the largest value.
const TOLERANCE: f64 = 2e-6;

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn weight(dtype: DType, rows: usize, latent: usize) -> (LinearWeight, Vec<f32>) {
    let wide = Tensor::from_vec(noise(rows * latent, 7), (rows, latent), &Device::Cpu).unwrap();
    let weight = if dtype == DType::F8E4M3 {
        let (weight, scale) = block_quant(&wide, 128, false).unwrap();
        LinearWeight { weight, weight_scale_inv: Some(scale) }
    } else {
        LinearWeight { weight: wide.to_dtype(dtype).unwrap(), weight_scale_inv: None }
    };
    let values = match &weight.weight_scale_inv {
        Some(scale) => block_dequant(&weight.weight, scale, 128).unwrap(),
        None => weight.weight.to_dtype(DType::F32).unwrap(),
    };
    let values = values.flatten_all().unwrap().to_vec1().unwrap();
    (weight, values)
}

fn close(found: &Tensor, expected: &[f64]) {
    let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-30f64, |max, x| max.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= TOLERANCE * scale, "{found} is not {expected}");
    }
}

#[test]
fn match_loops() {
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F8E4M3] {
        for (tokens, heads, nope, v, latent) in
            [(1, 8, 32, 32, 64), (3, 3, 5, 7, 150), (0, 2, 4, 4, 8), (40, 16, 24, 20, 100)]
        {
            let rows = heads * (nope + v);
            let (weight, values) = weight(dtype, rows, latent);
            let at = |head: usize, row: usize, l: usize| f64::from(values[(head * (nope + v) + row) * latent + l]);
            let q = noise(tokens * heads * nope, 1);
            let x = noise(tokens * heads * latent, 2);
            let (mut absorbed, mut expanded) = (Vec::new(), Vec::new());
            for t in 0..tokens {
                for h in 0..heads {
                    let q = &q[(t * heads + h) * nope..][..nope];
                    let x = &x[(t * heads + h) * latent..][..latent];
                    absorbed.extend((0..latent).map(|l| (0..nope).map(|n| f64::from(q[n]) * at(h, n, l)).sum::<f64>()));
                    expanded
                        .extend((0..v).map(|i| (0..latent).map(|l| f64::from(x[l]) * at(h, nope + i, l)).sum::<f64>()));
                }
            }
            let q = Tensor::from_vec(q, (tokens, heads, nope), &Device::Cpu).unwrap();
            let x = Tensor::from_vec(x, (tokens, heads, latent), &Device::Cpu).unwrap();
            let check = || {
                close(&absorb_query(&q, &weight, v).unwrap(), &absorbed);
                close(&absorb_value(&x, &weight, nope).unwrap(), &expanded);
            };
            [Isa::Baseline, Isa::Avx2, Isa::Avx512].into_iter().for_each(|isa| with_isa(isa, check));
            with_backend(Backend::Reference, check);
            // A row's bits do not depend on the rows beside it.
            if tokens > 1 {
                let alone = absorb_query(&q.narrow(0, 1, 1).unwrap(), &weight, v).unwrap();
                let among = absorb_query(&q, &weight, v).unwrap().narrow(0, 1, 1).unwrap();
                let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(bits(&alone), bits(&among));
            }
        }
    }
}

#[test]
fn refuse_what_does_not_fit() {
    let (weight, _) = weight(DType::F32, 24, 8);
    let zeros = |dims: (usize, usize, usize)| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    assert!(absorb_query(&zeros((1, 3, 5)), &weight, 4).is_err());
    assert!(absorb_value(&zeros((1, 3, 9)), &weight, 4).is_err());
    assert!(absorb_value(&zeros((1, 5, 8)), &weight, 4).is_err());
    assert!(absorb_value(&zeros((1, 3, 8)), &weight, 9).is_err());
    assert!(absorb_value(&zeros((1, 0, 8)), &weight, 4).is_err());
}
