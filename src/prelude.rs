//! What a program with chat, tools and an agent uses: `use deepseek_v32::prelude::*;`.

pub use crate::agent::{Agent, AgentEvent, AgentEventKind, AgentOptions, ContextManagement};
pub use crate::chat::{Delta, Json, Message, Tool};
pub use crate::chat_model::{ChatEvent, ChatModel, ChatRequest, LocalChat};
pub use crate::environment::Toolbox;
pub use crate::generation::{EngineOptions, SamplingParams};
pub use crate::model::{CacheFormat, ModelOptions, Precision};
pub use crate::weights::LoadOptions;
