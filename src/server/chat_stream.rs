//! A chat as a stream of pieces.

use std::ops::ControlFlow;

use super::chat::{AnswerEvent, Head, add, is_malformed};
use super::error::ApiError;
use super::logprobs::ChatLogprobs;
use super::reply::{CallPiece, ChatPiece, DeltaReply, FunctionPiece, finish_reason, json};
use super::state::Place;
use super::stream::Writer;
use crate::chat::Delta;
use crate::chat_model::{ChatEvent, ChatUsage, call_id};

/// Writes the pieces of a chat's answers.
pub struct ChatWriter {
    head: Head,
    answers: Vec<Answer>,
    include_usage: bool,
    usage: ChatUsage,
}

#[derive(Clone, Default)]
struct Answer {
    /// Of tokens whose text has not come yet.
    logprobs: ChatLogprobs,
    done: bool,
}

impl ChatWriter {
    pub fn new(head: Head, n: usize, include_usage: bool) -> Self {
        Self { head, answers: vec![Answer::default(); n], include_usage, usage: ChatUsage::default() }
    }

    fn piece(&mut self, answer: usize, delta: DeltaReply) -> String {
        self.send(ChatPiece { index: answer, delta, ..ChatPiece::default() })
    }

    /// A piece, with the log-probabilities that wait for one.
    fn send(&mut self, mut piece: ChatPiece) -> String {
        let logprobs = std::mem::take(&mut self.answers[piece.index].logprobs);
        piece.logprobs = (!logprobs.is_empty()).then_some(logprobs);
        let usage = self.include_usage.then_some(None);
        json(&self.head.reply("chat.completion.chunk", vec![piece], usage))
    }

    fn delta(&mut self, answer: usize, delta: Delta) -> Option<String> {
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
        Some(self.piece(answer, delta))
    }
}

fn call(piece: CallPiece) -> DeltaReply {
    DeltaReply { tool_calls: Some([piece]), ..DeltaReply::default() }
}

impl Writer for ChatWriter {
    type Event = AnswerEvent;

    fn open(&mut self) -> Vec<String> {
        let first = || DeltaReply { role: Some("assistant"), content: Some(String::new()), ..DeltaReply::default() };
        (0..self.answers.len()).map(|answer| self.piece(answer, first())).collect()
    }

    fn event(&mut self, answer: usize, event: AnswerEvent, place: &mut Place) -> Result<Vec<String>, ApiError> {
        match event {
            ControlFlow::Continue(ChatEvent::Token { token, reasoning }) => {
                place.token();
                self.head.note(&token, reasoning, &mut self.answers[answer].logprobs);
                Ok(Vec::new())
            }
            ControlFlow::Continue(ChatEvent::Delta(delta)) => Ok(self.delta(answer, delta).into_iter().collect()),
            ControlFlow::Break(response) => {
                let reason = finish_reason(response.finish).ok_or_else(ApiError::shutting_down)?;
                add(&mut self.usage, &response.usage);
                place.malformed(is_malformed(&response));
                self.answers[answer].done = true;
                Ok(vec![self.send(ChatPiece {
                    index: answer,
                    finish_reason: Some(reason),
                    tool_call_error: response.call_error,
                    dropped: response.dropped,
                    ..ChatPiece::default()
                })])
            }
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
