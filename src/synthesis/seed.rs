//! Random numbers that depend on a seed and a path alone, never on what was drawn elsewhere.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A stream of random numbers for one purpose.
#[derive(Debug, Clone)]
pub struct Stream {
    path: String,
    rng: ChaCha8Rng,
}

impl Stream {
    /// The stream of a seed and a path.
    pub fn new(seed: u64, path: &str) -> Self {
        let path = format!("{seed}/{path}");
        Self { rng: ChaCha8Rng::from_seed(Sha256::digest(path.as_bytes()).into()), path }
    }

    /// The stream of a path below this one; the same however much was drawn from this one.
    pub fn child(&self, name: &str) -> Self {
        let path = format!("{}/{name}", self.path);
        Self { rng: ChaCha8Rng::from_seed(Sha256::digest(path.as_bytes()).into()), path }
    }

    /// A number below `count`; 0 if `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        // As u64, so that 32-bit machines draw the same.
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if count == 0 { 0 } else { usize::try_from(self.rng.random_range(0..count)).unwrap_or_default() }
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        self.rng.random_range(low..=high.max(low))
    }

    /// True in `of_100` of 100 cases.
    pub fn chance(&mut self, of_100: usize) -> bool {
        self.below(100) < of_100
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// One of some texts, empty if there are none.
    pub fn word<'a>(&mut self, words: &[&'a str]) -> &'a str {
        self.pick(words).copied().unwrap_or_default()
    }

    /// Brings items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
