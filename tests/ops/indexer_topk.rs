//! `ops::indexer_topk` against enumeration: integer inputs make every score exact, so selections must be equal.

use crate::common_attn::*;
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::indexer_topk::indexer_topk;
use deepseek_v32::ops::layout::BatchLayout;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Small integers: products and sums are exact in f32, ties are frequent.
fn integers(rng: &mut ChaCha8Rng, shape: &[usize], limit: i32) -> Tensor {
    let data = (0..shape.iter().product()).map(|_| rng.random_range(-limit..=limit) as f32).collect::<Vec<_>>();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Selections by enumeration.
fn oracle(q: &Tensor, index_k: &Tensor, weights: &Tensor, layout: &BatchLayout, k: usize) -> Vec<Vec<i32>> {
    let (_, heads, dim) = q.dims3().unwrap();
    let (q, keys, weights) = (values(q), values(index_k), values(weights));
    let mut rows = Vec::new();
    for (t, seen) in visible(layout).into_iter().enumerate() {
        let score = |slot: usize| -> f64 {
            let dot = |h: usize| -> f64 { (0..dim).map(|d| q[(t * heads + h) * dim + d] * keys[slot * dim + d]).sum() };
            (0..heads).map(|h| weights[t * heads + h] * dot(h).max(0.)).sum()
        };
        let scores = seen.iter().map(|&slot| score(slot)).collect::<Vec<_>>();
        let mut positions = (0..seen.len()).collect::<Vec<_>>();
        positions.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap().then(a.cmp(&b)));
        positions.truncate(k);
        positions.sort();
        let mut row = positions.iter().map(|&position| seen[position] as i32).collect::<Vec<_>>();
        row.resize(k, -1);
        rows.push(row);
    }
    rows
}

#[test]
fn matches_enumeration() {
    let mut rng = rng(1);
    for (heads, dim, k, sequences) in [
        (8, 32, 16, vec![(0, 40), (100, 5), (0, 0), (300, 1), (15, 1), (16, 1)]),
        (16, 128, 64, vec![(500, 3), (0, 100)]),
        (3, 5, 1, vec![(0, 70)]),
        (1, 1, 7, vec![(63, 3), (0, 1)]),
        (12, 16, 2000, vec![(0, 20), (200, 3)]),
        (64, 64, 128, vec![(1200, 2)]),
        (64, 64, 128, vec![(100, 300)]),
        (4, 8, 0, vec![(0, 3)]),
        (4, 8, 3, vec![]),
    ] {
        let layout = layout(&mut rng, &sequences);
        let tokens = layout.tokens();
        let (q, index_k) = (integers(&mut rng, &[tokens, heads, dim], 3), integers(&mut rng, &[SLOTS, dim], 2));
        let weights = integers(&mut rng, &[tokens, heads], 3);
        let expected = oracle(&q, &index_k, &weights, &layout, k);
        every_backend(|name| {
            let indices = indexer_topk(&q, &index_k, &weights, &layout, k).unwrap();
            assert_eq!((indices.dims(), indices.dtype()), (&[tokens, k][..], DType::I32), "{name}");
            if k > 0 {
                assert_eq!(ints(&indices), expected, "{name} H={heads} D={dim} k={k} {sequences:?}");
            }
        });
    }
}

#[test]
fn all_equal_scores_choose_the_first_positions() {
    let mut rng = rng(2);
    let layout = layout(&mut rng, &[(400, 10), (0, 30)]);
    let (q, index_k) = (tensor(&mut rng, &[40, 8, 32]), tensor(&mut rng, &[SLOTS, 32]));
    let weights = Tensor::zeros((40, 8), DType::F32, &Device::Cpu).unwrap();
    let first = |seen: &Vec<usize>| {
        let mut row = seen.iter().take(20).map(|&slot| slot as i32).collect::<Vec<_>>();
        row.resize(20, -1);
        row
    };
    let expected = visible(&layout).iter().map(first).collect::<Vec<_>>();
    every_backend(|name| {
        assert_eq!(ints(&indexer_topk(&q, &index_k, &weights, &layout, 20).unwrap()), expected, "{name}");
    });
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let mut rng = rng(3);
    let layout = layout(&mut rng, &[(700, 40), (0, 9), (1100, 1)]);
    let tokens = layout.tokens();
    let (q, index_k) = (tensor(&mut rng, &[tokens, 16, 128]), tensor(&mut rng, &[SLOTS, 128]));
    let weights = tensor(&mut rng, &[tokens, 16]);
    let together = ints(&indexer_topk(&q, &index_k, &weights, &layout, 100).unwrap());
    for (row, expected) in together.iter().enumerate() {
        let (q, weights) = (q.narrow(0, row, 1).unwrap(), weights.narrow(0, row, 1).unwrap());
        let one = ints(&indexer_topk(&q, &index_k, &weights, &alone(&layout, row), 100).unwrap());
        assert_eq!(&one[0], expected, "row {row}");
    }
}

#[test]
fn names_what_is_wrong() {
    let mut rng = rng(4);
    let (q, index_k) = (tensor(&mut rng, &[2, 4, 8]), tensor(&mut rng, &[64, 8]));
    let weights = tensor(&mut rng, &[2, 4]);
    let layout = BatchLayout::single(2);
    let nan = (weights.clone() * f64::NAN).unwrap();
    every_backend(|name| {
        assert_error(indexer_topk(&q, &index_k, &nan, &layout, 1), "is NaN");
        let nan_q = (&q * f64::NAN).unwrap();
        assert_error(indexer_topk(&nan_q, &index_k, &weights, &layout, 1), "is NaN");
        let nan_k = (&index_k * f64::NAN).unwrap();
        assert_error(indexer_topk(&q, &nan_k, &weights, &layout, 1), "is NaN");
        assert!(indexer_topk(&q, &index_k, &nan, &layout, 2).is_ok(), "{name}: no score is needed");
        assert_error(indexer_topk(&weights, &index_k, &weights, &layout, 1), "indexer_topk: q must be [T, H_I, D]");
        assert_error(indexer_topk(&q, &index_k, &weights, &BatchLayout::single(1), 1), "expected 2");
        assert_error(indexer_topk(&q, &index_k, &weights, &layout, usize::MAX), "too large");
    });
}
