//! The language that tasks are written in.
//!
//! A [`Goal`] says what is wanted of the tables. Run on the tables it is the verifier; run through tools ([`solve`]) it
//! is the solution; [`python`] prints both.

mod access;
mod goal;
pub mod python;
mod query;
mod slots;

pub use access::{By, Plan, ToolSource, listed, plan, setter, solve};
pub use goal::{Expected, Goal, Wanted};
pub use query::{Comparison, Extreme, Filter, Rows, Scalar, Source};
pub use slots::{Constraint, Filling, Group, Slot, Slots};
