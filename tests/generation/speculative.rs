//! Speculative decoding over a mock MTP layer that is right or wrong in patterns.

use crate::generation_support::{Mock, Right, alone};
use deepseek_v32::generation::{
    Completion, Engine, EngineOptions, FinishReason, GenerationError, Request, SamplingParams, StopConditions,
};

const VOCAB_SIZE: usize = 41;
const CONTEXT: usize = 200;

const PATTERNS: [(&str, Right); 4] = [
    ("never", |_| false),
    ("half", |history| history % 2 == 0),
    ("mostly", |history| history % 8 != 0),
    ("always", |_| true),
];

fn run(right: Right, drafts: usize, chunk: usize, request: &Request) -> (Completion, Engine<Mock>) {
    let options = EngineOptions { draft_tokens: drafts, prefill_chunk: chunk, ..EngineOptions::default() };
    let mut engine = Engine::new(Mock::new(VOCAB_SIZE, CONTEXT).with_mtp(right), options).unwrap();
    let completion = engine.generate(request.clone(), |_| {}).unwrap();
    (completion, engine)
}

fn requests() -> Vec<Request> {
    let base =
        Request { max_tokens: Some(60), logprobs: Some(2), kept: true, ..Request::new([3, 1, 4, 1, 5, 9, 2, 6]) };
    let with = |params: SamplingParams| Request { params, ..base.clone() };
    vec![
        base.clone(),
        with(SamplingParams::sampled(0.7, 1)),
        with(SamplingParams { top_k: Some(4), min_p: 0.05, ..SamplingParams::sampled(1.2, 2) }),
        with(SamplingParams { repetition_penalty: 1.4, repeat_last_n: Some(5), ..SamplingParams::greedy() }),
        with(SamplingParams {
            presence_penalty: 1.5,
            frequency_penalty: 0.5,
            logit_bias: [(7, 2.0), (8, f32::NEG_INFINITY)].into(),
            ..SamplingParams::sampled(0.5, 3)
        }),
        Request { stop: StopConditions { ids: vec![0, 11, 22], strings: Vec::new() }, ..base.clone() },
        Request { max_tokens: None, ..base.clone() },
        Request { max_tokens: Some(1), ..base.clone() },
        Request { max_tokens: Some(2), ..base.clone() },
        Request { max_tokens: Some(3), prompt_ids: vec![9; 130], ..base.clone() },
        Request { prompt_ids: vec![2], ..base },
    ]
}

/// Tokens, log-probabilities, kept sets and the end are those of plain decoding.
#[test]
fn guesses_never_change_the_answer() {
    for request in requests() {
        let (tokens, reason) = alone(&request, VOCAB_SIZE, CONTEXT);
        for (name, right) in PATTERNS {
            for drafts in 0..5 {
                for chunk in [1, 3, 1000] {
                    let (completion, _) = run(right, drafts, chunk, &request);
                    let case = format!("{name} right, {drafts} drafts, chunks of {chunk}, {request:?}");
                    assert_eq!(completion.reason, reason, "{case}");
                    assert_eq!(completion.tokens.len(), tokens.len(), "{case}");
                    for (got, expected) in completion.tokens.iter().zip(&tokens) {
                        assert_eq!(got.id, expected.id, "{case}");
                        assert_eq!((&got.logprobs, &got.kept), (&expected.logprobs, &expected.kept), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn right_guesses_save_steps_and_are_counted() {
    let request = &requests()[0]; // greedy, 60 tokens
    for drafts in 1..5 {
        let (completion, engine) = run(|_| true, drafts, 1000, request);
        let stats = engine.stats();
        // The first token comes from the prompt; then each step gives its drafts and one more.
        let steps = 1 + 59usize.div_ceil(1 + drafts);
        assert_eq!(stats.steps, steps);
        assert_eq!(stats.acceptance_rate(), Some(1.0));
        assert_eq!((stats.drafted, stats.accepted), (60 - steps, 60 - steps));
        assert_eq!((completion.usage.drafted, completion.usage.accepted), (stats.drafted, stats.accepted));

        let (_, engine) = run(|_| false, drafts, 1000, request);
        assert_eq!((engine.stats().steps, engine.stats().accepted), (60, 0));
        assert_eq!(engine.stats().acceptance_rate(), Some(0.0));
    }
}

#[test]
fn every_guess_and_only_a_guess_counts() {
    for (name, right) in PATTERNS {
        let request = &requests()[0];
        let (_, engine) = run(right, 1, 1000, request);
        let stats = engine.stats();
        // Every step after the first gives one token, and one more for a right guess.
        assert_eq!(stats.steps - 1 + stats.accepted, 59, "{name}");
        // All steps but the last one or two guess: at the end no guess fits.
        assert!(stats.drafted + 2 >= stats.steps - 1 && stats.drafted < stats.steps, "{name}: {stats:?}");
    }
}

#[test]
fn the_context_limit_is_reached_exactly() {
    for len in CONTEXT - 8..CONTEXT {
        let request = Request::new(vec![5; len]);
        for drafts in 0..6 {
            let (completion, engine) = run(|_| true, drafts, 64, &request);
            assert_eq!((completion.tokens.len(), completion.reason), (CONTEXT - len, FinishReason::ContextLimit));
            assert_eq!(engine.into_model().used_pages(), 0);
        }
    }
}

#[test]
fn broken_logits_behind_a_wrong_guess_are_never_seen() {
    // The row after a wrong guess is computed but means nothing; NaN there must not fail the request.
    let request = &requests()[0];
    let (tokens, _) = alone(request, VOCAB_SIZE, CONTEXT);
    let mut ids = request.prompt_ids.clone();
    ids.push(tokens[0].id);
    let before = crate::generation_support::hash(&ids);
    let right = crate::generation_support::logits_after(before, VOCAB_SIZE);
    let largest = right.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let wrong = (right.iter().position(|&logit| logit == largest).unwrap() + 1) % VOCAB_SIZE;
    let mut model = Mock::new(VOCAB_SIZE, CONTEXT).with_mtp(|_| false);
    model.poison = Some((crate::generation_support::extend(before, wrong as u32), vec![f32::NAN; VOCAB_SIZE]));
    let mut engine = Engine::new(model, EngineOptions::speculative(true)).unwrap();
    let completion = engine.generate(request.clone(), |_| {}).unwrap();
    assert_eq!(completion.ids(), tokens.iter().map(|token| token.id).collect::<Vec<_>>());
}

#[test]
fn a_model_without_mtp_is_refused() {
    let error = Engine::new(Mock::new(VOCAB_SIZE, CONTEXT), EngineOptions::speculative(true)).err().unwrap();
    assert!(matches!(error, GenerationError::NoMtp));
    assert!(error.to_string().contains("num_nextn_predict_layers"));
}
