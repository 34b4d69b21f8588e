//! A cache and a model in bf16 against f32.

use std::path::PathBuf;

use candle_core::{DType, Tensor};
use deepseek_v32::model::{CacheFormat, Model, ModelOptions, Precision};
use deepseek_v32::weights::{self, LoadOptions};

/// Root of the mean square of the differences of logits, relative to that of the logits, where keys are rounded to the
/// 8 bits of bf16.
const CACHE_TOLERANCE: f32 = 0.02;
/// The same where latents are rounded to the 4 bits of e4m3.
const FP8_CACHE_TOLERANCE: f32 = 0.15;
/// The same where every activation is rounded: some rows are sent to other experts. The case has 0.10.
const COMPUTE_TOLERANCE: f32 = 0.15;

/// The same for a trained model whose projections' inputs are rounded to bf16.
const BF16_TOLERANCE: f32 = 0.02;

/// V3's case, in which no near tie of the indexer can fall to the other side; its experts' can.
fn model(dtype: DType) -> Model {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/v3_f32");
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    let (config, vb) = weights::load(dir, &options, |_| ()).unwrap();
    Model::new(&config, vb).unwrap()
}

/// Logits of a prompt and of tokens decoded after it.
fn logits(model: &Model, format: CacheFormat) -> Tensor {
    let mut cache = model.new_cache_in(format, 2).unwrap();
    let sequence = cache.create();
    let mut rows = Vec::new();
    for count in [40, 1, 1, 1] {
        let first = cache.len(sequence) as u32;
        let layout = cache.append(&[(sequence, count)]).unwrap();
        let ids: Vec<u32> = (first..first + count as u32).map(|i| i * 37 % 256).collect();
        let hidden = model.forward_batch(&ids, &layout, &mut cache, None).unwrap();
        rows.push(model.logits(&hidden).unwrap());
    }
    let kept = if format == CacheFormat::Fp8 { DType::F32 } else { format.dtype() };
    assert_eq!(cache.rows(sequence, 0).unwrap().0.dtype(), kept);
    Tensor::cat(&rows, 0).unwrap()
}

fn rms(x: &Tensor) -> f32 {
    x.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
}

#[test]
fn bf16_is_near_f32() {
    let f32_model = model(DType::F32);
    let expected = logits(&f32_model, CacheFormat::F32);
    let bf16_model = model(DType::BF16);
    for (what, found, tolerance) in [
        ("cache", logits(&f32_model, CacheFormat::Bf16), CACHE_TOLERANCE),
        ("FP8 cache", logits(&f32_model, CacheFormat::Fp8), FP8_CACHE_TOLERANCE),
        ("compute", logits(&bf16_model, CacheFormat::Bf16), COMPUTE_TOLERANCE),
    ] {
        let difference = rms(&(found - &expected).unwrap()) / rms(&expected);
        assert!(difference > 0.0 && difference <= tolerance, "{what}: {difference}");
    }
    assert!(bf16_model.new_cache(0).is_ok() && CacheFormat::exact_for(DType::F64).is_err());
}

/// Projections in bf16 change the embedded checkpoint's logits by little, and the indexer's own not at all.
#[test]
fn bf16_projections_are_near_f32() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32");
    let (config, vb) = weights::load(dir, &LoadOptions::default(), |_| ()).unwrap();
    let options = ModelOptions { precision: Precision::Bf16, cache_format: Some(CacheFormat::Bf16) };
    let model = Model::with_options(&config, options, vb.clone()).unwrap();
    assert_eq!((model.dtype(), model.options()), (DType::F32, options));
    let exact = logits(&Model::new(&config, vb).unwrap(), CacheFormat::F32);
    let rounded = logits(&model, CacheFormat::F32);
    let difference = rms(&(&rounded - &exact).unwrap()) / rms(&exact);
    assert!(difference > 0.0 && difference <= BF16_TOLERANCE, "{difference}");
    let best = |logits: &Tensor| logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let same = best(&rounded).iter().zip(best(&exact)).filter(|&(&a, b)| a == b).count();
    assert!(same >= 42, "{same} of 43 rows have the same most probable token");
    let mut cache = model.new_cache(1).unwrap();
    let sequence = cache.create();
    assert_eq!(cache.rows(sequence, 0).unwrap().0.dtype(), DType::BF16);
}
