//! The embedded checkpoint continues its recorded conversations with the recorded ids.

use std::path::PathBuf;
use std::sync::Arc;

use deepseek_v32::generation::{Engine, EngineOptions, FinishReason, LocalModel, Request, Tokenizer};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{self, LoadOptions};

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}

struct Sample {
    prompt: String,
    prompt_ids: Vec<u32>,
    generated_ids: Vec<u32>,
    text: String,
}

fn samples() -> Vec<Sample> {
    let json = std::fs::read_to_string(dir().join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ids = |value: &serde_json::Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap();
    let sample = |value: &serde_json::Value| Sample {
        prompt: value["prompt"].as_str().unwrap().to_string(),
        prompt_ids: ids(&value["prompt_ids"]),
        generated_ids: ids(&value["generated_ids"]),
        text: value["text"].as_str().unwrap().replace("<｜end▁of▁sentence｜>", ""),
    };
    golden["samples"].as_array().unwrap().iter().map(sample).collect()
}

fn engine(options: EngineOptions) -> Engine<LocalModel> {
    let (config, vb) = weights::load(dir(), &LoadOptions::default(), |_| ()).unwrap();
    let model = LocalModel::new(Arc::new(Model::new(&config, vb).unwrap())).unwrap();
    Engine::new(model, options).unwrap().with_tokenizer(Tokenizer::load(dir()).unwrap()).unwrap()
}

fn request(sample: &Sample) -> Request {
    let mut request = Request::new(sample.prompt_ids.clone());
    request.stop.ids = vec![1];
    request.max_tokens = Some(sample.generated_ids.len() + 8);
    request
}

#[test]
fn alone() {
    let samples = samples();
    assert_eq!(samples.len(), 36);
    let mut engine = engine(EngineOptions::default());
    for (i, sample) in samples.iter().enumerate() {
        let tokenizer = engine.tokenizer().unwrap();
        assert_eq!(tokenizer.encode(&sample.prompt, false).unwrap(), sample.prompt_ids, "prompt {i}");
        let completion = engine.generate(request(sample), |_| ()).unwrap();
        let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
        assert_eq!(ids, sample.generated_ids, "conversation {i}");
        assert_eq!(completion.text, sample.text, "conversation {i}");
        assert_eq!(completion.reason, FinishReason::StopId(1));
    }
}

#[test]
fn with_mtp() {
    let mut engine = engine(EngineOptions::speculative(true));
    for (i, sample) in samples().iter().enumerate() {
        let completion = engine.generate(request(sample), |_| ()).unwrap();
        let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
        assert_eq!(ids, sample.generated_ids, "conversation {i}");
    }
    let rate = engine.stats().acceptance_rate().unwrap();
    // Far below would mean that the drafts are noise: the layer was trained with the model.
    assert!(rate > 0.5, "acceptance rate {rate}");
}

#[test]
fn batched_in_chunks() {
    let samples = samples();
    for draft_tokens in [0, 1] {
        let options = EngineOptions {
            prefill_chunk: 100,
            step_tokens: 300,
            max_sequences: 12,
            draft_tokens,
            ..Default::default()
        };
        let completions = engine(options).generate_all(samples.iter().map(request).collect()).unwrap();
        for (i, (completion, sample)) in completions.into_iter().zip(&samples).enumerate() {
            let ids: Vec<u32> = completion.unwrap().tokens.iter().map(|token| token.id).collect();
            assert_eq!(ids, sample.generated_ids, "conversation {i}, {draft_tokens} drafts");
        }
    }
}

#[test]
fn with_shared_beginnings() {
    for draft_tokens in [0, 1] {
        let options = EngineOptions { prefix_tokens: 4096, draft_tokens, max_sequences: 3, ..Default::default() };
        let mut engine = engine(options);
        let samples = &samples()[..10];
        // Twice, so that every prompt is met again, at least as long as it is kept.
        let requests = samples.iter().chain(samples).map(request).collect();
        let mut cached = 0;
        for (i, completion) in engine.generate_all(requests).unwrap().into_iter().enumerate() {
            let completion = completion.unwrap();
            assert_eq!(
                completion.ids(),
                samples[i % samples.len()].generated_ids,
                "conversation {i}, {draft_tokens} drafts"
            );
            cached += completion.usage.cached_tokens;
        }
        assert!(cached > 1000, "{cached} tokens came from earlier prompts");
    }
}
