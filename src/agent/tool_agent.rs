//! The agent.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use super::context::ContextManagement;
use super::error::Result;
use super::options::AgentOptions;
use super::outcome::{AgentEvent, AgentEventKind, Outcome, RunReport, Stop};
use super::run::Run;
use super::state::State;
use super::trace::{Begin, Fault, Opened, Record, Trace};
use crate::chat::Message;
use crate::chat_model::{ChatModel, ChatUsage};
use crate::environment::Toolbox;
use crate::generation::{Cancel, GenerationError};

/// A model that works with tools until it has an answer.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use deepseek_v32::agent::Agent;
/// # use deepseek_v32::chat_model::ChatModel;
/// # use deepseek_v32::environment::Toolbox;
/// # use deepseek_v32::chat::{Json, Message, Tool};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let model: Arc<dyn ChatModel> = unimplemented!();
/// let parameters = Json::parse(r#"{"type": "object", "properties": {"city": {"type": "string"}}}"#)?;
/// let tools = Toolbox::new().with(Tool::new("get_weather", "Get the weather in a city.", parameters), |arguments| {
///     let city = arguments.get("city").and_then(Json::as_str).ok_or("which city?")?;
///     Ok(format!("{city}: 18 degrees and sunny"))
/// })?;
/// let outcome = Agent::new(model, tools).run([Message::user("weather in Lisbon")], &mut |_| ())?;
/// println!("{}", outcome.message.unwrap().content);
/// # Ok(())
/// # }
/// ```
///
/// An answer without calls ends a run. Within a run the model sees its own reasoning again; to go on, append a user
/// message to [`Outcome::messages`] and run again, which drops the reasoning before it. What the model wrote is kept as the
/// ids it wrote ([`Message::written_ids`]).
#[derive(Clone)]
pub struct Agent {
    pub(super) model: Arc<dyn ChatModel>,
    pub(super) tools: Toolbox,
    options: AgentOptions,
    pub(super) cancel: Cancel,
}

impl Agent {
    /// An agent with the default options.
    pub fn new(model: Arc<dyn ChatModel>, tools: Toolbox) -> Self {
        Self { model, tools, options: AgentOptions::default(), cancel: Cancel::new() }
    }

    /// The same with options.
    pub fn with_options(self, options: AgentOptions) -> Self {
        Self { options, ..self }
    }

    /// The same with a switch that ends its runs.
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// The tools.
    pub fn tools(&self) -> &Toolbox {
        &self.tools
    }

    /// The options.
    pub fn options(&self) -> &AgentOptions {
        &self.options
    }

    /// Works on a conversation until the end, telling `on_event` of everything on the way, on this thread.
    ///
    /// # Errors
    /// If the model fails or refuses the conversation. An error of a tool is no error here: the model gets its text.
    pub fn run(&self, messages: impl Into<Vec<Message>>, on_event: &mut dyn FnMut(AgentEvent)) -> Result<Outcome> {
        self.options.validate()?;
        self.work(&self.options, states(&self.options, messages.into()), None, None, on_event)
    }

    /// As [`Self::run`], writing everything down in a new file as it happens; see [`Self::resume`].
    ///
    /// # Errors
    /// As [`Self::run`], and [`AgentError::Trace`](super::AgentError::Trace) if the file is there already or can't be
    /// written. After an error of the model the run can be resumed.
    pub fn run_traced(
        &self,
        messages: impl Into<Vec<Message>>,
        path: impl AsRef<Path>,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<Outcome> {
        let messages = messages.into();
        let begin = Begin {
            model: self.model.name().to_string(),
            options: self.options.clone(),
            tools: self.tools.tools(),
            messages: messages.clone(),
        };
        self.options.validate()?;
        let trace = Trace::create(path.as_ref(), begin)?;
        self.work(&self.options, states(&self.options, messages), Some(&trace), None, on_event)
    }

    /// Continues a run from its trace, with the options it began with, as if it had never been interrupted. Answers and
    /// results that were recorded are not asked for again; a call without a result is made again. A run that had ended
    /// comes back as it was. A last record that was not written to its end does not count, which is told
    /// ([`AgentEventKind::RecordDropped`]). Nothing is written before something happens.
    ///
    /// # Errors
    /// As [`Self::run_traced`]; [`AgentError::Trace`](super::AgentError::Trace) also if the file is no regular file or no
    /// trace, or that of an agent with another model or other tools.
    pub fn resume(&self, path: impl AsRef<Path>, on_event: &mut dyn FnMut(AgentEvent)) -> Result<Outcome> {
        self.resume_to(path.as_ref(), None, on_event)
    }

    /// As [`Self::resume`], with another [`AgentOptions::max_steps`], which the trace keeps: a run that had ended at its
    /// limit goes on if this one allows more. In parallel runs, it is each run's.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_with_max_steps(
        &self,
        path: impl AsRef<Path>,
        max_steps: usize,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<Outcome> {
        self.resume_to(path.as_ref(), Some(max_steps), on_event)
    }

    fn resume_to(
        &self,
        path: &Path,
        max_steps: Option<usize>,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<Outcome> {
        let Opened { trace, begin, lines, torn } = Trace::open(path)?;
        begin.check(self.model.name(), &self.tools.tools()).map_err(|fault| fault.at(1).of(path))?;
        let mut states = states(&begin.options, begin.messages);
        for (i, line) in lines.into_iter().enumerate() {
            let (runs, run) = (states.len(), line.run);
            let state =
                states.get_mut(run).ok_or_else(|| Fault::field("run", format!("is {run}: no such run of {runs}")));
            let applied = state.and_then(|state| {
                state.seconds = line.seconds;
                state.apply(line.record)
            });
            applied.map_err(|fault| fault.at(i + 2).of(path))?;
        }
        if let Some(line) = torn {
            on_event(AgentEvent { run: 0, step: states[0].steps, kind: AgentEventKind::RecordDropped { line } });
        }
        self.work(&begin.options, states, Some(&trace), max_steps, on_event)
    }

    /// Carries on runs until they end; `max_steps` replaces their own limit.
    fn work(
        &self,
        options: &AgentOptions,
        states: Vec<State>,
        trace: Option<&Trace>,
        max_steps: Option<usize>,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<Outcome> {
        let started = Instant::now();
        let go = |run: usize, mut state: State, on_event: &mut dyn FnMut(AgentEvent)| {
            let limit = max_steps.filter(|max_steps| state.takes_limit(*max_steps));
            let unwritten = limit.map(|max_steps| Record::Limit { max_steps });
            if let Some(limit) = &unwritten {
                let applied = state.apply(limit.clone());
                debug_assert_eq!(applied, Ok(()));
            }
            let mut run = Run { agent: self, options, run, state, trace, on_event, started, unwritten };
            let result = run.finish();
            (run.state, result)
        };
        let go = &go;
        if states.len() == 1 {
            return outcome(states.into_iter().map(|state| go(0, state, on_event)).collect());
        }
        let ended = thread::scope(|scope| {
            let (events, received) = mpsc::channel();
            let start = |(run, state): (usize, State)| {
                let events = events.clone();
                let begun = state.clone();
                // The receiver lives until all runs have ended.
                let work = move || go(run, state, &mut |event| drop(events.send(event)));
                let thread = thread::Builder::new().name(format!("run {run}")).spawn_scoped(scope, work);
                thread.map_err(|error| Box::new((begun, Err(GenerationError::Thread(error).into()))))
            };
            let runs: Vec<_> = states.into_iter().enumerate().map(start).collect();
            drop(events);
            received.iter().for_each(on_event);
            let join = |run: thread::ScopedJoinHandle<'_, _>| {
                run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            runs.into_iter().map(|run| run.map_or_else(|failed| *failed, join)).collect()
        });
        outcome(ended)
    }
}

/// The initial state of each run.
fn states(options: &AgentOptions, messages: Vec<Message>) -> Vec<State> {
    let runs = match options.context {
        ContextManagement::ParallelFewestStep { runs } => runs,
        _ => 1,
    };
    vec![State::new(messages, options.max_steps); runs]
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Agent");
        debug.field("model", &self.model.name()).field("tools", &self.tools).field("options", &self.options).finish()
    }
}

/// The outcome of the runs: of those that answered something, the one with the fewest steps counts, else the first that
/// did not fail.
fn outcome(mut ended: Vec<(State, Result<()>)>) -> Result<Outcome> {
    let report = |(state, result): &(State, Result<()>)| RunReport {
        stop: state.stop,
        error: result.as_ref().err().map(ToString::to_string),
        steps: state.steps,
        usage: state.usage,
    };
    let runs: Vec<RunReport> = ended.iter().map(report).collect();
    // A run whose answer is blank or a call that could not be read answers nothing.
    let said = |at: usize| {
        let state = &ended[at].0;
        state.call_error.is_none() && state.answer.as_ref().is_some_and(|answer| !answer.content.trim().is_empty())
    };
    let answers = |at: usize| runs[at].stop == Some(Stop::Answer) && said(at);
    let rank = |&at: &usize| (runs[at].stop.is_none(), !answers(at), if answers(at) { runs[at].steps } else { 0 }, at);
    let best = (0..runs.len()).min_by_key(rank).unwrap_or(0);
    let (state, result) = ended.swap_remove(best);
    result?;
    let mut usage = ChatUsage::default();
    runs.iter().for_each(|run| usage += run.usage);
    Ok(Outcome {
        message: state.answer,
        dropped: state.dropped,
        call_error: state.call_error,
        stop: state.stop.unwrap_or(Stop::Cancelled),
        steps: runs.iter().map(|run| run.steps).sum(),
        usage,
        messages: state.messages,
        managed: state.managed,
        run: best,
        runs,
    })
}
