//! Control tokens in text from outside.

use super::super::error::{ChatModelError, Result};
use super::super::request::ChatRequest;
use crate::chat::{Json, Message, ToolCall, ToolChoice};
use crate::generation::Tokenizer;

/// What happens to control tokens (`<｜User｜>`, `</think>` and the like) that are written out in text from outside:
/// in messages, tool results, tools, schemas. They never become control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ControlTokens {
    /// They are tokenized as any other text.
    #[default]
    AsText,
    /// The request is refused, with [`ChatModelError::ControlToken`]. What the model wrote itself, known by its
    /// [`written_ids`](Message::written_ids), is not looked at.
    Refuse,
}

impl ControlTokens {
    /// Refuses a request that has control tokens in it, if it is to be refused.
    ///
    /// # Errors
    /// [`ChatModelError::ControlToken`] names the first.
    pub(super) fn check(self, request: &ChatRequest, tokenizer: &Tokenizer) -> Result<()> {
        if self == Self::AsText {
            return Ok(());
        }
        let look = |message: Option<usize>, field: String, text: &str| match tokenizer.find_control_token(text) {
            Some(token) => Err(ChatModelError::ControlToken { message, field, token: token.to_string() }),
            None => Ok(()),
        };
        for (at, message) in request.messages.iter().enumerate().filter(|(_, message)| message.written_ids.is_none()) {
            for (field, text) in texts(message, &request.tool_choice) {
                look(Some(at), field.to_string(), &text)?;
            }
        }
        for (at, tool) in request.tool_choice.shown(&request.tools).iter().enumerate() {
            look(None, format!("tools[{at}]"), &tool.function().to_python())?;
        }
        request.response_format.iter().try_for_each(|format| look(None, "response_format".into(), &format.to_python()))
    }
}

/// The texts that a prompt has of a message, as it has them, by their fields.
fn texts(message: &Message, tool_choice: &ToolChoice) -> Vec<(&'static str, String)> {
    let mut texts = vec![("content", message.content.clone())];
    texts.extend(message.reasoning_content.clone().map(|text| ("reasoning_content", text)));
    for ToolCall { name, arguments, .. } in &message.tool_calls {
        // Escapes in arguments are undone.
        let arguments = Json::parse(arguments).map_or_else(|_| arguments.clone(), |json| json.to_python());
        texts.extend([("tool_calls", name.clone()), ("tool_calls", arguments)]);
    }
    let tools = tool_choice.shown(&message.tools).iter();
    texts.extend(tools.map(|tool| ("tools", tool.function().to_python())));
    texts.extend(message.response_format.iter().map(|format| ("response_format", format.to_python())));
    texts
}
