//! What the loss is computed from: rows of packed sequences.

use candle_core::Tensor;

use super::config::{GrpoConfig, Kl};
use super::error::{Result, RlError};

/// The policy's side of a batch of `T` rows.
#[derive(Debug, Clone)]
pub enum Policy {
    /// Logits `[T, V]` in f32, f64, bf16 or f16. Row t is the distribution that token t was drawn from.
    Logits(Tensor),
    /// The logits `hidden · headᵀ` of hidden states `[T, hidden_size]` and an output weight `[V, hidden_size]`, which are
    /// computed in chunks of rows and never held as a whole; see [`head_log_probs`](crate::rl::head_log_probs).
    Hidden {
        /// `[T, hidden_size]` in f32, f64, bf16 or f16.
        hidden: Tensor,
        /// `[V, hidden_size]`, the same dtypes.
        head: Tensor,
    },
    /// Log-probabilities `[T]` of the tokens in f32 or f64, after temperature and kept set. They were computed elsewhere.
    LogProbs(Tensor),
}

/// The sampler's kept set of each of `T` rows, in one flat list (CSR).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptSets {
    /// Row t's ids are `ids[offsets[t]..offsets[t + 1]]`; none of them means the whole vocabulary.
    offsets: Vec<usize>,
    ids: Vec<u32>,
}

impl KeptSets {
    /// `rows` sets of the whole vocabulary.
    pub fn full(rows: usize) -> Self {
        Self { offsets: vec![0; rows + 1], ids: Vec::new() }
    }

    /// One set a row; `None` is the whole vocabulary.
    ///
    /// # Errors
    /// [`RlError::Batch`] if a set is empty or does not ascend.
    pub fn from_rows(rows: &[Option<Vec<u32>>]) -> Result<Self> {
        let mut sets = Self { offsets: vec![0], ids: Vec::new() };
        for (row, set) in rows.iter().enumerate() {
            match set {
                Some(set) if set.is_empty() => {
                    return Err(RlError::batch(format!("kept[{row}]"), "no id; null stands for the whole vocabulary"));
                }
                Some(set) => {
                    if let Some(pair) = set.windows(2).find(|pair| pair[0] >= pair[1]) {
                        let message = format!("{} follows {}, expected ascending ids", pair[1], pair[0]);
                        return Err(RlError::batch(format!("kept[{row}]"), message));
                    }
                    sets.ids.extend(set);
                }
                None => {}
            }
            sets.offsets.push(sets.ids.len());
        }
        Ok(sets)
    }

    /// Number of rows, `T`.
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The ascending ids of a row's set; `None` is the whole vocabulary.
    ///
    /// # Panics
    /// If `row` is not below [`Self::rows`].
    pub fn row(&self, row: usize) -> Option<&[u32]> {
        let ids = &self.ids[self.offsets[row]..self.offsets[row + 1]];
        (!ids.is_empty()).then_some(ids)
    }
}

/// `T` token rows of `N` packed sequences. The rows of a sequence stand together; there is no padding.
///
/// [`loss`](crate::rl::loss) checks it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The policy's logits or log-probabilities.
    pub policy: Policy,
    /// `[T]` token ids, `0..V`.
    pub tokens: Vec<u32>,
    /// `[T]` the sequence of each row, `0..N`.
    pub seq_id: Vec<u32>,
    /// `[T]` whether the model generated the token. Other rows (tool results, template text) are not read further.
    pub gen_mask: Vec<bool>,
    /// `[T]` the sampler's log-probability of the token, after temperature and kept set.
    pub old_logp: Vec<f64>,
    /// `[T]` the reference's log-probability of the token, after the temperature and, unless `ref_renormalise` is off,
    /// on the kept set. Not needed without a divergence.
    pub ref_logp: Option<Vec<f64>>,
    /// The sampler's kept set of each row.
    pub kept: KeptSets,
    /// `[N]` the reward of each sequence.
    pub rewards: Vec<f64>,
    /// `[N]` the group of each sequence: those of one prompt share a number. Groups may differ in size.
    pub group_id: Vec<i64>,
    /// `[N]` the weight of the divergence, at least 0; it may differ from task to task.
    pub beta: Vec<f64>,
    /// `[N]` whether the sequence was cut off at a limit.
    pub truncated: Vec<bool>,
}

impl Batch {
    /// Number of rows, `T`.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences, `N`.
    pub fn sequences(&self) -> usize {
        self.rewards.len()
    }

    /// Checks lengths, index ranges and the order of rows; returns the number of generated tokens of each sequence.
    pub(crate) fn generated(&self) -> Result<Vec<usize>> {
        let (rows, sequences) = (self.rows(), self.sequences());
        if rows == 0 {
            return Err(RlError::batch("tokens", "no row, expected at least one"));
        }
        let ref_rows = self.ref_logp.as_ref().map_or(rows, Vec::len);
        for (field, found, expected, of) in [
            ("seq_id", self.seq_id.len(), rows, "tokens"),
            ("gen_mask", self.gen_mask.len(), rows, "tokens"),
            ("old_logp", self.old_logp.len(), rows, "tokens"),
            ("ref_logp", ref_rows, rows, "tokens"),
            ("kept", self.kept.rows(), rows, "tokens"),
            ("group_id", self.group_id.len(), sequences, "rewards"),
            ("beta", self.beta.len(), sequences, "rewards"),
            ("truncated", self.truncated.len(), sequences, "rewards"),
        ] {
            if found != expected {
                let message = format!("{found} values, expected {expected} as `{of}` has");
                return Err(RlError::batch(field, message));
            }
        }
        for (index, &beta) in self.beta.iter().enumerate() {
            if !(beta >= 0.0 && beta.is_finite()) {
                return Err(RlError::batch(
                    format!("beta[{index}]"),
                    format!("{beta}, expected a finite number of at least 0"),
                ));
            }
        }
        let mut generated = vec![0; sequences];
        let mut ended = vec![false; sequences];
        for (row, &id) in self.seq_id.iter().enumerate() {
            let field = || format!("seq_id[{row}]");
            let sequence = id as usize;
            if sequence >= sequences {
                return Err(RlError::batch(field(), format!("{id}, but `rewards` has {sequences} sequences")));
            }
            if ended[sequence] {
                return Err(RlError::batch(field(), format!("the rows of sequence {id} do not stand together")));
            }
            ended[sequence] = self.seq_id.get(row + 1) != Some(&id);
            generated[sequence] += usize::from(self.gen_mask[row]);
        }
        Ok(generated)
    }

    /// Checks what the rows that enter the loss need.
    pub(crate) fn check_rows(&self, enters: &[bool], config: &GrpoConfig) -> Result<()> {
        let (field, dims, expected) = match &self.policy {
            Policy::Logits(logits) => ("logits", logits.dims(), ["T", "V"].as_slice()),
            Policy::Hidden { hidden, .. } => ("hidden", hidden.dims(), ["T", "hidden_size"].as_slice()),
            Policy::LogProbs(logp) => ("logp", logp.dims(), ["T"].as_slice()),
        };
        if dims.len() != expected.len() || dims[0] != self.rows() {
            let message = format!("shape {dims:?}, expected [{}] with T = {}", expected.join(", "), self.rows());
            return Err(RlError::batch(field, message));
        }
        let ref_logp = match (&self.ref_logp, config.kl) {
            (_, Kl::None) => None,
            (None, kl) => {
                return Err(RlError::batch("ref_logp", format!("missing, and the divergence {kl:?} needs it")));
            }
            (Some(ref_logp), _) => Some(ref_logp),
        };
        for row in (0..self.rows()).filter(|&row| enters[row]) {
            let numbers = [("old_logp", Some(&self.old_logp)), ("ref_logp", ref_logp)];
            for (field, value) in numbers.into_iter().filter_map(|(field, of)| Some((field, of?[row]))) {
                if !value.is_finite() {
                    return Err(RlError::batch(
                        format!("{field}[{row}]"),
                        format!("{value}, expected a finite number"),
                    ));
                }
            }
        }
        Ok(())
    }
}
