//! Linear layers with activations rounded to bf16 against f64 loops over the rounded values.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, linear, linear_bf16, linear_many};
use deepseek_v32::ops::simd::with_isa;
use deepseek_v32::ops::{Backend, with_backend};

use crate::common::{ISAS, bits, tensor, to_f64};

/// Error of an output over the sum of the magnitudes of its products: f32 accumulation.
const RELATIVE: f64 = 1e-6;

fn bf16(seed: u64, n: usize, k: usize) -> LinearWeight {
    LinearWeight { weight: tensor(seed, &[n, k], DType::BF16), weight_scale_inv: None }
}

/// Fails unless every output is the sum of the products of `x`, rounded to bf16, with the weight.
fn check(what: &str, x: &Tensor, weight: &Tensor, y: &Tensor) {
    let (n, k) = weight.dims2().unwrap();
    let (x, w, y) = (to_f64(&x.to_dtype(DType::BF16).unwrap()), to_f64(weight), to_f64(y));
    assert_eq!(y.len(), x.len() / k * n, "{what}");
    for (i, y) in y.iter().enumerate() {
        let products = || x[i / n * k..][..k].iter().zip(&w[i % n * k..][..k]).map(|(x, w)| x * w);
        let (sum, magnitude) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
        assert!((y - sum).abs() <= RELATIVE * magnitude, "{what}: element {i} is {y}, not {sum}");
    }
}

#[test]
fn outputs_are_those_of_f64_loops_over_rounded_activations() {
    // Odd and even k, ragged ends, more than one chunk of k, and rows for one and for several threads.
    for (m, n, k) in [(1, 1, 1), (1, 9, 31), (1, 70, 300), (5, 33, 64), (7, 6, 2050), (40, 130, 258), (97, 35, 4100)] {
        let (x, weight) = (tensor(1, &[m, k], DType::F32), bf16(2, n, k));
        for isa in ISAS {
            let y = with_isa(isa, || weight.forward(&x, LinearMode::Bf16)).unwrap();
            check(&format!("{m}x{n}x{k} {isa:?}"), &x, &weight.weight, &y);
        }
        let y = with_backend(Backend::Reference, || linear_bf16(&x, &weight.weight)).unwrap();
        check(&format!("{m}x{n}x{k} reference"), &x, &weight.weight, &y);
    }
}

#[test]
fn rounds_to_nearest_even_and_keeps_special_values() {
    let values =
        [1.0f32, -1.0, 1.003_906_2, 1.011_718_7, 0.0, -0.0, 3.0e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let x = Tensor::from_vec(values.to_vec(), (values.len(), 1), &Device::Cpu).unwrap();
    // Beside a zero, so that pairs are used too.
    let pairs = Tensor::cat(&[&x, &x.zeros_like().unwrap()], 1).unwrap();
    let one = Tensor::ones((1, 1), DType::BF16, &Device::Cpu).unwrap();
    let ones = Tensor::ones((1, 2), DType::BF16, &Device::Cpu).unwrap();
    let expected = bits(&x.to_dtype(DType::BF16).unwrap());
    for isa in ISAS {
        for y in [with_isa(isa, || linear_bf16(&x, &one)), with_isa(isa, || linear_bf16(&pairs, &ones))] {
            for ((got, expected), value) in bits(&y.unwrap()).into_iter().zip(&expected).zip(values) {
                let same =
                    f32::from_bits(got) == f32::from_bits(*expected) || value.is_nan() && f32::from_bits(got).is_nan();
                assert!(same, "{value} became {}, {isa:?}", f32::from_bits(got));
            }
        }
    }
}

#[test]
fn other_weights_are_left_alone() {
    let x = tensor(1, &[3, 40], DType::F32);
    for dtype in [DType::F32, DType::F16] {
        let weight = LinearWeight { weight: tensor(2, &[9, 40], dtype), weight_scale_inv: None };
        let (rounded, plain) = (weight.forward(&x, LinearMode::Bf16), linear(&x, &weight.weight, None));
        assert_eq!(bits(&rounded.unwrap()), bits(&plain.unwrap()), "{dtype:?}");
        let many = linear_many(&x, &[&weight, &bf16(3, 5, 40)], LinearMode::Bf16).unwrap();
        assert_eq!(bits(&many[0]), bits(&weight.forward(&x, LinearMode::Bf16).unwrap()));
        assert_eq!(bits(&many[1]), bits(&bf16(3, 5, 40).forward(&x, LinearMode::Bf16).unwrap()));
        let message = linear_bf16(&x, &weight.weight).unwrap_err().to_string();
        assert!(message.contains("linear_bf16: weight must be bf16, got"), "{message}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_bits() {
    let (x, weight) = (tensor(1, &[130, 256], DType::F32), bf16(2, 300, 256));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        bits(&pool.install(|| weight.forward(&x, LinearMode::Bf16)).unwrap())
    };
    assert!(run(1) == run(2) && run(1) == run(5));
}
