//! The grammars that requests ask for.

use super::super::error::{ChatModelError, Result};
use super::super::request::ChatRequest;
use crate::chat::{AnswerGrammar, Json, ResponseFormat, Start, Tool, ToolChoice, Version};
use crate::generation::{Constraint, Tokenizer};
use crate::grammar::Grammar;

/// Makes the constraints of one tokenizer and model.
#[derive(Debug, Clone)]
pub(super) struct Grammars {
    #[cfg(feature = "constrain")]
    compiler: std::sync::Arc<compiler::Compiler>,
}

impl Grammars {
    #[cfg(feature = "constrain")]
    pub fn new(tokenizer: &Tokenizer, stop_ids: &[u32], vocab_size: usize) -> Self {
        Self { compiler: std::sync::Arc::new(compiler::Compiler::new(tokenizer, stop_ids, vocab_size)) }
    }

    #[cfg(not(feature = "constrain"))]
    pub fn new(_tokenizer: &Tokenizer, _stop_ids: &[u32], _vocab_size: usize) -> Self {
        Self {}
    }

    /// The constraint of a request whose answer begins in `start`; `None` if the answer is free.
    pub fn constraint(
        &self,
        request: &ChatRequest,
        version: Version,
        start: Start,
    ) -> Result<Option<Box<dyn Constraint>>> {
        let response_format = match &request.response_format {
            Some(format) => ResponseFormat::from_json(format)?,
            None => ResponseFormat::Text,
        };
        let tools = request.shown_tools();
        let Some(demand) = demand(request, &tools, &response_format) else { return Ok(None) };
        if version != Version::V32 {
            return Err(demand.unmet("the chat format v3.2"));
        }
        let grammar = AnswerGrammar {
            thinking: start == Start::Reasoning,
            tools: &tools,
            tool_choice: &request.tool_choice,
            parallel: request.parallel_tool_calls,
            response_format: &response_format,
        };
        self.compile(&grammar.build()?, demand).map(Some)
    }

    #[cfg(feature = "constrain")]
    fn compile(&self, grammar: &Grammar, _demand: Demand) -> Result<Box<dyn Constraint>> {
        Ok(self.compiler.compile(grammar)?)
    }

    #[cfg(not(feature = "constrain"))]
    fn compile(&self, _grammar: &Grammar, demand: Demand) -> Result<Box<dyn Constraint>> {
        Err(demand.unmet("the feature constrain"))
    }
}

/// The part of a request that an unconstrained answer might violate.
struct Demand {
    field: String,
    value: String,
}

impl Demand {
    fn unmet(self, needs: &'static str) -> ChatModelError {
        let what = format!("{} {}", self.field, self.value);
        ChatModelError::Unsupported { what, field: Some(self.field), needs }
    }
}

/// The part of a request that an unconstrained answer might violate, if there is one.
fn demand(request: &ChatRequest, tools: &[Tool], response_format: &ResponseFormat) -> Option<Demand> {
    let demand = |field: &str, value: &str| Some(Demand { field: field.to_string(), value: value.to_string() });
    let strict = |tool: &&Tool| tool.function().get("strict") == Some(&Json::Bool(true));
    match (&request.tool_choice, response_format) {
        (ToolChoice::Required, _) => return demand("tool_choice", "required"),
        (ToolChoice::Named(name), _) => return demand("tool_choice", &format!("{name:?}")),
        (_, ResponseFormat::JsonObject) => return demand("response_format", "json_object"),
        (_, ResponseFormat::JsonSchema(_)) => return demand("response_format", "json_schema"),
        _ => {}
    }
    if let Some(tool) = tools.iter().find(strict) {
        return demand(&request.field_of_tool(tool.name(), "strict"), "true");
    }
    let single = !tools.is_empty() && !request.parallel_tool_calls;
    if single { demand("parallel_tool_calls", "false") } else { None }
}

#[cfg(feature = "constrain")]
mod compiler {
    use std::sync::{Mutex, PoisonError};

    use crate::chat::AnswerGrammar;
    use crate::generation::{Constraint, GrammarCompiler, Result, Tokenizer};
    use crate::grammar::Grammar;

    /// A compiler that is made when it is first needed: preparing a large vocabulary takes a second.
    #[derive(Debug)]
    pub struct Compiler {
        tokenizer: Tokenizer,
        stop_ids: Vec<u32>,
        vocab_size: usize,
        made: Mutex<Option<GrammarCompiler>>,
    }

    impl Compiler {
        pub fn new(tokenizer: &Tokenizer, stop_ids: &[u32], vocab_size: usize) -> Self {
            let (tokenizer, stop_ids) = (tokenizer.clone(), stop_ids.to_vec());
            Self { tokenizer, stop_ids, vocab_size, made: Mutex::new(None) }
        }

        pub fn compile(&self, grammar: &Grammar) -> Result<Box<dyn Constraint>> {
            self.compiler()?.compile(grammar)
        }

        fn compiler(&self) -> Result<GrammarCompiler> {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(compiler) = &*made {
                return Ok(compiler.clone());
            }
            let breaks = &AnswerGrammar::BREAKS;
            let compiler = GrammarCompiler::new(&self.tokenizer, &self.stop_ids, self.vocab_size, breaks)?;
            Ok(made.insert(compiler).clone())
        }
    }
}
