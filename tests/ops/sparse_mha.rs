//! `ops::sparse_mha` against f64 loops.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::sparse_mha::sparse_mha;
use deepseek_v32::ops::{Backend, with_backend};
use rand::Rng;

use crate::common_attn::{assert_close, assert_error, attention, bits, every_backend, rng, tensor, values};

/// Greatest difference from f64 loops, relative to one plus the size.
const TOLERANCE: f64 = 1e-5;

/// `(q, k, v, indices)`; some indices are -1, the first row's all are.
fn inputs(seed: u64, [t, s, h, d, v, k]: [usize; 6]) -> (Tensor, Tensor, Tensor, Tensor) {
    let mut rng = rng(seed);
    let (q, keys, values) = (tensor(&mut rng, &[t, h, d]), tensor(&mut rng, &[s, h, d]), tensor(&mut rng, &[s, h, v]));
    let pick = |i: usize| if i < k || rng.random_range(0..4) == 0 { -1 } else { rng.random_range(0..s as i64) };
    let indices = Tensor::from_vec((0..t * k).map(pick).collect(), (t, k), &Device::Cpu).unwrap();
    (q, keys, values, indices)
}

#[test]
fn agrees_with_loops() {
    for (seed, shape) in [[5, 40, 3, 12, 7, 9], [3, 200, 2, 24, 20, 150], [2, 3, 1, 5, 1, 1]].into_iter().enumerate() {
        let [t, _, h, d, v, k] = shape;
        let (q, keys, vals, indices) = inputs(seed as u64, shape);
        let (q64, k64, v64) = (values(&q), values(&keys), values(&vals));
        let named = indices.to_vec2::<i64>().unwrap();
        let (mut out, mut lse) = (Vec::new(), Vec::new());
        for row in 0..t {
            for head in 0..h {
                let seen: Vec<usize> = named[row].iter().filter(|&&i| i >= 0).map(|&i| i as usize * h + head).collect();
                let keys: Vec<_> = seen.iter().map(|at| &k64[at * d..][..d]).collect();
                let vals: Vec<_> = seen.iter().map(|at| &v64[at * v..][..v]).collect();
                let (o, l) = attention(&q64[(row * h + head) * d..][..d], &keys, &vals, v, 0.3);
                out.extend(o);
                lse.push(l);
            }
        }
        assert_eq!(lse[0], f64::NEG_INFINITY);
        every_backend(|case| {
            for indices in [&indices, &indices.to_dtype(DType::I32).unwrap()] {
                let (found, found_lse) = sparse_mha(&q, &keys, &vals, indices, 0.3).unwrap();
                assert_eq!((found.dims(), found_lse.dims()), (&[t, h, v][..], &[t, h][..]), "{case}");
                assert_close(&format!("{case}: {shape:?}: out"), &values(&found), &out, TOLERANCE);
                assert_close(&format!("{case}: {shape:?}: lse"), &values(&found_lse), &lse, TOLERANCE);
            }
            // A row has the same bits alone.
            let (all, _) = sparse_mha(&q, &keys, &vals, &indices, 0.3).unwrap();
            let row = |x: &Tensor| x.narrow(0, t - 1, 1).unwrap();
            let (alone, _) = sparse_mha(&row(&q), &keys, &vals, &row(&indices), 0.3).unwrap();
            if case != "reference" {
                assert_eq!(bits(&alone), bits(&row(&all)), "{case}");
            }
            assert_eq!(k, indices.dim(1).unwrap());
        });
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let (q, k, v, indices) = inputs(7, [2, 6, 3, 4, 5, 2]);
    let index = |values: [i64; 4]| Tensor::from_vec(values.to_vec(), (2, 2), &Device::Cpu).unwrap();
    assert_error(sparse_mha(&q, &k, &v, &index([0, -1, 2, 6]), 1.), "sparse_mha: indices[1, 1] is 6, k has 6 rows");
    assert_error(sparse_mha(&q, &k, &v, &index([0, -2, 2, 5]), 1.), "indices[0, 1] is -2");
    with_backend(Backend::Reference, || {
        for bad in [[0, -1, 2, 6], [0, -2, 2, 5]] {
            assert!(sparse_mha(&q, &k, &v, &index(bad), 1.).is_err());
        }
    });
    assert_error(sparse_mha(&q, &k.narrow(1, 0, 2).unwrap(), &v, &indices, 1.), "k must be [S, H = 3, Dq = 4]");
    assert_error(sparse_mha(&q, &k, &v.narrow(0, 0, 5).unwrap(), &indices, 1.), "v must be [S = 6, H = 3, V]");
    assert_error(sparse_mha(&q, &k, &v, &indices.narrow(0, 0, 1).unwrap(), 1.), "indices must be [T = 2, K]");
    assert_error(sparse_mha(&q, &k, &v, &indices, f64::NAN), "softmax_scale must be a finite f32");
}
