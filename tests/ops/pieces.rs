//! The small ops that put the others together against plain loops: `gather`, `join`, `rope_join`, `cast`, `scale`, `add`,
//! `add_rms_norm`, `mark_not_finite`.

use candle_core::{D, DType, Device, Tensor};
use deepseek_v32::ops::residual::NOTHING;
use deepseek_v32::ops::{
    Backend, add, add_rms_norm, cast, gather, join, join_rows, mark_not_finite, rms_norm, rope, rope_join, scale,
    with_backend,
};

use crate::common::{assert_close, bits, strided, tensor, to_f64};
use crate::common_attn::assert_error;

const BACKENDS: [Backend; 2] = [Backend::Cpu, Backend::Reference];
const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
/// A norm in f32 against f64.
const F32: f64 = 1e-6;

fn row(tensor: &Tensor, at: usize) -> Vec<f64> {
    to_f64(&tensor.get(at).unwrap())
}

#[test]
fn rows_are_gathered_by_index() {
    let indices = [4u32, 0, 4, 2];
    for backend in BACKENDS {
        for dtype in FLOATS {
            let table = tensor(1, &[5, 2, 3], dtype);
            let at = Tensor::new(&indices, &Device::Cpu).unwrap();
            for view in [table.clone(), strided(&table)] {
                let out = with_backend(backend, || gather(&view, &at, DType::F32)).unwrap();
                assert_eq!((out.dims(), out.dtype()), (&[4, 2, 3][..], DType::F32));
                for (t, &index) in indices.iter().enumerate() {
                    assert_eq!(row(&out, t), row(&table, index as usize));
                }
            }
        }
        let codes = Tensor::new(&[[1u8, 2], [3, 4]], &Device::Cpu).unwrap();
        let at = Tensor::new(&[1u32, 1], &Device::Cpu).unwrap();
        let out = with_backend(backend, || gather(&codes, &at, DType::U8)).unwrap();
        assert_eq!(out.to_vec2::<u8>().unwrap(), [[3, 4], [3, 4]]);
    }
    let (table, far) = (tensor(1, &[5, 3], DType::F32), Tensor::new(&[5u32], &Device::Cpu).unwrap());
    assert!(gather(&table, &far, DType::F32).is_err());
    assert_error(gather(&table, &Tensor::new(&[1i64], &Device::Cpu).unwrap(), DType::F32), "indices must be u32");
    assert_error(gather(&Tensor::new(1f32, &Device::Cpu).unwrap(), &far, DType::F32), "got a scalar");
}

#[test]
fn two_tensors_stand_side_by_side() {
    for backend in BACKENDS {
        for dtype in FLOATS {
            let (a, b) = (tensor(1, &[2, 3, 4], dtype), tensor(2, &[2, 3, 5], dtype));
            let out = with_backend(backend, || join(&a, &strided(&b))).unwrap();
            let rows =
                |t: &Tensor| to_f64(t).chunks(t.dim(D::Minus1).unwrap()).map(<[f64]>::to_vec).collect::<Vec<_>>();
            let expected: Vec<_> = rows(&a).into_iter().zip(rows(&b)).flat_map(|(a, b)| [a, b].concat()).collect();
            assert_eq!((out.dims(), to_f64(&out)), (&[2, 3, 9][..], expected));
        }
    }
    let parts = [2, 0, 3].map(|rows| tensor(rows as u64, &[rows, 4], DType::F32));
    let expected: Vec<_> = parts.iter().flat_map(to_f64).collect();
    assert_eq!(to_f64(&join_rows(&parts).unwrap()), expected);
    assert!(join_rows(&[]).is_err());
    assert!(join_rows(&[parts[0].clone(), tensor(1, &[2, 5], DType::F32)]).is_err());
    let a = tensor(1, &[2, 3], DType::F32);
    assert_error(join(&a, &tensor(1, &[3, 3], DType::F32)), "join: a is [2, 3] and b [3, 3]");
    assert_error(join(&a, &tensor(1, &[2, 3], DType::BF16)), "join: a is f32 and b bf16");
}

#[test]
fn a_rotated_part_stands_beside_the_rest() {
    for (tokens, heads, rotated, others) in [(1, 1, 2, 1), (3, 5, 8, 6), (2, 4, 64, 0)] {
        let (cos, sin) = (tensor(2, &[tokens, rotated / 2], DType::F32), tensor(3, &[tokens, rotated / 2], DType::F32));
        for dtype in FLOATS {
            let (pe, rest) = (tensor(1, &[tokens, heads, rotated], dtype), tensor(4, &[tokens, heads, others], dtype));
            for (backend, interleaved) in BACKENDS.into_iter().flat_map(|backend| [(backend, true), (backend, false)]) {
                with_backend(backend, || {
                    let turned = rope(&pe, &cos, &sin, interleaved).unwrap();
                    for (pe_first, parts) in [(true, [&turned, &rest]), (false, [&rest, &turned])] {
                        let out = rope_join(&pe, &rest, &cos, &sin, interleaved, pe_first).unwrap();
                        let [first, second] = parts.map(|part| part.dim(2).unwrap());
                        assert_eq!(bits(&out.narrow(2, 0, first).unwrap()), bits(parts[0]));
                        assert_eq!(bits(&out.narrow(2, first, second).unwrap()), bits(parts[1]));
                    }
                });
            }
        }
    }
    let (pe, table) = (tensor(1, &[2, 3, 4], DType::F32), tensor(2, &[2, 2], DType::F32));
    let rest = |dims: &[usize], dtype| rope_join(&pe, &tensor(1, dims, dtype), &table, &table, true, true);
    assert_error(rest(&[2, 4, 4], DType::F32), "rope_join: rest must be [T = 2, heads = 3, N]");
    assert_error(rest(&[2, 3, 4], DType::BF16), "rope_join: rest must be f32");
}

#[test]
fn sums_and_their_norms() {
    for backend in BACKENDS {
        for dtype in FLOATS {
            let [x, a, b] = [1, 2, 3].map(|seed| tensor(seed, &[3, 7], dtype));
            let rounded = |a: f64, b: f64| {
                let sum = Tensor::new(&[(a + b) as f32], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                to_f64(&sum)[0]
            };
            let pair: Vec<_> = to_f64(&a).iter().zip(to_f64(&b)).map(|(a, b)| rounded(*a, b)).collect();
            let onto =
                |parts: &[f64]| to_f64(&x).iter().zip(parts).map(|(x, part)| rounded(*x, *part)).collect::<Vec<_>>();
            with_backend(backend, || {
                assert_eq!(to_f64(&add(&x, &a, Some(&b)).unwrap()), onto(&pair));
                assert_eq!(to_f64(&add(&x, &strided(&a), None).unwrap()), onto(&to_f64(&a)));
                let weight = tensor(4, &[7], DType::F32);
                let (sum, normed) = add_rms_norm(&x, &a, &weight, 1e-6).unwrap();
                assert_eq!(to_f64(&sum), onto(&to_f64(&a)));
                assert_eq!(bits(&normed), bits(&rms_norm(&sum, &weight, 1e-6).unwrap()));
            });
        }
    }
    let (x, a) = (tensor(1, &[2, 3], DType::F32), tensor(1, &[3, 2], DType::F32));
    assert_error(add(&x, &a, None), "add: a must be [2, 3], got [3, 2]");
    assert_error(add(&x, &x, Some(&x.to_dtype(DType::BF16).unwrap())), "add: b must be f32");
    let weight = tensor(4, &[3], DType::F32);
    assert!(add_rms_norm(&x, &a, &weight, 1e-6).unwrap_err().to_string().contains("add_rms_norm: a must be [2, 3]"));
}

#[test]
fn conversions_and_products() {
    let x = (tensor(1, &[3, 5], DType::F32) * 1000.0).unwrap();
    for backend in BACKENDS {
        with_backend(backend, || {
            let half = cast(&x.t().unwrap(), DType::BF16).unwrap();
            for (half, x) in to_f64(&half).iter().zip(to_f64(&x.t().unwrap())) {
                assert_eq!(*half as f32, half::bf16::from_f32(x as f32).to_f32());
            }
            assert_eq!(bits(&cast(&x, DType::F32).unwrap()), bits(&x));
            let by = tensor(2, &[3, 5], DType::F32);
            let expected = |by: &dyn Fn(usize) -> f32| {
                let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.iter().enumerate().map(|(i, x)| f64::from(x * 0.3 * by(i))).collect::<Vec<_>>()
            };
            assert_close(&to_f64(&scale(&x, 0.3, None).unwrap()), &expected(&|_| 1.0), F32, "scale");
            let factors = by.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_close(&to_f64(&scale(&x, 0.3, Some(&by)).unwrap()), &expected(&|i| factors[i]), F32, "scale by");
        });
    }
    assert_error(scale(&x.to_dtype(DType::BF16).unwrap(), 1.0, None), "scale: x must be f32");
    assert_error(scale(&x, 1.0, Some(&tensor(2, &[5, 3], DType::F32))), "scale: by must be [3, 5]");
}

#[test]
fn the_first_row_that_is_not_finite_is_kept() {
    let mut rows = vec![vec![1f32, -2.0, f32::MAX]; 4];
    let fine = Tensor::new(rows.clone(), &Device::Cpu).unwrap();
    rows[1][2] = f32::NAN;
    rows[3][0] = f32::INFINITY;
    let spoilt = Tensor::new(rows, &Device::Cpu).unwrap();
    for backend in BACKENDS {
        with_backend(backend, || {
            let first = Tensor::new(&[NOTHING, NOTHING], &Device::Cpu).unwrap();
            let found = |x: &Tensor, index| {
                mark_not_finite(x, index, &first).unwrap();
                first.to_vec1::<u32>().unwrap()
            };
            assert_eq!(found(&fine, 6), [NOTHING, NOTHING]);
            assert_eq!(found(&spoilt, 7), [1, 7]);
            assert_eq!(found(&spoilt.narrow(0, 3, 1).unwrap(), 8), [1, 7]);
        });
    }
    let first = Tensor::new(&[NOTHING], &Device::Cpu).unwrap();
    assert!(mark_not_finite(&fine, 0, &first).unwrap_err().to_string().contains("first must be [row and index = 2]"));
}
