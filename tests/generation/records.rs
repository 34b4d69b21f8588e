//! Records: log-probabilities, kept sets and routes, against recomputed ones.

use std::sync::{Arc, LazyLock};

use crate::generation_support::{EXPERTS_PER_TOKEN, MOE_LAYERS, Mock, alone, experts_after, extend};
use candle_core::{DType, Tensor};
use deepseek_v32::generation::{
    Completion, Engine, EngineOptions, Event, FinishReason, GenerationError, LocalModel, RECORD_VERSION, Record,
    RecordOptions, Request, SamplingParams, TokenModel,
};
use deepseek_v32::model::{Model, Trace};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::weights::{self, LoadOptions};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");
const VOCAB_SIZE: usize = 41;
const CONTEXT: usize = 400;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let (config, vb) = weights::load(FOLDER, &LoadOptions::default(), |_| {}).unwrap();
    Arc::new(Model::new(&config, vb).unwrap())
});

// ---- the engine's part, over the mock: everything is exact

fn prompt(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i + salt * 7 + i / 3) % VOCAB_SIZE as u32).collect()
}

fn recorded(prompt_ids: Vec<u32>, params: SamplingParams, record: RecordOptions) -> Request {
    Request { params, record, max_tokens: Some(25), ..Request::new(prompt_ids) }
}

/// What the record of a request must be, without an engine.
fn expect(request: &Request, completion: &Completion) {
    let report = Request { logprobs: Some(0), kept: true, ..request.clone() };
    let (tokens, _) = alone(&report, VOCAB_SIZE, CONTEXT);
    let record = completion.record.as_ref().unwrap();
    record.validate().unwrap();
    assert_eq!((record.schema_version, record.weights_version), (RECORD_VERSION, 0));
    assert_eq!(record.temperature, request.params.temperature);
    assert_eq!(record.prompt_ids, request.prompt_ids);
    assert_eq!(record.generated_ids, tokens.iter().map(|token| token.id).collect::<Vec<_>>());
    let logprobs: Vec<_> = tokens.iter().map(|token| token.logprobs.clone().unwrap()).collect();
    let model = logprobs.iter().map(|logprobs| logprobs.logprob).collect();
    let sampled = logprobs.iter().map(|logprobs| logprobs.sampled_logprob).collect();
    let asked = request.record;
    assert_eq!(record.logprobs, asked.logprobs.then_some(model));
    assert_eq!(record.sampled_logprobs, asked.logprobs.then_some(sampled));
    assert_eq!(record.kept, asked.kept.then(|| tokens.iter().map(|token| token.kept.clone()).collect()));
    assert_eq!(record.routes.is_some(), asked.routes);
    if let Some(routes) = &record.routes {
        let ids = [&record.prompt_ids[..], &record.generated_ids[..record.generated_ids.len() - 1]].concat();
        let mut history = 0;
        let mut experts = Vec::new();
        for id in &ids {
            history = extend(history, *id);
            experts.extend(experts_after(history));
        }
        assert_eq!((&routes.layers[..], routes.experts_per_token), (&MOE_LAYERS[..], EXPERTS_PER_TOKEN));
        assert_eq!(routes.rows(), ids.len());
        assert!(routes.expert_ids == experts, "routes of another history");
        assert_eq!(routes.of(ids.len() - 1, 2), experts.chunks_exact(EXPERTS_PER_TOKEN).next_back());
        assert_eq!((routes.of(ids.len(), 0), routes.of(0, 3)), (None, None));
    }
    // What was not asked for is not told.
    assert!(completion.tokens.iter().all(|token| token.logprobs.is_none() && token.kept.is_none()));
}

#[test]
fn records_do_not_depend_on_batches_chunks_drafts_and_prefixes() {
    let parts = [
        RecordOptions::ALL,
        RecordOptions { routes: true, ..RecordOptions::default() },
        RecordOptions { logprobs: true, ..RecordOptions::default() },
        RecordOptions { kept: true, ..RecordOptions::default() },
    ];
    let params = |salt| match salt % 3 {
        0 => SamplingParams::greedy(),
        1 => SamplingParams { top_k: Some(7), top_p: 0.8, ..SamplingParams::sampled(0.7, salt) },
        _ => SamplingParams { min_p: 0.1, ..SamplingParams::sampled(1.3, salt) },
    };
    for (draft_tokens, prefill_chunk, prefix_tokens) in [(0, 1000, 0), (0, 30, 1024), (3, 30, 1024), (1, 1000, 1024)] {
        let options = EngineOptions { draft_tokens, prefill_chunk, prefix_tokens, ..EngineOptions::default() };
        let mock = Mock::new(VOCAB_SIZE, CONTEXT).with_mtp(|history| history % 3 > 0);
        let mut engine = Engine::new(mock, options).unwrap();
        let mut shared = 0;
        for round in 0..3 {
            // The first round records no routes, so the next may not use its prefixes for them.
            let requests: Vec<Request> = (0..6u32)
                .map(|salt| {
                    let record = if round == 0 { parts[2] } else { parts[salt as usize % parts.len()] };
                    recorded(prompt(100 + 20 * salt as usize, 1), params(u64::from(salt)), record)
                })
                .collect();
            let completions = engine.generate_all(requests.clone()).unwrap();
            for (request, completion) in requests.iter().zip(completions) {
                let completion = completion.unwrap();
                expect(request, &completion);
                shared += usize::from(round > 0 && request.record.routes && completion.usage.cached_tokens > 0);
            }
        }
        assert_eq!(shared > 0, prefix_tokens > 0, "routes of cached prefixes are not tried");
        assert_eq!(engine.into_model().used_pages(), 0);
    }
}

#[test]
fn a_cancelled_answer_has_the_record_of_what_there_is() {
    let options = EngineOptions { prefill_chunk: 50, ..EngineOptions::default() };
    let mut engine = Engine::new(Mock::new(VOCAB_SIZE, CONTEXT), options).unwrap();
    for (steps, rows) in [(0, 0), (2, 100), (5, 201)] {
        let request = engine.add(recorded(prompt(200, 0), SamplingParams::greedy(), RecordOptions::ALL)).unwrap();
        for _ in 0..steps {
            engine.step().unwrap();
        }
        engine.cancel(request);
        let events = engine.step().unwrap();
        let record = events.into_iter().find_map(|(_, event)| match event.unwrap() {
            Event::Finished { reason, record, .. } => {
                assert_eq!(reason, FinishReason::Cancelled);
                record
            }
            _ => None,
        });
        let record = record.unwrap();
        record.validate().unwrap();
        assert_eq!(record.routes.unwrap().rows(), rows);
    }
}

#[test]
fn records_are_versioned_and_checked() {
    let mut engine = Engine::new(Mock::new(VOCAB_SIZE, CONTEXT), EngineOptions::default()).unwrap();
    let params = SamplingParams { top_p: 0.9, ..SamplingParams::sampled(0.9, 5) };
    let request = recorded(prompt(20, 3), params, RecordOptions::ALL);
    let record = *engine.generate(request, |_| {}).unwrap().record.unwrap();
    let text = serde_json::to_string(&record).unwrap();
    // Bit for bit.
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    type Change = fn(&mut Record);
    let changes: [(&str, Change); 7] = [
        ("schema_version", |record| record.schema_version = 2),
        ("temperature", |record| record.temperature = f64::NAN),
        ("logprobs", |record| record.logprobs.as_mut().unwrap().clear()),
        ("sampled_logprobs", |record| record.sampled_logprobs.as_mut().unwrap().push(0.0)),
        ("kept", |record| record.kept.as_mut().unwrap().clear()),
        ("routes.expert_ids", |record| record.routes.as_mut().unwrap().expert_ids.truncate(7)),
        ("routes.expert_ids", |record| record.routes.as_mut().unwrap().expert_ids.extend([0; 6])),
    ];
    for (name, change) in changes {
        let mut changed = record.clone();
        change(&mut changed);
        let error = changed.validate().unwrap_err();
        assert!(matches!(&error, GenerationError::Record { field, .. } if *field == name), "{name}: {error}");
    }
}

// ---- the whole, over the trained checkpoint

/// Largest difference between a recorded log-probability and one of recomputed logits: decoding step by step and one pass
/// over everything add in other orders.
const LOGPROB_TOLERANCE: f64 = 2e-4;
/// How far a kept probability mass may be from the bound, where the recomputed set may differ.
const MASS_TOLERANCE: f64 = 1e-4;

/// Logits `[T, vocab]` and routes `[T, layers, experts_per_token]` of one pass over all tokens.
fn one_pass(ids: &[u32]) -> (Vec<Vec<f32>>, Vec<u16>) {
    let mut cache = MODEL.new_cache(0).unwrap();
    let sequence = cache.create();
    let layout: BatchLayout = cache.append(&[(sequence, ids.len())]).unwrap();
    let mut trace = Trace::default();
    let hidden = MODEL.forward_batch(ids, &layout, &mut cache, Some(&mut trace)).unwrap();
    let logits = MODEL.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
    let layers: Vec<Tensor> = trace.expert_indices.into_iter().flatten().collect();
    let routes = Tensor::stack(&layers, 1).unwrap().to_dtype(DType::U32).unwrap().flatten_all().unwrap();
    (logits, routes.to_vec1::<u32>().unwrap().into_iter().map(|expert| expert as u16).collect())
}

/// What `top_k` and then `top_p` keep, by sorting everything; also the log-probability of a token within it.
fn naive_kept(logits: &[f32], params: &SamplingParams, top_p: f64) -> Vec<u32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: u32| (f64::from(logits[id as usize] - max) / params.temperature).exp();
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    ids.truncate(params.top_k.unwrap_or(ids.len()));
    let total: f64 = ids.iter().map(|&id| weight(id)).sum();
    let mut mass = 0.0;
    let end = ids.iter().position(|&id| {
        mass += weight(id);
        mass >= top_p * total
    });
    ids.truncate(end.map_or(ids.len(), |end| end + 1));
    ids.sort_unstable();
    ids
}

fn check(record: &Record, params: &SamplingParams) {
    record.validate().unwrap();
    let ids = [&record.prompt_ids[..], &record.generated_ids].concat();
    let (logits, routes) = one_pass(&ids[..ids.len() - 1]);
    let recorded = record.routes.as_ref().unwrap();
    assert_eq!((&recorded.layers[..], recorded.experts_per_token), (&[1, 2, 3, 4, 5][..], 2));
    assert_eq!(recorded.rows(), ids.len() - 1);
    assert!(recorded.expert_ids == routes, "routes of one pass differ");
    let mut same = 0;
    for (at, &id) in record.generated_ids.iter().enumerate() {
        let row = &logits[record.prompt_ids.len() - 1 + at];
        let softmax = |ids: &mut dyn Iterator<Item = u32>, temperature: f64| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let scaled = |id: u32| f64::from(row[id as usize] - max) / temperature;
            scaled(id) - ids.map(|id| scaled(id).exp()).sum::<f64>().ln()
        };
        let model = softmax(&mut (0..row.len() as u32), 1.0);
        assert!((f64::from(record.logprobs.as_ref().unwrap()[at]) - model).abs() < LOGPROB_TOLERANCE, "token {at}");
        let kept = record.kept.as_ref().unwrap()[at].as_ref().unwrap();
        let sampled = f64::from(record.sampled_logprobs.as_ref().unwrap()[at]);
        let expected = softmax(&mut kept.iter().copied(), params.temperature);
        assert!((sampled - expected).abs() < LOGPROB_TOLERANCE, "token {at}: {sampled} and {expected}");
        let fewest = naive_kept(row, params, params.top_p - MASS_TOLERANCE);
        let most = naive_kept(row, params, params.top_p + MASS_TOLERANCE);
        assert!(fewest.iter().all(|id| kept.contains(id)) && kept.iter().all(|id| most.contains(id)), "token {at}");
        assert!(kept.contains(&id));
        same += usize::from(fewest == most);
    }
    assert!(same * 10 >= record.generated_ids.len() * 9, "{same} kept sets of {}", record.generated_ids.len());
}

/// Alone, in chunks, with drafts, from a cached prefix and beside other answers: always the record of one pass.
#[test]
fn records_are_those_of_one_pass_over_prompt_and_answer() {
    let prompt: Vec<u32> = {
        #[derive(serde::Deserialize)]
        struct Sample {
            prompt_ids: Vec<u32>,
        }
        #[derive(serde::Deserialize)]
        struct Golden {
            samples: Vec<Sample>,
        }
        let golden = std::fs::read(format!("{FOLDER}/golden.json")).unwrap();
        let golden: Golden = serde_json::from_slice(&golden).unwrap();
        golden.samples.into_iter().map(|sample| sample.prompt_ids).min_by_key(Vec::len).unwrap()
    };
    let params = SamplingParams { top_k: Some(50), top_p: 0.95, ..SamplingParams::sampled(1.5, 11) };
    let request = Request {
        record: RecordOptions::ALL,
        params: params.clone(),
        max_tokens: Some(24),
        ..Request::new(prompt.clone())
    };
    for (draft_tokens, prefill_chunk, prefix_tokens) in [(0, 2048, 0), (2, 100, 1024)] {
        let options = EngineOptions { draft_tokens, prefill_chunk, prefix_tokens, ..EngineOptions::default() };
        let mut engine = Engine::new(LocalModel::new(MODEL.clone()).unwrap(), options).unwrap();
        let first = engine.generate(request.clone(), |_| {}).unwrap();
        check(first.record.as_ref().unwrap(), &params);
        if prefix_tokens > 0 {
            assert!(first.usage.accepted > 0, "{:?}", first.usage);
            // The answer so far is a prefix, too, and others run beside it.
            let longer =
                Request { prompt_ids: [&prompt[..], &first.ids()[..20], &prompt[..30]].concat(), ..request.clone() };
            let other = Request { max_tokens: Some(10), ..Request::new(prompt[7..90].to_vec()) };
            let completions = engine.generate_all(vec![other.clone(), longer, other]).unwrap();
            let second = completions.into_iter().map(Result::unwrap).nth(1).unwrap();
            assert!(second.usage.cached_tokens >= 320, "{:?}", second.usage);
            check(second.record.as_ref().unwrap(), &params);
        }
    }
    assert_eq!(LocalModel::new(MODEL.clone()).unwrap().route_shape().unwrap().layers, [1, 2, 3, 4, 5]);
}
