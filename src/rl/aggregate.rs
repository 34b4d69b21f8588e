//! Weights of tokens in the loss.

use super::config::{Aggregation, GrpoConfig};

/// Counts over the whole optimizer step, all micro-batches and ranks together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Denominators {
    /// Counted sequences.
    pub sequences: usize,
    /// Generated tokens of counted sequences.
    pub tokens: usize,
}

/// The weight of each generated token of a counted sequence with `length` generated tokens (at least 1).
///
/// # Source
/// [`Aggregation`].
pub(crate) fn token_weight(config: &GrpoConfig, denominators: Denominators, length: usize) -> f64 {
    let sequences = denominators.sequences.max(1) as f64;
    match config.aggregation {
        Aggregation::SeqMeanTokenMean => 1.0 / sequences / length as f64,
        Aggregation::TokenMean => 1.0 / denominators.tokens.max(1) as f64,
        Aggregation::SeqMeanTokenSum => 1.0 / sequences,
        // `GrpoConfig::validate` asks for the constant.
        Aggregation::SeqMeanTokenSumConst => 1.0 / (sequences * config.agg_const.unwrap_or(1.0)),
    }
}
