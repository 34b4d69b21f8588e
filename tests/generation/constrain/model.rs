//! Grammars with the embedded model and with a large vocabulary.

use super::*;

#[test]
fn recorded_answers_are_within_their_grammar() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let golden: Value = serde_json::from_slice(&std::fs::read(format!("{TINY}/golden.json")).unwrap()).unwrap();
    let samples = golden["samples"].as_array().unwrap();
    for (at, sample) in samples.iter().enumerate() {
        let tools: Vec<Tool> = serde_json::from_value(sample["messages"][0]["tools"].clone()).unwrap();
        let thinking = sample["prompt"].as_str().unwrap().ends_with("<think>");
        let case = Case { thinking, ..Case::new(ToolChoice::Auto) };
        let text = sample["text"].as_str().unwrap().trim_end_matches("<｜end▁of▁sentence｜>");
        walk(&*case.constraint(&compiler, &tools), &tokenizer, text).unwrap_or_else(|error| panic!("{at}: {error}"));
        let choice = match text.split_once("\n\n<｜DSML｜") {
            None => ToolChoice::None,
            Some((before, _)) if before.is_empty() || before.ends_with("</think>") => ToolChoice::Required,
            Some(_) => continue,
        };
        let case = Case { thinking, ..Case::new(choice) };
        walk(&*case.constraint(&compiler, &tools), &tokenizer, text).unwrap_or_else(|error| panic!("{at}: {error}"));
    }
}

#[test]
fn the_embedded_model_obeys() {
    let (config, vb) = weights::load(TINY, &LoadOptions::default(), |_| ()).unwrap();
    let model = LocalModel::new(Arc::new(Model::new(&config, vb).unwrap())).unwrap();
    let options = EngineOptions::speculative(true);
    let mut engine = Engine::new(model, options).unwrap().with_tokenizer(tokenizer()).unwrap();
    let compiler = compiler();
    let golden: Value = serde_json::from_slice(&std::fs::read(format!("{TINY}/golden.json")).unwrap()).unwrap();
    let form = json!({"type": "object", "properties": {"answer": {"type": "string", "maxLength": 40}, "sure": {"type": "boolean"}}, "required": ["answer", "sure"], "additionalProperties": false});
    let mut plain = 0;
    for (at, sample) in golden["samples"].as_array().unwrap().iter().enumerate().step_by(9) {
        let prompt: Vec<u32> = serde_json::from_value(sample["prompt_ids"].clone()).unwrap();
        let ids: Vec<u32> = serde_json::from_value(sample["generated_ids"].clone()).unwrap();
        let tools: Vec<Tool> = serde_json::from_value(sample["messages"][0]["tools"].clone()).unwrap();
        let thinking = sample["prompt"].as_str().unwrap().ends_with("<think>");
        let last = tools.last().unwrap().name().to_string();
        let mut answer = |choice: ToolChoice, format: ResponseFormat, temperature: f64| -> (Vec<u32>, Option<Read>) {
            let case = Case { thinking, format, ..Case::new(choice.clone()) };
            let mut request = Request::new(prompt.clone());
            request.stop.ids = vec![EOS];
            request.max_tokens = Some(120);
            if temperature > 0.0 {
                request.params = SamplingParams::sampled(temperature, at as u64);
            }
            request.constraint = Some(case.constraint(&compiler, &tools));
            let completion = engine.generate(request, |_| ()).unwrap();
            if completion.reason != FinishReason::StopId(EOS) {
                return (completion.ids(), None);
            }
            let text = text(&tokenizer(), &completion.ids()).replace("<｜end▁of▁sentence｜>", "");
            (
                completion.ids(),
                Some(read(&text, thinking).unwrap_or_else(|error| panic!("{choice:?}: {error}\n{text}"))),
            )
        };
        // What the model writes by itself is not touched.
        assert_eq!(answer(ToolChoice::Auto, ResponseFormat::Text, 0.0).0, ids, "{at}");
        for temperature in [0.0, 1.5] {
            let required = answer(ToolChoice::Required, ResponseFormat::Text, temperature).1;
            assert!(required.is_none_or(|read| !read.calls.is_empty() && read.content.is_empty()), "{at}");
            let named = answer(ToolChoice::Named(last.clone()), ResponseFormat::Text, temperature).1;
            assert!(named.is_none_or(|read| read.calls.iter().all(|(name, _)| *name == last)), "{at}");
            if let Some(read) = answer(ToolChoice::None, ResponseFormat::Text, temperature).1 {
                assert_eq!(read.calls, []);
                plain += 1;
            }
            let read = answer(ToolChoice::None, ResponseFormat::JsonSchema(Json::from(&form)), temperature).1;
            if let Some(read) = read {
                follows(&form, &read.content).unwrap();
                plain += 1;
            }
        }
    }
    assert!(plain > 6, "only {plain} answers ended");
}

/// A tokenizer of the released model's size: the embedded one, and made-up tokens of every kind.
fn large() -> Tokenizer {
    let file = std::fs::read_to_string(format!("{TINY}/tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&file).unwrap();
    let vocab = file["model"]["vocab"].as_object_mut().unwrap();
    for (id, token) in (2556..).zip(["<think>", "</think>", "<｜User｜>", "<｜Assistant｜>"]) {
        vocab.insert(token.to_string(), json!(id));
    }
    let syllables = ["ka", "lo", "ment", "str", "ing", "er", "the", "x", "pro", "tion", "qu", "be"];
    let signs =
        ["<", "</", ">", "\"", "\":", "\",", "{\"", "}", "],", ".", "_", "(", ")Ċ", "ĊĊ", "ĠĠ", "å½", "ï½", "ä¸Ń"];
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut id = 2560;
    while id < 129_280 {
        let mut token = if next(2) == 0 { "Ġ".to_string() } else { String::new() };
        for _ in 0..=next(4) {
            token.push_str(syllables[next(syllables.len())]);
        }
        match next(20) {
            0 => token.push_str(signs[next(signs.len())]),
            1 => token.insert_str(0, signs[next(signs.len())]),
            _ => {}
        }
        if !vocab.contains_key(&token) {
            vocab.insert(token, json!(id));
            id += 1;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    Tokenizer::load(dir.path()).unwrap()
}

/// Prints times; run it with `--ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn how_long_masks_take() {
    use std::time::Instant;
    let tools: Vec<Tool> = schemas().iter().map(|(name, schema)| tool(name, schema)).collect();
    let nested = call(
        "nested",
        &[
            ("filter", false, "{\"tags\": [\"some\", \"tags\"], \"range\": {\"from\": 1.25, \"to\": 3}}"),
            ("pairs", false, "{\"abc\": \"def\", \"x\": \"y\"}"),
        ],
    );
    let city =
        call("city", &[("city", true, "a long string, <b>with</b> some marks and words in it, as of a program")]);
    let text = "The user wants the weather in a city, so I call the tool. ".repeat(8);
    let answer = format!("{text}</think>Let me see.{}", block(&[&nested, &city]));
    for tokenizer in [tokenizer(), large()] {
        let start = Instant::now();
        let compiler =
            GrammarCompiler::new(&tokenizer, &[EOS], tokenizer.vocab_size(), &AnswerGrammar::BREAKS).unwrap();
        let prepared = start.elapsed();
        let case = Case { thinking: true, ..Case::new(ToolChoice::Auto) };
        let start = Instant::now();
        let fresh = case.constraint(&compiler, &tools);
        println!("{} tokens: prepared in {prepared:.1?}, compiled in {:.1?}", tokenizer.vocab_size(), start.elapsed());
        for round in ["first", "second"] {
            let mut constraint = fresh.clone();
            let mut ids = tokenizer.encode(&answer, false).unwrap();
            ids.push(EOS);
            let end = ids.iter().position(|&id| tokenizer.id_to_token(id).as_deref() == Some("</think>")).unwrap();
            let (mut masks, mut accepts): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
            for &id in &ids {
                let start = Instant::now();
                let allowed = constraint.allowed().unwrap();
                masks.push(start.elapsed().as_secs_f64() * 1e6);
                assert!(allowed.unwrap().contains(id));
                let start = Instant::now();
                constraint.accept(id).unwrap();
                accepts.push(start.elapsed().as_secs_f64() * 1e6);
            }
            let report = |what: &str, times: &[f64]| {
                let mut times = times.to_vec();
                times.sort_by(f64::total_cmp);
                let mean = times.iter().sum::<f64>() / times.len() as f64;
                println!(
                    "  {round} {what}: {} tokens, mean {mean:.1} us, median {:.1}, 95% {:.1}, most {:.1}",
                    times.len(),
                    times[times.len() / 2],
                    times[times.len() * 95 / 100],
                    times[times.len() - 1],
                );
            };
            report("masks of reasoning", &masks[..end]);
            report("masks of calls", &masks[end..]);
            report("accepted", &accepts);
        }
    }
}
