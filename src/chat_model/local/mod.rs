//! The crate's own engine as a model that chats.

mod answer;
mod control;
mod detect;
mod grammars;
mod names;
mod prompt;
mod prompts;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;

use super::error::{ChatModelError, Result};
use super::request::{ChatEvent, ChatModel, ChatRequest, ChatResponse};
use crate::chat::{ChatTemplate, Version};
use crate::generation::{
    Cancel, Engine, EngineOptions, GenerationError, LocalModel, MemoryPlan, Request, Service, StopConditions, Tokenizer,
};
use crate::model::ModelOptions;
use crate::weights::{self, Checkpoint, GenerationConfig, LoadOptions, Progress};
use answer::Answer;
use grammars::Grammars;
use names::{OfferedNames, TokenBytes};
use prompts::Prompts;

pub use answer::{ChatSink, call_id};
pub use control::ControlTokens;
pub use detect::{Detected, detect_version};
pub use prompt::ChatPrompt;

/// A checkpoint's engine, tokenizer and chat format. Clones share the engine.
#[derive(Debug, Clone)]
pub struct LocalChat {
    name: String,
    service: Service,
    tokenizer: Tokenizer,
    version: Version,
    prompts: Prompts,
    /// How the format is known.
    version_reason: String,
    stop_ids: Vec<u32>,
    /// Ids that begin a turn: a model that writes one forgot to end its own.
    turn_ids: Vec<u32>,
    grammars: Grammars,
    tokens: TokenBytes,
    control_tokens: ControlTokens,
}

impl LocalChat {
    /// A chat in a format on a running engine.
    ///
    /// # Errors
    /// [`ChatModelError::Unsupported`] if the engine has no tokenizer, or one without the format's tokens, or if the
    /// prompts of the format need a checkpoint's template ([`Self::load`]).
    pub fn new(name: impl Into<String>, service: Service, version: Version) -> Result<Self> {
        if !Version::ALL.contains(&version) {
            let what = format!("the chat format {version}");
            let needs = "the chat template of a checkpoint folder";
            return Err(ChatModelError::Unsupported { what, field: None, needs });
        }
        Self::with_prompts(name.into(), service, version, Prompts::Own)
    }

    fn with_prompts(name: String, service: Service, version: Version, prompts: Prompts) -> Result<Self> {
        let what = format!("the chat format {version}");
        let unsupported = |needs| ChatModelError::Unsupported { what: what.clone(), field: None, needs };
        let tokenizer = service.tokenizer().cloned().ok_or_else(|| unsupported("an engine with a tokenizer"))?;
        let eos = tokenizer.token_to_id(version.eos());
        if eos.is_none() && matches!(prompts, Prompts::Own) {
            return Err(unsupported("a tokenizer with the end-of-sentence token"));
        }
        let stop_ids: Vec<u32> = eos.into_iter().collect();
        let grammars = Grammars::new(&tokenizer, &stop_ids, service.vocab_size());
        let turn_ids = version.turn_tokens().into_iter().filter_map(|token| tokenizer.token_to_id(token)).collect();
        let tokens = TokenBytes::new(&tokenizer, service.vocab_size());
        Ok(Self {
            name,
            service,
            tokenizer,
            version,
            prompts,
            version_reason: "it was asked for".to_string(),
            stop_ids,
            turn_ids,
            grammars,
            tokens,
            control_tokens: ControlTokens::default(),
        })
    }

    /// Loads a checkpoint folder in Hugging Face format and starts its engine. The folder's name is the model's, or
    /// `owner/name` if the folder is in the hub's cache; [`Self::with_name`] gives it another.
    ///
    /// The folder's files tell the format ([`detect_version`]). If the tokenizer is not DeepSeek's, prompts are those of
    /// the checkpoint's own chat template ([`ChatTemplate`], feature `template`). Without a template, [`Self::prompt`]
    /// fails and says why, while the engine completes plain text all the same.
    ///
    /// On a GPU the cache is bounded to what its memory holds ([`MemoryPlan`]).
    ///
    /// # Errors
    /// As [`LocalModel::load`], and if the tokenizer can't be loaded or does not fit.
    pub fn load(
        dir: impl AsRef<Path>,
        load: &LoadOptions,
        model: impl Into<ModelOptions>,
        engine: EngineOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Self> {
        let dir = dir.as_ref();
        weights::check_folder(dir)?;
        let tokenizer = Tokenizer::load(dir)?;
        let (Detected { version, reason }, prompts) = prompts::of_checkpoint(dir, &tokenizer);
        tracing::info!(%version, reason, "chat format");
        let mut stop_ids = GenerationConfig::load(dir)?.map(|config| config.eos_token_id).unwrap_or_default();
        let model = model.into();
        let mut engine = engine;
        if let Some(plan) =
            MemoryPlan::new(&Checkpoint::open(dir)?, load, model, &engine).map_err(GenerationError::from)?
        {
            tracing::info!("{plan}");
            let most = engine.max_cached_tokens.unwrap_or(usize::MAX);
            engine.max_cached_tokens = Some(most.min(plan.tokens()));
        }
        let model = LocalModel::load_with(dir, load, model, progress)?;
        if !matches!(prompts, Prompts::Own) {
            stop_ids.extend(&model.model().config().eos_token_id);
        }
        let service = Service::start(Engine::new(model, engine)?.with_tokenizer(tokenizer)?)?;
        let chat = Self::with_prompts(prompts::model_name(dir), service, version, prompts)?;
        Ok(Self { version_reason: reason, ..chat.with_stop_ids(stop_ids) })
    }

    /// The same with more ids that end an answer. Ids that are not below the model's `vocab_size`, which it can never write,
    /// and those that end an answer already change nothing; [`Self::stop_ids`] returns what does.
    pub fn with_stop_ids(mut self, stop_ids: impl IntoIterator<Item = u32>) -> Self {
        for id in stop_ids {
            if !self.stop_ids.contains(&id) && (id as usize) < self.service.vocab_size() {
                self.stop_ids.push(id);
            }
        }
        self.grammars = Grammars::new(&self.tokenizer, &self.stop_ids, self.service.vocab_size());
        self
    }

    /// The same under another name.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same in another format.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_version(self, version: Version) -> Result<Self> {
        let other = Self::new(self.name, self.service, version)?;
        Ok(other.with_stop_ids(self.stop_ids).with_control_tokens(self.control_tokens))
    }

    /// The same with another way to treat control tokens in text from outside.
    pub fn with_control_tokens(self, control_tokens: ControlTokens) -> Self {
        Self { control_tokens, ..self }
    }

    /// What becomes of control tokens in text from outside.
    pub fn control_tokens(&self) -> ControlTokens {
        self.control_tokens
    }

    /// The chat format.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the format is known: what of the checkpoint says so ([`Detected::reason`]), or that it was asked for.
    pub fn version_reason(&self) -> &str {
        &self.version_reason
    }

    /// The checkpoint's own template, if prompts are rendered by it.
    pub fn template(&self) -> Option<&ChatTemplate> {
        match &self.prompts {
            Prompts::Template(template) => Some(template),
            Prompts::Own | Prompts::Nobody(_) => None,
        }
    }

    /// The engine.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Ids that begin a turn, which end an answer too.
    pub fn turn_ids(&self) -> &[u32] {
        &self.turn_ids
    }

    /// The prompt of a request.
    ///
    /// # Errors
    /// [`ChatModelError::Chat`] or [`ChatModelError::Template`] if the conversation can't be rendered;
    /// [`ChatModelError::NoChatFormat`] if none can; [`ChatModelError::ControlToken`] if it holds control
    /// tokens, and those are to be refused; [`GenerationError::PromptTooLarge`] if its bytes alone say that it does not
    /// fit the context.
    pub fn prompt(&self, request: &ChatRequest) -> Result<ChatPrompt> {
        self.control_tokens.check(request, &self.tokenizer)?;
        let max_context = self.service.max_context();
        match &self.prompts {
            Prompts::Own => prompt::prompt(request, self.version, &self.tokenizer, max_context),
            Prompts::Template(template) => {
                prompts::by_template(request, self.version, template, &self.tokenizer, max_context)
            }
            Prompts::Nobody(reason) => Err(ChatModelError::NoChatFormat { reason: reason.clone() }),
        }
    }

    /// Starts an answer without waiting for it; returns its prompt.
    ///
    /// # Errors
    /// If the request can't be put into a prompt, or the engine is gone. What the engine itself refuses comes to the
    /// sink.
    pub fn submit(&self, request: ChatRequest, sink: ChatSink) -> Result<ChatPrompt> {
        let prompt = self.prompt(&request)?;
        self.submit_prompt(&prompt, request, sink)?;
        Ok(prompt)
    }

    /// Starts an answer to a prompt of [`Self::prompt`].
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_prompt(&self, prompt: &ChatPrompt, request: ChatRequest, sink: ChatSink) -> Result<()> {
        if request.stop.iter().any(String::is_empty) {
            let (value, expected) = ("\"\"".to_string(), "strings that are not empty");
            return Err(GenerationError::Parameter { name: "stop", value, expected }.into());
        }
        let tools = request.shown_tools();
        let constraint = match self.grammars.constraint(&request, self.version, prompt.start)? {
            Some(constraint) => Some(constraint),
            None => OfferedNames::new(self.version, &tools, &self.tokens).map(|names| Box::new(names) as _),
        };
        let think_end = self.tokenizer.token_to_id(self.version.think_end());
        let answer = Answer::new(self.version, prompt.start, &tools, sink).with_stop(&request.stop);
        let answer = answer.with_stream_calls(request.stream_calls);
        let mut answer = answer.with_ids(think_end, &self.turn_ids);
        let ends = self.stop_ids.iter().chain(&self.turn_ids).copied().collect();
        let request = Request {
            prompt_ids: prompt.ids.clone(),
            params: request.params,
            stop: StopConditions { ids: ends, strings: Vec::new() },
            max_tokens: request.max_tokens,
            logprobs: request.logprobs,
            record: request.record,
            cancel: request.cancel,
            constraint,
            ..Request::default()
        };
        Ok(self.service.submit(request, Box::new(move |event| answer.event(event)))?)
    }
}

impl ChatModel for LocalChat {
    fn name(&self) -> &str {
        &self.name
    }

    fn context_length(&self) -> usize {
        self.service.max_context()
    }

    fn count_tokens(&self, request: &ChatRequest) -> Result<Option<usize>> {
        Ok(Some(self.prompt(request)?.ids.len()))
    }

    fn chat(&self, mut request: ChatRequest, on_event: &mut dyn FnMut(ChatEvent)) -> Result<ChatResponse> {
        let (sender, received) = mpsc::channel();
        request.cancel.get_or_insert_with(Cancel::new);
        self.submit(request, Box::new(move |told| sender.send(told).is_ok()))?;
        for told in received {
            match told? {
                ControlFlow::Continue(event) => on_event(event),
                ControlFlow::Break(response) => return Ok(response),
            }
        }
        Err(GenerationError::Stopped.into())
    }
}
