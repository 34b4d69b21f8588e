//! V3.2's layout.

use super::{EncodeOptions, Origin, Prompt, Start};
use crate::chat::error::{ChatError, FieldProblem};
use crate::chat::format::{self, Calls, Dsml, Format, Layout, Turns};
use crate::chat::json::Json;
use crate::chat::message::{Message, Role, Tool, ToolCall};
use crate::chat::python;

pub(super) fn encode(
    format: &Format,
    texts: &Turns,
    messages: &[Message],
    context: &[Message],
    options: &EncodeOptions,
) -> Result<Prompt, ChatError> {
    let all: Vec<&Message> = context.iter().chain(messages).collect();
    let asks = |message: &&Message| matches!(message.role, Role::User | Role::Developer);
    let last_user = all.iter().rposition(asks);
    let mut writer = Writer { format, texts, options, all, last_user, prompt: Prompt::default() };
    if options.add_bos && context.is_empty() {
        writer.prompt.push_template(format.bos);
    }
    for at in 0..messages.len() {
        writer.message(context.len() + at, at)?;
    }
    Ok(writer.prompt)
}

struct Writer<'a> {
    format: &'a Format,
    texts: &'a Turns,
    options: &'a EncodeOptions,
    /// Context and messages.
    all: Vec<&'a Message>,
    /// The last message that asks something, among `all`.
    last_user: Option<usize>,
    prompt: Prompt,
}

impl Writer<'_> {
    /// Renders `all[at]`, which errors call `index`.
    fn message(&mut self, at: usize, index: usize) -> Result<(), ChatError> {
        let message = self.all[at];
        match message.role {
            Role::System => {
                self.prompt.push_outside(&message.content);
                self.tools_and_format(message);
            }
            Role::User => {
                self.prompt.push_template(self.format.user);
                self.prompt.push_outside(&message.content);
                self.answer(Some(at) == self.last_user);
            }
            Role::Developer => {
                if message.content.is_empty() {
                    return Err(ChatError::field(index, "content", FieldProblem::Empty));
                }
                self.prompt.push_template(self.format.user);
                self.tools_and_format(message);
                self.prompt.push_template(self.texts.section);
                self.prompt.push_template(self.texts.developer_message);
                self.prompt.push_outside(&message.content);
                self.answer(Some(at) == self.last_user);
            }
            Role::Tool => self.result(at, index)?,
            Role::Assistant => self.assistant(at, index)?,
        }
        Ok(())
    }

    /// What a system or developer message carries besides its content.
    fn tools_and_format(&mut self, message: &Message) {
        if !message.tools.is_empty() {
            self.prompt.push_template(self.texts.section);
            write_tools(self.texts, &message.tools, &mut self.prompt);
        }
        if let Some(schema) = message.response_format.as_ref().filter(|schema| schema.is_truthy()) {
            self.prompt.push_template(self.texts.section);
            self.prompt.push_template(self.texts.response_format);
            self.prompt.push_outside(&schema.to_python());
        }
    }

    /// The opener of the answer to a question.
    fn answer(&mut self, thinks: bool) {
        self.prompt.push_template(self.format.assistant);
        self.think_mark(thinks);
    }

    fn think_mark(&mut self, thinks: bool) {
        let thinks = thinks && self.options.thinking;
        self.prompt.push_template(if thinks { self.format.think } else { self.format.think_end });
        self.prompt.set_start(if thinks { Start::Reasoning } else { Start::Content });
    }

    fn result(&mut self, at: usize, index: usize) -> Result<(), ChatError> {
        let caller = self.all[..at].iter().rposition(|message| message.role != Role::Tool);
        let calls = match caller {
            Some(caller) if self.all[caller].role == Role::Assistant => self.all[caller].tool_calls.len(),
            _ => 0,
        };
        let result = caller.map_or(at + 1, |caller| at - caller);
        if result > calls {
            return Err(ChatError::field(index, "role", FieldProblem::ResultWithoutCall { calls, result }));
        }
        if result == 1 {
            self.prompt.push_template(self.texts.results_open);
        }
        self.prompt.push_template(self.texts.result_open);
        self.prompt.push_outside(&self.all[at].content);
        self.prompt.push_template(self.texts.result_close);
        if result == calls {
            self.prompt.push_template(self.texts.results_close);
            self.think_mark(self.last_user.is_none_or(|user| at >= user));
        }
        Ok(())
    }

    fn assistant(&mut self, at: usize, index: usize) -> Result<(), ChatError> {
        let message = self.all[at];
        let reasoning = message.reasoning_content.as_deref().unwrap_or_default();
        let shown = self.options.thinking && self.last_user.is_none_or(|user| at > user);
        let complete = shown || reasoning.is_empty();
        let written = |mark| Origin::Written { message: index, complete, mark };
        if shown {
            if reasoning.is_empty() && message.tool_calls.is_empty() {
                return Err(ChatError::field(index, "reasoning_content", FieldProblem::NoReasoning));
            }
            self.prompt.push(reasoning, written(false));
            self.prompt.push(self.format.think_end, written(true));
        }
        self.prompt.push(&message.content, written(false));
        if !message.tool_calls.is_empty() {
            let Calls::Dsml(dsml) = &self.format.calls else {
                return Err(ChatError::field(index, "tool_calls", FieldProblem::Unsupported(self.format.name)));
            };
            let block = calls(dsml, &message.tool_calls).map_err(|(call, reason)| {
                ChatError::field(index, "tool_calls", FieldProblem::Arguments { call, reason })
            })?;
            self.prompt.push(&block, written(false));
        }
        self.prompt.push(self.format.eos, written(true));
        self.prompt.set_start(Start::Content);
        Ok(())
    }
}

fn write_tools(texts: &Turns, tools: &[Tool], prompt: &mut Prompt) {
    prompt.push_template(texts.tools_head);
    for (i, tool) in tools.iter().enumerate() {
        if i > 0 {
            prompt.push_template(texts.tools_join);
        }
        prompt.push_outside(&tool.function().to_python());
    }
    prompt.push_template(texts.tools_tail);
}

/// The text that tells V3.2 about tools, as it stands in a system message.
pub fn tools_block(tools: &[Tool]) -> String {
    let mut prompt = Prompt::default();
    if let Layout::Turns(texts) = &format::V32.layout {
        write_tools(texts, tools, &mut prompt);
    }
    prompt.into_text()
}

/// The block of a message's calls; an error says which call and why.
fn calls(dsml: &Dsml, calls: &[ToolCall]) -> Result<String, (usize, String)> {
    let mut out = format!("{}{}>\n", dsml.before, dsml.block_open);
    for (i, call) in calls.iter().enumerate() {
        out.push_str(&format!("{}{}{}\n", dsml.before_tool(), call.name, dsml.name_end));
        out.push_str(&parameters(dsml, call.arguments_or_empty()).map_err(|reason| (i, reason))?);
        out.push_str(&format!("\n{}>\n", dsml.invoke_close));
    }
    out.push_str(&format!("{}>", dsml.block_close));
    Ok(out)
}

/// A call's arguments as parameters, one a line. Nothing is escaped.
fn parameters(dsml: &Dsml, arguments: &str) -> Result<String, String> {
    let Json::Object(entries) = python::loads(arguments)? else {
        return Err("not an object".to_string());
    };
    let mut out = String::new();
    for (i, (key, value)) in entries.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let (is_string, text) = match value {
            Json::String(text) => (true, text.clone()),
            value => (false, value.to_python()),
        };
        let (before, after) = (dsml.before_parameter(), dsml.after_value());
        out.push_str(&format!("{before}{key}{}{text}{after}", dsml.before_value(is_string)));
    }
    Ok(out)
}

/// A call's arguments, the text of a JSON object, as V3.2's parameters.
///
/// # Errors
/// [`FieldProblem::Arguments`]: the text is not that of a JSON object.
pub fn arguments_to_dsml(arguments: &str) -> Result<String, FieldProblem> {
    match &format::V32.calls {
        Calls::Dsml(dsml) => parameters(dsml, arguments).map_err(|reason| FieldProblem::Arguments { call: 0, reason }),
        Calls::Tokens(_) | Calls::Elements(_) => Ok(String::new()),
    }
}
