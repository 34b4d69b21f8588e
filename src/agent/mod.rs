//! The loop between a model that chats and the tools of its environment.
//!
//! - [`Agent`] asks the model, carries out the calls of the answer (in parallel where it can) and asks again. It stops at
//!   an answer without calls or at a limit of [`AgentOptions`] ([`Stop`]). Every step is reported as an
//!   [`AgentEvent`]. [`Agent::run_traced`] writes the run to a file, [`Agent::resume`] continues from one and
//!   [`read_records`] reads what it holds for training.
//! - [`ContextManagement`] decides what happens when the context fills: `None` ends the run, `Summary` lets the model
//!   write down what it found, `Discard75` and `DiscardAll` drop steps, `ParallelFewestStep` makes several runs and
//!   takes the shortest that answers. [`Outcome`] reports the steps and tokens of each.

mod context;
mod error;
mod options;
mod outcome;
mod retry;
mod routes;
mod run;
mod state;
mod tool_agent;
mod trace;

pub use context::{ContextManagement, Managed};
pub use error::{AgentError, Result};
pub use options::AgentOptions;
pub use outcome::{AgentEvent, AgentEventKind, Outcome, RunReport, Stop};
pub use tool_agent::Agent;
pub use trace::read_records;
