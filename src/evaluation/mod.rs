//! What a model costs: its work in operations and bytes, the time and the money that the work takes, and charts of both.
//!
//! [`CostModel`] counts what one step must do at the least, [`Rates`] are what a machine can do, and
//! [`dollars_per_million_tokens`] turns time into money. [`crossover`] finds where one curve gets cheaper than another,
//! and [`svg`] draws curves. [`pass_at_k`] estimates how often one of several attempts succeeds. The example `cost_curves` measures a model and puts it beside these numbers.

mod cost;
mod curve;
mod error;

pub use crate::chart::{ChartError, Panel, Series, svg};
pub use crate::statistics::pass_at_k;
pub use cost::{CostModel, LayerWork, Rates, Step, Storage, WeightFormat, Work};
pub use curve::{crossover, dollars_per_million_tokens, scaled_seconds};
pub use error::{EvaluationError, Result};
