//! Makes environments and tasks for agents, without a model and the same from the same seed.

pub mod family;
pub mod gate;
mod compose;
mod instance;
mod make;
pub mod program;
pub mod record;
mod seed;
pub mod split;
mod style;
mod toolset;

pub use instance::{Instance, Made};
pub use make::{MakeError, Output, Run};
pub use seed::Stream;
pub use style::Style;
