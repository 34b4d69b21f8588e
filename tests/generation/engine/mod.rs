//! The engine over a mock model: batching, chunked prefill, stop rules, bounds, errors.

mod prefix;
mod schedule;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::generation_support::{Mock, alone, hash, logits_after};
use deepseek_v32::generation::{
    Cancel, Engine, EngineOptions, Event, FinishReason, GenerationError, Logprobs, Request, RequestId, SamplingParams,
    SpecialTokens, StopConditions, Tokenizer,
};
use deepseek_v32::ops::layout::PAGE_SIZE;
use proptest::prelude::*;

const VOCAB_SIZE: usize = 41;
const CONTEXT: usize = 300;

fn mock() -> Mock {
    Mock::new(VOCAB_SIZE, CONTEXT)
}

fn engine(options: EngineOptions) -> Engine<Mock> {
    Engine::new(mock(), options).unwrap()
}

fn prompt(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i + salt * 7 + i / 3) % VOCAB_SIZE as u32).collect()
}

fn request(prompt_ids: Vec<u32>, max_tokens: usize) -> Request {
    Request { max_tokens: Some(max_tokens), ..Request::new(prompt_ids) }
}

fn sampled(request: Request, seed: u64) -> Request {
    Request { params: SamplingParams { top_p: 0.9, ..SamplingParams::sampled(0.8, seed) }, ..request }
}

/// Everything that a finished request gave.
#[derive(Debug, Default, Clone, PartialEq)]
struct Got {
    ids: Vec<u32>,
    logprobs: Vec<Option<Logprobs>>,
    kept: Vec<Option<Vec<u32>>>,
    reason: Option<FinishReason>,
}

fn collect(got: &mut BTreeMap<RequestId, Got>, events: Vec<(RequestId, Result<Event, GenerationError>)>) {
    for (request, event) in events {
        let entry = got.entry(request).or_default();
        assert_eq!(entry.reason, None, "an event after the end");
        match event.unwrap() {
            Event::Token(token) => {
                entry.ids.push(token.id);
                entry.logprobs.push(token.logprobs);
                entry.kept.push(token.kept);
            }
            Event::Finished { reason, usage, .. } => {
                assert_eq!(usage.generated_tokens, entry.ids.len());
                entry.reason = Some(reason);
            }
        }
    }
}

fn expect_alone(request: &Request, got: &Got) {
    let (tokens, reason) = alone(request, VOCAB_SIZE, CONTEXT);
    let cut = if got.reason == Some(FinishReason::Cancelled) {
        got.ids.len()
    } else {
        assert_eq!(got.reason.as_ref(), Some(&reason), "{request:?}");
        tokens.len()
    };
    assert_eq!(got.ids, tokens[..cut].iter().map(|token| token.id).collect::<Vec<_>>(), "{request:?}");
    for (at, token) in tokens[..cut].iter().enumerate() {
        assert_eq!(got.logprobs[at], token.logprobs);
        assert_eq!(got.kept[at], token.kept);
    }
}

#[test]
fn one_request_gives_what_plain_decoding_gives() {
    let eos = StopConditions { ids: vec![3, 5], strings: Vec::new() };
    for len in [1, 2, 63, 64, 65, 130] {
        for greedy in [true, false] {
            let request = Request { logprobs: Some(4), kept: true, stop: eos.clone(), ..request(prompt(len, 1), 70) };
            let request = if greedy { request } else { sampled(request, 11) };
            let (tokens, reason) = alone(&request, VOCAB_SIZE, CONTEXT);
            let mut engine = engine(EngineOptions::default());
            let mut called = Vec::new();
            let completion = engine.generate(request.clone(), |token| called.push(token.id)).unwrap();
            assert_eq!(completion.ids(), tokens.iter().map(|token| token.id).collect::<Vec<_>>());
            assert_eq!(completion.ids(), called);
            assert_eq!(completion.reason, reason);
            assert_eq!(completion.usage.prompt_tokens, len);
            for (token, expected) in completion.tokens.iter().zip(&tokens) {
                assert_eq!((&token.logprobs, &token.kept), (&expected.logprobs, &expected.kept));
            }
            assert!(engine.is_idle());
            let stats = *engine.stats();
            assert_eq!((stats.prompt_tokens, stats.generated_tokens), (len, tokens.len()));
            assert_eq!((stats.steps, stats.acceptance_rate()), (tokens.len(), None));
            assert_eq!(engine.into_model().sequences(), 0);
        }
    }
}

#[test]
fn chunks_of_a_prompt_change_nothing() {
    let request = sampled(request(prompt(150, 2), 20), 5);
    for chunk in [1, 7, 64, 149, 150, 1000] {
        let options = EngineOptions { prefill_chunk: chunk, ..EngineOptions::default() };
        let mut engine = engine(options);
        let mut got = BTreeMap::new();
        engine.add(request.clone()).unwrap();
        while !engine.is_idle() {
            collect(&mut got, engine.step().unwrap());
        }
        expect_alone(&request, got.values().next().unwrap());
        assert_eq!(engine.stats().steps, 150usize.div_ceil(chunk) + 19);
        assert_eq!(engine.model().peak_rows, chunk.min(150));
    }
}

#[test]
fn stops_at_ids_tokens_and_context() {
    let free = request(prompt(5, 3), 40);
    let ids: Vec<u32> = alone(&free, VOCAB_SIZE, CONTEXT).0.iter().map(|token| token.id).collect();
    let stop = ids[9];
    let first = ids.iter().position(|&id| id == stop).unwrap();
    let mut engine = engine(EngineOptions::default());
    let stop_ids = StopConditions { ids: vec![stop], strings: Vec::new() };
    let completion = engine.generate(Request { stop: stop_ids, ..free.clone() }, |_| {}).unwrap();
    assert_eq!((completion.ids(), completion.reason), (ids[..=first].to_vec(), FinishReason::StopId(stop)));

    let completion = engine.generate(request(prompt(5, 3), 1), |_| {}).unwrap();
    assert_eq!((completion.ids(), completion.reason), (ids[..1].to_vec(), FinishReason::MaxTokens));

    for len in [CONTEXT - 1, CONTEXT - 64] {
        let open = Request::new(prompt(len, 4));
        let completion = engine.generate(open, |_| {}).unwrap();
        assert_eq!((completion.tokens.len(), completion.reason), (CONTEXT - len, FinishReason::ContextLimit));
    }
    // max_tokens that end exactly at the context's end are max_tokens.
    let completion = engine.generate(request(prompt(CONTEXT - 2, 4), 2), |_| {}).unwrap();
    assert_eq!(completion.reason, FinishReason::MaxTokens);
    let completion = engine.generate(request(prompt(CONTEXT - 2, 4), usize::MAX), |_| {}).unwrap();
    assert_eq!(completion.reason, FinishReason::ContextLimit);
}

#[test]
fn requests_without_a_seed_differ_and_repeat() {
    let request = |seed| Request {
        params: SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() },
        ..request(prompt(4, 1), 12)
    };
    let run = |seed| {
        let mut engine = engine(EngineOptions { seed, ..EngineOptions::default() });
        let completions = engine.generate_all(vec![request(None), request(None), request(Some(9))]).unwrap();
        completions.into_iter().map(|completion| completion.unwrap().ids()).collect::<Vec<_>>()
    };
    let (first, second) = (run(1), run(2));
    assert_eq!(first, run(1));
    assert_ne!(first[0], first[1]);
    assert_ne!(first[0], second[0]);
    assert_eq!(first[2], second[2]);
}

#[test]
fn bad_requests_are_refused_with_their_reason() {
    let mut engine = engine(EngineOptions { max_cached_tokens: Some(128), ..EngineOptions::default() });
    let mut refused = |request: Request| engine.add(request).unwrap_err();
    assert!(matches!(refused(Request::new([])), GenerationError::EmptyPrompt));
    let error = refused(Request::new([0, 40, 41]));
    assert!(matches!(&error, GenerationError::TokenId { place, id: 41, vocab_size: 41 } if place == "prompt_ids[2]"));
    let error = refused(Request::new(prompt(CONTEXT, 0)));
    assert!(matches!(error, GenerationError::PromptTooLong { tokens: 300, max_context: 300 }));
    let error = refused(request(prompt(3, 0), 0));
    assert!(matches!(error, GenerationError::Parameter { name: "max_tokens", .. }));
    let error = refused(request(prompt(100, 0), 30));
    assert!(matches!(error, GenerationError::NeverFits { needed: 192, max_cached_tokens: 128 }), "{error}");
    assert!(matches!(refused(Request::new([1])), GenerationError::NeverFits { needed: 320, .. }));
    let strings = |text: &str| StopConditions { ids: Vec::new(), strings: vec![text.to_string()] };
    let error = refused(Request { stop: strings("x"), ..request(vec![1], 1) });
    assert!(matches!(error, GenerationError::StopStringsWithoutTokenizer));
    let error = refused(Request { stop: strings(""), ..request(vec![1], 1) });
    assert!(matches!(error, GenerationError::Parameter { name: "stop.strings", .. }));
    let params = SamplingParams { top_p: 2.0, ..SamplingParams::default() };
    let error = refused(Request { params, ..request(vec![1], 1) });
    assert!(matches!(error, GenerationError::Parameter { name: "top_p", .. }));
    assert!(engine.is_idle());
    // One bad request of many: none runs.
    let error = engine.generate_all(vec![request(vec![1], 3), request(vec![41], 3)]).unwrap_err();
    assert!(matches!(error, GenerationError::TokenId { .. }));
    assert!(engine.is_idle());
}

#[test]
fn bad_options_are_named() {
    let bad = [
        ("max_sequences", EngineOptions { max_sequences: 0, ..EngineOptions::default() }),
        ("prefill_chunk", EngineOptions { prefill_chunk: 0, ..EngineOptions::default() }),
        ("step_tokens", EngineOptions { step_tokens: 64, ..EngineOptions::default() }),
        ("step_tokens", EngineOptions { max_sequences: usize::MAX, ..EngineOptions::default() }),
        ("step_tokens", EngineOptions { draft_tokens: usize::MAX, ..EngineOptions::default() }),
    ];
    for (name, options) in bad {
        let error = Engine::new(mock(), options).err().unwrap().to_string();
        assert!(error.starts_with(name), "{error}");
    }
    let error = Engine::new(mock(), EngineOptions::speculative(true)).err().unwrap();
    assert!(matches!(error, GenerationError::NoMtp));
}

#[test]
fn cancelling_frees_the_cache_and_says_so() {
    let mut engine = engine(EngineOptions { max_sequences: 2, ..EngineOptions::default() });
    let cancel = Cancel::new();
    let requests = [
        request(prompt(70, 1), 50),
        Request { cancel: Some(cancel.clone()), ..request(prompt(3, 2), 50) },
        request(prompt(9, 3), 5),
        request(prompt(9, 4), 5),
    ];
    let ids: Vec<RequestId> = requests.iter().map(|request| engine.add(request.clone()).unwrap()).collect();
    let mut got = BTreeMap::new();
    for _ in 0..4 {
        collect(&mut got, engine.step().unwrap());
    }
    assert_eq!(engine.model().sequences(), 2);
    cancel.cancel();
    assert!(engine.cancel(ids[0]));
    assert!(engine.cancel(ids[3])); // still waiting
    while !engine.is_idle() {
        collect(&mut got, engine.step().unwrap());
    }
    assert!(!engine.cancel(ids[0]) && !engine.cancel(ids[2]));
    for (request, id) in requests.iter().zip(&ids) {
        expect_alone(request, &got[id]);
    }
    let reasons: Vec<_> = ids.iter().map(|id| got[id].reason.clone().unwrap()).collect();
    let cancelled = FinishReason::Cancelled;
    assert_eq!(reasons, [cancelled.clone(), cancelled.clone(), FinishReason::MaxTokens, cancelled]);
    assert_eq!((got[&ids[0]].ids.len(), got[&ids[3]].ids.len()), (4, 0));
    assert_eq!(engine.into_model().used_pages(), 0);
}

#[test]
fn streams_leave_other_requests_their_events() {
    let mut engine = engine(EngineOptions::default());
    let other = request(prompt(8, 1), 6);
    let id = engine.add(other.clone()).unwrap();
    let own = request(prompt(8, 2), 12);
    let mut got = BTreeMap::new();
    let stream = engine.stream(own.clone()).unwrap();
    let own_id = stream.request();
    collect(&mut got, stream.map(|event| (own_id, event)).collect());
    expect_alone(&own, &got[&own_id]);
    assert!(!engine.is_idle());
    // A stream dropped half-way ends its request without a trace.
    assert_eq!(engine.stream(own).unwrap().take(3).count(), 3);
    assert_eq!(engine.model().sequences(), 0);
    while !engine.is_idle() {
        collect(&mut got, engine.step().unwrap());
    }
    expect_alone(&other, &got[&id]);
    assert_eq!(got.len(), 2);
}

#[test]
fn a_broken_row_fails_its_own_request_only() {
    let mut model = mock();
    let bad = request(prompt(6, 1), 9);
    let mut ids = bad.prompt_ids.clone();
    ids.extend(alone(&bad, VOCAB_SIZE, CONTEXT).0[..4].iter().map(|token| token.id));
    model.poison = Some((hash(&ids), vec![f32::NAN; VOCAB_SIZE]));
    let good = request(prompt(6, 2), 9);
    let mut engine = Engine::new(model, EngineOptions::default()).unwrap();
    let completions = engine.generate_all(vec![bad, good.clone()]).unwrap();
    assert!(matches!(completions[0], Err(GenerationError::Logit { id: 0, .. })));
    let expected: Vec<u32> = alone(&good, VOCAB_SIZE, CONTEXT).0.iter().map(|token| token.id).collect();
    assert_eq!(completions[1].as_ref().unwrap().ids(), expected);
    assert_eq!(engine.into_model().used_pages(), 0);
}

#[test]
fn a_failed_step_is_undone_and_tried_again() {
    for drafts in [0, 1, 3] {
        for fail in 0..60 {
            let mut model = mock().with_mtp(|history| history % 3 > 0);
            model.fail_in = Some(Arc::new(AtomicUsize::new(fail)));
            let options = EngineOptions { prefill_chunk: 40, draft_tokens: drafts, ..EngineOptions::default() };
            let mut engine = Engine::new(model, options).unwrap();
            let requests = [request(prompt(100, 1), 15), sampled(request(prompt(20, 2), 15), 3)];
            let ids: Vec<RequestId> = requests.iter().map(|request| engine.add(request.clone()).unwrap()).collect();
            let mut got = BTreeMap::new();
            let mut failures = 0;
            while !engine.is_idle() {
                match engine.step() {
                    Ok(events) => collect(&mut got, events),
                    Err(GenerationError::Candle(_)) => failures += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(failures <= 1);
            for (request, id) in requests.iter().zip(&ids) {
                expect_alone(request, &got[id]);
            }
            assert_eq!(engine.into_model().used_pages(), 0);
        }
    }
}

// ---- text

#[test]
fn the_engine_can_move_to_another_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let mut engine = is_send(engine(EngineOptions::default()));
    let cancel = Cancel::new();
    let request = Request { cancel: Some(cancel.clone()), ..request(prompt(3, 1), 10) };
    let completion = std::thread::spawn(move || engine.generate(request, |_| cancel.cancel()).unwrap()).join().unwrap();
    assert_eq!((completion.tokens.len(), completion.reason), (1, FinishReason::Cancelled));
}

// ---- beginnings in common
