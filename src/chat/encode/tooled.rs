//! The layout of V3 and R1 where tools are offered.
//!
//! The templates published with those models have no place for tools. Servers have templates of their own, in which the
//! tools follow all system text, every user's turn ends with the opener of the answer, and each answer opens and closes
//! its own calls.

use super::{EncodeOptions, Origin, Prompt, Start};
use crate::chat::error::{ChatError, FieldProblem};
use crate::chat::format::{CallTokens, Format, Tooled};
use crate::chat::json::Json;
use crate::chat::message::{Message, Role, ToolCall};
use crate::chat::python;

pub(super) fn encode(
    format: &Format,
    texts: &Tooled,
    tokens: &CallTokens,
    messages: &[Message],
    context: &[Message],
    options: &EncodeOptions,
) -> Result<Prompt, ChatError> {
    let mut writer =
        Writer { format, texts, tokens, prompt: Prompt::default(), last: None, in_results: false, has_result: false };
    for message in context {
        writer.message(message, 0)?;
    }
    writer.prompt = Prompt::default();
    if context.is_empty() {
        if options.add_bos {
            writer.prompt.push_template(format.bos);
        }
        writer.system(messages)?;
    } else if let Some(late) = messages.iter().position(|message| message.role == Role::System) {
        // System text stands at the front, which the context has passed.
        return Err(ChatError::field(late, "role", FieldProblem::Unsupported(format.name)));
    }
    for (index, message) in messages.iter().enumerate() {
        writer.message(message, index)?;
    }
    writer.end(options);
    Ok(writer.prompt)
}

struct Writer<'a> {
    format: &'a Format,
    texts: &'a Tooled,
    tokens: &'a CallTokens,
    prompt: Prompt,
    /// Who spoke last, other than the system.
    last: Option<Role>,
    /// Results are open.
    in_results: bool,
    /// A result has been written since the last answer with calls.
    has_result: bool,
}

impl Writer<'_> {
    /// All system messages, then their tools.
    fn system(&mut self, messages: &[Message]) -> Result<(), ChatError> {
        let systems = || messages.iter().enumerate().filter(|(_, message)| message.role == Role::System);
        for (at, (index, message)) in systems().enumerate() {
            if message.response_format.as_ref().is_some_and(Json::is_truthy) {
                let problem = FieldProblem::Unsupported(self.format.name);
                return Err(ChatError::field(index, "response_format", problem));
            }
            if at > 0 {
                self.prompt.push_template(self.texts.system_join);
            }
            self.prompt.push_outside(&message.content);
        }
        self.prompt.push_template(self.texts.tools_head);
        for tool in systems().flat_map(|(_, message)| &message.tools) {
            self.prompt.push_template(self.texts.tool_open);
            let entry = |key: &str, value: Json| (key.to_string(), value);
            let kind = entry("type", Json::String("function".to_string()));
            let tool = Json::Object(vec![kind, entry("function", tool.function().clone())]);
            self.prompt.push_outside(&tool.to_python());
            self.prompt.push_template(self.texts.tool_close);
        }
        Ok(())
    }

    fn message(&mut self, message: &Message, index: usize) -> Result<(), ChatError> {
        match message.role {
            Role::System => return Ok(()),
            Role::Developer => {
                return Err(ChatError::field(index, "role", FieldProblem::Unsupported(self.format.name)));
            }
            Role::User => {
                self.in_results = false;
                self.prompt.push_template(self.format.user);
                self.prompt.push_outside(&message.content);
                self.prompt.push_template(self.format.assistant);
            }
            Role::Assistant => self.assistant(message, index)?,
            Role::Tool => {
                let open = if self.has_result { self.texts.result_join } else { self.texts.results_open };
                self.prompt.push_template(open);
                self.prompt.push_template(self.texts.result_open);
                self.prompt.push_outside(&message.content);
                self.prompt.push_template(self.texts.result_close);
                self.in_results = true;
                self.has_result = true;
            }
        }
        self.last = Some(message.role);
        Ok(())
    }

    fn assistant(&mut self, message: &Message, index: usize) -> Result<(), ChatError> {
        let complete = message.reasoning_content.as_deref().unwrap_or_default().is_empty();
        let written = |mark| Origin::Written { message: index, complete, mark };
        if self.in_results {
            self.prompt.push_template(self.texts.results_close);
        }
        self.in_results = false;
        let content = super::stripped(&message.content, self.format.think_end, self.texts.strip);
        self.prompt.push(content, written(false));
        if !message.tool_calls.is_empty() {
            self.has_result = false;
            self.prompt.push(self.tokens.calls_begin, written(true));
            for (at, call) in message.tool_calls.iter().enumerate() {
                if at > 0 {
                    self.prompt.push(self.tokens.join, written(false));
                }
                self.call(call, at, index, written)?;
            }
            self.prompt.push(self.tokens.calls_end, written(true));
        }
        self.prompt.push(self.format.eos, written(true));
        Ok(())
    }

    fn call(
        &mut self,
        call: &ToolCall,
        at: usize,
        index: usize,
        written: impl Fn(bool) -> Origin,
    ) -> Result<(), ChatError> {
        let wrong = |reason| ChatError::field(index, "tool_calls", FieldProblem::Arguments { call: at, reason });
        let arguments = match python::loads(call.arguments_or_empty()).map_err(wrong)? {
            arguments @ Json::Object(_) => arguments.to_python(),
            _ => return Err(wrong("not an object".to_string())),
        };
        let tokens = self.tokens;
        self.prompt.push(tokens.call_begin, written(true));
        if let Some(kind) = tokens.kind {
            self.prompt.push(kind, written(false));
            self.prompt.push(tokens.separator, written(true));
        }
        self.prompt.push(&call.name, written(false));
        self.prompt.push(tokens.before_arguments, written(tokens.kind.is_none()));
        self.prompt.push(&arguments, written(false));
        self.prompt.push(tokens.after_arguments, written(false));
        self.prompt.push(tokens.call_end, written(true));
        Ok(())
    }

    /// What stands behind the last message.
    fn end(&mut self, options: &EncodeOptions) {
        if self.in_results {
            self.prompt.push_template(self.texts.results_close);
            return;
        }
        if !options.add_generation_prompt {
            return;
        }
        if self.last != Some(Role::User) {
            self.prompt.push_template(self.format.assistant);
        }
        if let Some(text) = self.texts.thinking.filter(|_| options.thinking) {
            self.prompt.push_template(text);
            self.prompt.set_start(Start::Reasoning);
        }
    }
}
