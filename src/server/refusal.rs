//! What the layers below refuse of a chat, said of the fields that the client sent.

use super::error::ApiError;
use crate::agent::{AgentError, ChatRequest};
use crate::chat::{ChatError, GrammarError};
use crate::generation::GenerationError;
use crate::grammar::SchemaOf;

/// The error of a request, before whose messages so many were `added`.
pub fn refusal(error: AgentError, request: &ChatRequest, added: usize) -> ApiError {
    match error {
        // The prompt has them in a message, the protocol beside the messages.
        AgentError::Chat(ChatError::Field { field: field @ "response_format", ref problem, .. })
            if request.response_format.is_some() =>
        {
            ApiError::field(field, problem)
        }
        AgentError::Chat(ChatError::Field { field: field @ "tools", ref problem, .. }) if !request.tools.is_empty() => {
            ApiError::field(field, problem)
        }
        AgentError::Chat(ChatError::Field { message, field, problem }) => {
            ChatError::Field { message: message.saturating_sub(added), field, problem }.into()
        }
        AgentError::Grammar(GrammarError::Schema { of, pointer, problem }) => schema(&of, &pointer, &problem, request),
        AgentError::Generation(GenerationError::Schema { of, problem }) => schema(&of, "", &problem, request),
        AgentError::Grammar(GrammarError::Name(ref name) | GrammarError::SameName(ref name)) => {
            ApiError::field(request.field_of_tool(name, "name"), &error)
        }
        error => error.into(),
    }
}

/// A schema that no answer can be held to.
fn schema(of: &SchemaOf, pointer: &str, problem: &str, request: &ChatRequest) -> ApiError {
    let field = match of {
        SchemaOf::ResponseFormat => "response_format".to_string(),
        SchemaOf::Tool(name) => request.field_of_tool(name, "parameters"),
    };
    let place = if pointer.is_empty() { String::new() } else { format!("at {pointer}: ") };
    ApiError::field(field, crate::error::one_line(&format!("{place}{problem}")))
}
