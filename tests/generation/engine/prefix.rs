//! Beginnings of prompts that the cache has.

use super::*;

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
