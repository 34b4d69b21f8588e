//! What the layers below refuse of a chat, said of the fields that the client sent.

use super::error::ApiError;
use super::request::ChatCall;
use crate::chat::{ChatError, GrammarError};
use crate::chat_model::ChatModelError;
use crate::chat_model::ChatRequest;
use crate::generation::GenerationError;
use crate::grammar::SchemaOf;

/// The error of a call.
pub fn refusal(error: ChatModelError, call: &ChatCall) -> ApiError {
    let request = &call.request;
    match error {
        // The prompt has them in a message, the protocol beside the messages.
        ChatModelError::Chat(ChatError::Field { field: field @ "response_format", ref problem, .. })
            if request.response_format.is_some() =>
        {
            ApiError::field(field, problem)
        }
        ChatModelError::Chat(ChatError::Field { field: field @ "tools", ref problem, .. })
            if !request.tools.is_empty() =>
        {
            ApiError::field(field, problem)
        }
        ChatModelError::Chat(ChatError::Field { message, field, problem }) => {
            ApiError::field(of_message(message, field, call), problem)
        }
        ChatModelError::ControlToken { message, field, token } => {
            let field = message.map_or(field.clone(), |message| of_message(message, &field, call));
            ApiError::field(field, format!("holds the control token {token}, and control tokens are refused"))
        }
        ChatModelError::Grammar(GrammarError::Schema { of, pointer, problem }) => {
            schema(&of, &pointer, &problem, request)
        }
        ChatModelError::Generation(GenerationError::Schema { of, problem }) => schema(&of, "", &problem, request),
        ChatModelError::Grammar(GrammarError::Name(ref name) | GrammarError::SameName(ref name)) => {
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
    ApiError::field(field, crate::show::one_line(&format!("{place}{problem}")))
}

/// A field of a message, as the client counts its messages.
fn of_message(message: usize, field: &str, call: &ChatCall) -> String {
    match call.places.get(message) {
        Some(Some(place)) => format!("messages[{place}].{field}"),
        _ => "messages".to_string(),
    }
}
