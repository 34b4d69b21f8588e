//! What an agent acts on.
//!
//! [`Toolbox`] is tools with what they do: calls are checked before they are made, and what goes wrong becomes a text
//! that the model can read. An [`Environment`] is a world with a task: it has tools, changes with their calls, and
//! judges how the task was done. [`World`] gives an environment's tools to an agent and keeps hold of it for the
//! verdict. [`Ledger`] is a small one; [`tables`] has those that are made of tables.
//!
//! ```
//! use deepseek_v32::chat::{Message, ToolCall};
//! use deepseek_v32::environment::{Ledger, World};
//!
//! let world = World::new(Box::new(Ledger::new(1, 1)));
//! let messages = world.reset();
//! let call = ToolCall { id: None, name: "list_accounts".into(), arguments: "{}".into() };
//! println!("{}: {}", messages[0].content, world.call(&call)?.content);
//! assert!(!world.verify(Some(&Message::assistant("done"))).solved);
//! # Ok::<(), deepseek_v32::chat::ToolError>(())
//! ```

mod ledger;
pub mod tables;
mod task;
mod toolbox;

pub use ledger::Ledger;
pub use task::{Environment, Verdict, World};
pub use toolbox::{CallResult, ToolFailure, ToolHandler, Toolbox};
