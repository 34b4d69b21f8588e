//! A penalty on length.

use super::Reward;
use crate::rl::error::Result;
use crate::rl::rollout::Episode;

/// 0 up to `longest - buffer` generated tokens, then falling in a straight line to -1 at `longest`, and -1 beyond.
///
/// # Source
/// The soft overlong punishment of DAPO, arXiv 2503.14476, equation 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlongPenalty {
    /// Generated tokens from which on the penalty is whole.
    pub longest: usize,
    /// Tokens before `longest` over which it grows.
    pub buffer: usize,
}

impl OverlongPenalty {
    /// The value at a number of generated tokens, in `[-1, 0]`.
    pub fn at(&self, tokens: usize) -> f64 {
        let free = self.longest.saturating_sub(self.buffer);
        if tokens >= self.longest { -1.0 } else { -(tokens.saturating_sub(free) as f64) / self.buffer.max(1) as f64 }
    }
}

impl Reward for OverlongPenalty {
    fn name(&self) -> &str {
        "length"
    }

    fn value(&self, episode: &Episode) -> Result<f64> {
        Ok(self.at(episode.usage.completion_tokens))
    }
}
