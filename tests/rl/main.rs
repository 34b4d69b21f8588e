//! Reinforcement learning: recorded losses, exact gradients by enumeration, invariances, small tasks that are learnt.

mod aggregation;
mod clip;
mod common;
mod fixtures;
mod groups;
mod kept_sets;
mod kl;
mod learning;
mod off_policy;
mod policy_gradient;
mod refusals;
mod rewards;
mod rollouts;
mod trainer;

#[path = "../support/agent_support/mod.rs"]
mod agent_support;
