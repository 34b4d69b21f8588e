//! The engine over a mock model: batching, chunked prefill, stop rules, bounds, errors.

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

fn tokenizer() -> Tokenizer {
    Tokenizer::load(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32")).unwrap()
}

#[test]
fn text_is_the_tokens_up_to_the_stop_string() {
    let tokenizer = tokenizer();
    let vocab_size = tokenizer.vocab_size();
    let mut stopped = 0;
    for seed in 0..40u64 {
        let free = sampled(request(vec![seed as u32, 7], 40), seed);
        let ids: Vec<u32> = alone(&free, vocab_size, CONTEXT).0.iter().map(|token| token.id).collect();
        let whole = tokenizer.decode(&ids, SpecialTokens::Drop).unwrap();
        let chars: Vec<char> = whole.chars().collect();
        // A string from the middle of the text, and one that is not in it.
        let at = 5 + seed as usize % (chars.len() / 2);
        let stop: String = chars[at..at + 1 + seed as usize % 7].iter().collect();
        if stop.contains(char::REPLACEMENT_CHARACTER) {
            continue; // a prefix of the ids may end in the middle of a character, so the loop below would not know
        }
        let strings = vec![stop.clone(), "no such text".to_string()];
        let request = Request { stop: StopConditions { ids: Vec::new(), strings }, ..free.clone() };
        let mut engine = Engine::new(Mock::new(vocab_size, CONTEXT), EngineOptions::default())
            .unwrap()
            .with_tokenizer(tokenizer.clone())
            .unwrap();
        let mut streamed = String::new();
        let completion = engine
            .generate(request, |token| {
                streamed.push_str(&token.text);
                assert!(whole.starts_with(&streamed) && !streamed.contains(&stop));
            })
            .unwrap();
        let count = (1..=ids.len())
            .find(|&count| tokenizer.decode(&ids[..count], SpecialTokens::Drop).unwrap().contains(&stop))
            .unwrap();
        assert_eq!(completion.ids(), ids[..count]);
        assert_eq!(completion.text, whole[..whole.find(&stop).unwrap()]);
        assert_eq!(completion.reason, FinishReason::StopString(stop));
        stopped += 1;

        // Without stop strings all the text comes, a cut character as U+FFFD.
        assert_eq!(engine.generate(free, |_| {}).unwrap().text, whole);
    }
    assert!(stopped > 10);
}

#[test]
fn a_stop_id_has_no_text_and_frees_what_was_held() {
    let tokenizer = tokenizer();
    let vocab_size = tokenizer.vocab_size();
    let free = request(vec![5, 6], 30);
    let ids: Vec<u32> = alone(&free, vocab_size, CONTEXT).0.iter().map(|token| token.id).collect();
    let text = tokenizer.decode(&ids[..8], SpecialTokens::Keep).unwrap();
    // All the text before the stop id is the beginning of a stop string that never comes.
    let stop = StopConditions { ids: vec![ids[8]], strings: vec![format!("{text} and more")] };
    let mut engine = Engine::new(Mock::new(vocab_size, CONTEXT), EngineOptions::default())
        .unwrap()
        .with_tokenizer(tokenizer)
        .unwrap();
    let request = Request { stop, special_tokens: SpecialTokens::Keep, ..free };
    let completion = engine.generate(request, |_| {}).unwrap();
    assert_eq!((completion.text, completion.reason), (text, FinishReason::StopId(ids[8])));
    assert_eq!(completion.tokens.iter().map(|token| token.text.as_str()).collect::<String>(), "");
}

#[test]
fn a_tokenizer_that_is_too_large_is_refused() {
    let error = engine(EngineOptions::default()).with_tokenizer(tokenizer()).err().unwrap();
    assert!(matches!(error, GenerationError::TokenizerVocabulary { tokenizer: 2560, model: VOCAB_SIZE, .. }));
}

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

#[test]
fn a_conversation_that_goes_on_is_not_read_again() {
    for draft_tokens in [0, 2] {
        let options = EngineOptions { prefix_tokens: 1000, draft_tokens, ..EngineOptions::default() };
        let mut engine = Engine::new(mock().with_mtp(|_| true), options).unwrap();
        let mut ids = prompt(100, 3);
        let mut computed = 0;
        for turn in 0..3 {
            let asked = request(ids.clone(), 50);
            let completion = engine.generate(asked.clone(), |_| {}).unwrap();
            let (expected, _) = alone(&asked, VOCAB_SIZE, CONTEXT);
            assert_eq!(completion.ids(), expected.iter().map(|token| token.id).collect::<Vec<_>>());
            let cached = completion.usage.cached_tokens;
            assert_eq!(cached, [0, 128, 192][turn], "turn {turn}");
            computed += ids.len() - cached;
            assert_eq!(engine.stats().prompt_tokens, computed);
            ids.extend(completion.ids());
            ids.extend(prompt(10, turn as u32));
        }
        assert_eq!(engine.into_model().used_pages(), 0);
    }
}

#[test]
fn kept_beginnings_give_way() {
    let options = EngineOptions { prefix_tokens: 128, max_cached_tokens: Some(256), ..EngineOptions::default() };
    let mut engine = Engine::new(mock(), options).unwrap();
    let cached = |engine: &mut Engine<Mock>, salt| {
        engine.generate(request(prompt(70, salt), 2), |_| {}).unwrap().usage.cached_tokens
    };
    // Two pages are kept: the third prompt drives out the first.
    assert_eq!([1, 2, 3, 2, 3, 1].map(|salt| cached(&mut engine, salt)), [0, 0, 0, 64, 64, 0]);
    // One that needs the whole cache drives out all.
    engine.generate(request(prompt(200, 9), 57), |_| {}).unwrap();
    assert_eq!(cached(&mut engine, 1), 0);
}

// ---- any schedule

fn any_request() -> impl Strategy<Value = Request> {
    let params = (any::<bool>(), 0.3f64..1.5, prop::option::of(1usize..20), 0.3f64..=1.0, any::<u64>());
    let penalties = (
        prop_oneof![Just(1.0), 0.7f64..1.5],
        prop::option::of(0usize..30),
        prop_oneof![Just(0.0), -1.0f64..1.0],
        prop_oneof![Just(0.0), -1.0f64..1.0],
        prop::collection::btree_map(0..VOCAB_SIZE as u32, -3.0f32..3.0, 0..3),
    );
    let stop = prop::collection::vec(0..VOCAB_SIZE as u32, 0..3);
    let extra = (prop::option::of(0usize..3), any::<bool>());
    // Few prompts, so that many begin alike.
    let salt = prop_oneof![any::<u32>(), 0u32..2];
    (1usize..150, salt, prop::option::of(1usize..60), params, penalties, stop, extra).prop_map(
        |(len, salt, max_tokens, params, penalties, ids, (logprobs, kept))| {
            let (greedy, temperature, top_k, top_p, seed) = params;
            let (repetition_penalty, repeat_last_n, presence_penalty, frequency_penalty, logit_bias) = penalties;
            let params = SamplingParams {
                temperature: if greedy { 0.0 } else { temperature },
                top_k,
                top_p,
                seed: Some(seed),
                repetition_penalty,
                repeat_last_n,
                presence_penalty,
                frequency_penalty,
                logit_bias,
                ..SamplingParams::default()
            };
            let prompt_ids = prompt(len, salt % 1000);
            let stop = StopConditions { ids, strings: Vec::new() };
            Request { prompt_ids, params, stop, max_tokens, logprobs, kept, ..Request::default() }
        },
    )
}

fn any_options() -> impl Strategy<Value = EngineOptions> {
    let bound = prop::option::of(CONTEXT.next_multiple_of(PAGE_SIZE)..1500);
    let prefixes = prop_oneof![Just(0usize), 0usize..700];
    (1usize..8, 1usize..120, 1usize..200, 1usize..120, bound, prefixes, 0usize..4, any::<u64>()).prop_map(
        |(max_sequences, prefill_chunk, spare, mixed, max_cached_tokens, prefix_tokens, draft_tokens, seed)| {
            EngineOptions {
                max_sequences,
                prefill_chunk,
                step_tokens: max_sequences * (1 + draft_tokens) + spare,
                mixed_prefill_tokens: mixed,
                prefill_per_decode: mixed % 4,
                max_cached_tokens,
                prefix_tokens,
                draft_tokens,
                seed,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Requests that come, end and are cancelled at any time, with any bounds, chunks and drafts: each gives what it
    /// gives alone, no bound is passed, and nothing is left in the cache.
    #[test]
    fn any_schedule_gives_what_each_gives_alone(
        options in any_options(),
        requests in prop::collection::vec((any_request(), 0usize..40, prop::option::weighted(0.2, 0usize..80)), 1..10),
        rate in 0u64..5,
    ) {
        let right: crate::generation_support::Right = match rate {
            0 => |_| false,
            1 => |history| history % 2 == 0,
            2 => |history| history % 5 != 0,
            3 => |history| history % 3 == 0,
            _ => |_| true,
        };
        let mut engine = Engine::new(mock().with_mtp(right), options.clone()).unwrap();
        let mut got = BTreeMap::new();
        let mut ids = vec![None; requests.len()];
        let mut step = 0;
        while step <= 80 || !engine.is_idle() {
            for (at, (request, join, leave)) in requests.iter().enumerate() {
                if *join == step {
                    ids[at] = Some(engine.add(request.clone()).unwrap());
                }
                if let (Some(id), true) = (ids[at], *leave == Some(step)) {
                    engine.cancel(id);
                }
            }
            collect(&mut got, engine.step().unwrap());
            step += 1;
            prop_assert!(step < 20_000, "the engine starves");
        }
        let mut generated = 0;
        for ((request, _, leave), id) in requests.iter().zip(&ids) {
            let got = &got[&id.unwrap()];
            expect_alone(request, got);
            prop_assert!(got.reason != Some(FinishReason::Cancelled) || leave.is_some());
            generated += got.ids.len();
        }
        let stats = *engine.stats();
        prop_assert_eq!(stats.generated_tokens, generated);
        prop_assert!(stats.accepted <= stats.drafted);
        let model = engine.into_model();
        prop_assert_eq!((model.sequences(), model.used_pages()), (0, 0));
        prop_assert!(model.peak_rows <= options.step_tokens);
        prop_assert!(options.max_cached_tokens.is_none_or(|max| model.peak_pages * PAGE_SIZE <= max));
    }
}

#[test]
fn the_mock_tells_histories_apart() {
    assert_ne!(logits_after(hash(&[1, 2]), VOCAB_SIZE), logits_after(hash(&[2, 1]), VOCAB_SIZE));
}

#[test]
fn greedy_answers_read_the_largest_logit_alone() {
    let requests = || (0..5).map(|salt| request(prompt(10 + salt as usize, salt), 30));
    for draft_tokens in [0, 2] {
        let options = EngineOptions { draft_tokens, ..EngineOptions::default() };
        let mut engine = Engine::new(mock().with_mtp(|history| history % 3 > 0), options).unwrap();
        let answers = engine.generate_all(requests().collect()).unwrap();
        for (request, answer) in requests().zip(answers) {
            let (tokens, _) = alone(&request, VOCAB_SIZE, CONTEXT);
            assert_eq!(answer.unwrap().ids(), tokens.iter().map(|token| token.id).collect::<Vec<_>>());
        }
        let count = |engine: &Engine<Mock>| {
            let (largest, logits) = (&engine.model().largest_rows, &engine.model().logit_rows);
            (largest.load(Ordering::Relaxed) >= 150, logits.load(Ordering::Relaxed))
        };
        assert_eq!(count(&engine), (true, 0));
        // Anything else needs the logits.
        for needs in [
            Request { logprobs: Some(0), ..request(prompt(10, 1), 3) },
            Request { params: SamplingParams::sampled(1.0, 1), ..request(prompt(10, 1), 3) },
            Request {
                params: SamplingParams { presence_penalty: 0.1, ..SamplingParams::greedy() },
                ..request(prompt(10, 1), 3)
            },
        ] {
            let before = count(&engine).1;
            engine.generate(needs, |_| {}).unwrap();
            assert!(count(&engine).1 >= before + 3);
        }
    }
}

/// A long prompt comes in beside an answer: every step gives the answer its token and the prompt a bounded chunk.
#[test]
fn prompts_beside_answers_take_small_steps() {
    let options = EngineOptions { mixed_prefill_tokens: 16, ..EngineOptions::default() };
    let mut engine = engine(options);
    let first = engine.add(request(prompt(5, 0), 200)).unwrap();
    engine.step().unwrap();
    let second = engine.add(request(prompt(250, 1), 3)).unwrap();
    let mut steps = 0;
    let mut of_second = 0;
    while of_second == 0 {
        let events = engine.step().unwrap();
        steps += 1;
        assert_eq!(events.iter().filter(|(request, _)| *request == first).count(), 1, "step {steps}");
        of_second += events.iter().filter(|(request, _)| *request == second).count();
    }
    assert_eq!((steps, engine.model().peak_rows), (250usize.div_ceil(16), 17));
    // Alone, a prompt takes one step.
    engine.cancel(first);
    engine.cancel(second);
    engine.step().unwrap();
    engine.add(request(prompt(250, 2), 3)).unwrap();
    engine.step().unwrap();
    assert_eq!(engine.model().peak_rows, 250);
    // Many answers allow more.
    let mut engine =
        Engine::new(mock(), EngineOptions { mixed_prefill_tokens: 16, ..EngineOptions::default() }).unwrap();
    for salt in 0..20 {
        engine.add(request(prompt(5, salt), 100)).unwrap();
    }
    engine.step().unwrap();
    engine.add(request(prompt(250, 1), 3)).unwrap();
    // 40 tokens of the prompt in every step; its own first token comes with the last.
    let steps = (0..).take_while(|_| engine.step().unwrap().len() == 20).count();
    assert_eq!(steps + 1, 250usize.div_ceil(2 * 20));
    // So do many prompts: 10 of them beside two answers take 16 tokens each.
    let mut engine =
        Engine::new(mock(), EngineOptions { mixed_prefill_tokens: 16, ..EngineOptions::default() }).unwrap();
    for salt in 0..2 {
        engine.add(request(prompt(5, salt), 100)).unwrap();
    }
    engine.step().unwrap();
    for salt in 0..10 {
        engine.add(request(prompt(250, salt), 3)).unwrap();
    }
    engine.step().unwrap();
    assert_eq!(engine.model().peak_rows, 2 + 10 * 16);
    let zero = EngineOptions { mixed_prefill_tokens: 0, ..EngineOptions::default() };
    assert!(matches!(zero.validate(), Err(GenerationError::Parameter { name: "mixed_prefill_tokens", .. })));
}
