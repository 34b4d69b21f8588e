//! An n-gram model: the baseline that a new model has to beat.

use std::collections::HashMap;

use super::batch::Example;
use super::error::{Result, TrainingError};

/// Stands before the first token of a sequence. No vocabulary has that many ids.
const START: u32 = u32::MAX;

/// Probabilities of a token after the `order - 1` tokens before it, by interpolated Kneser-Ney smoothing.
///
/// The longest grams have their counts, shorter ones the number of different tokens that precede them. Each count is
/// shortened by a discount, `n1 / (n1 + 2 n2)` of its order (`n1`, `n2`: grams counted once and twice; 0.5 where none was counted once), and what is cut off
/// goes to the next shorter context; the shortest one shares with all ids alike. So every id has a probability, and they add
/// up to one.
///
/// ```
/// use deepseek_v32::training::{Example, NGram};
///
/// let model = NGram::count(&[Example::whole(vec![0, 1, 2, 0, 1, 2, 0, 1, 3])], 3, 4)?;
/// assert!(model.probability(&[0, 1], 2) > model.probability(&[0, 1], 3));
/// # Ok::<(), deepseek_v32::Error>(())
/// ```
///
/// # Source
/// Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998, section 3.
#[derive(Debug, Clone)]
pub struct NGram {
    order: usize,
    vocab_size: usize,
    /// The context that is another one and a token further to the left. Context 0 is empty.
    longer: HashMap<(u32, u32), u32>,
    /// Counts of tokens behind a context.
    counts: HashMap<(u32, u32), u32>,
    contexts: Vec<Context>,
    /// For each length of a context.
    discounts: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Context {
    length: usize,
    /// The sum of the counts behind it, and how many there are.
    total: u64,
    different: u64,
}

impl NGram {
    /// Counts the grams of all tokens but each example's first, up to a length of `order`.
    ///
    /// # Errors
    /// If `order` is 0 or an id is not below `vocab_size`.
    pub fn count(examples: &[Example], order: usize, vocab_size: usize) -> Result<Self> {
        if order == 0 {
            return Err(TrainingError::value("order", "at least 1", order));
        }
        let mut model = Self {
            order,
            vocab_size,
            longer: HashMap::new(),
            counts: HashMap::new(),
            contexts: vec![Context::default()],
            discounts: Vec::new(),
        };
        for example in examples {
            model.check(&example.ids)?;
            for at in 1..example.ids.len() {
                model.add(&example.ids[..at], example.ids[at]);
            }
        }
        let mut once_twice = vec![[0u64; 2]; order];
        for (&(context, _), &count) in &model.counts {
            if let Some(found) = once_twice[model.contexts[context as usize].length].get_mut(count as usize - 1) {
                *found += 1;
            }
        }
        let discount = |[once, twice]: [u64; 2]| match once {
            // No count that says how much is missing: a half, so that no id's probability is 0.
            0 => 0.5,
            _ => once as f64 / (once + 2 * twice) as f64,
        };
        model.discounts = once_twice.into_iter().map(discount).collect();
        Ok(model)
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => Err(TrainingError::value("id", format!("below vocab_size = {}", self.vocab_size), id)),
            None => Ok(()),
        }
    }

    fn add(&mut self, before: &[u32], id: u32) {
        let mut chain = vec![0];
        for back in 1..self.order {
            let key = (chain[back - 1], token_back(before, back));
            let next = self.contexts.len() as u32;
            let context = *self.longer.entry(key).or_insert(next);
            if context == next {
                self.contexts.push(Context { length: back, ..Context::default() });
            }
            chain.push(context);
        }
        // A gram that is new precedes a shorter one in a new way.
        for context in chain.into_iter().rev() {
            let count = self.counts.entry((context, id)).or_default();
            *count += 1;
            let of = &mut self.contexts[context as usize];
            of.total += 1;
            if *count > 1 {
                break;
            }
            of.different += 1;
        }
    }

    /// The probability of `id` after the tokens `before` it in its sequence, of which the last `order - 1` are looked at; 0 for
    /// an id that is not in the vocabulary.
    pub fn probability(&self, before: &[u32], id: u32) -> f64 {
        if id as usize >= self.vocab_size {
            return 0.0;
        }
        let mut probability = 1.0 / self.vocab_size as f64;
        let mut context = 0;
        for length in 0..self.order {
            if length > 0 {
                match self.longer.get(&(context, token_back(before, length))) {
                    Some(&longer) => context = longer,
                    None => break,
                }
            }
            let Context { total, different, .. } = self.contexts[context as usize];
            if total == 0 {
                break;
            }
            let (count, total) = (self.counts.get(&(context, id)).copied().unwrap_or(0), total as f64);
            let discount = self.discounts[length];
            let own = (f64::from(count) - discount).max(0.0) / total;
            probability = own + discount * different as f64 / total * probability;
        }
        probability
    }

    /// The mean loss on examples, nats a token, over those that a model's next-token loss counts.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or no token counts.
    pub fn loss(&self, examples: &[Example]) -> Result<f64> {
        let (mut sum, mut tokens) = (0.0, 0usize);
        for Example { ids, learnt } in examples {
            self.check(ids)?;
            for at in (1..ids.len()).filter(|&at| learnt.get(at) == Some(&true)) {
                sum -= self.probability(&ids[..at], ids[at]).ln();
                tokens += 1;
            }
        }
        match tokens {
            0 => Err(TrainingError::value("examples", "tokens that have a next one", "none")),
            _ => Ok(sum / tokens as f64),
        }
    }
}

/// The token that many places before the next one.
fn token_back(before: &[u32], back: usize) -> u32 {
    before.len().checked_sub(back).and_then(|at| before.get(at)).copied().unwrap_or(START)
}
