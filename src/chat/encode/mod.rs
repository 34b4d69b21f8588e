//! Messages to a prompt.

mod gathered;
mod prompt;
mod tooled;
mod turns;

pub use prompt::{Origin, Piece, Prompt, Start};

use super::error::{ChatError, FieldProblem};
use super::format::{Layout, Strip};
use super::json::Json;
use super::message::{Message, Role, Tool};
use super::version::Version;

pub use turns::{arguments_to_dsml, tools_block};

/// How to render a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The format.
    pub version: Version,
    /// Whether the model is to think before it answers. V3.2 also writes the reasoning of earlier steps since the last
    /// user message.
    pub thinking: bool,
    /// Whether the reasoning before the last user message goes away. V3.2 never writes it, so this changes nothing
    /// (where the published encoder drops `developer` messages with it and fails, they stay).
    pub drop_thinking: bool,
    /// Whether the prompt begins with the begin-of-sentence token; it never does after a context.
    pub add_bos: bool,
    /// Whether the prompt ends with the opener of an answer. V3.2's user turns and results always do.
    pub add_generation_prompt: bool,
    /// Refuse calls that do not have all their results right behind them.
    pub require_complete_results: bool,
}

impl EncodeOptions {
    /// The usual options: no thinking, reasoning dropped, with begin-of-sentence and opener.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            thinking: false,
            drop_thinking: true,
            add_bos: true,
            add_generation_prompt: true,
            require_complete_results: false,
        }
    }

    /// The same with thinking.
    pub fn with_thinking(self, thinking: bool) -> Self {
        Self { thinking, ..self }
    }
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self::new(Version::default())
    }
}

/// Renders `messages` as they stand after `context`, which itself is not rendered.
///
/// V3.2 is the published encoder's text byte for byte, V3 and V3.1 that of their templates, with these rules where
/// those print Python values or fail: content that is `null` or absent is empty, a list of text parts is their texts
/// joined, anything else is refused when the message is read; a result whose message list begins with it answers no
/// call; `developer` messages stay when reasoning is dropped. Results belong to calls by their position
/// ([`order_results`] puts them in order). V3.1's text for tools is that of its model card.
///
/// The templates of V3 and R1 have no place for tools. Where a system message has some, the prompt is that of the tool
/// templates which vLLM and SGLang ship for these models; it is not from the models' publisher. [`Version::V3`] has the
/// one of R1, [`Version::V3Dec2024`] that of V3; where one reads a tool as `{"type": "function", "function": {…}}`, so
/// is it written here. If the model is to think, its reasoning is opened as R1's own template does it.
///
/// Where a template would lose what a message says, it is kept: an empty list of calls is none (the templates of V3 and
/// V3.1 write the end of calls in place of the content), and so is empty content beside calls (that of December 2024
/// writes only the content).
///
/// # Errors
/// [`ChatError::NeedsTemplate`] for a version whose prompts are those of the checkpoint's own template.
/// [`ChatError::Field`] names the message and field: an empty `developer` message, arguments that are no JSON object,
/// a result without a call, after the last user message in thinking mode an assistant's message with neither reasoning
/// nor calls, a field that the format has no text for.
///
/// # Source
/// The published formats, see the module's documentation.
pub fn encode(messages: &[Message], context: &[Message], options: &EncodeOptions) -> Result<Prompt, ChatError> {
    if options.require_complete_results {
        require_results(messages, context)?;
    }
    let format = options.version.format();
    match &format.layout {
        Layout::Turns(texts) => turns::encode(format, texts, messages, context, options),
        Layout::Gathered(texts) => gathered::encode(format, texts, messages, context, options),
        Layout::Template => Err(ChatError::NeedsTemplate(format.name)),
    }
}

/// Every call has its result directly behind it.
fn require_results(messages: &[Message], context: &[Message]) -> Result<(), ChatError> {
    let all: Vec<&Message> = context.iter().chain(messages).collect();
    for (at, message) in all.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
        let calls = message.tool_calls.len();
        let results = all[at + 1..].iter().take_while(|message| message.role == Role::Tool).count();
        // What is wrong within the context is said of the first message.
        let message = at.saturating_sub(context.len());
        if results < calls {
            return Err(ChatError::field(message, "tool_calls", FieldProblem::MissingResults { calls, results }));
        }
    }
    Ok(())
}

/// Puts the results of each assistant message in the order of its calls, by `tool_call_id`. Results of calls without
/// ids, and results without an id, stay where they are.
///
/// # Errors
/// A result's id is that of no call of the message before it, or of a call that already has a result.
pub fn order_results(messages: &mut [Message]) -> Result<(), ChatError> {
    let mut at = 0;
    while at < messages.len() {
        let (before, after) = messages.split_at_mut(at + 1);
        let caller = &before[at];
        let results = after.iter().take_while(|message| message.role == Role::Tool).count();
        let named = |message: &Message| message.tool_call_id.is_some();
        let has_ids = !caller.tool_calls.is_empty() && caller.tool_calls.iter().all(|call| call.id.is_some());
        if caller.role == Role::Assistant && has_ids && after[..results].iter().all(named) {
            let mut places = Vec::with_capacity(results);
            for (i, result) in after[..results].iter().enumerate() {
                let place = caller.tool_calls.iter().position(|call| call.id == result.tool_call_id);
                match place {
                    Some(place) if !places.contains(&place) => places.push(place),
                    _ => {
                        let id = result.tool_call_id.clone().unwrap_or_default();
                        return Err(ChatError::field(at + 1 + i, "tool_call_id", FieldProblem::UnknownCall(id)));
                    }
                }
            }
            let mut order: Vec<usize> = (0..results).collect();
            order.sort_by_key(|&i| places[i]);
            let sorted: Vec<Message> = order.into_iter().map(|i| after[i].clone()).collect();
            after[..results].clone_from_slice(&sorted);
        }
        at += 1 + results;
    }
    Ok(())
}

/// Puts a request's tools and response format where the format has them: on the first system message, or on an empty
/// one before all others. Does nothing if there are neither.
pub fn place_tools(messages: &mut Vec<Message>, tools: Vec<Tool>, response_format: Option<Json>) {
    if tools.is_empty() && response_format.is_none() {
        return;
    }
    let at = messages.iter().position(|message| message.role == Role::System).unwrap_or_else(|| {
        messages.insert(0, Message::system(""));
        0
    });
    messages[at].tools.extend(tools);
    if response_format.is_some() {
        messages[at].response_format = response_format;
    }
}

/// What of an earlier answer is kept.
fn stripped<'a>(content: &'a str, think_end: &str, strip: Strip) -> &'a str {
    let cut = match strip {
        Strip::Nothing => None,
        Strip::ToFirst => content.split_once(think_end),
        Strip::ToLast => content.rsplit_once(think_end),
    };
    cut.map_or(content, |(_, rest)| rest)
}
