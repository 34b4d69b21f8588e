//! What a format is made of. The texts are in `format`.

/// A format: the tokens every version has, and what differs.
#[derive(Debug)]
pub(crate) struct Format {
    /// What the format is called in errors.
    pub name: &'static str,
    /// Begins every prompt.
    pub bos: &'static str,
    /// Ends every turn of the assistant; the model stops with it.
    pub eos: &'static str,
    /// Begins a user's turn.
    pub user: &'static str,
    /// Begins an assistant's turn.
    pub assistant: &'static str,
    /// Opens the reasoning.
    pub think: &'static str,
    /// Closes the reasoning; alone where there is none.
    pub think_end: &'static str,
    /// How turns are laid out.
    pub layout: Layout,
    /// How calls are written.
    pub calls: Calls,
}

/// How turns are laid out.
#[derive(Debug)]
pub(crate) enum Layout {
    /// System messages stand where they are; the user's turn ends with the opener of the answer (V3.2).
    Turns(Turns),
    /// System messages are gathered at the front; the answer's opener is asked for (V3, V3.1).
    Gathered(Gathered),
    /// As the checkpoint's own template has it.
    Template,
}

/// Texts of [`Layout::Turns`].
#[derive(Debug)]
pub(crate) struct Turns {
    /// Before tools, response format and a developer's question.
    pub section: &'static str,
    /// The tools block before the schemas.
    pub tools_head: &'static str,
    /// Between two schemas.
    pub tools_join: &'static str,
    /// The tools block after the schemas.
    pub tools_tail: &'static str,
    /// Before the schema of the answer.
    pub response_format: &'static str,
    /// Before what a developer's message asks.
    pub developer_message: &'static str,
    /// Before the first result of a turn.
    pub results_open: &'static str,
    /// Before a result.
    pub result_open: &'static str,
    /// After a result.
    pub result_close: &'static str,
    /// After the last result of a turn; a think mark follows.
    pub results_close: &'static str,
}

/// Texts of [`Layout::Gathered`].
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Between two system messages.
    pub system_join: &'static str,
    /// Before the tools, if they stand behind the system message that has them.
    pub tools: Option<&'static ToolsText>,
    /// The layout where tools are offered, if it is another one.
    pub tooled: Option<&'static Tooled>,
    /// What of an earlier answer that holds a closed reasoning is kept.
    pub strip: Strip,
    /// Whether a think mark follows the opener of an answer (V3.1).
    pub marks: bool,
    /// What opens the reasoning of an answer to be written, where thinking is asked for and `marks` is false.
    pub thinking: Option<&'static str>,
    /// Before the results of a turn.
    pub results_open: &'static str,
    /// Before a result.
    pub result_open: &'static str,
    /// After a result.
    pub result_close: &'static str,
    /// Between two results.
    pub result_join: &'static str,
    /// After the results of a turn.
    pub results_close: &'static str,
    /// Whether a message with content keeps its calls.
    pub calls_beside_content: bool,
    /// Whether calls are closed after the last one, rather than after each but the first.
    pub closes_calls: bool,
    /// Whether later answers with calls open their calls anew, rather than going on from the first answer's.
    pub reopens_calls: bool,
}

/// The text that describes tools in the system prompt.
#[derive(Debug)]
pub(crate) struct ToolsText {
    /// Before the tools.
    pub head: &'static str,
    /// Before a tool's name.
    pub name: &'static str,
    /// Before its description.
    pub description: &'static str,
    /// Before its parameters' schema.
    pub parameters: &'static str,
    /// After the schema.
    pub end: &'static str,
    /// After the tools.
    pub tail: &'static str,
}

/// Texts of the layout that V3 and R1 have where tools are offered.
#[derive(Debug)]
pub(crate) struct Tooled {
    /// Between two system messages.
    pub system_join: &'static str,
    /// Before the tools.
    pub tools_head: &'static str,
    /// Before a tool's JSON.
    pub tool_open: &'static str,
    /// After it.
    pub tool_close: &'static str,
    /// What of an earlier answer that holds a closed reasoning is kept.
    pub strip: Strip,
    /// What opens the reasoning of an answer to be written, where thinking is asked for.
    pub thinking: Option<&'static str>,
    /// Before the results of a turn.
    pub results_open: &'static str,
    /// Before a result.
    pub result_open: &'static str,
    /// After a result.
    pub result_close: &'static str,
    /// Between two results.
    pub result_join: &'static str,
    /// After the results of a turn.
    pub results_close: &'static str,
}

/// What of an answer that holds a closed reasoning is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strip {
    /// All of it.
    Nothing,
    /// What follows the first `</think>`.
    ToFirst,
    /// What follows the last `</think>`.
    ToLast,
}

/// How calls are written.
#[derive(Debug)]
pub(crate) enum Calls {
    /// Tags with attributes; plain text to the tokenizer.
    Dsml(Dsml),
    /// Control tokens around name and JSON.
    Tokens(CallTokens),
    /// Elements around name, keys and values.
    Elements(CallElements),
}

/// The tags of DSML.
#[derive(Debug)]
pub(crate) struct Dsml {
    /// What every tag has and no other text should.
    pub mark: &'static str,
    /// Between the content and the block.
    pub before: &'static str,
    /// Begins every opening tag.
    pub open: &'static str,
    /// Begins every closing tag.
    pub close: &'static str,
    /// Opens the block, without its `>`.
    pub block_open: &'static str,
    /// Closes the block, without its `>`.
    pub block_close: &'static str,
    /// Opens a call, without its attributes.
    pub invoke_open: &'static str,
    /// Closes a call, without its `>`.
    pub invoke_close: &'static str,
    /// Opens a parameter, without its attributes.
    pub parameter_open: &'static str,
    /// Closes a parameter, without its `>`.
    pub parameter_close: &'static str,
    /// Before the name of a tool or a parameter, after the tag's opening.
    pub name: &'static str,
    /// After the name of a tool.
    pub name_end: &'static str,
    /// After the name of a parameter, before `true` or `false`.
    pub is_string: &'static str,
    /// What no value may hold: the end of a closing tag's opening, which a strict reader takes for the value's end, or a
    /// tolerant one for that of the call.
    pub value_end: &'static str,
}

impl Dsml {
    /// What stands before the name of a called tool.
    pub fn before_tool(&self) -> String {
        format!("{}{}", self.invoke_open, self.name)
    }

    /// What stands before the name of a parameter.
    pub fn before_parameter(&self) -> String {
        format!("{}{}", self.parameter_open, self.name)
    }

    /// What stands between the name of a parameter and its value.
    pub fn before_value(&self, is_string: bool) -> String {
        format!("{}{is_string}{}", self.is_string, self.name_end)
    }

    /// What stands after a value.
    pub fn after_value(&self) -> String {
        format!("{}>", self.parameter_close)
    }
}

/// The control tokens of calls before V3.2.
#[derive(Debug)]
pub(crate) struct CallTokens {
    /// Before the first call.
    pub calls_begin: &'static str,
    /// After the last.
    pub calls_end: &'static str,
    /// Before a call.
    pub call_begin: &'static str,
    /// After a call.
    pub call_end: &'static str,
    /// Between a call's parts.
    pub separator: &'static str,
    /// What stands before and after the name, where it is part of the call's id (Kimi-K2: `functions.NAME:INDEX`).
    pub id: Option<(&'static str, &'static str)>,
    /// What stands before the separator, if the name stands after it.
    pub kind: Option<&'static str>,
    /// Between name and arguments (where `kind` is absent, the separator).
    pub before_arguments: &'static str,
    /// After the arguments.
    pub after_arguments: &'static str,
    /// Between two calls.
    pub join: &'static str,
}

/// The elements of GLM-5's calls. A value is text, or JSON where it is no text.
#[derive(Debug)]
pub(crate) struct CallElements {
    /// Before the name of a tool.
    pub call_begin: &'static str,
    /// After a call.
    pub call_end: &'static str,
    /// Before the name of a parameter.
    pub key_begin: &'static str,
    /// After it.
    pub key_end: &'static str,
    /// Before a value.
    pub value_begin: &'static str,
    /// After it.
    pub value_end: &'static str,
    /// What begins each of them.
    pub open: &'static str,
}

/// What stands around the names in calls.
#[derive(Debug)]
pub(crate) struct NameMarks {
    /// Before the name of a tool.
    pub tool: String,
    /// Before that of a parameter, in formats that have such.
    pub parameter: Option<String>,
    /// After a name.
    pub end: &'static str,
    /// Bytes of a mark that only a call begins with.
    pub unmistakable: usize,
}

impl Calls {
    /// What stands around names.
    pub fn name_marks(&self) -> NameMarks {
        match self {
            Self::Dsml(dsml) => NameMarks {
                tool: dsml.before_tool(),
                parameter: Some(dsml.before_parameter()),
                end: "\"",
                unmistakable: dsml.open.len(),
            },
            Self::Tokens(CallTokens { id: Some((before, after)), call_begin, .. }) => NameMarks {
                tool: format!("{call_begin}{before}"),
                parameter: None,
                end: after,
                unmistakable: call_begin.len(),
            },
            Self::Tokens(tokens) => {
                let tool = if tokens.kind.is_some() { tokens.separator } else { tokens.call_begin };
                // The mark is a token of its own.
                let unmistakable = tool.len();
                NameMarks { tool: tool.to_string(), parameter: None, end: tokens.before_arguments, unmistakable }
            }
            // A key or the end of the call follows.
            Self::Elements(elements) => NameMarks {
                tool: elements.call_begin.to_string(),
                parameter: None,
                end: elements.open,
                unmistakable: elements.call_begin.len(),
            },
        }
    }
}
