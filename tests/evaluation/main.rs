//! Costs and charts.

mod chart;
mod cost;
mod curve;
mod pass;
