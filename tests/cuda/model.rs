//! The whole model on a GPU: the recorded numbers of the golden cases, and the embedded checkpoint's conversations.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use deepseek_v32::generation::{Engine, EngineOptions, LocalModel, Request};
use deepseek_v32::model::{Model, Precision};
use deepseek_v32::weights::{self, LoadOptions};

use crate::golden_support::Case;
use crate::gpu;

/// Full FP8 arithmetic: a value near a tie of e4m3 may fall to the other side than in the recorded program, which moves
/// logits of a size of some units by far more than f32 rounding.
const FP8_TOLERANCE: f32 = 5e-2;
/// How much greater the root mean square error of bf16 logits may be than on the CPU, which rounds in fewer places.
const BF16_ERROR: f32 = 2.0;

#[test]
fn golden_cases() {
    let Some(device) = gpu() else { return };
    for name in ["v32_f32", "v3_f32", "glm_dsa_f32", "v32_mtp_train", "v32_fp8"] {
        Case::load(name, &device).check_all();
    }
}

#[test]
fn fp8_arithmetic() {
    let Some(device) = gpu() else { return };
    let case = Case::with("v32_fp8", &device, "golden_full_fp8.safetensors", Precision::Fp8, FP8_TOLERANCE, |_| ());
    for chunk in [64, 40, 1] {
        let run = case.prefill(chunk);
        let hidden = run.joined(&run.final_norm).flatten_to(1).unwrap();
        case.close("logits", &case.model.logits(&hidden).unwrap(), case.expected("logits"));
    }
}

pub(crate) fn checkpoint() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}

pub(crate) fn load(dtype: DType, device: &Device) -> Model {
    let options = LoadOptions { dtype, device: device.clone(), ..LoadOptions::default() };
    let (config, vb) = weights::load(checkpoint(), &options, |_| ()).unwrap();
    Model::new(&config, vb).unwrap()
}

/// Prompts of the recorded conversations and what was generated.
fn conversations() -> Vec<[Vec<u32>; 2]> {
    let json = std::fs::read_to_string(checkpoint().join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ids = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap();
    let samples = golden["samples"].as_array().unwrap().iter();
    samples.map(|sample| [ids(&sample["prompt_ids"]), ids(&sample["generated_ids"])]).collect()
}

#[test]
fn the_embedded_checkpoint_continues_its_conversations() {
    let Some(device) = gpu() else { return };
    let model = Arc::new(load(DType::F32, &device));
    for options in [EngineOptions::default(), EngineOptions::speculative(true)] {
        let mut engine = Engine::new(LocalModel::new(model.clone()).unwrap(), options).unwrap();
        let conversations = conversations();
        let requests = conversations.iter().map(|[prompt, generated]| {
            let mut request = Request::new(prompt.clone());
            request.stop.ids = vec![1];
            request.max_tokens = Some(generated.len() + 8);
            request
        });
        for (i, (request, [_, generated])) in requests.zip(&conversations).enumerate().step_by(6) {
            let completion = engine.generate(request, |_| ()).unwrap();
            let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
            assert_eq!(ids, *generated, "conversation {i}");
        }
    }
}

#[test]
fn bf16_errs_no_more_than_on_the_cpu() {
    let Some(device) = gpu() else { return };
    let [prompt, _] = &conversations()[0];
    let logits = |dtype, device: &Device| -> Tensor {
        let model = load(dtype, device);
        let mut cache = model.new_cache(1).unwrap();
        let sequence = cache.create();
        let layout = cache.append(&[(sequence, prompt.len())]).unwrap();
        let hidden = model.forward_batch(prompt, &layout, &mut cache, None).unwrap();
        model.logits(&hidden).unwrap().to_device(&Device::Cpu).unwrap()
    };
    let exact = logits(DType::F32, &Device::Cpu);
    let error = |logits: Tensor| {
        let squares = (logits - &exact).unwrap().sqr().unwrap();
        squares.mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
    };
    let (cpu, gpu) = (error(logits(DType::BF16, &Device::Cpu)), error(logits(DType::BF16, &device)));
    println!("bf16 logits: root mean square error {gpu} on the GPU, {cpu} on the CPU");
    assert!(gpu <= BF16_ERROR * cpu, "error {gpu}, on the CPU {cpu}");
}
