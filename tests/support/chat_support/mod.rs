//! Reads the vectors under `tests/data/chat`.
#![allow(dead_code)]

use std::path::PathBuf;

use deepseek_v32::chat::{Delta, EncodeOptions, Json, Message, Start, Version};
use serde::Deserialize;

/// One vector.
#[derive(Debug, Deserialize)]
pub struct Record {
    pub name: String,
    #[serde(default)]
    pub input: Option<Json>,
    #[serde(default)]
    pub args: Args,
    #[serde(default)]
    pub chunks: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(rename = "fn", default)]
    pub function: String,
    #[serde(default)]
    pub expected: Option<Json>,
    #[serde(default)]
    pub expected_error: Option<Json>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Args {
    pub thinking_mode: Option<String>,
    pub drop_thinking: Option<bool>,
    pub add_default_bos_token: Option<bool>,
    pub add_generation_prompt: Option<bool>,
    pub thinking: Option<bool>,
}

pub fn records(file: &str) -> Vec<Record> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Record {
    pub fn tagged(&self, tag: &str) -> bool {
        self.tags.iter().any(|found| found == tag)
    }

    /// The expected text, if no error is expected.
    pub fn text(&self) -> Option<&str> {
        self.expected.as_ref().map(|text| text.as_str().unwrap())
    }

    pub fn completion(&self) -> &str {
        self.input.as_ref().unwrap().as_str().unwrap()
    }

    pub fn start(&self) -> Start {
        match self.args.thinking_mode.as_deref() {
            Some("thinking") => Start::Reasoning,
            _ => Start::Content,
        }
    }

    /// Messages and context; the error says what could not be read.
    pub fn messages(&self) -> Result<(Vec<Message>, Vec<Message>), String> {
        let input = self.input.as_ref().unwrap();
        let list = |key: &str| match input.get(key) {
            Some(list) => serde_json::from_str(&list.to_string()).map_err(|error| error.to_string()),
            None => Ok(Vec::new()),
        };
        Ok((list("messages")?, list("context")?))
    }

    pub fn options(&self, version: Version) -> Result<EncodeOptions, String> {
        let thinking = match (self.args.thinking_mode.as_deref(), self.args.thinking) {
            (Some("thinking"), _) | (None, Some(true)) => true,
            (Some("chat"), _) | (None, _) => false,
            (Some(other), _) => return Err(format!("mode {other}")),
        };
        Ok(EncodeOptions {
            thinking,
            drop_thinking: self.args.drop_thinking.unwrap_or(true),
            add_bos: self.args.add_default_bos_token.unwrap_or(true),
            add_generation_prompt: self.args.add_generation_prompt.unwrap_or(true),
            ..EncodeOptions::new(version)
        })
    }

    pub fn encode(&self, version: Version) -> Result<String, String> {
        let options = self.options(version)?;
        let (messages, context) = self.messages()?;
        match deepseek_v32::chat::encode(&messages, &context, &options) {
            Ok(prompt) => Ok(prompt.into_text()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A recorded conversation of the embedded checkpoint.
#[derive(Debug, Deserialize)]
pub struct Sample {
    pub mode: String,
    pub messages: Vec<Message>,
    pub prompt: String,
    pub text: String,
    pub parsed: Json,
}

pub fn embedded_samples() -> Vec<Sample> {
    #[derive(Deserialize)]
    struct Golden {
        samples: Vec<Sample>,
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32/golden.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden.samples.len(), 36);
    golden.samples
}

/// Events with neighbours of one kind put together: how a text was split no longer shows.
pub fn coalesced(deltas: Vec<Delta>) -> Vec<Delta> {
    let mut whole: Vec<Delta> = Vec::new();
    for delta in deltas {
        match (whole.last_mut(), delta) {
            (Some(Delta::Reasoning(text)), Delta::Reasoning(more))
            | (Some(Delta::Content(text)), Delta::Content(more)) => text.push_str(&more),
            (
                Some(Delta::ToolCallArguments { index, fragment }),
                Delta::ToolCallArguments { index: same, fragment: more },
            ) if *index == same => fragment.push_str(&more),
            (_, delta) => whole.push(delta),
        }
    }
    whole
}
