//! The texts of every format. A later version is another table.
//!
//! # Source
//! V3.2: the published format of DeepSeek-V3.2 and its test pairs. V3, R1 and V3.1: the chat templates published with
//! those models; V3.1's tools text: its model card; that of V3 and R1: the tool templates of vLLM and SGLang, not the
//! models' publisher.

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
        }
    }
}

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";
const USER: &str = "<｜User｜>";
const ASSISTANT: &str = "<｜Assistant｜>";
/// Opens the reasoning in every version.
pub(crate) const THINK: &str = "<think>";
/// Closes the reasoning in every version.
pub(crate) const THINK_END: &str = "</think>";

/// Begins a search; no format here has one, but the tokens came with V3.1.
pub(crate) const SEARCH: &str = "<｜search▁begin｜>";

/// The bar of control tokens and of DSML's tags.
pub(crate) const BAR: char = '｜';

/// The blank between the words of control tokens.
pub(crate) const BLANK: char = '▁';

/// What no text of a V3.2 answer may hold: a strict reader of the format refuses it.
pub(crate) const FORBIDDEN: [&str; 5] = [THINK, THINK_END, TAGS.mark, BOS, EOS];

/// DSML as of V3.2. (V4 calls the block `tool_calls`.)
pub(crate) const TAGS: Dsml = Dsml {
    mark: "｜DSML｜",
    before: "\n\n",
    open: "<｜DSML｜",
    close: "</｜DSML｜",
    block_open: "<｜DSML｜function_calls",
    block_close: "</｜DSML｜function_calls",
    invoke_open: "<｜DSML｜invoke",
    invoke_close: "</｜DSML｜invoke",
    parameter_open: "<｜DSML｜parameter",
    parameter_close: "</｜DSML｜parameter",
    name: " name=\"",
    name_end: "\">",
    is_string: "\" string=\"",
    value_end: "/｜DSML｜",
};

/// DeepSeek-V3.2.
pub(crate) static V32: Format = Format {
    name: "v3.2",
    bos: BOS,
    eos: EOS,
    user: USER,
    assistant: ASSISTANT,
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Turns(Turns {
        section: "\n\n",
        tools_head: TOOLS_HEAD,
        tools_join: "\n",
        tools_tail: "\n</functions>\n",
        response_format: "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n",
        developer_message: "# The user's message is: ",
        results_open: "\n\n<function_results>",
        result_open: "\n<result>",
        result_close: "</result>",
        results_close: "\n</function_results>\n\n",
    }),
    calls: Calls::Dsml(TAGS),
};

/// V3.2's tools block up to the first schema. It shows the model the tags, think marks among them.
const TOOLS_HEAD: &str = r#"## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<｜DSML｜function_calls>
...
</｜DSML｜function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
"#;

/// The call tokens of DeepSeek-V3 and R1: a kind, then the name and fenced JSON.
const V3_CALLS: CallTokens = CallTokens {
    calls_begin: "<｜tool▁calls▁begin｜>",
    calls_end: "<｜tool▁calls▁end｜>",
    call_begin: "<｜tool▁call▁begin｜>",
    call_end: "<｜tool▁call▁end｜>",
    separator: "<｜tool▁sep｜>",
    id: None,
    kind: Some("function"),
    before_arguments: "\n```json\n",
    after_arguments: "\n```",
    join: "\n",
};

/// The layout of R1 and V3-0324. Their template opens calls only once in a conversation.
const V3_LAYOUT: Gathered = Gathered {
    system_join: "\n\n",
    tools: None,
    tooled: Some(&R1_TOOLED),
    strip: Strip::ToLast,
    marks: false,
    thinking: Some("<think>\n"),
    results_open: "<｜tool▁outputs▁begin｜>",
    result_open: "<｜tool▁output▁begin｜>",
    result_close: "<｜tool▁output▁end｜>",
    result_join: "",
    results_close: "<｜tool▁outputs▁end｜>",
    calls_beside_content: true,
    closes_calls: true,
    reopens_calls: false,
};

/// The layout of R1 with tools: that of the tool template which servers ship, as the model's own has none.
const R1_TOOLED: Tooled = Tooled {
    system_join: "\n\n",
    tools_head: "\n\nYou are a helpful assistant with tool calling capabilities. When a tool call is needed, you MUST use \
        the following format to issue the call:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>\
        FUNCTION_NAME\n```json\n{\"param1\": \"value1\", \"param2\": \"value2\"}\n```<｜tool▁call▁end｜>\
        <｜tool▁calls▁end｜>\n\nMake sure the JSON is valid.## Tools\n\n### Function\n\nYou have the following functions \
        available:\n\n",
    tool_open: "\n```json\n",
    tool_close: "\n```\n",
    strip: Strip::ToLast,
    thinking: Some("<think>\n"),
    results_open: "<｜tool▁outputs▁begin｜>",
    result_open: "<｜tool▁output▁begin｜>",
    result_close: "<｜tool▁output▁end｜>",
    result_join: "\n",
    results_close: "<｜tool▁outputs▁end｜>",
};

/// That of V3, likewise.
const V3_TOOLED: Tooled = Tooled {
    strip: Strip::Nothing,
    thinking: None,
    results_open: "Use the results below to formulate an answer to the user question unless additional information is \
        needed.<｜tool▁outputs▁begin｜>",
    ..R1_TOOLED
};

/// DeepSeek-R1 and V3-0324.
pub(crate) static V3: Format = Format {
    name: "v3",
    bos: BOS,
    eos: EOS,
    user: USER,
    assistant: ASSISTANT,
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Gathered(V3_LAYOUT),
    calls: Calls::Tokens(V3_CALLS),
};

/// DeepSeek-V3 of December 2024.
pub(crate) static V3_DEC2024: Format = Format {
    name: "v3-dec2024",
    layout: Layout::Gathered(Gathered {
        tooled: Some(&V3_TOOLED),
        strip: Strip::Nothing,
        thinking: None,
        result_join: "\n",
        calls_beside_content: false,
        closes_calls: false,
        ..V3_LAYOUT
    }),
    calls: Calls::Tokens(V3_CALLS),
    bos: BOS,
    eos: EOS,
    user: USER,
    assistant: ASSISTANT,
    think: THINK,
    think_end: THINK_END,
};

/// DeepSeek-V3.1, V3.1-Terminus, V3.2-Exp.
pub(crate) static V31: Format = Format {
    name: "v3.1",
    bos: BOS,
    eos: EOS,
    user: USER,
    assistant: ASSISTANT,
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Gathered(Gathered {
        system_join: "\n\n",
        tools: Some(&V31_TOOLS),
        tooled: None,
        strip: Strip::ToFirst,
        marks: true,
        thinking: None,
        results_open: "",
        result_open: "<｜tool▁output▁begin｜>",
        result_close: "<｜tool▁output▁end｜>",
        result_join: "",
        results_close: "",
        calls_beside_content: true,
        closes_calls: true,
        reopens_calls: true,
    }),
    calls: Calls::Tokens(CallTokens {
        kind: None,
        before_arguments: "<｜tool▁sep｜>",
        after_arguments: "",
        join: "",
        ..V3_CALLS
    }),
};

/// V3.1's tools text. The template leaves it to the system prompt; the model card words it.
static V31_TOOLS: ToolsText = ToolsText {
    head: "## Tools\nYou have access to the following tools:\n\n",
    name: "### ",
    description: "\nDescription: ",
    parameters: "\n\nParameters: ",
    end: "\n\n",
    tail: "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n\
        <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>\
        {additional_tool_calls}<｜tool▁calls▁end｜>\n\n\
        Where:\n\n\
        - `tool_call_name` must be an exact match to one of the available tools\n\
        - `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n\
        - For multiple tool calls, chain them directly without separators or spaces\n",
};

/// What only a template of Kimi's family has: it stands between a turn's role and its text.
pub(crate) const KIMI_MIDDLE: &str = "<|im_middle|>";

/// What only a template of GLM's family has: it begins every prompt.
pub(crate) const GLM_BEGIN: &str = "[gMASK]";

/// Kimi-K2 and Moonlight.
pub(crate) static KIMI_K2: Format = Format {
    name: "kimi-k2",
    bos: "[BOS]",
    eos: "<|im_end|>",
    user: "<|im_user|>",
    assistant: "<|im_assistant|>",
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Template,
    calls: Calls::Tokens(KIMI_CALLS),
};

/// The call tokens of Kimi-K2: an id with the name, then JSON.
const KIMI_CALLS: CallTokens = CallTokens {
    calls_begin: "<|tool_calls_section_begin|>",
    calls_end: "<|tool_calls_section_end|>",
    call_begin: "<|tool_call_begin|>",
    call_end: "<|tool_call_end|>",
    separator: "<|tool_call_argument_begin|>",
    id: Some(("functions.", ":")),
    kind: None,
    before_arguments: "<|tool_call_argument_begin|>",
    after_arguments: "",
    join: "",
};

/// GLM-5. Its calls are not read: no tools are offered.
pub(crate) static GLM: Format = Format {
    name: "glm",
    bos: GLM_BEGIN,
    eos: "<|endoftext|>",
    user: "<|user|>",
    assistant: "<|assistant|>",
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Template,
    calls: Calls::Tokens(KIMI_CALLS),
};

/// Any other model with a template. Its calls are not read: no tools are offered.
pub(crate) static OTHER: Format = Format {
    name: "template",
    bos: "<s>",
    eos: "</s>",
    user: "<|user|>",
    assistant: "<|assistant|>",
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Template,
    calls: Calls::Tokens(KIMI_CALLS),
};
