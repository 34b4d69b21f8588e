//! `ops::mha` against f64 loops.

use crate::common_attn::*;
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::layout::{BatchLayout, Span};
use deepseek_v32::ops::mha::mha;

/// f32 sums of up to a few hundred products of numbers below 1.
const TOLERANCE: f64 = 3e-6;

/// A layout of (start, new tokens); block tables are not needed.
fn spans(sequences: &[(usize, usize)]) -> BatchLayout {
    let mut row = 0;
    let span = |&(start, tokens): &(usize, usize)| {
        row += tokens;
        Span { tokens: row - tokens..row, start, block_table: Vec::new(), prefill: None }
    };
    BatchLayout { spans: sequences.iter().map(span).collect() }
}

fn oracle(q: &Tensor, k: &Tensor, v: &Tensor, layout: &BatchLayout, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let ((_, heads, dim), value_dim) = (q.dims3().unwrap(), v.dim(2).unwrap());
    let (q, k, v) = (values(q), values(k), values(v));
    let (mut outs, mut lses, mut base) = (Vec::new(), Vec::new(), 0);
    for span in &layout.spans {
        for t in span.tokens.clone() {
            let seen = base..base + span.start + t - span.tokens.start + 1;
            for h in 0..heads {
                let keys = seen.clone().map(|s| &k[(s * heads + h) * dim..][..dim]).collect::<Vec<_>>();
                let vals = seen.clone().map(|s| &v[(s * heads + h) * value_dim..][..value_dim]).collect::<Vec<_>>();
                let (out, lse) = attention(&q[(t * heads + h) * dim..][..dim], &keys, &vals, value_dim, scale);
                outs.extend(out);
                lses.push(lse);
            }
        }
        base += span.context();
    }
    (outs, lses)
}

#[test]
fn matches_loops_over_spans_heads_and_dimensions() {
    let mut rng = rng(1);
    for (heads, dim, value_dim, sequences) in [
        (2, 192, 128, vec![(0, 150), (70, 3), (0, 1), (5, 0), (64, 1), (63, 2)]),
        (3, 24, 16, vec![(0, 300)]),
        (1, 1, 1, vec![(0, 1)]),
        (2, 17, 5, vec![(129, 40)]),
        (5, 8, 31, vec![(0, 9), (0, 17), (0, 33)]),
        (0, 16, 16, vec![(0, 2)]),
        (2, 0, 3, vec![(1, 2)]),
        (2, 3, 0, vec![(1, 2)]),
        (2, 16, 16, vec![]),
        (2, 16, 16, vec![(0, 0)]),
    ] {
        let layout = spans(&sequences);
        let (tokens, keys) = (layout.tokens(), layout.total_context());
        let (q, k) = (tensor(&mut rng, &[tokens, heads, dim]), tensor(&mut rng, &[keys, heads, dim]));
        let v = tensor(&mut rng, &[keys, heads, value_dim]);
        let (out, lse) = oracle(&q, &k, &v, &layout, 0.4);
        every_backend(|name| {
            let case = format!("{name} H={heads} D={dim} V={value_dim} {sequences:?}");
            let got = mha(&q, &k, &v, &layout, 0.4).unwrap();
            assert_eq!((got.0.dims(), got.1.dims()), (&[tokens, heads, value_dim][..], &[tokens, heads][..]), "{case}");
            assert_close(&case, &values(&got.0), &out, TOLERANCE);
            assert_close(&case, &values(&got.1), &lse, TOLERANCE);
        });
    }
}

#[test]
fn reads_views_of_one_projection() {
    let mut rng = rng(2);
    let layout = spans(&[(10, 40), (0, 3)]);
    let q = tensor(&mut rng, &[4, 43, 24]).transpose(0, 1).unwrap();
    let kv = tensor(&mut rng, &[54, 4, 41]).narrow(0, 1, 53).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        let (q, kv) = (q.to_dtype(dtype).unwrap(), kv.to_dtype(dtype).unwrap());
        let (k, v) = (kv.narrow(2, 0, 24).unwrap(), kv.narrow(2, 24, 17).unwrap());
        let (out, lse) = oracle(&q, &k, &v, &layout, 0.2);
        // The result is rounded to the query's dtype: 8 bits of mantissa for bf16, 11 for f16.
        let tolerance = match dtype {
            DType::BF16 => 4e-3,
            DType::F16 => 5e-4,
            _ => TOLERANCE,
        };
        every_backend(|name| {
            let got = mha(&q, &k, &v, &layout, 0.2).unwrap();
            assert_eq!((got.0.dtype(), got.1.dtype()), (dtype, DType::F32));
            assert_close(&format!("{name} {dtype:?}"), &values(&got.0), &out, tolerance);
            assert_close(&format!("{name} {dtype:?}"), &values(&got.1), &lse, TOLERANCE);
        });
    }
}

#[test]
fn wide_scores_do_not_overflow() {
    let mut rng = rng(3);
    let layout = spans(&[(0, 80)]);
    let q = (tensor(&mut rng, &[80, 2, 16]) * 1e4).unwrap();
    let (k, v) = ((tensor(&mut rng, &[80, 2, 16]) * 1e3).unwrap(), tensor(&mut rng, &[80, 2, 8]));
    for scale in [1., -1.] {
        let (_, lse) = oracle(&q, &k, &v, &layout, scale);
        every_backend(|name| {
            let got = mha(&q, &k, &v, &layout, scale).unwrap();
            assert!(values(&got.0).iter().all(|x| x.is_finite()), "{name}");
            assert_close(name, &values(&got.1), &lse, TOLERANCE);
        });
    }
}

#[test]
fn neither_chunks_nor_threads_change_a_bit() {
    let mut rng = rng(4);
    let (tokens, heads) = (300, 3);
    let (q, k) = (tensor(&mut rng, &[tokens, heads, 48]), tensor(&mut rng, &[tokens, heads, 48]));
    let v = tensor(&mut rng, &[tokens, heads, 32]);
    let run = |threads, start, rows| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (k, v) = (k.narrow(0, 0, start + rows).unwrap(), v.narrow(0, 0, start + rows).unwrap());
        let q = q.narrow(0, start, rows).unwrap();
        let (out, lse) = pool.install(|| mha(&q, &k, &v, &spans(&[(start, rows)]), 0.3).unwrap());
        (bits(&out), bits(&lse))
    };
    let whole = run(1, 0, tokens);
    assert!(whole == run(2, 0, tokens) && whole == run(5, 0, tokens));
    for chunks in [vec![100, 1, 64, 135], vec![5, 295], vec![128, 172]] {
        let (mut out, mut lse, mut start) = (Vec::new(), Vec::new(), 0);
        for rows in chunks {
            let chunk = run(2, start, rows);
            out.extend(chunk.0);
            lse.extend(chunk.1);
            start += rows;
        }
        assert!((out, lse) == whole);
    }
}

#[test]
fn names_what_is_wrong() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (q, k, v) = (zeros(&[2, 4, 8]), zeros(&[5, 4, 8]), zeros(&[5, 4, 6]));
    let layout = spans(&[(3, 2)]);
    every_backend(|_| {
        assert_error(mha(&zeros(&[2, 8]), &k, &v, &layout, 1.), "mha: q must be [T, H, Dq]");
        assert_error(mha(&q, &zeros(&[5]), &v, &layout, 1.), "k must be [S = 5, H = 4, Dq = 8], got [5]");
        assert_error(mha(&q, &k, &zeros(&[5, 4]), &layout, 1.), "v must be [S = 5, H = 4, V], got [5, 4]");
        assert_error(mha(&q, &zeros(&[5, 3, 8]), &v, &layout, 1.), "k must be [S = 5, H = 4, Dq = 8], got [5, 3, 8]");
        assert_error(mha(&q, &zeros(&[5, 4, 7]), &v, &layout, 1.), "k must be [S = 5, H = 4, Dq = 8], got [5, 4, 7]");
        assert_error(mha(&q, &k, &zeros(&[6, 4, 6]), &layout, 1.), "v must be [S = 5, H = 4, V], got [6, 4, 6]");
        assert_error(mha(&q, &k, &zeros(&[5, 2, 6]), &layout, 1.), "v must be [S = 5, H = 4, V], got [5, 2, 6]");
        assert_error(mha(&q, &k, &v, &spans(&[(2, 2)]), 1.), "k must be [S = 4, H = 4, Dq = 8], got [5, 4, 8]");
        assert_error(mha(&q, &k, &v, &spans(&[(2, 3)]), 1.), "cover 3 rows, expected 2");
        assert_error(mha(&q, &k, &v, &layout, f64::NAN), "softmax_scale");
        assert_error(
            mha(&q.to_dtype(DType::I64).unwrap(), &k, &v, &layout, 1.),
            "q must be f32, bf16, f16, f64 or f8e4m3, got i64",
        );
    });
}
