//! `ops::mqa_logits` against f64 loops and golden scores.

use crate::common_attn::*;
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{act_dequant, act_quant};
use deepseek_v32::ops::hadamard;
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use deepseek_v32::ops::mqa_logits::mqa_logits;

/// f32 sums of up to 128 heads of 128 products each of numbers below 1.
const TOLERANCE: f64 = 2e-5;
/// The golden scores are f64 sums rounded once; the numbers are normally distributed.
const GOLDEN_TOLERANCE: f64 = 5e-6;

/// `[T * max_context]` scores by f64 loops.
fn oracle(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout) -> Vec<f64> {
    let (_, heads, dim) = q.dims3().unwrap();
    let (q, keys, weights) = (values(q), values(index_k), values(weights));
    let mut logits = Vec::new();
    for (t, seen) in visible(layout).into_iter().enumerate() {
        for slot in &seen {
            let key = &keys[slot * dim..][..dim];
            let head = |h: usize| {
                let dot = q[(t * heads + h) * dim..][..dim].iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
                weights[t * heads + h] * dot.max(0.)
            };
            logits.push((0..heads).map(head).sum());
        }
        logits.resize((t + 1) * layout.max_context(), f64::NEG_INFINITY);
    }
    logits
}

#[test]
fn matches_loops_over_spans_heads_and_dimensions() {
    let mut rng = rng(1);
    for (heads, dim, sequences) in [
        (16, 128, vec![(0, 5), (130, 70), (63, 1), (64, 1), (0, 0), (700, 3)]),
        (8, 32, vec![(300, 1)]),
        (7, 36, vec![(129, 1)]),
        (1, 1, vec![(0, 1)]),
        (3, 17, vec![(0, 200)]),
        (12, 33, vec![(5, 20), (0, 1)]),
        (20, 48, vec![(127, 2), (128, 2)]),
        (128, 96, vec![(100, 30)]),
        (64, 128, vec![(1000, 2)]),
        (0, 16, vec![(0, 3)]),
        (4, 0, vec![(70, 3)]),
        (4, 16, vec![(0, 0), (7, 0)]),
        (4, 16, vec![]),
    ] {
        let layout = layout(&mut rng, &sequences);
        let tokens = layout.tokens();
        let (q, index_k) = (tensor(&mut rng, &[tokens, heads, dim]), tensor(&mut rng, &[SLOTS, dim]));
        let weights = tensor(&mut rng, &[tokens, heads]);
        let expected = oracle(&q, &index_k, &weights, &layout);
        every_backend(|name| {
            let case = format!("{name} H={heads} D={dim} {sequences:?}");
            let logits = mqa_logits(&q, &index_k, &weights, &layout).unwrap();
            assert_eq!((logits.dims(), logits.dtype()), (&[tokens, layout.max_context()][..], DType::F32), "{case}");
            assert_close(&case, &values(&logits), &expected, TOLERANCE);
        });
    }
}

#[test]
fn reads_half_precision_strided_and_offset_tensors() {
    let mut rng = rng(2);
    let layout = layout(&mut rng, &[(90, 40), (3, 1)]);
    let q = tensor(&mut rng, &[43, 16, 40]).narrow(2, 3, 32).unwrap().narrow(0, 2, 41).unwrap();
    let index_k = tensor(&mut rng, &[SLOTS + 1, 64]).narrow(1, 32, 32).unwrap().narrow(0, 1, SLOTS).unwrap();
    let weights = tensor(&mut rng, &[16, 41]).t().unwrap();
    let expected = oracle(&q, &index_k, &weights, &layout);
    every_backend(|name| {
        let logits = mqa_logits(&q, &index_k, &weights, &layout).unwrap();
        assert_close(name, &values(&logits), &expected, TOLERANCE);
    });
    for dtype in [DType::BF16, DType::F16, DType::F64] {
        let [q, index_k, weights] = [&q, &index_k, &weights].map(|t| t.to_dtype(dtype).unwrap());
        let expected = oracle(&q, &index_k, &weights, &layout);
        every_backend(|name| {
            let logits = mqa_logits(&q, &index_k, &weights, &layout).unwrap();
            assert_eq!(logits.dtype(), DType::F32);
            assert_close(&format!("{name} {dtype:?}"), &values(&logits), &expected, TOLERANCE);
        });
    }
}

#[test]
fn matches_golden_scores() {
    let golden = candle_core::safetensors::load("tests/data/unit.safetensors", &Device::Cpu).unwrap();
    let expected = values(&golden["index.score_f32"]);
    // The golden rows all see all keys: rows of two sequences whose last position is the ninth, one row a call.
    let scale = (8f64 * 128.).powf(-0.5);
    every_backend(|name| {
        let mut got = Vec::new();
        for sequence in 0..2 {
            let keys = golden["index.k"].get(sequence).unwrap();
            for row in 0..5 {
                let q = golden["index.q"].get(sequence).unwrap().narrow(0, row, 1).unwrap();
                let weights = golden["index.w_raw"].get(sequence).unwrap().narrow(0, row, 1).unwrap();
                let layout =
                    BatchLayout { spans: vec![Span { tokens: 0..1, start: 8, block_table: vec![0], prefill: None }] };
                got.extend(values(&mqa_logits(&q, &keys, &(weights * scale).unwrap(), &layout).unwrap()));
            }
        }
        assert_close(name, &got, &expected, GOLDEN_TOLERANCE);
    });
}

/// As FP8 precision has it: Hadamard transform, one power-of-two scale a vector, e4m3, then the scores.
#[test]
fn matches_golden_scores_of_fp8_queries_and_keys() {
    let golden = candle_core::safetensors::load("tests/data/unit.safetensors", &Device::Cpu).unwrap();
    let scale = (8f64 * 128.).powf(-0.5);
    every_backend(|name| {
        let rounded = |what: &str| {
            let (codes, scale) = act_quant(&hadamard(&golden[&format!("index.{what}")]).unwrap(), 128, true).unwrap();
            let codes_of = codes.flatten_all().unwrap().to_vec1::<float8::F8E4M3>().unwrap();
            let bytes: Vec<u8> = codes_of.iter().map(float8::F8E4M3::to_bits).collect();
            let expected = &golden[&format!("index.{what}_codes_u8")];
            assert_eq!(bytes, expected.flatten_all().unwrap().to_vec1::<u8>().unwrap(), "{name} {what}");
            assert_eq!(values(&scale), values(&golden[&format!("index.{what}_scale")]), "{name} {what}");
            act_dequant(&codes, &scale, 128).unwrap()
        };
        let (q, k) = (rounded("q"), rounded("k"));
        let mut got = Vec::new();
        for sequence in 0..2 {
            for row in 0..5 {
                let of = |tensor: &Tensor| tensor.get(sequence).unwrap().narrow(0, row, 1).unwrap();
                let weights = (of(&golden["index.w_raw"]) * scale).unwrap();
                let layout =
                    BatchLayout { spans: vec![Span { tokens: 0..1, start: 8, block_table: vec![0], prefill: None }] };
                got.extend(values(&mqa_logits(&of(&q), &k.get(sequence).unwrap(), &weights, &layout).unwrap()));
            }
        }
        assert_close(name, &got, &values(&golden["index.score_fp8"]), GOLDEN_TOLERANCE);
    });
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let mut rng = rng(3);
    for heads in [8, 20, 64] {
        let layout = layout(&mut rng, &[(500, 30), (0, 9), (1100, 1)]);
        let tokens = layout.tokens();
        let (q, index_k) = (tensor(&mut rng, &[tokens, heads, 128]), tensor(&mut rng, &[SLOTS, 128]));
        let weights = tensor(&mut rng, &[tokens, heads]);
        let together = mqa_logits(&q, &index_k, &weights, &layout).unwrap();
        for row in [0, 17, 29, 30, 38, 39] {
            let alone = alone(&layout, row);
            let (q, weights) = (q.narrow(0, row, 1).unwrap(), weights.narrow(0, row, 1).unwrap());
            let logits = mqa_logits(&q, &index_k, &weights, &alone).unwrap();
            let same = together.narrow(0, row, 1).unwrap().narrow(1, 0, alone.max_context()).unwrap();
            assert_eq!(bits(&logits), bits(&same), "H={heads} row {row}");
        }
    }
}

#[test]
fn no_thread_count_changes_a_bit() {
    let mut rng = rng(4);
    let layout = layout(&mut rng, &[(1500, 2), (0, 70)]);
    let (q, index_k) = (tensor(&mut rng, &[72, 64, 128]), tensor(&mut rng, &[SLOTS, 128]));
    let weights = tensor(&mut rng, &[72, 64]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(&mqa_logits(&q, &index_k, &weights, &layout).unwrap()))
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

#[test]
fn names_what_is_wrong() {
    let tensor = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let (q, k, w) = (tensor(&[2, 4, 8], DType::F32), tensor(&[64, 8], DType::F32), tensor(&[2, 4], DType::F32));
    let layout = BatchLayout::single(2);
    every_backend(|_| {
        assert_error(mqa_logits(&w, &k, &w, &layout), "mqa_logits: q must be [T, H_I, D]");
        assert_error(mqa_logits(&q, &q, &w, &layout), "index_k must be [slots, D = 8]");
        assert_error(mqa_logits(&q, &k, &q, &layout), "weights must be [T = 2, H_I = 4]");
        assert_error(
            mqa_logits(&q.to_dtype(DType::U32).unwrap(), &k, &w, &layout),
            "q must be f32, bf16, f16, f64 or f8e4m3, got u32",
        );
        assert_error(
            mqa_logits(&q, &k.to_dtype(DType::I64).unwrap(), &w, &layout),
            "index_k must be f32, bf16, f16, f64, f8e4m3 or u8, got i64",
        );
        assert_error(
            mqa_logits(&q, &k, &w.to_dtype(DType::U8).unwrap(), &layout),
            "weights must be f32, bf16, f16, f64 or f8e4m3, got u8",
        );
        assert_error(
            mqa_logits(&q, &tensor(&[64, 9], DType::F32), &w, &layout),
            "index_k must be [slots, D = 8], got [64, 9]",
        );
        assert_error(
            mqa_logits(&q, &k, &tensor(&[2, 5], DType::F32), &layout),
            "weights must be [T = 2, H_I = 4], got [2, 5]",
        );
        assert_error(
            mqa_logits(&q, &k, &tensor(&[3, 4], DType::F32), &layout),
            "weights must be [T = 2, H_I = 4], got [3, 4]",
        );
        assert_error(mqa_logits(&q, &k, &w, &BatchLayout::single(3)), "the spans cover 3 rows, expected 2");
        assert_error(mqa_logits(&q, &k, &w, &BatchLayout::default()), "the spans cover 0 rows, expected 2");
        let span = |tokens, start, block_table: &[u32]| Span {
            tokens,
            start,
            block_table: block_table.to_vec(),
            prefill: None,
        };
        for (spans, part) in [
            (vec![span(0..1, 0, &[0]), span(0..2, 0, &[0])], "span 1 covers rows 0..2, expected it to start at row 1"),
            (vec![span(0..2, 0, &[1])], "page 0 of span 0 reaches slot 65, the cache has 64"),
            (vec![span(0..2, 0, &[u32::MAX])], "the cache has 64"),
            (vec![span(0..2, 62, &[0, 7])].into_iter().map(|s| Span { start: 63, ..s }).collect(), "page 1 of span 0"),
            (vec![span(0..2, 63, &[0])], "block table 1 of 2 pages"),
            (vec![span(0..2, usize::MAX, &[0])], "the limit is 2147483647"),
            #[allow(clippy::reversed_empty_ranges, reason = "that is what is refused")]
            (vec![span(0..3, 0, &[0]), span(3..2, 0, &[0])], "span 1 covers rows 3..2"),
        ] {
            assert_error(mqa_logits(&q, &k, &w, &BatchLayout { spans }), part);
        }
    });
    assert_eq!(BatchLayout::single(PAGE_SIZE + 1).spans[0].slot(2 * PAGE_SIZE), usize::MAX);
}

#[test]
fn the_reference_has_gradients() {
    let mut rng = rng(5);
    let layout = layout(&mut rng, &[(2, 2)]);
    let slot = layout.spans[0].slot(0);
    let inputs = [tensor(&mut rng, &[2, 3, 4]), tensor(&mut rng, &[SLOTS, 4]), tensor(&mut rng, &[2, 3])];
    // Both rows see the first three positions.
    let loss = |[q, k, w]: [&Tensor; 3]| {
        let logits = mqa_logits(q, k, w, &layout).unwrap().narrow(1, 0, 3).unwrap();
        logits.sqr().unwrap().sum_all().unwrap()
    };
    let vars = inputs.each_ref().map(|t| candle_core::Var::from_tensor(t).unwrap());
    let grads = loss(vars.each_ref().map(|var| var.as_tensor())).backward().unwrap();
    for (at, range) in [(0, 0..24), (1, slot * 4..slot * 4 + 12), (2, 0..6)] {
        let got = values(grads.get(&vars[at]).unwrap());
        for i in range {
            let nudged = |by: f32| {
                let mut data = inputs[at].flatten_all().unwrap().to_vec1::<f32>().unwrap();
                data[i] += by;
                let nudged = Tensor::from_vec(data, inputs[at].shape(), &Device::Cpu).unwrap();
                let mut inputs = inputs.each_ref();
                inputs[at] = &nudged;
                values(&loss(inputs))[0]
            };
            let expected = (nudged(1e-3) - nudged(-1e-3)) / 2e-3;
            assert!((got[i] - expected).abs() < 5e-3, "input {at}, element {i}: {} {expected}", got[i]);
        }
    }
}
