//! The crate's root error, which gathers those of its modules.
//!
//! Every message is one line that names what was wrong, what was expected and where.

use crate::agent::AgentError;
use crate::chat::{ChatError, GrammarError, ToolError};
use crate::chat_model::ChatModelError;
use crate::config::ConfigError;
use crate::distributed::DistributedError;
use crate::evaluation::EvaluationError;
use crate::generation::GenerationError;
use crate::model::ReplayError;
use crate::rl::RlError;
use crate::synthesis::SynthesisError;
use crate::training::TrainingError;
use crate::weights::WeightsError;

pub use crate::show::{one_line, one_line_path};

/// `std::result::Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of any module. No module of the crate returns it: it is for callers that use several of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Recorded choices can't be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The engine refused a request or failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A conversation or a completion does not follow its format.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A tool, a call or a choice of tools was refused.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// An answer can't be held to what was asked for.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// A model that chats failed.
    #[error(transparent)]
    ChatModel(#[from] ChatModelError),
    /// An agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Ranks could not tell each other something.
    #[error(transparent)]
    Distributed(#[from] DistributedError),
    /// Training failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A cost or a chart was refused.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A loss of reinforcement learning was refused.
    #[error(transparent)]
    Rl(#[from] RlError),
    /// The synthesis of tasks failed.
    #[error(transparent)]
    Synthesis(#[from] SynthesisError),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
