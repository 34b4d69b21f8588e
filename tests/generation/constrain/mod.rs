//! Answers held to a grammar: V3.2's tool calls and JSON content, at random and with the embedded model.
#![cfg(all(feature = "constrain", feature = "schema"))]

mod format;

mod model;

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
