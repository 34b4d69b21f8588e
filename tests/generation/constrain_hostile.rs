//! Schemas that cannot be held to, or that mean harm, end in an error or a working constraint, in bounded time.
#![cfg(all(feature = "constrain", feature = "schema"))]

use std::time::{Duration, Instant};

use crate::constrain_support::{follows, random, read};
use deepseek_v32::chat::{AnswerGrammar, GrammarError, Json, ResponseFormat, Tool, ToolChoice};
use deepseek_v32::generation::{Constraint, GrammarCompiler, SpecialTokens, Tokenizer};
use serde_json::{Map, Value, json};

const TINY: &str = "examples/assets/tiny-v32";

fn compile(tools: &[Tool], choice: ToolChoice, format: ResponseFormat) -> Result<Box<dyn Constraint>, String> {
    let answer =
        AnswerGrammar { thinking: false, tools, tool_choice: &choice, parallel: false, response_format: &format };
    let grammar = answer.build().map_err(|error| error.to_string())?;
    let compiler = GrammarCompiler::new(&Tokenizer::load(TINY).unwrap(), &[1], 2560, &AnswerGrammar::BREAKS).unwrap();
    compiler.compile(&grammar).map_err(|error| error.to_string())
}

fn required(schema: &Value) -> Result<Box<dyn Constraint>, String> {
    compile(&[Tool::new("f", "", Json::from(schema))], ToolChoice::Required, ResponseFormat::Text)
}

fn object(property: Value) -> Value {
    json!({"type": "object", "properties": {"x": property}, "required": ["x"]})
}

#[test]
fn errors_name_the_place_and_the_problem() {
    let expect = |schema: Value, parts: &[&str]| {
        let error = required(&schema).expect_err(&schema.to_string());
        for part in parts {
            assert!(error.contains(part), "{schema}: {error}");
        }
        assert!(error.len() < 600 && !error.contains('\n'), "{error}");
    };
    expect(json!([]), &["\"f\": parameters", "must be an object"]);
    expect(json!(false), &["no arguments"]);
    expect(json!({"type": "string"}), &["/type", "object"]);
    expect(json!({"type": "object", "anyOf": []}), &["anyOf", "top"]);
    expect(object(json!({"not": {"type": "string"}})), &["/properties/x", "not is not supported"]);
    expect(object(json!({"type": "array", "uniqueItems": true})), &["/properties/x", "uniqueItems"]);
    expect(object(json!({"type": "string", "pattern": "(?=a)b"})), &["/properties/x/pattern", "looks around"]);
    expect(object(json!({"type": "string", "pattern": "a(b"})), &["/properties/x/pattern"]);
    expect(object(json!({"type": "string", "pattern": "\\p{Nonsense}"})), &["Nonsense"]);
    expect(object(json!({"type": "integer", "multipleOf": 4_999_999})), &["/properties/x/multipleOf", "too much"]);
    expect(object(json!({"type": "integer", "multipleOf": -3})), &["/properties/x/multipleOf", "above 0"]);
    expect(object(json!({"type": "integer", "minimum": "a"})), &["/properties/x/minimum", "a number"]);
    expect(object(json!({"type": "strin"})), &["/properties/x/type", "\"strin\"", "expected a type"]);
    expect(object(json!({"type": ["string", 3]})), &["/properties/x/type"]);
    expect(object(json!({"$ref": "#/properties/x"})), &["/properties/x", "in a circle"]);
    let many = (0..20).map(|i| (format!("p{i}"), json!({"type": "integer", "multipleOf": 9_973})));
    expect(json!({"type": "object", "properties": many.collect::<Map<_, _>>()}), &["/multipleOf", "too much"]);
    expect(object(json!({"type": "string", "minLength": -1})), &["/minLength", "whole number"]);
    expect(
        object(json!({"type": "integer", "minimum": 5, "maximum": 3})),
        &["tool \"f\": parameters: ", "nsatisfiable"],
    );
    expect(object(json!({"type": "array", "items": {"const": "\u{7f}"}})), &["/items/const", "cannot be written"]);
    expect(object(json!({"type": "integer", "minimum": "5"})), &["minimum"]);
    expect(object(json!({"type": "thing"})), &["thing"]);
    expect(object(json!({"$ref": "#/$defs/no"})), &["/properties/x/$ref", "leads nowhere"]);
    expect(object(json!({"$ref": "https://example.com/schema"})), &["leads out of the schema"]);
    expect(object(json!({"$ref": "#/properties/x"})), &["circle"]);
    expect(json!({"$ref": "#"}), &["circle"]);
    expect(object(json!(false)), &["/properties/x", "required"]);
    expect(object(json!({"enum": []})), &["/properties/x", "required"]);
    expect(object(json!({"enum": [["</｜DSML｜parameter>"]]})), &["/properties/x/enum", "cannot be written"]);
    expect(object(json!({"oneOf": [{"type": "string"}, {"const": "a"}]})), &["same string"]);
    expect(
        object(json!({"type": "object", "properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}})),
        &["oneOf"],
    );
    expect(json!({"type": "object", "properties": {"a\"b": {}}}), &["a\\\"b"]);
    expect(json!({"type": "object", "required": ["x"], "additionalProperties": false}), &["required"]);

    let tool = |name: &str| Tool::new(name, "", Json::from(&json!({})));
    let build = |tools: &[Tool], tool_choice: ToolChoice| {
        let format = ResponseFormat::Text;
        let answer = AnswerGrammar {
            thinking: false,
            tools,
            tool_choice: &tool_choice,
            parallel: true,
            response_format: &format,
        };
        answer.build().map(|_| ())
    };
    assert_eq!(build(&[], ToolChoice::Required), Err(GrammarError::NoTools));
    assert_eq!(build(&[tool("f")], ToolChoice::Named("g".into())), Err(GrammarError::UnknownTool("g".into())));
    assert_eq!(build(&[tool("f"), tool("f")], ToolChoice::Auto), Err(GrammarError::SameName("f".into())));
    assert!(matches!(build(&[tool("")], ToolChoice::Auto), Err(GrammarError::Name(_))));
    assert!(matches!(build(&[tool("a\">\n")], ToolChoice::Auto), Err(GrammarError::Name(_))));
    assert_eq!(build(&[], ToolChoice::Auto), Ok(()));

    for format in [json!({}), json!({"type": "yaml"}), json!({"type": "json_schema"}), json!(3)] {
        let error = ResponseFormat::from_json(&Json::from(&format)).unwrap_err();
        assert!(error.to_string().starts_with("response_format: "), "{error}");
    }
    let tokenizer = Tokenizer::load(TINY).unwrap();
    assert!(GrammarCompiler::new(&tokenizer, &[], 2560, &[]).is_err());
    assert!(GrammarCompiler::new(&tokenizer, &[2560], 2560, &[]).is_err());
    assert!(GrammarCompiler::new(&tokenizer, &[1], 2559, &[]).is_err());
}

/// A chain of references of some length.
fn chain(len: usize, link: impl Fn(usize) -> Value) -> Value {
    let mut definitions: Map<String, Value> = (0..len).map(|at| (format!("d{at}"), link(at + 1))).collect();
    definitions.insert(format!("d{len}"), json!({"type": "integer"}));
    json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "required": ["x"], "$defs": definitions})
}

#[test]
fn hostile_schemas_end_in_bounded_time() {
    let to = |at: usize| json!({"$ref": format!("#/$defs/d{at}")});
    let mut nested = json!({"type": "integer"});
    let mut deep = vec![];
    for depth in 1..=110 {
        nested = match depth % 2 {
            0 => json!({"type": "array", "items": nested}),
            _ => json!({"type": "object", "properties": {"a": nested}}),
        };
        if depth % 50 == 10 {
            deep.push((format!("nested {depth}"), object(nested.clone())));
        }
    }
    let words = |count: usize, kind: &str| {
        let words: Vec<_> = (0..count).map(|at| format!("word number {}", at * 7919 % 1_000_003)).collect();
        match kind {
            "string" => object(json!({"type": "string", "enum": words})),
            _ => object(json!({"type": "array", "items": {"enum": words}})),
        }
    };
    let properties = |count: usize, required: bool| {
        let names: Vec<_> = (0..count).map(|at| format!("property{at}")).collect();
        let properties: Map<String, Value> =
            names.iter().map(|name| (name.clone(), json!({"type": "integer"}))).collect();
        json!({"type": "object", "properties": properties, "required": if required { names } else { vec![] }})
    };
    let mut cases = vec![
        ("huge enum".to_string(), words(5_000, "string")),
        ("huge enum in JSON".to_string(), words(5_000, "array")),
        ("1 MB enum".to_string(), words(50_000, "string")),
        ("1 MB enum in JSON".to_string(), words(50_000, "array")),
        ("400 optional properties".to_string(), properties(400, false)),
        ("400 required properties".to_string(), properties(400, true)),
        ("400 properties within".to_string(), object(properties(400, false))),
        ("20,000 properties".to_string(), properties(20_000, false)),
        ("1 MB text".to_string(), object(json!({"const": "x".repeat(1 << 20)}))),
        ("1 MB of description".to_string(), object(json!({"type": "string", "description": "x".repeat(1 << 20)}))),
        ("chain of 50".to_string(), chain(50, to)),
        ("chain of 10,000".to_string(), chain(10_000, to)),
        ("chain with keys".to_string(), chain(60, |at| json!({"$ref": format!("#/$defs/d{at}"), "minimum": at}))),
        ("doubling references".to_string(), chain(60, |at| json!({"anyOf": [to(at), to(at)]}))),
        (
            "doubling objects".to_string(),
            chain(60, |at| json!({"type": "object", "properties": {"a": to(at), "b": to(at)}})),
        ),
        (
            "doubling alternatives".to_string(),
            chain(
                25,
                |at| json!({"allOf": [{"anyOf": [to(at), {"type": "null"}]}, {"anyOf": [to(at), {"type": "boolean"}]}]}),
            ),
        ),
        (
            "doubling strings".to_string(),
            chain(30, |at| json!({"anyOf": [to(at), {"type": "string", "pattern": format!("a{{{at}}}b*c")}, to(at)]})),
        ),
        (
            "long repeat".to_string(),
            object(json!({"type": "string", "pattern": "^(([ab]{1,1000}c){1,1000}d){1,1000}$"})),
        ),
        ("long string".to_string(), object(json!({"type": "string", "minLength": 50_000, "maxLength": 60_000}))),
        ("hard pattern".to_string(), object(json!({"type": "string", "pattern": "(a|b)*a(a|b){40}$"}))),
        (
            "hard pattern in JSON".to_string(),
            object(json!({"type": "array", "items": {"type": "string", "pattern": "(a|b)*a(a|b){40}$"}})),
        ),
        (
            "many items".to_string(),
            object(json!({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000})),
        ),
        (
            "huge numbers".to_string(),
            object(json!({"type": "number", "minimum": 1e300, "maximum": 1e301, "multipleOf": 1e-7})),
        ),
        (
            "multiples".to_string(),
            object(json!({"type": "integer", "multipleOf": 999_983, "minimum": 0, "maximum": 1e15})),
        ),
        (
            "recursive".to_string(),
            json!({"$ref": "#/$defs/t", "$defs": {"t": {"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}, "u": {"$ref": "#"}}}}}),
        ),
        (
            "recursive with keys".to_string(),
            json!({"type": "object", "properties": {"t": {"$ref": "#", "maxProperties": 3}}}),
        ),
        ("pattern of 200 kB".to_string(), object(json!({"type": "string", "pattern": "abc|".repeat(50_000)}))),
    ];
    cases.extend(deep);
    let tokenizer = Tokenizer::load(TINY).unwrap();
    for (name, schema) in cases {
        let start = Instant::now();
        let outcome = match required(&schema) {
            Err(error) => {
                assert!(error.len() < 1000, "{name}: an error of {} bytes", error.len());
                format!("refused: {}", &error[..error.floor_char_boundary(120)])
            }
            Ok(mut constraint) => {
                let compiled = start.elapsed();
                let wrote = random(&mut *constraint, &tokenizer, 1, 1, 60).map(|ids| ids.map(|ids| ids.len()));
                format!("compiled in {compiled:.1?}, {wrote:?}")
            }
        };
        println!("{name}: {:.1?}: {outcome}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(40), "{name} took {:?}", start.elapsed());
    }
}

#[test]
fn texts_of_the_format_in_a_schema_are_just_texts() {
    let tokenizer = Tokenizer::load(TINY).unwrap();
    let texts = ["<｜User｜>", "<think>", "a\t\"\\\n/b", "#//", "ä｜DSML｜", "</｜DSML｜parameter>"];
    let schema = json!({"type": "object", "properties": {
        "<｜User｜>": {"type": "string", "enum": texts},
        "b/c": {"type": "array", "items": {"enum": texts[..5]}, "minItems": 2, "maxItems": 2},
    }, "required": ["<｜User｜>", "b/c"]});
    let fresh = required(&schema).unwrap();
    for seed in 0..20 {
        let mut constraint = fresh.clone();
        let ids = random(&mut *constraint, &tokenizer, 1, seed, 400).unwrap().expect("a short answer");
        let text = tokenizer.decode(&ids, SpecialTokens::Keep).unwrap();
        let answer = read(&text, false).unwrap();
        follows(&schema, &answer.calls[0].1).unwrap();
    }
}
