//! What a model costs: its work in operations and bytes, the time and the money that the work takes, and charts of both.
//!
//! [`CostModel`] counts what one step must do at the least, [`Rates`] are what a machine can do, and
//! [`dollars_per_million_tokens`] turns time into money. [`crossover`] finds where one curve gets cheaper than another,
//! and [`svg`] draws curves. The example `cost_curves` measures a model and puts it beside these numbers.

mod chart;
mod cost;
mod curve;
mod error;

pub use chart::{Panel, Series, svg};
pub use cost::{CostModel, LayerWork, Rates, Step, Storage, WeightFormat, Work};
pub use curve::{crossover, dollars_per_million_tokens, scaled_seconds};
pub use error::{EvaluationError, Result};
