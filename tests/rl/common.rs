//! Batches by hand and at random, and their gradients.

use candle_core::{DType, Device, Tensor, Var};
use deepseek_v32::rl::{self, Aggregation, Batch, Evaluation, GrpoConfig, KeptSets, Kl, Plan, Policy};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A token row.
#[derive(Debug, Clone)]
pub struct Row {
    pub logits: Vec<f64>,
    pub token: u32,
    pub generated: bool,
    pub old_logp: f64,
    pub ref_logp: f64,
    pub kept: Option<Vec<u32>>,
}

#[derive(Debug, Clone)]
pub struct Sequence {
    pub rows: Vec<Row>,
    pub reward: f64,
    pub group: i64,
    pub beta: f64,
    pub truncated: bool,
}

/// No divergence, no mask, no kept sets: the plain surrogate.
pub fn plain() -> GrpoConfig {
    GrpoConfig { kl: Kl::None, opsm_delta: None, keep_sampling_mask: false, ..GrpoConfig::v32() }
}

pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|exp| exp / sum).collect()
}

/// Log-probability of a token on a kept set.
pub fn log_prob(logits: &[f64], token: u32, kept: Option<&[u32]>, temperature: f64) -> f64 {
    let all: Vec<u32> = (0..logits.len() as u32).collect();
    let sum: f64 = kept.unwrap_or(&all).iter().map(|&id| (logits[id as usize] / temperature).exp()).sum();
    logits[token as usize] / temperature - sum.ln()
}

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub fn random_logits(rng: &mut ChaCha8Rng, vocab: usize, scale: f64) -> Vec<f64> {
    (0..vocab).map(|_| rng.random_range(-scale..scale)).collect()
}

/// Sequences with everything in them: tool rows, kept sets, groups of different sizes, cut off and silent ones.
pub fn random_sequences(seed: u64, sequences: usize, vocab: usize) -> Vec<Sequence> {
    let mut rng = rng(seed);
    let row = |rng: &mut ChaCha8Rng| {
        let logits = random_logits(rng, vocab, 2.0);
        let token = rng.random_range(0..vocab as u32);
        let kept = rng
            .random_bool(0.7)
            .then(|| (0..vocab as u32).filter(|&id| id == token || rng.random_bool(0.5)).collect::<Vec<_>>());
        let near = |rng: &mut ChaCha8Rng| {
            let logits: Vec<f64> = logits.iter().map(|logit| logit + rng.random_range(-0.5..0.5)).collect();
            log_prob(&logits, token, kept.as_deref(), 1.0)
        };
        let (old_logp, ref_logp) = (near(rng), near(rng));
        Row { generated: rng.random_bool(0.8), logits, token, old_logp, ref_logp, kept }
    };
    (0..sequences)
        .map(|index| Sequence {
            rows: (0..rng.random_range(1..6)).map(|_| row(&mut rng)).collect(),
            reward: rng.random_range(-1.0..1.0),
            group: (index / 4) as i64 * 7 - 3,
            beta: [0.0, 0.05, 0.2][index % 3],
            truncated: rng.random_bool(0.2),
        })
        .collect()
}

/// A batch whose policy is `policy`.
pub fn batch(sequences: &[Sequence], policy: Policy) -> Batch {
    let rows = || sequences.iter().flat_map(|sequence| &sequence.rows);
    let kept: Vec<_> = rows().map(|row| row.kept.clone()).collect();
    let seq_id = sequences.iter().enumerate().flat_map(|(id, sequence)| vec![id as u32; sequence.rows.len()]);
    Batch {
        policy,
        tokens: rows().map(|row| row.token).collect(),
        seq_id: seq_id.collect(),
        gen_mask: rows().map(|row| row.generated).collect(),
        old_logp: rows().map(|row| row.old_logp).collect(),
        ref_logp: Some(rows().map(|row| row.ref_logp).collect()),
        kept: KeptSets::from_rows(&kept).unwrap(),
        rewards: sequences.iter().map(|sequence| sequence.reward).collect(),
        group_id: sequences.iter().map(|sequence| sequence.group).collect(),
        beta: sequences.iter().map(|sequence| sequence.beta).collect(),
        truncated: sequences.iter().map(|sequence| sequence.truncated).collect(),
    }
}

/// The rows' logits as a variable `[T, V]` in f64, and the batch.
pub fn with_logits(sequences: &[Sequence]) -> (Var, Batch) {
    let logits: Vec<Vec<f64>> =
        sequences.iter().flat_map(|sequence| sequence.rows.iter().map(|row| row.logits.clone())).collect();
    let logits = Var::new(logits, &Device::Cpu).unwrap();
    let policy = Policy::Logits(logits.as_tensor().clone());
    (logits, batch(sequences, policy))
}

pub fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// The gradient of a loss by a variable, flat, in f64; zeros where none flows.
pub fn gradient(loss: &Tensor, var: &Var) -> Vec<f64> {
    match loss.backward().unwrap().get(var) {
        Some(gradient) => gradient.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap(),
        None => vec![0.0; var.elem_count()],
    }
}

/// What the loss says of sequences with logits, with a plan of their own, and the gradient of the logits.
pub fn evaluated(sequences: &[Sequence], config: &GrpoConfig) -> (Evaluation, Vec<f64>) {
    let (logits, batch) = with_logits(sequences);
    let plan = Plan::of(&batch, config).unwrap();
    let found = rl::evaluate(&batch, &plan, config).unwrap();
    let gradient = gradient(&found.loss, &logits);
    (found, gradient)
}

/// The derivative of each token's term by its log-probability, for sequences of one token: through log-probabilities
/// that were computed elsewhere, in f64.
pub fn token_derivatives(logp: &[f64], sequences: &[Sequence], config: &GrpoConfig) -> (Evaluation, Vec<f64>) {
    let var = Var::new(logp, &Device::Cpu).unwrap();
    let batch = batch(sequences, Policy::LogProbs(var.as_tensor().clone()));
    let config = GrpoConfig { aggregation: Aggregation::SeqMeanTokenSum, ..config.clone() };
    let found = rl::evaluate(&batch, &Plan::of(&batch, &config).unwrap(), &config).unwrap();
    let mut gradient = gradient(&found.loss, &var);
    gradient.iter_mut().for_each(|gradient| *gradient *= found.metrics.n_seq as f64);
    (found, gradient)
}

/// A sequence of one generated token.
pub fn one_token(old_logp: f64, ref_logp: f64, reward: f64, group: i64, beta: f64) -> Sequence {
    let row = Row { logits: vec![0.0], token: 0, generated: true, old_logp, ref_logp, kept: None };
    Sequence { rows: vec![row], reward, group, beta, truncated: false }
}

pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Length of the difference over the length of what was expected.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f64> = found.iter().zip(expected).map(|(found, expected)| found - expected).collect();
    norm(&difference) / norm(expected)
}

pub fn greatest_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
}

/// The gradient of `KL(p || q)` by the logits of p: `p_j (log(p_j / q_j) - KL)`.
pub fn kl_gradient(p: &[f64], q: &[f64]) -> Vec<f64> {
    let kl = kl(p, q);
    p.iter().zip(q).map(|(p, q)| p * ((p / q).ln() - kl)).collect()
}

pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}
