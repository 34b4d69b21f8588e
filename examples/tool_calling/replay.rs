//! Recorded conversations, played again and compared step by step.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use deepseek_v32::chat::Message;
use deepseek_v32::chat_model::{ChatModel, ChatRequest, LocalChat};
use deepseek_v32::error::{one_line, one_line_path};
use serde::Deserialize;

use crate::common;

/// A file of recorded conversations.
#[derive(Debug, Deserialize)]
struct Recording {
    samples: Vec<Sample>,
}

/// A conversation up to an answer, and the answer.
#[derive(Debug, Deserialize)]
struct Sample {
    /// `thinking` or `chat`.
    mode: String,
    messages: Vec<Message>,
    prompt: String,
    prompt_ids: Vec<u32>,
    generated_ids: Vec<u32>,
    parsed: Message,
}

/// Plays a file's conversations and reports on each.
pub fn replay(chat: &LocalChat, file: &Path, out: &mut impl Write) -> Result<()> {
    let text = common::read_text(file)?;
    let recording: Recording = serde_json::from_str(&text)
        .map_err(|error| anyhow!("{}: {}", one_line_path(file), one_line(&error.to_string())))?;
    ensure!(!recording.samples.is_empty(), "{}: `samples` is empty", one_line_path(file));
    let mut differ = 0;
    let mut print = |line: String| writeln!(out, "{line}").context("standard output");
    for (i, sample) in recording.samples.iter().enumerate() {
        match play(chat, sample) {
            Ok(calls) => print(format!(
                "{i:>3} {:<8} prompt {:>4} tokens, answer {:>3} tokens, {calls} calls: identical",
                one_line(&sample.mode),
                sample.prompt_ids.len(),
                sample.generated_ids.len()
            ))?,
            Err(error) => {
                differ += 1;
                print(format!("{i:>3} {:<8} {}", one_line(&sample.mode), common::error_line(&error)))?;
            }
        }
    }
    let count = recording.samples.len();
    let same = count - differ;
    print(format!("{same} of {count} conversations identical: prompt text, prompt ids, answer ids, message"))?;
    if differ > 0 {
        bail!("{}: {differ} conversations differ", one_line_path(file));
    }
    Ok(())
}

/// Plays one conversation; says how many calls its answer makes, or what differs.
fn play(chat: &LocalChat, sample: &Sample) -> Result<usize> {
    let mut request = ChatRequest::new(sample.messages.clone());
    request.thinking = sample.mode == "thinking";
    let prompt = chat.prompt(&request)?;
    ensure!(prompt.text == sample.prompt, "the prompt's text differs");
    ensure!(prompt.ids == sample.prompt_ids, "the prompt's ids differ");
    request.max_tokens = Some(sample.generated_ids.len() + 8);
    let message = chat.chat(request, &mut |_| ())?.message;
    ensure!(message.written_ids.as_ref() == Some(&sample.generated_ids), "the answer's ids differ");
    ensure!(bare(&message) == bare(&sample.parsed), "the message differs");
    Ok(message.tool_calls.len())
}

/// A message without what its text does not say.
fn bare(message: &Message) -> Message {
    let mut message = Message { written_ids: None, ..message.clone() };
    message.reasoning_content = message.reasoning_content.filter(|reasoning| !reasoning.is_empty());
    message.tool_calls.iter_mut().for_each(|call| call.id = None);
    message
}
