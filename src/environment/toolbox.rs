//! Tools with what they do.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::chat::{Json, Tool, ToolCall, ToolError, ToolSet};

/// Why a tool could not do what it was asked; its text is for the model. Strings and errors turn into it with `?` and
/// `into()`.
pub type ToolFailure = Box<dyn std::error::Error + Send + Sync>;

/// A tool and what it does.
pub trait ToolHandler: Send + Sync {
    /// The tool as the model sees it; always the same.
    fn tool(&self) -> &Tool;

    /// Carries out a call. The arguments are an object, and with the feature `schema` one that follows the tool's
    /// schema.
    ///
    /// # Errors
    /// The model gets the text of the error and may try again.
    fn call(&self, arguments: &Json) -> Result<String, ToolFailure>;
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallResult {
    /// The text for the model.
    pub content: String,
    /// Whether the call failed; the text then says why.
    pub failed: bool,
}

/// Tools that an agent may call. Clones share the handlers.
#[derive(Clone)]
pub struct Toolbox {
    entries: Vec<Entry>,
    max_parallel: usize,
}

#[derive(Clone)]
struct Entry {
    /// The tool alone, for the check of its calls.
    set: ToolSet,
    handler: Arc<dyn ToolHandler>,
}

impl Default for Toolbox {
    fn default() -> Self {
        Self { entries: Vec::new(), max_parallel: 8 }
    }
}

impl Toolbox {
    /// An empty one. Up to 8 calls of one answer run at the same time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// [`ToolError::Definition`]: it has no name, or one that is taken, or (with the feature `schema`) its parameters are
    /// no JSON Schema.
    pub fn insert(&mut self, handler: Arc<dyn ToolHandler>) -> Result<(), ToolError> {
        let tool = handler.tool().clone();
        if self.get(tool.name()).is_some() {
            let problem = "is defined twice".to_string();
            return Err(ToolError::Definition { name: tool.name().to_string(), problem });
        }
        self.entries.push(Entry { set: ToolSet::new([tool])?, handler });
        Ok(())
    }

    /// The same with a tool that is a function.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn with<F>(mut self, tool: Tool, function: F) -> Result<Self, ToolError>
    where
        F: Fn(&Json) -> Result<String, ToolFailure> + Send + Sync + 'static,
    {
        self.insert(Arc::new(Function { tool, function }))?;
        Ok(self)
    }

    /// The same with a tool that is a function of a Rust type: its schema follows from the type.
    ///
    /// # Errors
    /// As [`Self::insert`].
    #[cfg(feature = "schema")]
    pub fn with_type<T, F>(self, name: &str, description: &str, function: F) -> Result<Self, ToolError>
    where
        T: schemars::JsonSchema + serde::de::DeserializeOwned,
        F: Fn(T) -> Result<String, ToolFailure> + Send + Sync + 'static,
    {
        self.with(Tool::from_type::<T>(name, description), move |arguments| {
            function(serde_json::from_str(&arguments.to_string())?)
        })
    }

    /// The same with at most this many calls of one answer at the same time; 1 = one after another.
    pub fn with_max_parallel(self, max_parallel: usize) -> Self {
        Self { max_parallel: max_parallel.max(1), ..self }
    }

    /// The tools as the model sees them, in the order they came.
    pub fn tools(&self) -> Vec<Tool> {
        self.entries.iter().flat_map(|entry| entry.set.tools()).cloned().collect()
    }

    /// The handler of a tool.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ToolHandler>> {
        self.entry(name).map(|entry| &entry.handler)
    }

    /// Carries out one call. Whatever is wrong with it, or goes wrong in it (a panic of the handler, too), becomes a
    /// text that the model can read.
    pub fn call(&self, call: &ToolCall) -> CallResult {
        let outcome = self.entry(&call.name).map_or_else(
            || {
                let known = self.tools().iter().map(|tool| tool.name().to_string()).collect();
                Err(ToolError::Unknown { name: call.name.clone(), known }.to_string())
            },
            |entry| {
                let arguments = entry.set.check(call).map_err(|error| error.to_string())?;
                match catch_unwind(AssertUnwindSafe(|| entry.handler.call(&arguments))) {
                    Ok(result) => result.map_err(|error| error.to_string()),
                    Err(panic) => Err(format!("{} broke down: {}", call.name, panic_text(&*panic))),
                }
            },
        );
        match outcome {
            Ok(content) => CallResult { content, failed: false },
            Err(problem) => CallResult { content: format!("Error: {problem}"), failed: true },
        }
    }

    /// Carries out the calls of one answer, as many at the same time as the toolbox allows. `on_result` is told of each
    /// as it ends, with its place among the calls; the results come in the order of the calls.
    pub fn call_all(&self, calls: &[ToolCall], mut on_result: impl FnMut(usize, &CallResult)) -> Vec<CallResult> {
        let mut results: Vec<Option<CallResult>> = vec![None; calls.len()];
        let next = AtomicUsize::new(0);
        let run = &|done: &mut dyn FnMut(usize, CallResult)| {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(call) = calls.get(at) else { return };
                done(at, self.call(call));
            }
        };
        let mut done = |at: usize, result: CallResult| {
            on_result(at, &result);
            results[at] = Some(result);
        };
        let workers = self.max_parallel.min(calls.len());
        if workers > 1 {
            thread::scope(|scope| {
                let (sender, received) = mpsc::channel();
                for _ in 0..workers {
                    let sender = sender.clone();
                    let worker = move || {
                        run(&mut |at, result| {
                            // The receiver lives as long as the scope.
                            let _ = sender.send((at, result));
                        });
                    };
                    // Where the system gives no thread, the others and the end of this function do the work.
                    let _ = thread::Builder::new().name("tool".to_string()).spawn_scoped(scope, worker);
                }
                drop(sender);
                received.iter().for_each(|(at, result)| done(at, result));
            });
        }
        run(&mut done);
        results.into_iter().flatten().collect()
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.set.get(name).is_some())
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tools = self.tools();
        let names: Vec<&str> = tools.iter().map(Tool::name).collect();
        f.debug_struct("Toolbox").field("tools", &names).field("max_parallel", &self.max_parallel).finish()
    }
}

/// A tool that is a function.
struct Function<F> {
    tool: Tool,
    function: F,
}

impl<F> ToolHandler for Function<F>
where
    F: Fn(&Json) -> Result<String, ToolFailure> + Send + Sync,
{
    fn tool(&self) -> &Tool {
        &self.tool
    }

    fn call(&self, arguments: &Json) -> Result<String, ToolFailure> {
        (self.function)(arguments)
    }
}

/// The message of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}
