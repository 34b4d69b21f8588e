//! The zoo adapter driven as candle's examples drive a model: `candle_transformers::generation::LogitsProcessor`.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use deepseek_v32::DeepSeekV32;
use deepseek_v32::weights::{self, LoadOptions};

struct Case {
    model: DeepSeekV32,
    golden: HashMap<String, Tensor>,
}

fn case() -> Case {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden/v32_f32");
    let (config, vb) = weights::load(&dir, &LoadOptions::default(), |_| ()).unwrap();
    let golden = candle_core::safetensors::load(dir.join("golden.safetensors"), &Device::Cpu).unwrap();
    Case { model: DeepSeekV32::new(&config, vb).unwrap(), golden }
}

/// The ids `[b, n]` that follow the golden prompts, row by row as candle's examples go.
fn generate(case: &mut Case, n: usize, mut processors: Vec<LogitsProcessor>) -> Vec<Vec<u32>> {
    let prompt = case.golden["input_ids"].to_dtype(DType::U32).unwrap();
    let rows = prompt.dim(0).unwrap();
    assert_eq!(processors.len(), rows);
    case.model.clear_kv_cache();
    let (mut ids, mut offset, mut generated) = (prompt, 0, vec![Vec::new(); rows]);
    for _ in 0..n {
        let logits = case.model.forward(&ids, offset).unwrap();
        offset += ids.dim(1).unwrap();
        let next: Vec<u32> =
            processors.iter_mut().enumerate().map(|(row, p)| p.sample(&logits.i(row).unwrap()).unwrap()).collect();
        generated.iter_mut().zip(&next).for_each(|(row, id)| row.push(*id));
        ids = Tensor::from_vec(next, (rows, 1), &Device::Cpu).unwrap();
    }
    generated
}

#[test]
fn argmax_gives_the_reference_s_greedy_tokens() {
    let mut case = case();
    let expected = case.golden["greedy_tokens"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let processors = expected.iter().map(|_| LogitsProcessor::from_sampling(1, Sampling::ArgMax)).collect();
    assert_eq!(generate(&mut case, expected[0].len(), processors), expected);
}

/// With the smallest nucleus, sampling is greedy; with a seed, it is the same again, and another seed differs.
#[test]
fn sampling_goes_by_the_logits_and_the_seed() {
    let mut case = case();
    let expected = case.golden["greedy_tokens"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let n = expected[0].len();
    let mut run = |seed: u64, top_p: f64| {
        let processors = expected.iter().map(|_| LogitsProcessor::new(seed, Some(1.0), Some(top_p))).collect();
        generate(&mut case, n, processors)
    };
    assert_eq!(run(7, 1e-6), expected);
    let sampled = run(7, 0.999);
    assert_eq!(run(7, 0.999), sampled);
    assert_ne!(run(8, 0.999), sampled);
}
