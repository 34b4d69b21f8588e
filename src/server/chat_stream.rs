//! A chat as a stream of pieces.

use super::chat::{Head, add};
use super::error::ApiError;
use super::logprobs::ChatLogprobs;
use super::reply::{CallPiece, ChatPiece, DeltaReply, FunctionPiece, finish_reason, json};
use super::state::Place;
use super::stream::Writer;
use crate::chat::{Delta, Start};
use crate::chat_model::{ChatEvent, ChatUpdate, ChatUsage, call_id};

/// Writes the pieces of a chat's answers.
pub struct ChatWriter {
    head: Head,
    answers: Vec<Answer>,
    include_usage: bool,
    usage: ChatUsage,
}

struct Answer {
    reasoning: bool,
    /// Of tokens whose text has not come yet.
    logprobs: ChatLogprobs,
    done: bool,
}

impl ChatWriter {
    pub fn new(head: Head, n: usize, include_usage: bool) -> Self {
        let reasoning = head.start == Start::Reasoning;
        let answer = || Answer { reasoning, logprobs: ChatLogprobs::default(), done: false };
        Self { head, answers: (0..n).map(|_| answer()).collect(), include_usage, usage: ChatUsage::default() }
    }

    fn piece(&mut self, answer: usize, delta: DeltaReply, finish_reason: Option<&'static str>) -> String {
        let logprobs = std::mem::take(&mut self.answers[answer].logprobs);
        let logprobs = (!logprobs.is_empty()).then_some(logprobs);
        let piece = ChatPiece { index: answer, delta, logprobs, finish_reason };
        let usage = self.include_usage.then_some(None);
        json(&self.head.reply("chat.completion.chunk", vec![piece], usage))
    }

    fn delta(&mut self, answer: usize, delta: Delta) -> Option<String> {
        self.answers[answer].reasoning &= matches!(delta, Delta::Reasoning(_));
        let delta = match delta {
            Delta::Reasoning(text) => DeltaReply { reasoning_content: Some(text), ..DeltaReply::default() },
            Delta::Content(text) => DeltaReply { content: Some(text), ..DeltaReply::default() },
            Delta::ToolCallStart { index, name } => {
                let function = FunctionPiece { name: Some(name), arguments: String::new() };
                call(CallPiece { index, id: Some(call_id()), kind: Some("function"), function })
            }
            Delta::ToolCallArguments { index, fragment } => {
                let function = FunctionPiece { name: None, arguments: fragment };
                call(CallPiece { index, id: None, kind: None, function })
            }
            Delta::ToolCallEnd { .. } => return None,
        };
        Some(self.piece(answer, delta, None))
    }
}

fn call(piece: CallPiece) -> DeltaReply {
    DeltaReply { tool_calls: Some([piece]), ..DeltaReply::default() }
}

impl Writer for ChatWriter {
    type Update = ChatUpdate;

    fn open(&mut self) -> Vec<String> {
        let first = || DeltaReply { role: Some("assistant"), content: Some(String::new()), ..DeltaReply::default() };
        (0..self.answers.len()).map(|answer| self.piece(answer, first(), None)).collect()
    }

    fn update(&mut self, answer: usize, update: ChatUpdate, place: &mut Place) -> Result<Vec<String>, ApiError> {
        match update {
            ChatUpdate::Event(ChatEvent::Token(token)) => {
                place.token();
                let Answer { reasoning, logprobs, .. } = &mut self.answers[answer];
                self.head.note(&token, reasoning, logprobs);
                Ok(Vec::new())
            }
            ChatUpdate::Event(ChatEvent::Delta(delta)) => Ok(self.delta(answer, delta).into_iter().collect()),
            ChatUpdate::Finished(response) => {
                let reason = finish_reason(response.finish).ok_or_else(ApiError::shutting_down)?;
                add(&mut self.usage, &response.usage);
                place.malformed(!response.dropped.is_empty());
                self.answers[answer].done = true;
                Ok(vec![self.piece(answer, DeltaReply::default(), Some(reason))])
            }
            ChatUpdate::Failed(error) => Err(error.into()),
        }
    }

    fn is_done(&self) -> bool {
        self.answers.iter().all(|answer| answer.done)
    }

    fn close(&mut self) -> Vec<String> {
        if !self.include_usage {
            return Vec::new();
        }
        let usage = Some(Some((&self.usage).into()));
        vec![json(&self.head.reply::<ChatPiece>("chat.completion.chunk", Vec::new(), usage))]
    }

    fn usage(&self) -> ChatUsage {
        self.usage
    }
}
