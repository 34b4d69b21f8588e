//! Batches of prompts and answers: whatever the schedule, each request gives what it gives alone.

use super::*;

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
    // Chunks that cost more than their rows are larger: of a prompt of 250, they begin at 0, 16, 32, 64, 128.
    let mut costly = mock();
    costly.context_per_row = 1;
    let mut engine =
        Engine::new(costly, EngineOptions { mixed_prefill_tokens: 16, ..EngineOptions::default() }).unwrap();
    engine.add(request(prompt(5, 0), 200)).unwrap();
    engine.step().unwrap();
    engine.add(request(prompt(250, 1), 3)).unwrap();
    assert_eq!((0..).take_while(|_| engine.step().unwrap().len() == 1).count() + 1, 5);
    assert_eq!(engine.model().peak_rows, 1 + 250 - 128);
    let zero = EngineOptions { mixed_prefill_tokens: 0, ..EngineOptions::default() };
    assert!(matches!(zero.validate(), Err(GenerationError::Parameter { name: "mixed_prefill_tokens", .. })));
}
