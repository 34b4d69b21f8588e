//! The texts of every format. A later version is another table.
//!
//! # Source
//! V3.2: the published format of DeepSeek-V3.2 and its test pairs. V3, R1 and V3.1: the chat templates published with
//! those models; V3.1's tools text: its model card; that of V3 and R1: the tool templates of vLLM and SGLang, not the
//! models' publisher. Kimi-K2 and GLM-5: the chat templates published with those models.

pub(crate) use super::table::{
    CallElements, CallTokens, Calls, Dsml, Format, Gathered, Layout, NameMarks, Strip, Tooled, ToolsText, Turns,
};

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

/// GLM-5.
pub(crate) static GLM: Format = Format {
    name: "glm",
    bos: GLM_BEGIN,
    eos: "<|endoftext|>",
    user: "<|user|>",
    assistant: "<|assistant|>",
    think: THINK,
    think_end: THINK_END,
    layout: Layout::Template,
    calls: Calls::Elements(CallElements {
        call_begin: "<tool_call>",
        call_end: "</tool_call>",
        key_begin: "<arg_key>",
        key_end: "</arg_key>",
        value_begin: "<arg_value>",
        value_end: "</arg_value>",
        open: "<",
    }),
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
