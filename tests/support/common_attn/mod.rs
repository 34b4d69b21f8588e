//! Inputs and naive f64 oracles for the tests of the attention ops.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use deepseek_v32::ops::simd::{Isa, with_isa};
use deepseek_v32::ops::{Backend, with_backend};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Pages of the cache that [`layout`] deals out.
pub const PAGES: usize = 40;
/// Slots of that cache.
pub const SLOTS: usize = PAGES * PAGE_SIZE;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Uniform numbers in `-1..1`.
pub fn uniform(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1f32..1.)).collect()
}

pub fn tensor(rng: &mut ChaCha8Rng, shape: &[usize]) -> Tensor {
    Tensor::from_vec(uniform(rng, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// Sequences of (tokens already cached, new tokens), each over pages drawn from a shuffled pool.
pub fn layout(rng: &mut ChaCha8Rng, sequences: &[(usize, usize)]) -> BatchLayout {
    let mut pages = (0..PAGES as u32).collect::<Vec<_>>();
    pages.shuffle(rng);
    let mut row = 0;
    let mut spans = Vec::new();
    for &(start, tokens) in sequences {
        let block_table = pages.split_off(pages.len() - (start + tokens).div_ceil(PAGE_SIZE));
        spans.push(Span { tokens: row..row + tokens, start, block_table, prefill: None });
        row += tokens;
    }
    BatchLayout { spans }
}

/// The layout of row `row` alone.
pub fn alone(layout: &BatchLayout, row: usize) -> BatchLayout {
    let span = layout.spans.iter().find(|span| span.tokens.contains(&row)).unwrap();
    let start = span.start + row - span.tokens.start;
    BatchLayout { spans: vec![Span { tokens: 0..1, start, block_table: span.block_table.clone(), prefill: None }] }
}

/// The slots that each row sees, in the order of their positions.
pub fn visible(layout: &BatchLayout) -> Vec<Vec<usize>> {
    let row = |span: &Span, i: usize| (0..=span.start + i).map(|position| span.slot(position)).collect();
    layout.spans.iter().flat_map(|span| (0..span.tokens.len()).map(move |i| row(span, i))).collect()
}

/// Runs `body` on the reference and on every instruction set of the fast path.
pub fn every_backend(mut body: impl FnMut(&str)) {
    with_backend(Backend::Reference, || body("reference"));
    for isa in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
        with_isa(isa, || body(&format!("{isa:?}")));
    }
}

/// All elements, as f64.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
}

pub fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

pub fn ints(tensor: &Tensor) -> Vec<Vec<i32>> {
    tensor.to_vec2::<i32>().unwrap()
}

/// Asserts `|got - expected| <= tolerance * (1 + |expected|)` everywhere; infinities must be equal.
pub fn assert_close(case: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{case}: length");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let close = got == expected || (got - expected).abs() <= tolerance * (1. + expected.abs());
        assert!(close, "{case}: element {i} is {got}, expected {expected}");
    }
}

/// Asserts that `result` is an error whose text has `part`.
pub fn assert_error<T>(result: Result<T>, part: &str) {
    match result {
        Ok(_) => panic!("expected an error about '{part}'"),
        Err(error) => assert!(error.to_string().contains(part), "'{error}' does not mention '{part}'"),
    }
}

/// Softmax attention of one query over chosen keys in f64: `(out [value_dim], lse)`.
pub fn attention(q: &[f64], keys: &[&[f64]], values: &[&[f64]], value_dim: usize, scale: f64) -> (Vec<f64>, f64) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scores = keys.iter().map(|key| dot(q, key) * scale).collect::<Vec<_>>();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = scores.iter().map(|s| (s - max).exp()).sum::<f64>();
    let mut out = vec![0.; value_dim];
    for (score, value) in scores.iter().zip(values) {
        for (out, value) in out.iter_mut().zip(*value) {
            *out += (score - max).exp() / sum * value;
        }
    }
    (out, if keys.is_empty() { f64::NEG_INFINITY } else { max + sum.ln() })
}
