//! Linear layers, the MLP and the mixture of experts.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::block_quant;
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use deepseek_v32::ops::moe::ExpertWeights;
use deepseek_v32::ops::{linear, mlp, moe};

use crate::common::{tensor, values};
use crate::{check, gpu, views};

/// Sums of some thousand products of numbers below one, in f32.
const F32: f64 = 5e-5;
/// One rounding to bf16, of the result or of the activations in between.
const BF16: f64 = 2e-2;
/// Activations rounded to e4m3: what lies at a tie may go either way, by a step of 1/16.
const FP8: f64 = 1e-1;

/// A weight `[.., N, K]` in each form: f32, bf16, codes with scales. Values are scaled so that sums stay about one.
fn forms(seed: u64, dims: &[usize]) -> Vec<Vec<Tensor>> {
    let [outer @ .., n, k] = dims else { panic!("{dims:?}") };
    let dense = (tensor(seed, dims, DType::F32) * (1.0 / (*k as f64).sqrt())).unwrap();
    let flat = dense.reshape(((), *n, *k)).unwrap();
    let parts = (0..flat.dim(0).unwrap()).map(|i| block_quant(&flat.get(i).unwrap(), 128, false).unwrap());
    let (codes, scales): (Vec<_>, Vec<_>) = parts.unzip();
    // Candle cannot stack codes.
    let codes: Vec<_> =
        codes.iter().flat_map(|codes| codes.flatten_all().unwrap().to_vec1::<float8::F8E4M3>().unwrap()).collect();
    let codes = Tensor::from_vec(codes, dims, &Device::Cpu).unwrap();
    let scale =
        Tensor::stack(&scales, 0).unwrap().reshape([outer, &[n.div_ceil(128), k.div_ceil(128)]].concat()).unwrap();
    vec![vec![dense.clone()], vec![dense.to_dtype(DType::BF16).unwrap()], vec![codes, scale]]
}

#[test]
fn projections() {
    let Some(device) = gpu() else { return };
    for (n, k) in [(1, 1), (5, 33), (130, 200), (256, 1024), (288, 384), (300, 7168)] {
        for rows in [1, 3, 8, 9, 40, 70] {
            for (dtype, tolerance) in [(DType::F32, F32), (DType::BF16, BF16)] {
                for weight in forms(2, &[n, k]) {
                    for x in views(&tensor(1, &[rows, k], dtype)) {
                        let arguments: Vec<_> = [&x].into_iter().chain(&weight).collect();
                        check("linear", &device, tolerance, &arguments, |a| Ok(vec![linear(&a[0], &a[1], a.get(2))?]));
                    }
                }
            }
        }
    }
    // Leading dimensions, a view of a weight, and codes without scales.
    let (x, weight) = (tensor(1, &[2, 3, 64], DType::F32), tensor(2, &[40, 64], DType::F32).narrow(0, 7, 30).unwrap());
    check("linear", &device, F32, &[&x, &weight], |a| Ok(vec![linear(&a[0], &a[1], None)?]));
    let [.., fp8] = &forms(3, &[20, 64])[..] else { panic!() };
    let far = tensor(1, &[12, 64], DType::F32);
    for x in [&x, &far] {
        check("linear of codes", &device, 1e-3, &[x, &fp8[0]], |a| Ok(vec![linear(&a[0], &a[1], None)?]));
    }
}

#[test]
fn projections_in_fp8() {
    let Some(device) = gpu() else { return };
    // The last three are multiplied in e4m3 on Hopper where activations are bf16: a few rows, or tiles of 128, whose number
    // is even or odd, with rows and columns left over.
    for (n, k) in [(5, 33), (130, 200), (256, 1024), (288, 384), (640, 128)] {
        for rows in [1, 8, 40, 97, 128, 300, 520] {
            let [.., weight] = &forms(2, &[n, k])[..] else { panic!() };
            for ue8m0 in [true, false] {
                // Hopper adds the products of a group to 14 bits.
                for (dtype, tolerance) in [(DType::F32, F32), (DType::BF16, BF16)] {
                    check(
                        "linear_fp8",
                        &device,
                        tolerance,
                        &[&tensor(1, &[rows, k], dtype), &weight[0], &weight[1]],
                        |a| {
                            let weight = LinearWeight { weight: a[1].clone(), weight_scale_inv: Some(a[2].clone()) };
                            Ok(vec![weight.forward(&a[0], LinearMode::Fp8 { ue8m0 })?])
                        },
                    );
                }
            }
        }
    }
}

#[test]
fn gated_mlps_and_experts() {
    let Some(device) = gpu() else { return };
    // The last five are multiplied by the tensor cores on Hopper where activations are bf16: a few rows of each expert, or
    // tiles of 128, of one expert alone, or unevenly dealt out with experts that no row chooses.
    for (tokens, experts, k, hidden, width) in [
        (1, 1, 1, 1, 1),
        (3, 8, 2, 40, 33),
        (70, 4, 3, 200, 130),
        (9, 16, 8, 256, 128),
        (40, 3, 1, 128, 256),
        (257, 1, 1, 256, 128),
        (300, 16, 2, 384, 256),
        (700, 5, 2, 256, 384),
    ] {
        // Two thirds of the tokens choose the first experts.
        let choice = |i: usize| match i / k % 3 {
            0 => ((i / k * 7 + i % k * (experts / k).max(1)) % experts) as u32,
            _ => (i % k) as u32,
        };
        let indices: Vec<u32> = (0..tokens * k).map(choice).collect();
        let indices = Tensor::from_vec(indices, (tokens, k), &Device::Cpu).unwrap();
        let weights = Tensor::from_vec(values(9, tokens * k), (tokens, k), &Device::Cpu).unwrap();
        let stacks = [
            forms(2, &[experts, width, hidden]),
            forms(3, &[experts, width, hidden]),
            forms(4, &[experts, hidden, width]),
        ];
        for form in 0..3 {
            for mode in [LinearMode::Dequant, LinearMode::Fp8 { ue8m0: false }] {
                for (dtype, tolerance) in [(DType::F32, F32), (DType::BF16, BF16)] {
                    let is_fp8 = form == 2 && mode != LinearMode::Dequant;
                    let tolerance = if is_fp8 { FP8 } else { tolerance };
                    let x = tensor(1, &[tokens, hidden], dtype);
                    let stack = |a: &[Tensor], i: usize| {
                        let scale = (form == 2).then(|| a[2 * i + 1].clone());
                        StackedWeight { weight: a[if form == 2 { 2 * i } else { i }].clone(), weight_scale_inv: scale }
                    };
                    let tensors: Vec<_> = stacks.iter().flat_map(|forms| &forms[form]).collect();
                    let arguments: Vec<_> = [&x, &indices, &weights].into_iter().chain(tensors).collect();
                    check("moe", &device, tolerance, &arguments, |a| {
                        let [gate_proj, up_proj, down_proj] = [0, 1, 2].map(|i| stack(&a[3..], i));
                        let one = [&gate_proj, &up_proj, &down_proj].map(|stack| stack.get(0).unwrap());
                        let experts = ExpertWeights { gate_proj, up_proj, down_proj };
                        Ok(vec![
                            moe(&a[0], &experts, &a[1], &a[2], mode)?,
                            mlp(&a[0], &one[0], &one[1], &one[2], mode)?,
                        ])
                    });
                }
            }
        }
    }
    // A choice that is out of range chooses nothing.
    let stack = |seed| StackedWeight {
        weight: forms(seed, &[2, 8, 8])[0][0].to_device(&device).unwrap(),
        weight_scale_inv: None,
    };
    let experts = ExpertWeights { gate_proj: stack(1), up_proj: stack(2), down_proj: stack(3) };
    let x = tensor(1, &[1, 8], DType::F32).to_device(&device).unwrap();
    let run = |indices: &[[u32; 2]; 1], weights: &[[f32; 2]; 1]| {
        let (indices, weights) = (Tensor::new(indices, &device).unwrap(), Tensor::new(weights, &device).unwrap());
        moe(&x, &experts, &indices, &weights, LinearMode::Dequant).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(run(&[[1, 2]], &[[0.5, 9.0]]), run(&[[1, u32::MAX]], &[[0.5, 9.0]]));
    assert_eq!(run(&[[7, 2]], &[[0.5, 9.0]]), [[0.0; 8]]);
}
