//! Gradients on a GPU against those of the references' tensor functions, and against finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use deepseek_v32::ops::fp8::{Fp8Row, row_quant};
use deepseek_v32::ops::{Backend, sparse_mla, with_backend, with_unordered_sums};
use rand::Rng;

use crate::common::{tensor, to_f64};
use crate::common_attn::{SLOTS, rng};
use crate::gpu;

/// Of the largest element: f32: sums of some hundred products; bf16: p, the gradient of the scores, `out` and the results
/// are rounded to 8 bits.
const TOLERANCES: [(DType, f64); 2] = [(DType::F32, 5e-5), (DType::BF16, 2e-2)];
/// A slope over a step in f32.
const SLOPE_TOLERANCE: f64 = 1e-2;
const SCALE: f64 = 0.2;

/// Indices into `0..rows`, a fifth of them none and some named twice; the second row names nothing.
fn indices(tokens: usize, k: usize, rows: usize) -> Tensor {
    let mut rng = rng(13);
    let mut pick = |i: usize| match rng.random_range(0..5) {
        _ if i / k == 1 => -1,
        0 => -1i32,
        1 => (i % 3) as i32,
        _ => rng.random_range(0..rows as i32),
    };
    Tensor::from_vec((0..tokens * k).map(&mut pick).collect(), (tokens, k), &Device::Cpu).unwrap()
}

/// A case on one device: weights of `out` and `softmax_lse` in the loss, and the arguments.
struct Case {
    q: Tensor,
    kv: Tensor,
    indices: Tensor,
    value_dim: usize,
    of_out: Tensor,
    of_lse: Tensor,
}

impl Case {
    fn new(device: &Device, tokens: usize, k: usize, widths: (usize, usize, usize), dtype: DType) -> Self {
        let (heads, dim, value_dim) = widths;
        let on = |tensor: Tensor| tensor.to_device(device).unwrap();
        Self {
            q: on(tensor(1, &[tokens, heads, dim], dtype)),
            kv: on(tensor(2, &[SLOTS, dim], dtype)),
            indices: on(indices(tokens, k, SLOTS)),
            value_dim,
            of_out: on(tensor(3, &[tokens, heads, value_dim], DType::F32)),
            of_lse: on(tensor(4, &[tokens, heads], DType::F32)),
        }
    }

    /// The loss of a row that names something; one that does not has no finite `softmax_lse`.
    fn loss(&self, q: &Tensor, kv: &Tensor) -> Result<Tensor> {
        let (out, lse) = sparse_mla(q, kv, &self.indices, self.value_dim, SCALE)?;
        let seen = lse.detach().ge(f32::MIN)?;
        let lse = seen.where_cond(&lse, &lse.zeros_like()?)?;
        (out.to_dtype(DType::F32)? * &self.of_out)?.sum_all()? + (lse * &self.of_lse)?.sum_all()?
    }

    fn gradients(&self) -> [Tensor; 2] {
        let (q, kv) = (Var::from_tensor(&self.q).unwrap(), Var::from_tensor(&self.kv).unwrap());
        let gradients = self.loss(&q, &kv).unwrap().backward().unwrap();
        [&q, &kv].map(|var| gradients.get(var).unwrap().to_device(&Device::Cpu).unwrap())
    }

    /// The gradients through the reference in f32.
    fn expected(&self) -> [Tensor; 2] {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
        let case = Self {
            q: wide(&self.q),
            kv: wide(&self.kv),
            indices: self.indices.clone(),
            of_out: self.of_out.clone(),
            of_lse: self.of_lse.clone(),
            ..*self
        };
        with_backend(Backend::Reference, || case.gradients())
    }
}

fn assert_near(what: &str, found: &[Tensor; 2], expected: &[Tensor; 2], tolerance: f64) {
    for (name, (found, expected)) in ["d_q", "d_kv"].iter().zip(found.iter().zip(expected)) {
        assert_eq!(found.dims(), expected.dims(), "{what}: {name}");
        let (found, expected) = (to_f64(found), to_f64(expected));
        let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = (found - expected).abs();
            assert!(error <= tolerance * largest, "{what}: {name}[{i}] is {found}, expected {expected} of {largest}");
        }
    }
}

#[test]
fn of_attention_in_latent_space() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for widths in [(1, 1, 1), (3, 40, 33), (8, 192, 128), (2, 576, 512), (2, 700, 600)] {
            // Too wide for the kernels; the reference adds gradients of keys up in their dtype.
            if widths.1 > 576 && dtype == DType::BF16 {
                continue;
            }
            for (tokens, k) in [(1, 1), (3, 70), (4, 333)] {
                let case = Case::new(&device, tokens, k, widths, dtype);
                let (expected, what) = (case.expected(), format!("{tokens} rows of {k}, {widths:?} {dtype:?}"));
                assert_near(&what, &case.gradients(), &expected, tolerance);
                let indices = indices(tokens, k, SLOTS).to_dtype(DType::I64).unwrap().to_device(&device).unwrap();
                let wide = Case { indices, ..case };
                assert_near(&what, &wide.gradients(), &expected, tolerance);
            }
        }
    }
    // Queries have a gradient beside a cache of packed rows.
    let case = Case::new(&device, 3, 70, (4, 40, 33), DType::F32);
    let packed = row_quant(&case.kv, Fp8Row { quantized: 33, plain: 7 }, false).unwrap();
    let q = Var::from_tensor(&case.q).unwrap();
    let slope = |backend| {
        let gradients = with_backend(backend, || case.loss(&q, &packed).unwrap().backward().unwrap());
        to_f64(&gradients.get(&q).unwrap().to_device(&Device::Cpu).unwrap())
    };
    crate::common_attn::assert_close("packed", &slope(Backend::Cuda), &slope(Backend::Reference), TOLERANCES[0].1);
}

#[test]
fn of_attention_over_latents_as_wide_as_those_of_v32() {
    let Some(device) = gpu() else { return };
    let (dim, value_dim) = (576, 512);
    for (tokens, heads, k) in [(1, 1, 1), (4, 64, 65), (5, 65, 640), (3, 128, 2048), (150, 3, 130), (3, 200, 300)] {
        let case = Case::new(&device, tokens, k, (heads, dim, value_dim), DType::BF16);
        let (expected, what) = (case.expected(), format!("{tokens} rows of {k}, {heads} heads"));
        let found = case.gradients();
        assert_near(&what, &found, &expected, TOLERANCES[1].1);
        let again = case.gradients();
        assert_eq!(found.each_ref().map(to_f64), again.each_ref().map(to_f64), "{what}: other bits");
        assert_near(&what, &with_unordered_sums(|| case.gradients()), &expected, TOLERANCES[1].1);
    }
}

#[test]
fn are_the_slopes_of_the_loss() {
    let Some(device) = gpu() else { return };
    let case = Case::new(&device, 4, 50, (3, 40, 33), DType::F32);
    let gradients = case.gradients();
    let step = 1e-2;
    for (seed, which) in [(5, 0), (6, 0), (7, 1), (8, 1)] {
        let towards = tensor(seed, [&case.q, &case.kv][which].dims(), DType::F32);
        let at = |by: f64| {
            let moved = |i: usize, x: &Tensor| match i == which {
                true => (x + (towards.to_device(&device).unwrap() * by).unwrap()).unwrap(),
                false => x.clone(),
            };
            let loss = case.loss(&moved(0, &case.q), &moved(1, &case.kv)).unwrap();
            f64::from(loss.to_scalar::<f32>().unwrap())
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let expected: f64 = to_f64(&gradients[which]).iter().zip(to_f64(&towards)).map(|(a, b)| a * b).sum();
        assert!((slope - expected).abs() <= SLOPE_TOLERANCE * (1.0 + expected.abs()), "{slope}, expected {expected}");
    }
}
