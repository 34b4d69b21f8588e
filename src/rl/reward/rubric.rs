//! A model that judges by written criteria.

use std::fmt;
use std::sync::Arc;

use super::Reward;
use crate::chat::{Json, Message, Role};
use crate::chat_model::{ChatModel, ChatRequest};
use crate::generation::SamplingParams;
use crate::rl::error::{Result, RlError};
use crate::rl::rollout::Episode;

/// What a judge is told.
const INSTRUCTIONS: &str = "You grade the work of an assistant by the criteria below. Read the conversation, then reply \
     with one JSON object and nothing else: {\"score\": S}, where S is a number from 0 (no criterion is met) to 1 (all \
     are met).";

/// A judge's score, in `[0, 1]`.
#[derive(Clone)]
pub struct Rubric {
    judge: Arc<dyn ChatModel>,
    criteria: String,
    max_tokens: usize,
    attempts: usize,
}

impl Rubric {
    /// The judgement of a model by criteria in words. It has three attempts of at most 1,024 tokens to answer as asked.
    pub fn new(judge: Arc<dyn ChatModel>, criteria: impl Into<String>) -> Self {
        Self { judge, criteria: criteria.into(), max_tokens: 1024, attempts: 3 }
    }

    /// The score in a judge's answer: that of its last JSON object with one.
    fn read(answer: &str) -> Option<f64> {
        let begins = answer.char_indices().filter(|(_, c)| *c == '{').map(|(at, _)| at);
        let objects = begins.filter_map(|begin| {
            let end = begin + answer[begin..].find('}')? + 1;
            Json::parse(&answer[begin..end]).ok()
        });
        let mut scores = objects.filter_map(|object| object.get("score")?.to_value().as_f64());
        scores.rfind(|score| (0.0..=1.0).contains(score))
    }
}

impl Reward for Rubric {
    fn name(&self) -> &str {
        "rubric"
    }

    fn value(&self, episode: &Episode) -> Result<f64> {
        let mut conversation = String::new();
        for message in &episode.messages {
            let role = match message.role {
                Role::Assistant => "ASSISTANT",
                Role::Tool => "TOOL",
                Role::User => "USER",
                _ => "SYSTEM",
            };
            conversation.push_str(&format!("[{role}] {}\n", message.content));
            for call in &message.tool_calls {
                conversation.push_str(&format!("[CALL] {} {}\n", call.name, call.arguments));
            }
        }
        let question = format!("# Criteria\n{}\n\n# Conversation\n{conversation}", self.criteria);
        let mut last = String::new();
        for attempt in 0..self.attempts {
            let messages = vec![Message::system(INSTRUCTIONS), Message::user(question.clone())];
            let request = ChatRequest {
                thinking: false,
                max_tokens: Some(self.max_tokens),
                // Greedy at first; the same again would be refused again.
                params: if attempt == 0 {
                    SamplingParams::greedy()
                } else {
                    SamplingParams::sampled(0.7, attempt as u64)
                },
                ..ChatRequest::new(messages)
            };
            last = self.judge.chat(request, &mut |_| ()).map_err(RlError::from)?.message.content;
            if let Some(score) = Self::read(&last) {
                return Ok(score);
            }
        }
        let problem = format!("the judge gave no {{\"score\": 0..1}} but {last:?}");
        Err(RlError::Rollout { place: "rubric".to_string(), problem })
    }
}

impl fmt::Debug for Rubric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rubric").field("judge", &self.judge.name()).field("criteria", &self.criteria).finish()
    }
}
