//! Answers held to a grammar: V3.2's tool calls and JSON content, at random and with the embedded model.
#![cfg(feature = "constrain")]

use std::sync::Arc;

use crate::constrain_support::{Read, follows, random, read};
use deepseek_v32::chat::{AnswerGrammar, Json, ResponseFormat, Tool, ToolChoice};
use deepseek_v32::generation::{
    Constraint, Engine, EngineOptions, FinishReason, GrammarCompiler, LocalModel, Request, SamplingParams,
    SpecialTokens, Tokenizer,
};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{self, LoadOptions};
use serde_json::{Value, json};

const TINY: &str = "examples/assets/tiny-v32";
const EOS: u32 = 1;

fn tokenizer() -> Tokenizer {
    Tokenizer::load(TINY).unwrap()
}

fn compiler() -> GrammarCompiler {
    GrammarCompiler::new(&tokenizer(), &[EOS], 2560 + 64, &AnswerGrammar::BREAKS).unwrap()
}

fn tool(name: &str, parameters: &Value) -> Tool {
    Tool::new(name, "", Json::from(parameters))
}

struct Case {
    thinking: bool,
    choice: ToolChoice,
    parallel: bool,
    format: ResponseFormat,
}

impl Case {
    fn new(choice: ToolChoice) -> Self {
        Self { thinking: false, choice, parallel: true, format: ResponseFormat::Text }
    }

    fn constraint(&self, compiler: &GrammarCompiler, tools: &[Tool]) -> Box<dyn Constraint> {
        self.try_constraint(compiler, tools).unwrap()
    }

    fn try_constraint(&self, compiler: &GrammarCompiler, tools: &[Tool]) -> Result<Box<dyn Constraint>, String> {
        let answer = AnswerGrammar {
            thinking: self.thinking,
            tools,
            tool_choice: &self.choice,
            parallel: self.parallel,
            response_format: &self.format,
        };
        let grammar = answer.build().map_err(|error| error.to_string())?;
        compiler.compile(&grammar).map_err(|error| error.to_string())
    }
}

/// Schemas of arguments, with all that tools use.
fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("nothing", json!({"type": "object", "properties": {}})),
        ("city", json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})),
        (
            "optional",
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "boolean"}}}),
        ),
        (
            "mixed",
            json!({"type": "object", "properties": {
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit", ""]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "note": {"type": ["string", "null"], "maxLength": 12},
                "any": {},
                "either": {"anyOf": [{"type": "string", "pattern": "^[a-f]+$"}, {"type": "array", "items": {"type": "number"}, "maxItems": 3}]},
                "level": {"enum": ["low", 2, null, true]},
            }, "required": ["days", "either", "level"]}),
        ),
        (
            "strings",
            json!({"type": "object", "properties": {
                "pattern": {"type": "string", "pattern": "b\\d|^x/y$"},
                "short": {"type": "string", "minLength": 3, "maxLength": 6},
                "date": {"type": "string", "format": "date"},
                "email": {"type": "string", "format": "email"},
                "uri": {"type": "string", "format": "uri"},
                "uuid": {"type": "string", "format": "uuid"},
                "ip": {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
                "when": {"type": "string", "format": "date-time"},
                "span": {"type": "string", "format": "duration"},
                "constant": {"const": "a \"b\"\\\n</c>"},
            }, "required": ["pattern", "short", "date", "email", "uri", "uuid", "ip", "when", "span", "constant"]}),
        ),
        (
            "nested",
            json!({"type": "object", "properties": {
                "filter": {"type": "object", "properties": {
                    "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 3},
                    "range": {"type": "object", "properties": {"from": {"type": "number"}, "to": {"type": "number", "exclusiveMinimum": 0, "maximum": 5}}, "required": ["from"], "additionalProperties": false},
                }, "required": ["tags"], "additionalProperties": false},
                "pairs": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 5}},
            }, "required": ["filter", "pairs"]}),
        ),
        (
            "references",
            json!({"$ref": "#/$defs/Arguments", "$defs": {
                "Arguments": {"type": "object", "properties": {"tree": {"$ref": "#/$defs/Tree"}, "name": {"$ref": "#/$defs/a~1b%20c"}, "same": {"$ref": "#/$defs/Arguments/properties/name"}}, "required": ["tree", "name"]},
                "Tree": {"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "maxItems": 2}}, "required": ["value"], "additionalProperties": false},
                "a/b c": {"type": "string", "minLength": 1, "maxLength": 9},
            }}),
        ),
        (
            "open",
            json!({"type": "object", "properties": {"first": {"type": "integer"}}, "additionalProperties": {"type": ["string", "integer"]}}),
        ),
        ("anything", json!({"type": "object", "additionalProperties": true})),
        (
            "all_of",
            json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 3}, "b": {"type": "string", "maxLength": 4}}}]}),
        ),
    ]
}

fn text(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    tokenizer.decode(ids, SpecialTokens::Keep).unwrap()
}

#[test]
fn random_calls_parse_and_follow_their_schemas() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let schemas = schemas();
    let tools: Vec<Tool> = schemas.iter().map(|(name, schema)| tool(name, schema)).collect();
    let mut finished = 0;
    for (name, schema) in &schemas {
        for thinking in [false, true] {
            let case = Case { thinking, parallel: false, ..Case::new(ToolChoice::Named(name.to_string())) };
            let fresh = case.constraint(&compiler, &tools);
            for seed in 0..12 {
                let mut constraint = fresh.clone();
                let ids = random(&mut *constraint, &tokenizer, EOS, seed, 600)
                    .unwrap_or_else(|e| panic!("{name} {seed}: {e}"));
                let Some(ids) = ids else { continue };
                let text = text(&tokenizer, &ids);
                let answer = read(&text, thinking).unwrap_or_else(|error| panic!("{name} {seed}: {error}\n{text}"));
                assert_eq!(answer.calls.len(), 1);
                assert_eq!((answer.content.as_str(), answer.calls[0].0.as_str()), ("", *name));
                follows(schema, &answer.calls[0].1).unwrap_or_else(|error| panic!("{name} {seed}: {error}\n{text}"));
                finished += 1;
            }
        }
    }
    println!("{finished} answers");
    assert!(finished > 150, "only {finished} answers ended");
}

#[test]
fn random_answers_are_what_was_asked_for() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let schemas = schemas();
    let tools: Vec<Tool> = schemas[..3].iter().map(|(name, schema)| tool(name, schema)).collect();
    let form = json!({"type": "object", "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}}, "required": ["answer"], "additionalProperties": {"type": "integer"}});
    let mut seen = [0; 4];
    for choice in [ToolChoice::Auto, ToolChoice::None, ToolChoice::Required] {
        for (thinking, parallel) in [(false, true), (true, false), (true, true)] {
            for format in
                [ResponseFormat::Text, ResponseFormat::JsonObject, ResponseFormat::JsonSchema(Json::from(&form))]
            {
                let case = Case { thinking, parallel, format: format.clone(), ..Case::new(choice.clone()) };
                let fresh = case.constraint(&compiler, &tools);
                for seed in 0..8 {
                    let named = format!("{choice:?} {thinking} {parallel} {format:?} {seed}");
                    let mut constraint = fresh.clone();
                    let ids =
                        random(&mut *constraint, &tokenizer, EOS, seed, 400).unwrap_or_else(|e| panic!("{named}: {e}"));
                    let Some(ids) = ids else { continue };
                    let text = text(&tokenizer, &ids);
                    let answer = read(&text, thinking).unwrap_or_else(|error| panic!("{named}: {error}\n{text}"));
                    for (name, arguments) in &answer.calls {
                        let (_, schema) = schemas.iter().find(|(known, _)| known == name).unwrap();
                        follows(schema, arguments).unwrap_or_else(|error| panic!("{named}: {error}\n{text}"));
                    }
                    assert!(parallel || answer.calls.len() <= 1, "{named}: {text}");
                    let calls = !answer.calls.is_empty();
                    match choice {
                        ToolChoice::None => assert!(!calls, "{named}: {text}"),
                        ToolChoice::Required => assert!(calls && answer.content.is_empty(), "{named}: {text}"),
                        _ => {}
                    }
                    match &format {
                        ResponseFormat::Text => {}
                        _ if calls => assert_eq!(answer.content, "", "{named}: {text}"),
                        ResponseFormat::JsonObject => {
                            follows(&json!({"type": "object"}), &answer.content)
                                .unwrap_or_else(|e| panic!("{named}: {e}"));
                            seen[2] += 1;
                        }
                        ResponseFormat::JsonSchema(_) => {
                            follows(&form, &answer.content).unwrap_or_else(|e| panic!("{named}: {e}"));
                            seen[3] += 1;
                        }
                    }
                    seen[usize::from(calls)] += 1;
                }
            }
        }
    }
    println!("{seen:?} answers without and with calls, JSON objects, JSON of a schema");
    assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
}

/// Walks through a text as the tokenizer cuts it; the end token comes last. Gives back what is refused.
fn walk(constraint: &dyn Constraint, tokenizer: &Tokenizer, text: &str) -> Result<(), String> {
    let mut constraint = constraint.boxed_clone();
    let mut ids = tokenizer.encode(text, false).unwrap();
    ids.push(EOS);
    for (at, &id) in ids.iter().enumerate() {
        let allowed = constraint.allowed()?;
        if allowed.is_some_and(|allowed| !allowed.contains(id)) {
            let before = tokenizer.decode(&ids[..at], SpecialTokens::Keep).unwrap();
            return Err(format!("{:?} after {before:?}", tokenizer.id_to_token(id).unwrap()));
        }
        constraint.accept(id)?;
    }
    Ok(())
}

fn block(calls: &[&str]) -> String {
    format!("\n\n<｜DSML｜function_calls>\n{}\n</｜DSML｜function_calls>", calls.join("\n"))
}

fn call(name: &str, parameters: &[(&str, bool, &str)]) -> String {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(key, string, value)| {
            format!("<｜DSML｜parameter name=\"{key}\" string=\"{string}\">{value}</｜DSML｜parameter>")
        })
        .collect();
    format!("<｜DSML｜invoke name=\"{name}\">\n{}\n</｜DSML｜invoke>", parameters.join("\n"))
}

#[test]
fn long_strings_have_bounds() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let schema = |bounds: Value| json!({"type": "object", "properties": {"s": bounds}, "required": ["s"]});
    for (least, most) in [(0, 64), (0, 100), (1, 255), (100, 200), (0, 1000), (1000, 1200), (0, 20_000)] {
        let bounds = json!({"type": "string", "minLength": least, "maxLength": most});
        let pattern = json!({"type": "string", "pattern": format!("^.{{{least},{most}}}$")});
        for bounds in [bounds, pattern].iter().take(if most > 1000 { 1 } else { 2 }) {
            let tools = [tool("f", &schema(bounds.clone()))];
            let constraint = Case::new(ToolChoice::Required).constraint(&compiler, &tools);
            let said = |length: usize| {
                let value: String = "a<b </".chars().cycle().take(length).collect();
                walk(&*constraint, &tokenizer, &block(&[&call("f", &[("s", true, &value)])]))
            };
            let (shorter, longer) = (least.max(1) - 1, most + 1);
            assert_eq!(said(least.max(3)), Ok(()), "{bounds}");
            assert!(most > 1000 || said(most) == Ok(()), "{bounds}");
            assert!(least == 0 || said(shorter).is_err(), "{bounds}");
            assert!(most > 1000 || said(longer).is_err(), "{bounds}");
        }
    }
}

#[test]
fn the_format_is_kept_to_the_byte() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let tools: Vec<Tool> = schemas().iter().map(|(name, schema)| tool(name, schema)).collect();
    let auto = Case::new(ToolChoice::Auto).constraint(&compiler, &tools);
    let yes = |text: &str| walk(&*auto, &tokenizer, text).unwrap_or_else(|error| panic!("{text}\nrefuses {error}"));
    let no = |text: &str| assert!(walk(&*auto, &tokenizer, text).is_err(), "accepts {text}");
    let city = call("city", &[("city", true, "Oslo")]);

    yes("");
    yes("Hello.\n\n");
    yes("a < b, <b>, </thin, ｜ and \n\n<｜x");
    no("<think>");
    no("a</think>");
    no("a<｜User｜>");
    yes(&block(&[&city]));
    yes(&format!("Let me see.{}", block(&[&city, &call("nothing", &[]), &city])));
    yes(&block(&[&call("city", &[("city", true, "")])]));
    yes(&block(&[&call("city", &[("city", true, "a\n\n</b> <｜DSML｜invoke name=\"x\">\n  \"\\")])]));
    yes(&block(&[&call("optional", &[])]));
    yes(&block(&[&call("optional", &[("b", false, "3")])]));
    yes(&block(&[&call("optional", &[("a", true, "x"), ("c", false, "true")])]));
    yes(&block(&[&call("open", &[("first", false, "1"), ("more", true, "x"), ("1st", false, "-7")])]));
    yes(&block(&[&call("anything", &[("x", false, "{\"a\": [1, 2.5e-3, null], \"b\": {}}"), ("y", true, "z")])]));
    yes(&block(&[&call(
        "references",
        &[("tree", false, "{\"value\": 1, \"children\": [{\"value\": 2}]}"), ("name", true, "x")],
    )]));

    no("\n<｜DSML｜function_calls>");
    no("x<｜DSML｜function_calls>");
    no(&block(&[]));
    no(&block(&[&city]).replace("\n</｜DSML｜function_calls>", ""));
    no(&format!("{}\n", block(&[&city])));
    no(&format!("{}{}", block(&[&city]), block(&[&city])));
    no(&block(&[&city.replace("invoke name=\"city\"", "invoke name=\"town\"")]));
    no(&block(&[&city.replace("\">\n", "\">\n\n")]));
    no(&block(&[&city.replace("string=\"true\"", "string=\"false\"")]));
    no(&block(&[&format!("{city}\n"), &city]));
    no(&block(&[&call("city", &[])]));
    no(&block(&[&call("city", &[("town", true, "Oslo")])]));
    no(&block(&[&call("city", &[("city", true, "Oslo"), ("city", true, "Rome")])]));
    no(&block(&[&call("city", &[("city", true, "Oslo"), ("x", true, "y")])]));
    no(&block(&[&call("optional", &[("b", true, "3")])]));
    no(&block(&[&call("optional", &[("b", false, "\"3\"")])]));
    no(&block(&[&call("optional", &[("b", false, "3"), ("a", true, "x")])]));
    no(&block(&[&call("optional", &[("b", false, " 3")])]));
    no(&block(&[&call("open", &[("x", true, "1"), ("first", false, "1")])]));
    no(&block(&[&call("open", &[("x", true, "1"), ("x", true, "2")])]));
    no(&block(&[&call("anything", &[("x", false, "\"text\"")])]));
    no(&block(&[&call("anything", &[("x", false, "{\"a\":1}")])]));
    no(&block(&[&call("anything", &[("x", false, "[\"</｜DSML｜parameter>\n\"]")])]));
    yes(&block(&[&call("anything", &[("x", false, "[\"<｜DSML｜parameter>\", \"｜DSML｜\"]")])]));
    // A tolerant reader would take these for the end of the call.
    no(&block(&[&call("anything", &[("x", false, "[\"</｜DSML｜invoke>\"]")])]));
    no(&block(&[&call("city", &[("city", true, "a</｜DSML｜invoke>\n</｜DSML｜function_calls>")])]));
    // A name may come again in another call.
    let open = call("open", &[("x", true, "1")]);
    yes(&block(&[&open, &open]));

    let single = Case { parallel: false, ..Case::new(ToolChoice::Auto) }.constraint(&compiler, &tools);
    assert!(walk(&*single, &tokenizer, &block(&[&city])).is_ok());
    assert!(walk(&*single, &tokenizer, &block(&[&city, &city])).is_err());

    let none = Case::new(ToolChoice::None).constraint(&compiler, &tools);
    assert!(walk(&*none, &tokenizer, "No tools.\n\n").is_ok());
    assert!(walk(&*none, &tokenizer, &block(&[&city])).is_err());

    let required = Case { thinking: true, ..Case::new(ToolChoice::Required) }.constraint(&compiler, &tools);
    assert!(walk(&*required, &tokenizer, &format!("Hm.\n\n</think>{}", block(&[&city]))).is_ok());
    assert!(walk(&*required, &tokenizer, &format!("</think>{}", block(&[&city]))).is_ok());
    assert!(walk(&*required, &tokenizer, &format!("</think>Well.{}", block(&[&city]))).is_err());
    assert!(walk(&*required, &tokenizer, "</think>").is_err());
    assert!(walk(&*required, &tokenizer, "Hm.").is_err());
    assert!(walk(&*required, &tokenizer, &block(&[&city])).is_err());
}

#[test]
fn content_is_json_to_the_end() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/b"}}, "required": ["a"], "additionalProperties": false, "$defs": {"b": {"type": "integer"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let format = ResponseFormat::from_json(&Json::from(&format)).unwrap();
    let case = Case { thinking: true, format, ..Case::new(ToolChoice::Auto) };
    let city = tool("city", &schemas()[1].1);
    let constraint = case.constraint(&compiler, &[city]);
    let walk = |text: &str| walk(&*constraint, &tokenizer, text);
    for text in ["{\"a\": \"x\"}", "{\"a\":\"\",\"b\":-3}", "{\n  \"a\": \"<\\\"｜DSML\",\n  \"b\": 1\n}"] {
        walk(&format!("Hm.</think>{text}")).unwrap();
    }
    walk(&format!("</think>{}", block(&[&call("city", &[("city", true, "Oslo")])]))).unwrap();
    for text in [
        "",
        "x",
        "{\"a\": \"x\"",
        "{\"b\": 1}",
        "{\"a\": \"x\", \"c\": 1}",
        "{\"a\": \"｜DSML｜\"}",
        "{\"a\": \"x<think>\"}",
        "{\"a\": \"x\"} y",
        "```json\n{\"a\": \"x\"}\n```",
    ] {
        assert!(walk(&format!("</think>{text}")).is_err(), "accepts {text}");
    }
    let call = block(&[&call("city", &[("city", true, "Oslo")])]);
    assert!(walk(&format!("</think>{{\"a\": \"x\"}}{call}")).is_err());
}

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
