//! The grammar of V3.2's answers: reasoning, content, tool calls.
//!
//! What the model writes is held to the text format byte by byte, and what it writes as arguments to the tools' JSON
//! schemas:
//!
//! - A property whose schema allows strings is written as plain text (`string="true"`), one that allows anything else
//!   as JSON (`string="false"`) with `", "` and `": "` between its parts, the way the model was trained; one that
//!   allows both may be either.
//! - Properties stand in the schema's order, required ones always. Properties that the schema does not name are let
//!   through only where `additionalProperties` is written out and is not `false`; they stand after the named ones.
//!   Objects within an argument follow JSON Schema's own rule, where saying nothing allows more properties.
//! - A keyword that cannot be held to is an error that names its place; annotations and unknown keywords are passed over.

mod arguments;
mod error;
mod numbers;
mod pattern;
mod schema;
mod strings;

pub use error::GrammarError;

use std::fmt::Write;

use self::arguments::Arguments;
use self::schema::Root;
use self::strings::literal;
use super::format::{BAR, FORBIDDEN, TAGS, THINK_END};
use super::json::Json;
use super::message::Tool;
use super::tools::ToolChoice;
use crate::grammar::{Grammar, JsonContent, Parameters, SchemaOf};

/// The form of an answer's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema(Json),
}

impl ResponseFormat {
    /// Reads the protocol's `response_format`: `{"type": "text"}`, `{"type": "json_object"}` or
    /// `{"type": "json_schema", "json_schema": {"schema": …}}`.
    ///
    /// # Errors
    /// [`GrammarError::ResponseFormat`] for anything else.
    pub fn from_json(format: &Json) -> Result<Self, GrammarError> {
        let error = |problem: &str| Err(GrammarError::ResponseFormat(problem.to_string()));
        match format.get("type").and_then(Json::as_str) {
            Some("text") => Ok(Self::Text),
            Some("json_object") => Ok(Self::JsonObject),
            Some("json_schema") => match format.get("json_schema").and_then(|wrapped| wrapped.get("schema")) {
                Some(schema) => Ok(Self::JsonSchema(schema.clone())),
                None => error("json_schema has no schema"),
            },
            Some(other) => error(&format!("type is {other:?}, expected \"text\", \"json_object\" or \"json_schema\"")),
            None => error("has no type"),
        }
    }
}

/// What an answer must be.
#[derive(Debug, Clone, Copy)]
pub struct AnswerGrammar<'a> {
    /// Whether the prompt opens the reasoning, so that the answer begins with it.
    pub thinking: bool,
    /// The tools that may be called.
    pub tools: &'a [Tool],
    /// Which of them.
    pub tool_choice: &'a ToolChoice,
    /// Whether there may be more than one call.
    pub parallel: bool,
    /// The form of the content. Content that must be JSON is never followed by calls: the answer is one or the other.
    pub response_format: &'a ResponseFormat,
}

impl AnswerGrammar<'_> {
    /// The characters that the texts begin with which no text of an answer may hold.
    pub const BREAKS: [char; 2] = ['<', BAR];

    /// The grammar.
    ///
    /// # Errors
    /// [`GrammarError`] if the choice and the tools contradict each other, if a name cannot be written in the format,
    /// or if a schema has a keyword that cannot be held to.
    pub fn build(&self) -> Result<Grammar, GrammarError> {
        let tools = self.callable()?;
        let mut lark = Lark::default();
        let mut distinct = false;
        if !tools.is_empty() {
            for (index, tool) in tools.iter().enumerate() {
                distinct |= lark.tool(index, tool)?;
            }
            lark.calls(tools.len(), self.parallel);
        }
        let content = lark.content(self.response_format)?;
        let only_calls = matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        let answer = match (tools.is_empty(), only_calls, content) {
            (true, _, false) => "TEXT?",
            (true, _, true) => "json",
            (false, true, _) => "OPEN calls",
            (false, false, false) => "TEXT? | TEXT_OPEN calls",
            (false, false, true) => "json | OPEN calls",
        };
        let reasoning = if self.thinking { format!("TEXT? {THINK_END} ") } else { String::new() };
        let mut text = format!("start: {reasoning}answer\nanswer: {answer}\n");
        lark.terminals(&mut text);
        text.push_str(&lark.rules);

        let content = (content && !only_calls).then(|| JsonContent {
            after: if self.thinking { THINK_END.to_string() } else { String::new() },
            forbidden: FORBIDDEN.map(String::from).to_vec(),
        });
        let parameters = (!tools.is_empty()).then(|| Parameters {
            open: TAGS.before_parameter(),
            raw: TAGS.before_value(true),
            json: TAGS.before_value(false),
            close: TAGS.after_value(),
            forbidden: TAGS.value_end.to_string(),
            group: TAGS.before_tool(),
            distinct,
        });
        Ok(Grammar { lark: text, schemas: lark.schemas, content, parameters })
    }

    /// The tools that the choice leaves.
    fn callable(&self) -> Result<Vec<&Tool>, GrammarError> {
        let tools: Vec<&Tool> = match self.tool_choice {
            ToolChoice::None => return Ok(Vec::new()),
            ToolChoice::Auto => self.tools.iter().collect(),
            ToolChoice::Required if self.tools.is_empty() => return Err(GrammarError::NoTools),
            ToolChoice::Required => self.tools.iter().collect(),
            ToolChoice::Named(name) => {
                let named: Vec<_> = self.tools.iter().filter(|tool| tool.name() == name).collect();
                if named.is_empty() {
                    return Err(GrammarError::UnknownTool(name.clone()));
                }
                named
            }
        };
        let mut names = std::collections::HashSet::new();
        for tool in &tools {
            if !is_writable(tool.name()) {
                return Err(GrammarError::Name(tool.name().to_string()));
            }
            if !names.insert(tool.name()) {
                return Err(GrammarError::SameName(tool.name().to_string()));
            }
        }
        Ok(tools)
    }
}

/// Whether the format can carry a name: names stand unescaped between quotes.
fn is_writable(name: &str) -> bool {
    !name.is_empty() && !name.contains(TAGS.mark) && !name.contains(|c: char| c == '"' || c.is_control())
}

/// The text of a grammar as it grows.
#[derive(Default)]
struct Lark {
    rules: String,
    schemas: Vec<SchemaOf>,
    /// What the schemas' multiples cost.
    multiples: u64,
}

impl Lark {
    /// Says whose schema the rules that follow come from.
    fn begin(&mut self, of: &SchemaOf) {
        let _ = writeln!(self.rules, "// {of}");
        self.schemas.push(of.clone());
    }

    /// The terminals that every grammar has: plain text, and plain text up to where a block of calls begins.
    fn terminals(&self, text: &mut String) {
        let forbidden = FORBIDDEN.map(pattern::escape).join("|");
        let opener = literal(&format!("{}{}>\n", TAGS.before, TAGS.block_open));
        let end = pattern::escape(TAGS.value_end);
        let lines = [
            format!("PLAIN: ~/(?s:.*)({forbidden})(?s:.*)/"),
            "TEXT: /(?s:.+)/ & PLAIN".to_string(),
            format!("TEXT_OPEN: (/(?s:.*)/ & PLAIN) {opener}"),
            format!("OPEN: {opener}"),
            format!("VALUE: /(?s:.*)/ & ~/(?s:.*){end}(?s:.*)/"),
        ];
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// Rule `json`, if the content must be JSON; says whether it must.
    fn content(&mut self, format: &ResponseFormat) -> Result<bool, GrammarError> {
        let object;
        let schema = match format {
            ResponseFormat::Text => return Ok(false),
            ResponseFormat::JsonObject => {
                object = Json::Object(vec![("type".to_string(), Json::String("object".to_string()))]);
                &object
            }
            ResponseFormat::JsonSchema(schema) => schema,
        };
        let of = SchemaOf::ResponseFormat;
        let root = Root::new(schema, of.clone(), &FORBIDDEN)?.after(self.multiples);
        // Models like to lay JSON out; without a bound they may not stop.
        let layout = r#"{"whitespace_pattern":"[ \\t]{1,4}|\\r?\\n[ \\t]{0,40}","json_allowed_escapes":"nrbtf\\\""}"#;
        let schema = root.embed(schema, "", &[], layout)?;
        self.begin(&of);
        let _ = writeln!(self.rules, "json: %json {schema}");
        Ok(true)
    }

    /// Rule `calls`: what follows a block's opening line.
    fn calls(&mut self, tools: usize, parallel: bool) {
        let more = if parallel { " next*" } else { "" };
        let names: Vec<_> = (0..tools).map(|index| format!("tool{index}")).collect();
        let _ = write!(
            self.rules,
            "calls: {} tool{more} {}\nnext: {} tool\ntool: {}\n",
            literal(&TAGS.before_tool()),
            literal(&format!("\n{}>", TAGS.block_close)),
            literal(&format!("\n{}", TAGS.before_tool())),
            names.join(" | "),
        );
    }

    /// Rule `tool{index}`: a call from its name to its end; says whether its parameters may have any name.
    fn tool(&mut self, index: usize, tool: &Tool) -> Result<bool, GrammarError> {
        let nothing = Json::Object(Vec::new());
        let schema = match tool.parameters() {
            None | Some(Json::Null) => &nothing,
            Some(schema) => schema,
        };
        let of = SchemaOf::Tool(tool.name().to_string());
        let root = Root::new(schema, of.clone(), &[TAGS.value_end])?.after(self.multiples);
        let arguments = Arguments::read(&root)?;
        let prefix = format!("t{index}");
        self.begin(&of);
        let open = literal(&format!("\n{}", TAGS.before_parameter()));
        for (at, parameter) in arguments.named.iter().enumerate() {
            let key = literal(&format!("{}{}", parameter.name, TAGS.is_string));
            let value = self.value(&root, &format!("{prefix}p{at}"), &parameter.schema, &parameter.path)?;
            let _ = writeln!(self.rules, "{prefix}p{at}: {open} {key} {value}");
        }
        if let Some(schema) = &arguments.more {
            let names: Vec<_> = arguments.known.iter().map(|name| literal(name)).collect();
            let others = if names.is_empty() { String::new() } else { format!(" & ~({})", names.join(" | ")) };
            let is_string = literal(TAGS.is_string);
            let key = format!("(/[^\"<>{BAR}\\x00-\\x1F\\x7F]{{1,64}}/{others}) {is_string}");
            let value = self.value(&root, &format!("{prefix}more"), schema, "/additionalProperties")?;
            let terminal = format!("T{index}KEY");
            let _ = writeln!(self.rules, "{terminal}: {key}");
            let _ = writeln!(self.rules, "{prefix}more: {open} {terminal} {value}");
        }
        self.multiples = root.multiples();
        self.sequence(&prefix, &arguments);
        let name = literal(&format!("{}{}", tool.name(), TAGS.name_end));
        let _ = writeln!(self.rules, "tool{index}: {name} {prefix}args");
        Ok(arguments.more.is_some())
    }

    /// Rule `{prefix}args`: the parameters in order, and the call's end.
    fn sequence(&mut self, prefix: &str, arguments: &Arguments) {
        let count = arguments.named.len();
        let rest = |at: usize| format!("{prefix}r{at}");
        let close = literal(&format!("\n{}>", TAGS.invoke_close));
        let more = arguments.more.is_some();
        let _ = writeln!(
            self.rules,
            "{}: {}{close}",
            rest(count),
            if more { format!("{prefix}more* ") } else { String::new() }
        );
        for (at, parameter) in arguments.named.iter().enumerate().rev() {
            let optional = if parameter.required { "" } else { "?" };
            let _ = writeln!(self.rules, "{}: {prefix}p{at}{optional} {}", rest(at), rest(at + 1));
        }
        let mut choices = Vec::new();
        if arguments.named.iter().any(|parameter| parameter.required) {
            choices.push(rest(0));
        } else {
            // A call without arguments has a blank line in their place.
            choices.push(literal(&format!("\n\n{}>", TAGS.invoke_close)));
            choices.extend((0..count).map(|at| format!("{prefix}p{at} {}", rest(at + 1))));
            if more {
                choices.push(format!("{prefix}more {}", rest(count)));
            }
        }
        let _ = writeln!(self.rules, "{prefix}args: {}", choices.join(" | "));
    }

    /// A value of a schema from `true` or `false` on, as an expression of rules named after `name`.
    fn value(&mut self, root: &Root, name: &str, schema: &Json, path: &str) -> Result<String, GrammarError> {
        let mut forms = Vec::new();
        let text = strings::of(root, schema, path)?;
        let plain = text.terminal(&[TAGS.value_end]);
        if let Some(terminal) = &plain {
            let upper = name.to_uppercase();
            let _ = writeln!(self.rules, "{upper}: {terminal} {}", literal(&TAGS.after_value()));
            forms.push(format!("{} {upper}", literal(&format!("true{}", TAGS.name_end))));
        }
        if root.allows_others(schema, path)? {
            let kinds: &[&str] = if text.is_none() { &[] } else { &["null", "boolean", "number", "array", "object"] };
            let layout = r#"{"whitespace_flexible":false,"item_separator":", ","key_separator":": ","json_allowed_escapes":"nrbtf\\\""}"#;
            let schema = root.embed(schema, path, kinds, layout)?;
            let _ = writeln!(self.rules, "{name}j: %json {schema}");
            let (kind, close) = (literal(&format!("false{}", TAGS.name_end)), literal(&TAGS.after_value()));
            forms.push(format!("{kind} {name}j {close}"));
        }
        if forms.is_empty() {
            return Err(root.problem(path, "no value follows this schema"));
        }
        Ok(format!("({})", forms.join(" | ")))
    }
}
