//! `ops::dense_mla` against f64 loops and against `sparse_mla`.

use crate::common_attn::*;
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::dense_mla::dense_mla;
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::ops::sparse_mla::sparse_mla;

/// f32 sums of up to a few hundred products of numbers below 1.
const TOLERANCE: f64 = 3e-6;

fn oracle(q: &Tensor, kv: &Tensor, layout: &BatchLayout, value_dim: usize, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let (_, heads, dim) = q.dims3().unwrap();
    let (q, kv) = (values(q), values(kv));
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for (t, seen) in visible(layout).into_iter().enumerate() {
        let rows = seen.iter().map(|slot| &kv[slot * dim..][..dim]).collect::<Vec<_>>();
        for h in 0..heads {
            let (out, lse) = attention(&q[(t * heads + h) * dim..][..dim], &rows, &rows, value_dim, scale);
            outs.extend(out);
            lses.push(lse);
        }
    }
    (outs, lses)
}

#[test]
fn matches_loops_over_spans_heads_and_dimensions() {
    let mut rng = rng(1);
    for (heads, dim, value_dim, sequences) in [
        (16, 576, 512, vec![(0, 3), (130, 2), (63, 1), (64, 1), (0, 0), (600, 1)]),
        (8, 80, 64, vec![(1000, 1)]),
        (1, 1, 1, vec![(0, 1)]),
        (3, 17, 17, vec![(0, 70)]),
        (20, 33, 8, vec![(250, 10)]),
        (128, 64, 64, vec![(100, 3)]),
        (0, 16, 16, vec![(5, 2)]),
        (3, 0, 0, vec![(5, 2)]),
        (4, 16, 16, vec![(5, 0)]),
        (4, 16, 16, vec![]),
    ] {
        let layout = layout(&mut rng, &sequences);
        let tokens = layout.tokens();
        let (q, kv) = (tensor(&mut rng, &[tokens, heads, dim]), tensor(&mut rng, &[SLOTS, dim]));
        let (out, lse) = oracle(&q, &kv, &layout, value_dim, 0.3);
        every_backend(|name| {
            let case = format!("{name} H={heads} D={dim} V={value_dim} {sequences:?}");
            let got = dense_mla(&q, &kv, &layout, value_dim, 0.3).unwrap();
            assert_eq!((got.0.dims(), got.1.dims()), (&[tokens, heads, value_dim][..], &[tokens, heads][..]), "{case}");
            assert_close(&case, &values(&got.0), &out, TOLERANCE);
            assert_close(&case, &values(&got.1), &lse, TOLERANCE);
        });
    }
}

#[test]
fn reads_a_strided_bf16_cache() {
    let mut rng = rng(2);
    let layout = layout(&mut rng, &[(90, 3), (3, 1)]);
    let q = tensor(&mut rng, &[4, 6, 40]);
    let kv = tensor(&mut rng, &[SLOTS, 96]).to_dtype(DType::BF16).unwrap().narrow(1, 50, 40).unwrap();
    let (out, lse) = oracle(&q, &kv, &layout, 24, 0.2);
    every_backend(|name| {
        let got = dense_mla(&q, &kv, &layout, 24, 0.2).unwrap();
        assert_eq!(got.0.dtype(), DType::F32, "{name}");
        assert_close(name, &values(&got.0), &out, TOLERANCE);
        assert_close(name, &values(&got.1), &lse, TOLERANCE);
    });
}

#[test]
fn has_the_bits_of_sparse_mla_and_of_the_row_alone() {
    let mut rng = rng(3);
    let layout = layout(&mut rng, &[(600, 20), (0, 9), (1100, 1)]);
    let tokens = layout.tokens();
    let (q, kv) = (tensor(&mut rng, &[tokens, 16, 80]), tensor(&mut rng, &[SLOTS, 80]));
    let (out, lse) = dense_mla(&q, &kv, &layout, 64, 0.1).unwrap();
    for (row, seen) in visible(&layout).iter().enumerate() {
        let q = q.narrow(0, row, 1).unwrap();
        let one = dense_mla(&q, &kv, &alone(&layout, row), 64, 0.1).unwrap();
        let slots = seen.iter().map(|&slot| slot as i32).collect::<Vec<_>>();
        let sparse = Tensor::from_vec(slots, (1, seen.len()), &Device::Cpu).unwrap();
        let sparse = sparse_mla(&q, &kv, &sparse, 64, 0.1).unwrap();
        for (other_out, other_lse) in [one, sparse] {
            assert_eq!(bits(&other_out), bits(&out.get(row).unwrap()), "row {row}");
            assert_eq!(bits(&other_lse), bits(&lse.get(row).unwrap()), "row {row}");
        }
    }
}

#[test]
fn no_thread_count_changes_a_bit() {
    let mut rng = rng(4);
    let layout = layout(&mut rng, &[(1500, 2)]);
    let (q, kv) = (tensor(&mut rng, &[2, 20, 144]), tensor(&mut rng, &[SLOTS, 144]));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(&dense_mla(&q, &kv, &layout, 128, 0.1).unwrap().0))
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

#[test]
fn names_what_is_wrong() {
    let mut rng = rng(5);
    let (q, kv) = (tensor(&mut rng, &[2, 4, 8]), tensor(&mut rng, &[64, 8]));
    let layout = BatchLayout::single(2);
    every_backend(|_| {
        assert_error(dense_mla(&kv, &kv, &layout, 8, 1.), "dense_mla: q must be [T, H, D]");
        assert_error(dense_mla(&q, &q, &layout, 8, 1.), "kv must be [slots, D = 8]");
        assert_error(
            dense_mla(&q, &kv.to_dtype(DType::U32).unwrap(), &layout, 8, 1.),
            "kv must be f32, bf16, f16, f64, f8e4m3 or u8, got u32",
        );
        assert_error(dense_mla(&q, &kv, &layout, 9, 1.), "value_dim must be in 0..=8, got 9");
        assert_error(dense_mla(&q, &kv, &layout, 8, f64::INFINITY), "softmax_scale");
        assert_error(dense_mla(&q, &kv.narrow(0, 0, 1).unwrap(), &layout, 8, 1.), "reaches slot 1, the cache has 1");
        assert_error(dense_mla(&q, &kv, &BatchLayout::single(5), 8, 1.), "cover 5 rows, expected 2");
    });
}
