//! The loss of GRPO.

use candle_core::{DType, Tensor};

use super::advantage::Plan;
use super::aggregate::token_weight;
use super::batch::{Batch, Policy};
use super::config::GrpoConfig;
use super::error::{Result, RlError};
use super::kl::divergence;
use super::logprob::{head_log_probs, log_probs};
use super::metrics::{Metrics, Sums};
use super::off_policy::masked;
use super::surrogate::{Term, surrogate};
use crate::ops::deferred::with_known;

/// The loss of a batch, with what it was computed from.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// `[]` the loss, to be minimised; the dtype of the log-probabilities.
    pub loss: Tensor,
    /// Numbers about it.
    pub metrics: Metrics,
    /// `[N]` the mean of `old_logp - logp` over the generated tokens of each sequence, in nats; `None` if it does not
    /// count.
    pub drift: Vec<Option<f64>>,
    /// `[N]` whether the sequence's surrogate is masked.
    pub masked: Vec<bool>,
    /// `[T]` the policy's log-probability of each token; `None` in rows that do not enter.
    pub logp: Vec<Option<f64>>,
    /// `[T]` `exp(logp - old_logp)`; `None` in rows that do not enter.
    pub ratio: Vec<Option<f64>>,
}

/// The loss `[]` of a batch that is the whole optimizer step, to be minimised, and numbers about it.
///
/// With `r = exp(logp - old_logp)`, the advantage `A` and the mask `M` of off-policy sequence masking it aggregates
/// `-M min(r A, clip(r) A) + beta KL` over the generated tokens of counted sequences. Without any, it is 0 and so is its
/// gradient. The gradient flows to [`Batch::policy`] alone.
///
/// Terms and their derivatives by `logp` are computed in f64 and in closed form; the log-probabilities are computed in
/// f64 for f64 logits, else in f32. `[T]` numbers are read back from the policy's device.
///
/// # Errors
/// [`RlError::Config`] for an option out of its range; [`RlError::Batch`] for a field that is missing or wrong;
/// [`RlError::NotFinite`] if a log-probability, a term or a derivative is not finite in the dtype of the loss; a failed
/// tensor operation.
///
/// # Source
/// arXiv 2512.02556, equations 5 to 9.
pub fn loss(batch: &Batch, config: &GrpoConfig) -> Result<(Tensor, Metrics)> {
    let plan = Plan::of(batch, config)?;
    let evaluation = evaluate(batch, &plan, config)?;
    Ok((evaluation.loss, evaluation.metrics))
}

/// The loss of a micro-batch of whole sequences, with the plan's advantages and denominators: the losses of a step's
/// micro-batches add up to the step's loss, and their gradients to its gradient.
///
/// Rewards and groups of the batch are not read; `plan` has been computed from those of the whole step.
///
/// # Errors
/// As [`loss`]; [`RlError::Batch`] if the plan has another number of sequences than the batch.
pub fn evaluate(batch: &Batch, plan: &Plan, config: &GrpoConfig) -> Result<Evaluation> {
    config.validate()?;
    let lengths = batch.generated()?;
    let sequences = batch.sequences();
    for (field, found) in [("plan.counted", plan.counted.len()), ("plan.advantages", plan.advantages.len())] {
        if found != sequences {
            return Err(RlError::batch(field, format!("{found} sequences, expected {sequences} as `rewards` has")));
        }
    }
    let sequence = |row: usize| batch.seq_id[row] as usize;
    let enters: Vec<bool> = (0..batch.rows()).map(|row| batch.gen_mask[row] && plan.counted[sequence(row)]).collect();
    batch.check_rows(&enters, config)?;

    let policy = LogP::of(batch, &enters, config)?;
    let mut drift: Vec<Option<f64>> =
        (0..sequences).map(|index| (plan.counted[index] && lengths[index] > 0).then_some(0.0)).collect();
    for row in (0..batch.rows()).filter(|&row| enters[row]) {
        if let Some(drift) = &mut drift[sequence(row)] {
            *drift += (batch.old_logp[row] - policy.values[row]) / lengths[sequence(row)] as f64;
        }
    }
    let masked: Vec<bool> = (0..sequences)
        .map(|index| drift[index].is_some_and(|drift| masked(plan.advantages[index], drift, config.opsm_delta)))
        .collect();

    let mut sums =
        Sums { entropy: policy.entropy.as_ref().map(|_| 0.0), kept: policy.vocab.map(|_| 0), ..Sums::default() };
    for index in (0..sequences).filter(|&index| drift[index].is_some()) {
        sums.sequences += 1;
        sums.masked_sequences += usize::from(masked[index]);
        for (lengths_of, sign) in sums.lengths.iter_mut().zip([1.0, -1.0]) {
            if plan.advantages[index] * sign > 0.0 {
                *lengths_of = (lengths_of.0 + 1, lengths_of.1 + lengths[index]);
            }
        }
    }
    let mut weights = vec![0.0; batch.rows()];
    for row in (0..batch.rows()).filter(|&row| enters[row]) {
        let index = sequence(row);
        let (logp, old_logp, advantage) = (policy.values[row], batch.old_logp[row], plan.advantages[index]);
        let ratio = (logp - old_logp).exp();
        let objective = if masked[index] { Term::ZERO } else { surrogate(ratio, advantage, config) };
        let kl = batch.ref_logp.as_ref().map_or(Term::ZERO, |of| divergence(config.kl, logp, old_logp, of[row]));
        // A weight of 0 takes no infinite estimate in.
        let weighted = match batch.beta[index] {
            0.0 => Term::ZERO,
            beta => Term { value: beta * kl.value, gradient: beta * kl.gradient },
        };
        let weight = token_weight(config, plan.denominators, lengths[index]);
        weights[row] = weight * (weighted.gradient - objective.gradient);
        policy.check(row, "its term", weight * (weighted.value - objective.value))?;
        policy.check(row, "the derivative of its term", weights[row])?;

        sums.tokens += 1;
        sums.pg_loss -= weight * objective.value;
        sums.kl_loss += weight * weighted.value;
        sums.clipped_low += usize::from(advantage < 0.0 && ratio < 1.0 - config.clip_low);
        sums.clipped_high += usize::from(advantage > 0.0 && ratio > 1.0 + config.clip_high);
        sums.dual_clipped += usize::from(advantage < 0.0 && config.dual_clip.is_some_and(|bound| ratio > bound));
        sums.masked_tokens += usize::from(masked[index]);
        sums.kl += kl.value;
        sums.ratio += ratio;
        sums.max_ratio = sums.max_ratio.max(ratio);
        sums.old_minus_new += old_logp - logp;
        sums.mismatch_k3 += (logp - old_logp).exp_m1() - (logp - old_logp);
        if let (Some(sum), Some(entropy)) = (&mut sums.entropy, &policy.entropy) {
            *sum += entropy[row];
        }
        if let (Some(sum), Some(vocab)) = (&mut sums.kept, policy.vocab) {
            *sum += batch.kept.row(row).map_or(vocab, <[u32]>::len);
        }
    }
    let of_entering = |value: &dyn Fn(usize) -> f64| -> Vec<Option<f64>> {
        (0..batch.rows()).map(|row| enters[row].then(|| value(row))).collect()
    };
    Ok(Evaluation {
        loss: policy.loss(sums.pg_loss + sums.kl_loss, weights)?,
        metrics: sums.metrics(plan.zero_variance_frac),
        drift,
        masked,
        logp: of_entering(&|row| policy.values[row]),
        ratio: of_entering(&|row| (policy.values[row] - batch.old_logp[row]).exp()),
    })
}

/// A tensor `[T]` on the host.
fn host(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.detach().to_dtype(DType::F64)?.to_vec1()
}

/// The policy's log-probabilities, on its device and on the host.
struct LogP {
    /// `[T]` f32 or f64.
    tensor: Tensor,
    /// `[T]`
    values: Vec<f64>,
    /// `[T]`, if there are logits.
    entropy: Option<Vec<f64>>,
    /// Size of the vocabulary, if there are logits and kept sets are on.
    vocab: Option<usize>,
}

impl LogP {
    fn of(batch: &Batch, enters: &[bool], config: &GrpoConfig) -> Result<Self> {
        let kept = config.keep_sampling_mask.then_some(&batch.kept);
        let (found, vocab) = match &batch.policy {
            Policy::Logits(logits) => {
                (log_probs(logits, &batch.tokens, enters, kept, config.temperature)?, logits.dim(1)?)
            }
            Policy::Hidden { hidden, head } => {
                (head_log_probs(hidden, head, &batch.tokens, enters, kept, config.temperature)?, head.dim(0)?)
            }
            Policy::LogProbs(logp) => {
                if !matches!(logp.dtype(), DType::F32 | DType::F64) {
                    return Err(RlError::batch("logp", format!("dtype {:?}, expected f32 or f64", logp.dtype())));
                }
                return Self::checked(logp.clone(), None, None, enters);
            }
        };
        Self::checked(found.logp, Some(host(&found.entropy)?), kept.map(|_| vocab), enters)
    }

    fn checked(tensor: Tensor, entropy: Option<Vec<f64>>, vocab: Option<usize>, enters: &[bool]) -> Result<Self> {
        let values = host(&tensor)?;
        let policy = Self { tensor, values, entropy, vocab };
        for row in (0..enters.len()).filter(|&row| enters[row]) {
            policy.check(row, "the policy's log-probability", policy.values[row])?;
        }
        Ok(policy)
    }

    /// Refuses a number that the loss's dtype cannot hold.
    fn check(&self, row: usize, what: &'static str, value: f64) -> Result<()> {
        let dtype = self.tensor.dtype();
        let fits = if dtype == DType::F32 { (value as f32).is_finite() } else { value.is_finite() };
        if fits { Ok(()) } else { Err(RlError::NotFinite { row, what, value, dtype: dtype.as_str() }) }
    }

    /// A scalar with this value, whose derivative by the log-probability of row t is `weights[t]`.
    fn loss(&self, value: f64, weights: Vec<f64>) -> Result<Tensor> {
        let (dtype, device, rows) = (self.tensor.dtype(), self.tensor.device(), weights.len());
        self.check(rows.saturating_sub(1), "the loss up to this row", value)?;
        let value = Tensor::new(value, device)?.to_dtype(dtype)?;
        let weights = Tensor::from_vec(weights, rows, device)?.to_dtype(dtype)?;
        Ok(with_known(&value, [(&self.tensor, weights)])?)
    }
}
