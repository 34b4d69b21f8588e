//! `ops::topk` against a full sort.

use crate::common_attn::*;
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::topk::topk;
use rand::Rng;

const INF: f32 = f32::INFINITY;

/// Columns of the k largest by sorting everything.
fn oracle(row: &[f32], k: usize) -> Vec<i32> {
    let mut columns = (0..row.len()).filter(|&i| row[i] != -INF).collect::<Vec<_>>();
    columns.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).unwrap().then(a.cmp(&b)));
    columns.truncate(k);
    columns.sort();
    let mut columns = columns.iter().map(|&i| i as i32).collect::<Vec<_>>();
    columns.resize(k, -1);
    columns
}

fn check(case: &str, rows: &[Vec<f32>], k: usize) {
    let columns = rows.first().map_or(0, Vec::len);
    let logits = Tensor::from_vec(rows.concat(), (rows.len(), columns), &Device::Cpu).unwrap();
    let expected = rows.iter().map(|row| oracle(row, k)).collect::<Vec<_>>();
    every_backend(|name| {
        let indices = topk(&logits, k).unwrap();
        assert_eq!((indices.dims(), indices.dtype()), (&[rows.len(), k][..], DType::I32), "{case} {name}");
        if k > 0 {
            assert_eq!(ints(&indices), expected, "{case} {name} N={columns} k={k}");
        }
    });
}

#[test]
fn matches_a_full_sort_for_many_shapes() {
    let mut rng = rng(1);
    for columns in [0usize, 1, 2, 31, 32, 33, 255, 256, 257, 1000, 5000] {
        for k in [0, 1, 2, 7, 64, columns / 2, columns.saturating_sub(1), columns, columns + 1, 3 * columns + 5] {
            check("uniform", &(0..3).map(|_| uniform(&mut rng, columns)).collect::<Vec<_>>(), k);
        }
    }
    check("no rows", &[], 4);
}

#[test]
fn breaks_ties_by_the_smaller_column() {
    let mut rng = rng(2);
    for columns in [10, 300, 3000] {
        for k in [1, 5, columns / 3, columns] {
            let mut draw =
                |values: &[f32]| (0..columns).map(|_| values[rng.random_range(0..values.len())]).collect::<Vec<f32>>();
            let tiny = f32::from_bits(1);
            let rows = [
                vec![0.; columns],
                vec![-3.; columns],
                vec![-INF; columns],
                draw(&[0., -0.]),
                draw(&[0., -0., -INF]),
                draw(&[1., 2., 3., -1.]),
                draw(&[1., 1. + f32::EPSILON, -INF, INF]),
                draw(&[tiny, -tiny, 0., -0.]),
                draw(&[f32::MAX, f32::MIN, INF, -INF]),
                (0..columns).map(|i| -(i as f32)).collect(),
                (0..columns).map(|i| i as f32).collect(),
            ];
            check("ties", &rows, k);
        }
    }
}

#[test]
fn pads_rows_with_few_entries() {
    let mut row = vec![-INF; 600];
    (row[599], row[3], row[77]) = (-5., f32::MIN, 2.);
    check("few", &[row, vec![-INF; 600], vec![1.; 600]], 5);
}

#[test]
fn orders_numbers_of_every_magnitude() {
    let mut rng = rng(3);
    let bits = (0..4000).map(|_| f32::from_bits(rng.random())).filter(|x| !x.is_nan()).take(3900);
    let row = bits.collect::<Vec<_>>();
    for k in [1, 10, 1950, 3899] {
        check("magnitudes", std::slice::from_ref(&row), k);
    }
}

#[test]
fn selects_among_a_million() {
    let mut rng = rng(4);
    let columns = 1_000_000;
    let mut coarse = uniform(&mut rng, columns);
    coarse.iter_mut().for_each(|x| *x = (*x * 50.).round());
    for row in [uniform(&mut rng, columns), coarse, vec![1.; columns]] {
        let logits = Tensor::from_slice(&row, (1, columns), &Device::Cpu).unwrap();
        for k in [1, 2048, 999_999] {
            assert_eq!(ints(&topk(&logits, k).unwrap())[0], oracle(&row, k), "k={k}");
        }
    }
}

#[test]
fn reads_strided_and_offset_logits() {
    let mut rng = rng(5);
    let logits = tensor(&mut rng, &[70, 9]).t().unwrap().narrow(1, 4, 60).unwrap().narrow(0, 1, 7).unwrap();
    let expected = logits.to_vec2::<f32>().unwrap().iter().map(|row| oracle(row, 6)).collect::<Vec<_>>();
    every_backend(|name| assert_eq!(ints(&topk(&logits, 6).unwrap()), expected, "{name}"));
}

#[test]
fn many_rows_give_what_each_gives_alone() {
    let mut rng = rng(6);
    let logits = tensor(&mut rng, &[100, 2000]);
    let together = ints(&topk(&logits, 128).unwrap());
    for row in [0, 50, 99] {
        assert_eq!(ints(&topk(&logits.narrow(0, row, 1).unwrap(), 128).unwrap())[0], together[row]);
    }
}

#[test]
fn names_what_is_wrong() {
    for (columns, rows) in [(10, 1), (1000, 200)] {
        for nan in [f32::NAN, -f32::NAN] {
            for k in [0, 3, columns] {
                let mut data = vec![1f32; columns * rows];
                data[(rows - 1) * columns + 7] = nan;
                let logits = Tensor::from_vec(data, (rows, columns), &Device::Cpu).unwrap();
                every_backend(|_| assert_error(topk(&logits, k), &format!("logits[{}, 7] is NaN", rows - 1)));
            }
        }
    }
    let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    every_backend(|_| {
        assert_error(topk(&logits.flatten_all().unwrap(), 1), "logits must be [T, N]");
        assert_error(topk(&logits.to_dtype(DType::F16).unwrap(), 1), "logits must be f32, got f16");
        assert_error(topk(&logits, usize::MAX), "too large");
    });
}
