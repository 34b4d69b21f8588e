//! `rms_norm`, `layer_norm`, `hadamard`, `rope` and `swiglu` against f64 loops and golden vectors.

use crate::common::{ISAS, assert_close, bits, strided, tensor, to_f64, unit};
use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::ops::hadamard::hadamard;
use deepseek_v32::ops::layer_norm::layer_norm;
use deepseek_v32::ops::rms_norm::rms_norm;
use deepseek_v32::ops::rope::rope;
use deepseek_v32::ops::simd::with_isa;
use deepseek_v32::ops::swiglu::swiglu;
use deepseek_v32::ops::{Backend, with_backend};

/// Relative to `1 + |expected|`, per dtype of the activations.
const TOLERANCES: [(DType, f64); 4] = [(DType::F32, 1e-6), (DType::F64, 1e-6), (DType::F16, 5e-4), (DType::BF16, 4e-3)];
const EPS: f64 = 1e-6;
const WIDTHS: [usize; 6] = [1, 2, 15, 32, 100, 1536];

/// Checks `op` on every backend, ISA, dtype and layout; an element may depend on its row of the last dimension only.
fn check(what: &str, dims: &[usize], op: impl Fn(&Tensor) -> Result<Tensor>, naive: impl Fn(&[f64]) -> Vec<f64>) {
    let width = dims[dims.len() - 1];
    for (dtype, tolerance) in TOLERANCES {
        let x = tensor(1, dims, dtype);
        let expected: Vec<f64> = to_f64(&x).chunks(width).flat_map(&naive).collect();
        for view in [x.clone(), strided(&x)] {
            for isa in ISAS {
                let y = with_isa(isa, || op(&view)).unwrap();
                assert_eq!((y.dims(), y.dtype()), (dims, dtype));
                assert_close(&to_f64(&y), &expected, tolerance, &format!("{what} {dims:?} {dtype:?} {isa:?}"));
            }
            let y = with_backend(Backend::Reference, || op(&view)).unwrap();
            assert_close(&to_f64(&y), &expected, tolerance, &format!("{what} {dims:?} {dtype:?} reference"));
        }
    }
}

/// Checks that every row of `op(x)` has the bits that it has alone.
fn check_rows(what: &str, x: &Tensor, op: impl Fn(&Tensor) -> Result<Tensor>) {
    for isa in ISAS {
        let together = with_isa(isa, || op(x)).unwrap();
        for row in [0, x.dims()[0] / 2, x.dims()[0] - 1] {
            let alone = with_isa(isa, || op(&x.narrow(0, row, 1).unwrap())).unwrap();
            assert_eq!(bits(&alone), bits(&together.narrow(0, row, 1).unwrap()), "{what}, row {row}, {isa:?}");
        }
    }
}

fn error(result: Result<Tensor>, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    parts.iter().for_each(|part| assert!(message.contains(part), "{message:?} should name {part:?}"));
}

#[test]
fn rms_norm_matches_f64_loops() {
    for width in WIDTHS {
        let weight = tensor(2, &[width], DType::F32);
        let factors = to_f64(&weight);
        let naive = |row: &[f64]| {
            let mean_square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            row.iter().zip(&factors).map(|(x, w)| x / (mean_square + EPS).sqrt() * w).collect()
        };
        check("rms_norm", &[2, 3, width], |x| rms_norm(x, &weight, EPS), naive);
        check_rows("rms_norm", &tensor(3, &[70, width], DType::F32), |x| rms_norm(x, &weight, EPS));
    }
    let (x, weight) = (tensor(1, &[2, 6], DType::F32), tensor(2, &[6], DType::F32));
    error(rms_norm(&x, &tensor(2, &[5], DType::F32), EPS), &["rms_norm: weight must be [H = 6], got [5]"]);
    error(rms_norm(&x.to_dtype(DType::U8).unwrap(), &weight, EPS), &["x", "u8"]);
    error(rms_norm(&Tensor::new(1.0f32, &Device::Cpu).unwrap(), &weight, EPS), &["scalar"]);
    let half = rms_norm(&x, &weight.to_dtype(DType::BF16).unwrap(), EPS).unwrap();
    assert_close(&to_f64(&half), &to_f64(&rms_norm(&x, &weight, EPS).unwrap()), 4e-3, "bf16 weight");
}

#[test]
fn layer_norm_matches_f64_loops() {
    for width in WIDTHS {
        let (weight, bias) = (tensor(2, &[width], DType::F32), tensor(3, &[width], DType::F32));
        let (factors, offsets) = (to_f64(&weight), to_f64(&bias));
        let naive = |row: &[f64]| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let parameters = factors.iter().zip(&offsets);
            row.iter().zip(parameters).map(|(x, (w, b))| (x - mean) / (variance + EPS).sqrt() * w + b).collect()
        };
        // The variance of two nearly equal values loses digits, so widths begin at 15.
        if width >= 15 {
            check("layer_norm", &[2, 3, width], |x| layer_norm(x, &weight, &bias, EPS), naive);
        }
        check_rows("layer_norm", &tensor(4, &[70, width], DType::F32), |x| layer_norm(x, &weight, &bias, EPS));
    }
    let (x, good, bad) = (tensor(1, &[2, 6], DType::F32), tensor(2, &[6], DType::F32), tensor(2, &[1, 6], DType::F32));
    error(layer_norm(&x, &bad, &good, EPS), &["layer_norm: weight must be [H = 6], got [1, 6]"]);
    error(layer_norm(&x, &good, &bad, EPS), &["layer_norm: bias must be [H = 6], got [1, 6]"]);
}

#[test]
fn hadamard_matches_its_matrix_and_the_golden_vectors() {
    let unit = unit();
    for width in [16, 32, 128] {
        let y = hadamard(&unit[&format!("hadamard.{width}.x")]).unwrap();
        assert_close(&to_f64(&y), &to_f64(&unit[&format!("hadamard.{width}.y")]), 1e-6, "golden");
    }
    for width in [1, 2, 64] {
        // Element (i, j) of the Sylvester matrix is -1 to the number of ones that i and j share.
        let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        let naive = |row: &[f64]| {
            let dot = |i| row.iter().enumerate().map(|(j, x)| sign(i, j) * x).sum::<f64>();
            (0..row.len()).map(|i| dot(i) / (row.len() as f64).sqrt()).collect()
        };
        check("hadamard", &[2, 3, width], hadamard, naive);
    }
    check_rows("hadamard", &tensor(5, &[600, 128], DType::F32), hadamard);
    error(hadamard(&tensor(1, &[2, 6], DType::F32)), &["power of two", "[2, 6]"]);
    error(hadamard(&Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap()), &["power of two"]);
}

#[test]
fn rope_matches_f64_loops_and_the_golden_vectors() {
    let unit = unit();
    let (x, cos, sin) = (unit["rope.x"].squeeze(0).unwrap(), &unit["rope.cos"], &unit["rope.sin"]);
    for backend in [Backend::Cpu, Backend::Reference] {
        for (interleaved, key) in [(true, "rope.y_interleaved"), (false, "rope.y_half_split")] {
            let y = with_backend(backend, || rope(&x, cos, sin, interleaved)).unwrap();
            assert_close(&to_f64(&y), &to_f64(&unit[key]), 1e-6, key);
        }
    }
    for width in [2, 6, 64] {
        // The same angles for every token, so that a row's expectation needs no index.
        let table = |seed| tensor(seed, &[1, width / 2], DType::F32).broadcast_as((2, width / 2)).unwrap();
        let (cos, sin) = (table(6), table(7));
        let (c, s) = (to_f64(&cos), to_f64(&sin));
        for interleaved in [true, false] {
            let place = |i| if interleaved { (2 * i, 2 * i + 1) } else { (i, i + width / 2) };
            let naive = |row: &[f64]| {
                let mut out = vec![0.0; width];
                for i in 0..width / 2 {
                    let (a, b) = place(i);
                    out[a] = row[a] * c[i] - row[b] * s[i];
                    out[b] = row[b] * c[i] + row[a] * s[i];
                }
                out
            };
            check("rope", &[2, 3, width], |x| rope(x, &cos, &sin, interleaved), naive);
        }
    }
    let (x, table) = (tensor(1, &[2, 3, 6], DType::F32), tensor(2, &[2, 3], DType::F32));
    error(rope(&x, &tensor(2, &[1, 3], DType::F32), &table, true), &["cos must be [T = 2, R/2 = 3], got [1, 3]"]);
    error(rope(&x, &table, &tensor(2, &[2, 6], DType::F32), true), &["sin must be [T = 2, R/2 = 3], got [2, 6]"]);
    error(rope(&tensor(1, &[2, 3, 5], DType::F32), &table, &table, true), &["even", "[2, 3, 5]"]);
    error(rope(&tensor(1, &[2, 6], DType::F32), &table, &table, true), &["[T, heads, R]", "[2, 6]"]);
}

#[test]
fn swiglu_matches_f64_loops() {
    let up = tensor(8, &[2, 3, 100], DType::F32);
    let ups = to_f64(&up.get(0).unwrap().get(0).unwrap());
    let up = up.get(0).unwrap().get(0).unwrap().broadcast_as((2, 3, 100)).unwrap();
    let naive = |row: &[f64]| row.iter().zip(&ups).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    check("swiglu", &[2, 3, 100], |gate| swiglu(gate, &up), naive);
    let long = tensor(9, &[50, 3000], DType::F32);
    check_rows("swiglu", &long, |gate| swiglu(gate, gate));

    let gates = [0.0f32, -0.0, 1e-30, 5.0, -5.0, 60.0, -60.0, 1000.0, -1000.0, f32::MAX, f32::INFINITY];
    let gate = Tensor::new(&gates, &Device::Cpu).unwrap();
    let expected: Vec<f64> = gates.iter().map(|&g| f64::from(g) / (1.0 + (-f64::from(g)).exp())).collect();
    for isa in ISAS {
        let y = with_isa(isa, || swiglu(&gate, &gate.ones_like().unwrap())).unwrap();
        assert_close(&to_f64(&y)[..10], &expected[..10], 1e-6, &format!("{isa:?}"));
        assert_eq!(to_f64(&y)[10], f64::INFINITY);
        let nan =
            with_isa(isa, || swiglu(&Tensor::new(&[f32::NAN], &Device::Cpu)?, &Tensor::new(&[1f32], &Device::Cpu)?));
        assert!(to_f64(&nan.unwrap())[0].is_nan());
    }
    error(swiglu(&gate, &tensor(1, &[3], DType::F32)), &["swiglu", "[11]", "[3]"]);
}

#[test]
fn empty_inputs_give_empty_outputs() {
    let x = Tensor::zeros((0, 4, 8), DType::BF16, &Device::Cpu).unwrap();
    let (row, table) = (tensor(1, &[8], DType::F32), Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap());
    for backend in [Backend::Cpu, Backend::Reference] {
        with_backend(backend, || {
            let outputs = [
                rms_norm(&x, &row, EPS),
                layer_norm(&x, &row, &row, EPS),
                hadamard(&x),
                rope(&x, &table, &table, true),
                swiglu(&x, &x),
            ];
            outputs.into_iter().for_each(|y| assert_eq!(y.unwrap().dims(), [0, 4, 8]));
        });
    }
}
