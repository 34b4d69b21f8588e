//! The products with `kv_b_proj` on CPU, one head after the other or in parallel.

use candle::{Result, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use crate::ops::cpu::floats::{Floats, to_tensor};
use crate::ops::cpu::simd::{isa, mul_add, simd_kernel};
use crate::ops::fp8::BLOCK;
use crate::ops::linear::LinearWeight;
use crate::ops::linear::cpu::HeldWeight;
use crate::ops::linear::gemm::{Codes, Weight, gemm};

/// Multiply-adds below which one thread does it all.
const SERIAL_MACS: usize = 400_000;
/// Latent elements that a kernel keeps in registers.
const CHUNK: usize = 64;

pub(super) fn absorb_query(q_nope: &Tensor, kv_b_proj: &LinearWeight, v_dim: usize) -> Result<Tensor> {
    let (tokens, heads, nope_dim) = q_nope.dims3()?;
    let (held, q) = (HeldWeight::of(kv_b_proj)?, Floats::new(q_nope)?);
    let guard = held.read()?;
    let (weight, isa, q) = (guard.weight()?, isa(), q.as_slice());
    let mut out = vec![0f32; tokens * heads * guard.k];
    per_head(&mut out, guard.k, heads, tokens * heads * nope_dim * guard.k, |head, rows| {
        let mut keys = vec![0f32; nope_dim * weight.k];
        for (n, key) in keys.chunks_mut(weight.k).enumerate() {
            widen(weight, head * (nope_dim + v_dim) + n, key);
        }
        for (t, row) in rows.iter_mut().enumerate() {
            combine(isa, &q[(t * heads + head) * nope_dim..][..nope_dim], &keys, row);
        }
    });
    to_tensor(out, &[tokens, heads, guard.k], q_nope.dtype())
}

pub(super) fn absorb_value(latent: &Tensor, kv_b_proj: &LinearWeight, nope_dim: usize) -> Result<Tensor> {
    let (tokens, heads, width) = latent.dims3()?;
    let (held, x) = (HeldWeight::of(kv_b_proj)?, Floats::new(latent)?);
    let guard = held.read()?;
    let (weight, isa, x) = (guard.weight()?, isa(), x.as_slice());
    let rows_per_head = guard.n / heads.max(1);
    let v_dim = rows_per_head - nope_dim;
    let mut out = vec![0f32; tokens * heads * v_dim];
    per_head(&mut out, v_dim, heads, tokens * heads * v_dim * width, |head, rows| {
        let mut own = Vec::with_capacity(tokens * width);
        for t in 0..tokens {
            own.extend_from_slice(&x[(t * heads + head) * width..][..width]);
        }
        let first = head * rows_per_head + nope_dim;
        gemm(isa, &own, weight, first..first + v_dim, rows);
    });
    to_tensor(out, &[tokens, heads, v_dim], latent.dtype())
}

/// Calls `run(head, rows)` for every head with its rows of `out: [tokens, heads, width]`.
fn per_head(out: &mut [f32], width: usize, heads: usize, macs: usize, run: impl Fn(usize, &mut [&mut [f32]]) + Sync) {
    if out.is_empty() {
        return;
    }
    let mut rows: Vec<Vec<&mut [f32]>> = (0..heads).map(|_| Vec::new()).collect();
    for (i, row) in out.chunks_mut(width).enumerate() {
        rows[i % heads].push(row);
    }
    if macs < SERIAL_MACS {
        rows.iter_mut().enumerate().for_each(|(head, rows)| run(head, rows));
    } else {
        rows.par_iter_mut().enumerate().for_each(|(head, rows)| run(head, rows));
    }
}

/// Row `n` of a weight as f32, multiplied by its blocks' scales.
fn widen(weight: Weight, n: usize, to: &mut [f32]) {
    let range = n * weight.k..(n + 1) * weight.k;
    match weight.codes {
        Codes::F32(codes) => to.copy_from_slice(&codes[range]),
        Codes::Bf16(codes) => to.iter_mut().zip(&codes[range]).for_each(|(to, x)| *to = x.to_f32()),
        Codes::F16(codes) => to.iter_mut().zip(&codes[range]).for_each(|(to, x)| *to = x.to_f32()),
        Codes::F8e4m3(codes) => to.iter_mut().zip(&codes[range]).for_each(|(to, x)| *to = x.to_f32()),
    }
    if !weight.scale.is_empty() {
        let scales = &weight.scale[n / BLOCK * weight.k.div_ceil(BLOCK)..];
        for (block, scale) in to.chunks_mut(BLOCK).zip(scales) {
            block.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

simd_kernel! {
    /// `out[l] = sum over n of factors[n] * rows[n][l]`, in the order of `n`.
    fn combine(factors: &[f32], rows: &[f32], out: &mut [f32]) = combine_body
}

#[inline(always)]
fn combine_body<const FMA: bool>(factors: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = out.len();
    let mut at = 0;
    while at + CHUNK <= width {
        let mut sums = [0f32; CHUNK];
        for (n, &factor) in factors.iter().enumerate() {
            let row = &rows[n * width + at..][..CHUNK];
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum = mul_add::<FMA>(factor, x, *sum);
            }
        }
        out[at..at + CHUNK].copy_from_slice(&sums);
        at += CHUNK;
    }
    for l in at..width {
        let terms = factors.iter().enumerate();
        out[l] = terms.fold(0.0, |sum, (n, &factor)| mul_add::<FMA>(factor, rows[n * width + l], sum));
    }
}
