//! The engine over the trained checkpoint: its recorded conversations, in every way of running them.

use std::sync::{Arc, LazyLock};

use candle_nn::VarBuilder;
use deepseek_v32::config::Config;
use deepseek_v32::generation::{
    Completion, Engine, EngineOptions, Event, FinishReason, GenerationError, LocalModel, Request, SamplingParams,
    Service, SpecialTokens, StopConditions, Tokenizer,
};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{self, LoadOptions};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let (config, vb) = weights::load(FOLDER, &LoadOptions::default(), |_| {}).unwrap();
    Arc::new(Model::new(&config, vb).unwrap())
});

/// A recorded greedy answer.
#[derive(serde::Deserialize)]
struct Sample {
    prompt_ids: Vec<u32>,
    generated_ids: Vec<u32>,
    /// Where greedy decoding's largest logit is hardly larger than the next.
    min_margin: f32,
}

fn samples() -> Vec<Sample> {
    #[derive(serde::Deserialize)]
    struct Golden {
        samples: Vec<Sample>,
    }
    let golden: Golden = serde_json::from_slice(&std::fs::read(format!("{FOLDER}/golden.json")).unwrap()).unwrap();
    golden.samples
}

fn engine(options: EngineOptions) -> Engine<LocalModel> {
    let tokenizer = Tokenizer::load(FOLDER).unwrap();
    Engine::new(LocalModel::new(MODEL.clone()).unwrap(), options).unwrap().with_tokenizer(tokenizer).unwrap()
}

fn request(sample: &Sample, params: SamplingParams) -> Request {
    Request {
        params,
        stop: StopConditions { ids: MODEL.config().eos_token_id.clone(), strings: Vec::new() },
        max_tokens: Some(sample.generated_ids.len()),
        special_tokens: SpecialTokens::Keep,
        ..Request::new(sample.prompt_ids.clone())
    }
}

fn run_all(options: EngineOptions, requests: Vec<Request>) -> (Vec<Completion>, Engine<LocalModel>) {
    let mut engine = engine(options);
    let completions = engine.generate_all(requests).unwrap().into_iter().map(Result::unwrap).collect();
    (completions, engine)
}

#[test]
fn recorded_conversations_come_out_in_one_batch() {
    let samples = samples();
    assert_eq!(samples.len(), 36);
    assert!(samples.iter().all(|sample| sample.min_margin > 0.0));
    let tokenizer = Tokenizer::load(FOLDER).unwrap();
    let requests: Vec<Request> = samples.iter().map(|sample| request(sample, SamplingParams::greedy())).collect();
    for (draft_tokens, prefill_chunk) in [(0, 2048), (1, 100)] {
        let options = EngineOptions { draft_tokens, prefill_chunk, ..EngineOptions::default() };
        let (completions, engine) = run_all(options, requests.clone());
        for (at, (completion, sample)) in completions.iter().zip(&samples).enumerate() {
            assert_eq!(completion.ids(), sample.generated_ids, "conversation {at}, {draft_tokens} drafts");
            let text = &sample.generated_ids
                [..sample.generated_ids.len() - usize::from(matches!(completion.reason, FinishReason::StopId(_)))];
            assert_eq!(completion.text, tokenizer.decode(text, SpecialTokens::Keep).unwrap());
        }
        let stats = engine.stats();
        // A trained MTP layer is right more often than not; 0 would mean that it is fed the wrong rows.
        assert!(draft_tokens == 0 || stats.acceptance_rate().unwrap() > 0.5, "{stats:?}");
    }
}

#[test]
fn sampled_answers_are_the_same_alone_together_in_chunks_and_with_drafts() {
    let samples = samples();
    let params = |seed| SamplingParams {
        top_p: 0.95,
        repetition_penalty: 1.05,
        presence_penalty: 0.1,
        ..SamplingParams::sampled(1.3, seed)
    };
    let mut shortest: Vec<&Sample> = samples.iter().collect();
    shortest.sort_by_key(|sample| sample.prompt_ids.len());
    let requests: Vec<Request> =
        shortest.into_iter().take(4).zip(0..).map(|(sample, seed)| request(sample, params(seed))).collect();
    let mut alone = engine(EngineOptions::default());
    let alone: Vec<Vec<u32>> =
        requests.iter().map(|request| alone.generate(request.clone(), |_| {}).unwrap().ids()).collect();
    for (draft_tokens, prefill_chunk, max_sequences) in [(0, 50, 3), (1, 2048, 64), (3, 100, 2)] {
        let options = EngineOptions { draft_tokens, prefill_chunk, max_sequences, ..EngineOptions::default() };
        let (completions, _) = run_all(options.clone(), requests.clone());
        let ids: Vec<Vec<u32>> = completions.iter().map(Completion::ids).collect();
        assert_eq!(ids, alone, "{options:?}");
    }
}

/// The checkpoint's config with weights of zeros: every answer is token 0.
fn zeros(change: impl FnOnce(&mut Config)) -> Arc<Model> {
    let mut config = MODEL.config().clone();
    change(&mut config);
    let zeros = VarBuilder::zeros(MODEL.dtype(), MODEL.device());
    Arc::new(Model::new(&config, zeros).unwrap())
}

/// Answers that were asked for before a swap come from the old weights, those after from the new ones; no prefix
/// outlives its weights.
#[test]
fn weights_are_swapped_between_requests() {
    let samples = samples();
    let sample = samples.iter().max_by_key(|sample| sample.prompt_ids.len()).unwrap();
    let options = EngineOptions { prefix_tokens: 4096, ..EngineOptions::speculative(true) };
    let service = Service::start(engine(options)).unwrap();
    let ask = || service.stream(request(sample, SamplingParams::greedy())).unwrap();
    let read = |events: std::sync::mpsc::Receiver<Result<Event, GenerationError>>| {
        let mut ids = Vec::new();
        for event in events {
            match event.unwrap() {
                Event::Token(token) => ids.push(token.id),
                Event::Finished { usage, .. } => return (ids, usage.cached_tokens),
            }
        }
        panic!("no end")
    };
    let before = [ask(), ask()];
    service.swap_weights(zeros(|_| {}), 7).unwrap();
    assert_eq!((service.load().requests, service.load().weights_version), (0, 7));
    before.into_iter().for_each(|events| assert_eq!(read(events).0, sample.generated_ids));
    let (ids, cached) = read(ask());
    assert!(ids.iter().all(|&id| id == 0) && ids.len() == sample.generated_ids.len() && cached == 0, "{ids:?}");
    let error = service.swap_weights(zeros(|config| config.rms_norm_eps *= 2.0), 8).unwrap_err();
    assert!(matches!(&error, GenerationError::Swap(why) if why.contains("config")), "{error}");
    assert_eq!(service.load().weights_version, 7);
    service.swap_weights(MODEL.clone(), 9).unwrap();
    assert_eq!(read(ask()), (sample.generated_ids.clone(), 0));
    assert!(read(ask()).1 > 0, "prefixes are shared again");

    let mut engine = engine(EngineOptions::default());
    engine.add(request(sample, SamplingParams::greedy())).unwrap();
    assert!(matches!(engine.swap_weights(zeros(|_| {}), 1), Err(GenerationError::Swap(_))));
}
