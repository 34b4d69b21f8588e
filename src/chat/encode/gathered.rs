//! The layout of V3, R1 and V3.1.
//!
//! Their templates are state machines over the messages, with states that outlive a turn; what follows keeps the same
//! states, so that the text is theirs also where a template forgets to close or open something.

use super::{EncodeOptions, Origin, Prompt, Start};
use crate::chat::error::{ChatError, FieldProblem};
use crate::chat::format::{CallTokens, Calls, Format, Gathered, ToolsText};
use crate::chat::json::Json;
use crate::chat::message::{Message, Role, Tool, ToolCall};

pub(super) fn encode(
    format: &Format,
    texts: &Gathered,
    messages: &[Message],
    context: &[Message],
    options: &EncodeOptions,
) -> Result<Prompt, ChatError> {
    let Calls::Tokens(tokens) = &format.calls else {
        return Err(ChatError::field(0, "tool_calls", FieldProblem::Unsupported(format.name)));
    };
    let offers = |message: &Message| message.role == Role::System && !message.tools.is_empty();
    if let Some(tooled) = texts.tooled
        && context.iter().chain(messages).any(offers)
    {
        return super::tooled::encode(format, tooled, tokens, messages, context, options);
    }
    let mut writer = Writer {
        format,
        texts,
        tokens,
        options,
        prompt: Prompt::default(),
        after_user: false,
        in_results: false,
        first_result: true,
        calls_open: false,
    };
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
    writer.end();
    Ok(writer.prompt)
}

struct Writer<'a> {
    format: &'a Format,
    texts: &'a Gathered,
    tokens: &'a CallTokens,
    options: &'a EncodeOptions,
    prompt: Prompt,
    /// The last turn is a user's, unanswered.
    after_user: bool,
    /// The last message is a result.
    in_results: bool,
    /// No result has been written since results were last opened.
    first_result: bool,
    /// Calls have been opened (and, where the template forgets it, are still thought open).
    calls_open: bool,
}

impl Writer<'_> {
    /// All system messages, and what they carry.
    fn system(&mut self, messages: &[Message]) -> Result<(), ChatError> {
        let mut empty = true;
        for (index, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::System) {
            if message.response_format.as_ref().is_some_and(Json::is_truthy) {
                let problem = FieldProblem::Unsupported(self.format.name);
                return Err(ChatError::field(index, "response_format", problem));
            }
            if !empty {
                self.prompt.push_template(self.texts.system_join);
            }
            self.prompt.push_outside(&message.content);
            if !message.tools.is_empty() {
                let Some(text) = self.texts.tools else {
                    return Err(ChatError::field(index, "tools", FieldProblem::Unsupported(self.format.name)));
                };
                if !message.content.is_empty() {
                    self.prompt.push_template(self.texts.system_join);
                }
                self.tools(text, &message.tools);
            }
            empty = false;
        }
        Ok(())
    }

    fn tools(&mut self, text: &ToolsText, tools: &[Tool]) {
        self.prompt.push_template(text.head);
        for tool in tools {
            self.prompt.push_template(text.name);
            self.prompt.push_outside(tool.name());
            self.prompt.push_template(text.description);
            self.prompt.push_outside(tool.description());
            self.prompt.push_template(text.parameters);
            self.prompt.push_outside(&tool.parameters().map_or_else(|| "{}".to_string(), |schema| schema.to_python()));
            self.prompt.push_template(text.end);
        }
        self.prompt.push_template(text.tail);
    }

    fn message(&mut self, message: &Message, index: usize) -> Result<(), ChatError> {
        match message.role {
            Role::System => {}
            Role::Developer => {
                return Err(ChatError::field(index, "role", FieldProblem::Unsupported(self.format.name)));
            }
            Role::User => {
                self.in_results = false;
                self.after_user = true;
                if self.texts.reopens_calls {
                    self.calls_open = false;
                }
                self.prompt.push_template(self.format.user);
                self.prompt.push_outside(&message.content);
                self.prompt.set_start(Start::Content);
            }
            Role::Tool => {
                self.after_user = false;
                self.in_results = true;
                let before = if self.first_result { self.texts.results_open } else { self.texts.result_join };
                self.first_result = false;
                self.prompt.push_template(before);
                self.prompt.push_template(self.texts.result_open);
                self.prompt.push_outside(&message.content);
                self.prompt.push_template(self.texts.result_close);
            }
            Role::Assistant => self.assistant(message, index),
        }
        Ok(())
    }

    fn assistant(&mut self, message: &Message, index: usize) {
        let complete = message.reasoning_content.as_deref().unwrap_or_default().is_empty();
        let origin = |mark| Origin::Written { message: index, complete, mark };
        let has_calls = !message.tool_calls.is_empty();
        if has_calls && (message.content.is_empty() || self.texts.calls_beside_content) {
            if self.texts.reopens_calls {
                self.calls_open = false;
            }
            if self.texts.marks {
                self.opener(false);
            } else if !self.calls_open {
                self.prompt.push_template(self.format.assistant);
            }
            self.in_results = false;
            if !self.calls_open {
                self.prompt.push(&message.content, origin(false));
            }
            for call in &message.tool_calls {
                self.call(call, origin);
            }
            if self.texts.closes_calls {
                self.prompt.push(self.tokens.calls_end, origin(true));
                self.prompt.push(self.format.eos, origin(true));
            }
        } else {
            let content = message.content.as_str();
            if self.in_results {
                self.prompt.push_template(self.texts.results_close);
                self.prompt.push(content, origin(false));
            } else {
                self.opener(message.prefix && self.options.thinking);
                self.prompt.push(super::stripped(content, self.format.think_end, self.texts.strip), origin(false));
            }
            self.in_results = false;
            self.prompt.push(self.format.eos, origin(true));
        }
        self.after_user = false;
        self.prompt.set_start(Start::Content);
    }

    /// What opens an answer that has been written; where think marks follow, that of the reasoning if it `thinks`.
    fn opener(&mut self, thinks: bool) {
        if !self.texts.marks {
            self.prompt.push_template(self.format.assistant);
        } else if self.after_user {
            self.prompt.push_template(self.format.assistant);
            self.prompt.push_template(if thinks { self.format.think } else { self.format.think_end });
        }
    }

    fn call(&mut self, call: &ToolCall, origin: impl Fn(bool) -> Origin) {
        let tokens = self.tokens;
        let follows = self.calls_open;
        if follows {
            self.prompt.push(tokens.join, origin(false));
        } else {
            self.prompt.push(tokens.calls_begin, origin(true));
        }
        self.calls_open = true;
        self.prompt.push(tokens.call_begin, origin(true));
        if let Some(kind) = tokens.kind {
            self.prompt.push(kind, origin(false));
            self.prompt.push(tokens.separator, origin(true));
        }
        self.prompt.push(&call.name, origin(false));
        self.prompt.push(tokens.before_arguments, origin(tokens.kind.is_none()));
        self.prompt.push(call.arguments_or_empty(), origin(false));
        self.prompt.push(tokens.after_arguments, origin(false));
        self.prompt.push(tokens.call_end, origin(true));
        if follows && !self.texts.closes_calls {
            self.prompt.push(tokens.calls_end, origin(true));
            self.prompt.push(self.format.eos, origin(true));
        }
    }

    /// What stands behind the last message.
    fn end(&mut self) {
        let options = self.options;
        if self.in_results {
            self.prompt.push_template(self.texts.results_close);
        }
        let opens = if self.texts.marks { self.after_user } else { true };
        if !options.add_generation_prompt || self.in_results || !opens {
            return;
        }
        self.prompt.push_template(self.format.assistant);
        if self.texts.marks {
            self.prompt.push_template(if options.thinking { self.format.think } else { self.format.think_end });
            self.prompt.set_start(if options.thinking { Start::Reasoning } else { Start::Content });
        } else if let Some(text) = self.texts.thinking.filter(|_| options.thinking) {
            self.prompt.push_template(text);
            self.prompt.set_start(Start::Reasoning);
        }
    }
}
