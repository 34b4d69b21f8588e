//! Rewards to advantages, and which sequences count.

use std::collections::BTreeMap;

use super::aggregate::Denominators;
use super::batch::Batch;
use super::config::{Advantage, GrpoConfig, Truncated};
use super::error::{Result, RlError};

/// What the sequences of one optimizer step share: advantages, which of them count, and the denominators.
///
/// It needs no logits, so that it stands before the step's micro-batches: [`Self::select`] takes a micro-batch's part,
/// which keeps the denominators of the whole step.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// `[N]` the advantage of each sequence, the same for all of its tokens.
    pub advantages: Vec<f64>,
    /// `[N]` whether the sequence enters the loss: it has generated tokens, was not dropped and, if
    /// `drop_zero_variance`, its group's rewards differ.
    pub counted: Vec<bool>,
    /// Counts of the whole step.
    pub denominators: Denominators,
    /// Groups whose rewards are all equal (those of one sequence among them), over all groups of the step.
    pub zero_variance_frac: f64,
}

impl Plan {
    /// The plan of a whole step of `N` sequences: `[N]` rewards, groups, whether they were cut off, and their numbers of
    /// generated tokens.
    ///
    /// # Errors
    /// [`RlError::Config`] for an option out of its range; [`RlError::Batch`] if lengths differ, or if a reward or an
    /// advantage is not finite.
    ///
    /// # Source
    /// arXiv 2512.02556, equation 6; arXiv 2402.03300, section 4.1.2 (over the standard deviation).
    pub fn new(
        rewards: &[f64],
        group_id: &[i64],
        truncated: &[bool],
        generated: &[usize],
        config: &GrpoConfig,
    ) -> Result<Self> {
        config.validate()?;
        let sequences = rewards.len();
        let lengths = [("group_id", group_id.len()), ("truncated", truncated.len()), ("generated", generated.len())];
        if let Some((field, found)) = lengths.into_iter().find(|&(_, found)| found != sequences) {
            return Err(RlError::batch(field, format!("{found} values, expected {sequences} as `rewards` has")));
        }
        let mut groups: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (sequence, &group) in group_id.iter().enumerate() {
            if !rewards[sequence].is_finite() {
                let message = format!("{}, expected a finite number", rewards[sequence]);
                return Err(RlError::batch(format!("rewards[{sequence}]"), message));
            }
            groups.entry(group).or_default().push(sequence);
        }
        let reward = |sequence: usize| match config.truncated {
            Truncated::ZeroReward if truncated[sequence] => 0.0,
            _ => rewards[sequence],
        };
        let mut advantages = vec![0.0; sequences];
        let mut counted: Vec<bool> = (0..sequences)
            .map(|sequence| generated[sequence] > 0 && !(config.truncated == Truncated::Drop && truncated[sequence]))
            .collect();
        let mut zero_variance = 0;
        for members in groups.values() {
            let group: Vec<f64> = members.iter().map(|&sequence| reward(sequence)).collect();
            if group.iter().all(|&reward| reward == group[0]) {
                zero_variance += 1;
                if config.drop_zero_variance {
                    members.iter().for_each(|&sequence| counted[sequence] = false);
                }
                continue;
            }
            for (&sequence, advantage) in members.iter().zip(group_advantages(&group, config)) {
                if !advantage.is_finite() {
                    let message =
                        format!("its advantage is {advantage}; the group's rewards are too large or too close");
                    return Err(RlError::batch(format!("rewards[{sequence}]"), message));
                }
                advantages[sequence] = advantage;
            }
        }
        let tokens = (0..sequences).filter(|&sequence| counted[sequence]).map(|sequence| generated[sequence]).sum();
        let denominators = Denominators { sequences: counted.iter().filter(|&&counts| counts).count(), tokens };
        let zero_variance_frac = zero_variance as f64 / groups.len().max(1) as f64;
        Ok(Self { advantages, counted, denominators, zero_variance_frac })
    }

    /// The plan of a batch that is the whole step.
    ///
    /// # Errors
    /// As [`Self::new`]; [`RlError::Batch`] if the batch's lengths, indices or order of rows are wrong.
    pub fn of(batch: &Batch, config: &GrpoConfig) -> Result<Self> {
        let generated = batch.generated()?;
        Self::new(&batch.rewards, &batch.group_id, &batch.truncated, &generated, config)
    }

    /// The part of the sequences `indices` (`0..N`), in this order, with the denominators of the whole step.
    ///
    /// # Errors
    /// [`RlError::Batch`] if an index is not below `N`.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let sequences = self.counted.len();
        if let Some(index) = indices.iter().find(|&&index| index >= sequences) {
            return Err(RlError::batch("plan", format!("sequence {index}, but the step has {sequences}")));
        }
        Ok(Self {
            advantages: indices.iter().map(|&index| self.advantages[index]).collect(),
            counted: indices.iter().map(|&index| self.counted[index]).collect(),
            ..self.clone()
        })
    }
}

/// Advantages of a group whose rewards are not all equal.
fn group_advantages(rewards: &[f64], config: &GrpoConfig) -> Vec<f64> {
    let n = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let scale = match config.advantage {
        Advantage::Mean => 1.0,
        // R - (n mean - R) / (n - 1)
        Advantage::LeaveOneOut => n / (n - 1.0),
        Advantage::MeanStd => {
            let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
            1.0 / ((squares / (n - f64::from(config.std_ddof))).sqrt() + config.std_eps)
        }
    };
    rewards.iter().map(|reward| (reward - mean) * scale).collect()
}
