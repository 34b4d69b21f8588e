//! Makes environments and tasks for agents, without a model and the same from the same seed.

mod category;
mod compose;
mod error;
mod export;
pub mod family;
pub mod gate;
mod general;
mod instance;
mod make;
pub mod program;
pub mod record;
mod report;
mod run;
mod seed;
pub mod solver;
pub mod split;
mod store;
mod style;
mod toolset;

pub use category::{Category, Content, Opened, TaskGoal};
pub use error::{Result, SynthesisError};
pub use export::{each_record, export_python};
pub use general::Tables;
pub use instance::{Instance, Made};
pub use run::{MakeError, Output, Plan, Run, Size};
pub use seed::Stream;
pub use store::{Progress, Store};
pub use style::Style;
