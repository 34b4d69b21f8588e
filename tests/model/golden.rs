//! Every model case against the recorded reference numbers.

use std::io::Write;

use candle_core::{DType, Device, IndexOp};
use deepseek_v32::config::ModelType;
use deepseek_v32::model::{Precision, Trace};
use deepseek_v32::ops::simd::{Isa, isa, with_isa};
use deepseek_v32::ops::{Backend, with_backend};

use crate::golden_support::{Case, F32_TOLERANCE, FP8_TOLERANCE, Run};

fn load(name: &'static str) -> Case {
    Case::load(name, &Device::Cpu)
}

#[test]
fn v32() {
    load("v32_f32").check_all();
}

#[test]
fn v32_on_the_reference_ops() {
    with_backend(Backend::Reference, || load("v32_f32").check_all());
}

#[test]
fn v3() {
    load("v3_f32").check_all();
}

#[test]
fn glm() {
    load("glm_dsa_f32").check_all();
}

#[test]
fn v32_with_mtp_layer() {
    load("v32_mtp_train").check_all();
}

#[test]
fn fp8_dequantized() {
    load("v32_fp8").check_all();
}

#[test]
fn fp8_arithmetic() {
    let case =
        Case::with("v32_fp8", &Device::Cpu, "golden_full_fp8.safetensors", Precision::Fp8, FP8_TOLERANCE, |_| ());
    // Without fused multiply-add a near tie of layer 0 falls to the other side, in PyTorch (MKL_CBWR=COMPATIBLE) as here,
    // and the logits of both then differ by 2.985 from the recorded ones.
    if isa() == Isa::Baseline {
        // Past the capture of the test's output: a skipped test should be seen.
        writeln!(std::io::stderr(), "\nfp8_arithmetic: SKIPPED, this processor has no fused multiply-add").unwrap();
        return;
    }
    for isa in [Isa::Avx2, Isa::Avx512] {
        with_isa(isa, || {
            for chunk in [64, 40, 1] {
                let mut run = case.prefill(chunk);
                case.check_prefill(&run);
                case.check_decode(&mut run);
            }
        });
    }
}

#[test]
fn dense_attention_over_v32_weights() {
    let case =
        Case::with("v32_mtp_train", &Device::Cpu, "golden.safetensors", Precision::Dequant, F32_TOLERANCE, |config| {
            config.model_type = ModelType::DeepseekV3;
            config.num_nextn_predict_layers = 0;
        });
    let run = case.prefill(64);
    let hidden = run.joined(&run.final_norm).flatten_to(1).unwrap();
    case.close("logits", &case.model.logits(&hidden).unwrap(), case.expected("kl_dense.logits"));
}

#[test]
fn mtp() {
    for name in ["v3_f32", "v32_mtp_train"] {
        let case = load(name);
        let ids = case.ids();
        let mut run = Run::new(&case.model, ids.len());
        // Rows 0..n-1 of each sequence: the last one has no next token.
        let (mains, nexts): (Vec<_>, Vec<_>) =
            ids.iter().map(|row| (row[..row.len() - 1].to_vec(), row[1..].to_vec())).unzip();
        let new: Vec<_> = run.sequences.iter().zip(&mains).map(|(&id, row)| (id, row.len())).collect();
        let layout = run.cache.append(&new).unwrap();
        let hidden = case.model.forward_batch(&mains.concat(), &layout, &mut run.cache, None).unwrap();
        let mut trace = Trace::default();
        let nexts = nexts.concat();
        let mtp = case.model.forward_mtp(&nexts, &hidden, &layout, &mut run.cache, Some(&mut trace)).unwrap();
        case.close("mtp.hidden", &mtp, case.expected("mtp.hidden"));
        assert_eq!((trace.hidden.len(), trace.topk_indices.len(), trace.expert_indices.len()), (1, 1, 1));
        if name == "v32_mtp_train" {
            case.close("mtp.block_out", &trace.hidden[0], case.expected("mtp.block_out"));
            case.same("mtp.topk_idx", &case.selected(&trace, 0), case.expected("mtp.topk_idx"));
            case.same("mtp.expert_idx", trace.expert_indices[0].as_ref().unwrap(), case.expected("mtp.expert_idx"));
        }
        case.close("mtp.logits", &case.model.mtp_logits(&mtp).unwrap(), case.expected("mtp.logits"));
    }
}

#[test]
fn zoo_style_forward() {
    let mut case = load("v32_f32");
    let ids = case.expected("input_ids").to_dtype(DType::U32).unwrap();
    let logits = case.model.forward(&ids.i((.., ..40)).unwrap(), 0).unwrap();
    case.close("prefill", &logits, &case.expected("logits").i((.., 39, ..)).unwrap());
    let logits = case.model.forward(&ids.i((.., 40..)).unwrap(), 40).unwrap();
    case.close("second chunk", &logits, &case.expected("logits").i((.., 63, ..)).unwrap());
    let next = case.expected("greedy_tokens").i((.., ..1)).unwrap();
    let logits = case.model.forward(&next, 64).unwrap();
    case.close("decode", &logits, &case.expected("decode_logits").i((.., 0, ..)).unwrap());
    // An earlier offset drops what came after it.
    let logits = case.model.forward(&ids.i((.., 50..51)).unwrap(), 50).unwrap();
    case.close("rewound", &logits, &case.expected("logits").i((.., 50, ..)).unwrap());
    case.model.clear_kv_cache();
    assert!(case.model.forward(&next, 64).is_err());
}
