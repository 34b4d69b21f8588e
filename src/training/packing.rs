//! Examples into batches of a bounded number of tokens, in an order that a seed decides.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Example};
use super::error::{Result, TrainingError, check_count};

/// What happens to an example that is longer than a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LongExamples {
    /// It is an error.
    #[default]
    Refuse,
    /// Its end is left out.
    Cut,
    /// It becomes several examples, each of which begins anew; the first token of each is not learnt, since nothing
    /// precedes it.
    Split,
}

/// How a [`Packer`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackingOptions {
    /// The most tokens in a batch.
    pub batch_tokens: usize,
    /// Decides the order, together with the epoch.
    #[serde(default)]
    pub seed: u64,
    /// How many examples, one after the other in the shuffled order, are packed together: the more, the fuller the
    /// batches.
    #[serde(default = "default_window")]
    pub window: usize,
    /// What happens to longer examples.
    #[serde(default)]
    pub long_examples: LongExamples,
}

fn default_window() -> usize {
    1024
}

impl PackingOptions {
    /// Batches of this many tokens, seed 0.
    pub fn new(batch_tokens: usize) -> Self {
        Self { batch_tokens, seed: 0, window: default_window(), long_examples: LongExamples::Refuse }
    }
}

/// Where a [`Packer`] is: all that has to be saved to go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Passes through all examples that are over.
    pub epoch: u64,
    /// Batches of the pass that were given out.
    pub batch: usize,
}

/// Gives out batches without end, every example once in each epoch.
///
/// The order depends on the examples' number and lengths, the options and the epoch alone, so that a packer that is set
/// to another one's [`Position`] gives the same batches.
#[derive(Debug, Clone)]
pub struct Packer {
    examples: Vec<Example>,
    options: PackingOptions,
    position: Position,
    /// The batches of the epoch: numbers of examples.
    plan: Vec<Vec<usize>>,
}

impl Packer {
    /// Returns a packer at the beginning of the first epoch.
    ///
    /// # Errors
    /// If there are no examples, one is empty, has not as many marks as ids or is too long, or an option is 0.
    pub fn new(examples: Vec<Example>, options: PackingOptions) -> Result<Self> {
        for (name, value) in [("batch_tokens", options.batch_tokens), ("window", options.window)] {
            if value == 0 {
                return Err(TrainingError::value(name, "at least 1", value));
            }
        }
        let mut fitting = Vec::with_capacity(examples.len());
        for (at, mut example) in examples.into_iter().enumerate() {
            check_count("learnt", example.ids.len(), example.learnt.len())?;
            match example.ids.len() {
                0 => return Err(TrainingError::value(format!("example {at}"), "at least one id", "empty")),
                length if length <= options.batch_tokens => fitting.push(example),
                length => match options.long_examples {
                    LongExamples::Refuse => {
                        let expected = format!("at most batch_tokens = {} ids", options.batch_tokens);
                        return Err(TrainingError::value(format!("example {at}"), expected, format!("{length} ids")));
                    }
                    LongExamples::Cut => {
                        example.ids.truncate(options.batch_tokens);
                        example.learnt.truncate(options.batch_tokens);
                        fitting.push(example);
                    }
                    LongExamples::Split => {
                        let ids = example.ids.chunks(options.batch_tokens);
                        let learnt = example.learnt.chunks(options.batch_tokens);
                        let part =
                            |(ids, learnt): (&[u32], &[bool])| Example { ids: ids.into(), learnt: learnt.into() };
                        fitting.extend(ids.zip(learnt).map(part));
                    }
                },
            }
        }
        if fitting.is_empty() {
            return Err(TrainingError::value("examples", "at least one", "none"));
        }
        let mut packer = Self { examples: fitting, options, position: Position::default(), plan: Vec::new() };
        packer.plan = packer.plan_of(0);
        Ok(packer)
    }

    /// The examples, of which long ones have been cut or split.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Where the packer is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes to a position.
    ///
    /// # Errors
    /// If the epoch has fewer batches.
    pub fn seek(&mut self, position: Position) -> Result<()> {
        let plan = self.plan_of(position.epoch);
        if position.batch > plan.len() {
            let expected = format!("at most {} in epoch {}", plan.len(), position.epoch);
            return Err(TrainingError::value("position.batch", expected, position.batch));
        }
        self.plan = plan;
        self.position = position;
        Ok(())
    }

    /// Batches of the epoch that the packer is in.
    pub fn batches(&self) -> usize {
        self.plan.len()
    }

    /// Returns the next batch; behind the last of an epoch comes the first of the next one.
    ///
    /// # Errors
    /// None for examples that [`Self::new`] took.
    pub fn next_batch(&mut self) -> Result<Batch> {
        if self.position.batch >= self.plan.len() {
            self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
            self.plan = self.plan_of(self.position.epoch);
        }
        let batch = Batch::new(self.plan[self.position.batch].iter().map(|&example| &self.examples[example]))?;
        self.position.batch += 1;
        Ok(batch)
    }

    fn plan_of(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.options.seed);
        rng.set_stream(epoch);
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        order.shuffle(&mut rng);
        let mut plan = Vec::new();
        for window in order.chunks_mut(self.options.window) {
            // The longest first, each into the first batch with room.
            window.sort_by_key(|&example| std::cmp::Reverse(self.examples[example].ids.len()));
            let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
            for &example in window.iter() {
                let length = self.examples[example].ids.len();
                match open.iter_mut().find(|(tokens, _)| tokens + length <= self.options.batch_tokens) {
                    Some((tokens, batch)) => {
                        *tokens += length;
                        batch.push(example);
                    }
                    None => open.push((length, vec![example])),
                }
            }
            open.shuffle(&mut rng);
            plan.extend(open.into_iter().map(|(_, batch)| batch));
        }
        plan
    }
}
