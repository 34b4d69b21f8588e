//! Gradients of `sparse_mla` and `dense_mla` on CPU against the reference's autograd and against finite differences of
//! f64 loops.

use candle_core::{DType, Device, Result, Tensor, Var};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::ops::{Backend, dense_mla, sparse_mla, with_backend};

use crate::common_attn::{SLOTS, assert_close, attention, bits, layout, rng, tensor, values, visible};

/// Two ways of f32 to the same sums.
const REFERENCE_TOLERANCE: f64 = 2e-5;
/// f32 against central differences in f64.
const DIFFERENCE_TOLERANCE: f64 = 2e-5;
const SCALE: f64 = 0.4;

/// `sum(out * a) + sum(lse * b)`.
fn loss((out, lse): (Tensor, Tensor), a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (out.to_dtype(DType::F32)? * a)?.sum_all()? + (lse * b)?.sum_all()?
}

/// An attention: `(q, kv)` to `(out, lse)`.
type Attention<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>;

/// Gradients for `q` and `kv` of the loss of an attention.
fn gradients(
    backend: Backend,
    (q, kv): (&Tensor, &Tensor),
    (a, b): (&Tensor, &Tensor),
    run: Attention,
) -> (Vec<f64>, Vec<f64>) {
    let (q, kv) = (Var::from_tensor(q).unwrap(), Var::from_tensor(kv).unwrap());
    let (out, lse) = with_backend(backend, || run(&q, &kv)).unwrap();
    let (plain_out, plain_lse) = with_backend(backend, || run(&q.detach(), &kv.detach())).unwrap();
    if backend == Backend::Cpu && out.dtype() == DType::F32 {
        assert_eq!((bits(&out), bits(&lse)), (bits(&plain_out), bits(&plain_lse)), "tracking changed the result");
    }
    let grads = loss((out, lse), a, b).unwrap().backward().unwrap();
    let of = |x: &Var| values(grads.get(x).unwrap());
    (of(&q), of(&kv))
}

/// Slots of rows with none, some and all of `k` entries, one of them twice.
fn indices(rows: usize, k: usize) -> Tensor {
    let index = |row: usize, i: usize| match (row, i) {
        (1, _) => -1,
        (2, _) if i.is_multiple_of(2) => -1,
        (3, 1) => 3,
        _ => ((row * 31 + i * 7) % SLOTS) as i64,
    };
    let all: Vec<i64> = (0..rows * k).map(|at| index(at / k, at % k)).collect();
    Tensor::from_vec(all, (rows, k), &Device::Cpu).unwrap()
}

/// Factors of the loss; those of rows that see nothing are 0, for their `lse` is -inf.
fn factors(tokens: usize, heads: usize, value: usize) -> (Tensor, Tensor) {
    let mut rng = rng(9);
    let b = tensor(&mut rng, &[tokens, heads]);
    (tensor(&mut rng, &[tokens, heads, value]), b)
}

#[test]
fn gradients_are_those_of_the_reference() {
    for (heads, dim, value) in [(1, 8, 8), (3, 20, 12), (5, 16, 0), (17, 40, 33)] {
        let mut rng = rng(1);
        let kv = tensor(&mut rng, &[SLOTS, dim]);
        // Long prefill, decode rows with contexts of their own, and both.
        for sequences in [vec![(0, 9)], vec![(30, 1), (4, 1), (70, 1)], vec![(5, 3), (0, 4), (90, 1)]] {
            let layout: BatchLayout = layout(&mut rng, &sequences);
            let q = tensor(&mut rng, &[layout.tokens(), heads, dim]);
            let (a, b) = factors(layout.tokens(), heads, value);
            let run = |q: &Tensor, kv: &Tensor| dense_mla(q, kv, &layout, value, SCALE);
            let [cpu, reference] =
                [Backend::Cpu, Backend::Reference].map(|backend| gradients(backend, (&q, &kv), (&a, &b), &run));
            let case = format!("dense, {heads} heads, {dim}, {value}, {sequences:?}");
            assert_close(&format!("{case}: q"), &cpu.0, &reference.0, REFERENCE_TOLERANCE);
            assert_close(&format!("{case}: kv"), &cpu.1, &reference.1, REFERENCE_TOLERANCE);
        }
        let (rows, k) = (6, 11);
        let indices = indices(rows, k);
        let q = tensor(&mut rng, &[rows, heads, dim]);
        let (a, b) = factors(rows, heads, value);
        let b = b.slice_assign(&[1..2, 0..heads], &Tensor::zeros((1, heads), DType::F32, &Device::Cpu).unwrap());
        let run = |q: &Tensor, kv: &Tensor| sparse_mla(q, kv, &indices, value, SCALE);
        let [cpu, reference] = [Backend::Cpu, Backend::Reference]
            .map(|backend| gradients(backend, (&q, &kv), (&a, b.as_ref().unwrap()), &run));
        let case = format!("sparse, {heads} heads, {dim}, {value}");
        assert_close(&format!("{case}: q"), &cpu.0, &reference.0, REFERENCE_TOLERANCE);
        assert_close(&format!("{case}: kv"), &cpu.1, &reference.1, REFERENCE_TOLERANCE);
        assert!(cpu.0.iter().all(|x| x.is_finite()) && cpu.1.iter().any(|x| x.abs() > 1e-3), "{case}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (heads, dim, value) = (2, 6, 4);
    let mut rng = rng(2);
    let layout = layout(&mut rng, &[(3, 2), (7, 1)]);
    let seen = visible(&layout);
    let (q, kv) = (tensor(&mut rng, &[3, heads, dim]), tensor(&mut rng, &[SLOTS, dim]));
    let (a, b) = factors(3, heads, value);
    let run = |q: &Tensor, kv: &Tensor| dense_mla(q, kv, &layout, value, SCALE);
    let (d_q, d_kv) = gradients(Backend::Cpu, (&q, &kv), (&a, &b), &run);

    let (q, kv, a, b) = (values(&q), values(&kv), values(&a), values(&b));
    let loss = |q: &[f64], kv: &[f64]| -> f64 {
        let mut sum = 0.0;
        for (row, seen) in seen.iter().enumerate() {
            let keys: Vec<&[f64]> = seen.iter().map(|slot| &kv[slot * dim..][..dim]).collect();
            for head in 0..heads {
                let at = row * heads + head;
                let (out, lse) = attention(&q[at * dim..][..dim], &keys, &keys, value, SCALE);
                sum += out.iter().zip(&a[at * value..]).map(|(out, a)| out * a).sum::<f64>() + lse * b[at];
            }
        }
        sum
    };
    let step = 1e-5;
    let difference = |x: &[f64], i: usize, loss: &dyn Fn(&[f64]) -> f64| {
        let at = |step: f64| {
            let mut moved = x.to_vec();
            moved[i] += step;
            loss(&moved)
        };
        (at(step) - at(-step)) / (2.0 * step)
    };
    let expected: Vec<f64> = (0..q.len()).map(|i| difference(&q, i, &|q| loss(q, &kv))).collect();
    assert_close("q", &d_q, &expected, DIFFERENCE_TOLERANCE);
    // The slots that are seen, and one that is not.
    let mut slots: Vec<usize> = seen.concat();
    slots.sort_unstable();
    slots.dedup();
    let unseen = (0..SLOTS).find(|slot| !slots.contains(slot)).unwrap();
    for slot in slots.into_iter().chain([unseen]) {
        let expected: Vec<f64> = (0..dim).map(|d| difference(&kv, slot * dim + d, &|kv| loss(&q, kv))).collect();
        assert_close(&format!("slot {slot}"), &d_kv[slot * dim..][..dim], &expected, DIFFERENCE_TOLERANCE);
    }
}

#[test]
fn bf16_queries_and_keys_get_bf16_gradients() {
    let mut rng = rng(3);
    let layout = layout(&mut rng, &[(2, 3)]);
    let half = |x: Tensor| Var::from_tensor(&x.to_dtype(DType::BF16).unwrap()).unwrap();
    let (q, kv) = (half(tensor(&mut rng, &[3, 2, 16])), half(tensor(&mut rng, &[SLOTS, 16])));
    let (out, _) = dense_mla(&q, &kv, &layout, 8, SCALE).unwrap();
    assert_eq!(out.dtype(), DType::BF16);
    let grads = out.to_dtype(DType::F32).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(grads.get(&q).unwrap().dtype(), DType::BF16);
    assert_eq!(grads.get(&kv).unwrap().dtype(), DType::BF16);
}
