//! Text and stop strings.

use super::*;

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
