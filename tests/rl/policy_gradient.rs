//! The expected gradient over all groups equals what the theory says of the true policy gradient (A2).

use candle_core::{Device, Var};
use deepseek_v32::rl::{self, Advantage, Aggregation, GrpoConfig, Policy};

use crate::common::{self, Row, Sequence, gradient, norm, plain, random_logits, relative_error, softmax};

/// Of a gradient's length.
const TOLERANCE: f64 = 1e-10;
/// Token 2 ends a string; strings have one or two tokens.
const END: usize = 2;

/// A policy over strings of {0, 1, END}: row 0 of its logits is for the first token, rows 1 and 2 follow tokens 0 and 1.
struct Strings {
    logits: Vec<Vec<f64>>,
    all: Vec<Answer>,
}

/// A string.
struct Answer {
    /// Rows of logits and tokens.
    steps: Vec<(usize, u32)>,
    probability: f64,
    reward: f64,
}

impl Strings {
    fn new(seed: u64) -> Self {
        let mut rng = common::rng(seed);
        let logits: Vec<_> = (0..3).map(|_| random_logits(&mut rng, 3, 1.0)).collect();
        let p: Vec<_> = logits.iter().map(|logits| softmax(logits)).collect();
        let mut all = vec![Answer { steps: vec![(0, END as u32)], probability: p[0][END], reward: 0.3 }];
        for first in 0..END {
            for second in 0..3 {
                let reward = (first as f64 - 0.4) * (second as f64 + 0.7);
                all.push(Answer {
                    steps: vec![(0, first as u32), (first + 1, second as u32)],
                    probability: p[0][first] * p[first + 1][second],
                    reward,
                });
            }
        }
        Self { logits, all }
    }

    /// `grad J = sum p(s) R(s) sum_t (1[token] - p)`, `[9]`.
    fn policy_gradient(&self) -> Vec<f64> {
        let mut found = vec![0.0; 9];
        for Answer { steps, probability, reward } in &self.all {
            for &(row, token) in steps {
                for (id, p) in softmax(&self.logits[row]).iter().enumerate() {
                    let own = f64::from(u8::from(id == token as usize));
                    found[row * 3 + id] += probability * reward * (own - p);
                }
            }
        }
        found
    }

    /// The expected step (the negative gradient of the loss) over all groups of `size` strings, on policy, summed over
    /// tokens. All groups stand in one batch; a group's probability scales its rewards, and with them its gradient.
    fn expected_step(&self, size: u32, config: &GrpoConfig) -> Vec<f64> {
        let groups = self.all.len().pow(size);
        let (mut sequences, mut rows) = (Vec::new(), Vec::new());
        for group in 0..groups {
            let members: Vec<_> =
                (0..size).map(|at| &self.all[group / self.all.len().pow(at) % self.all.len()]).collect();
            let probability: f64 = members.iter().map(|member| member.probability).product();
            for Answer { steps, reward, .. } in members {
                rows.extend(steps.iter().map(|&(row, _)| row as u32));
                let row = |&(row, token): &(usize, u32)| Row {
                    logits: Vec::new(),
                    token,
                    generated: true,
                    old_logp: common::log_prob(&self.logits[row], token, None, 1.0),
                    ref_logp: 0.0,
                    kept: None,
                };
                sequences.push(Sequence {
                    rows: steps.iter().map(row).collect(),
                    reward: reward * probability * groups as f64,
                    group: group as i64,
                    beta: 0.0,
                    truncated: false,
                });
            }
        }
        let logits = Var::new(self.logits.clone(), &Device::Cpu).unwrap();
        let rows = candle_core::Tensor::new(rows, &Device::Cpu).unwrap();
        let policy = Policy::Logits(logits.index_select(&rows, 0).unwrap());
        let (loss, _) = rl::loss(&common::batch(&sequences, policy), config).unwrap();
        gradient(&loss, &logits).iter().map(|gradient| -gradient).collect()
    }
}

fn config(advantage: Advantage) -> GrpoConfig {
    GrpoConfig { advantage, aggregation: Aggregation::SeqMeanTokenSum, ..plain() }
}

#[test]
fn against_the_mean_it_is_shorter_by_one_over_the_group_and_leaving_one_out_exact() {
    for seed in 0..3 {
        let strings = Strings::new(seed);
        let exact = strings.policy_gradient();
        for size in 2..=4 {
            let law: Vec<f64> = exact.iter().map(|gradient| gradient * (1.0 - 1.0 / f64::from(size))).collect();
            let mean = strings.expected_step(size, &config(Advantage::Mean));
            assert!(relative_error(&mean, &law) < TOLERANCE, "seed {seed}, groups of {size}");
            // Without the law's factor it is wrong.
            assert!(relative_error(&mean, &exact) > 0.2);
            let leave_one_out = strings.expected_step(size, &config(Advantage::LeaveOneOut));
            assert!(relative_error(&leave_one_out, &exact) < TOLERANCE, "seed {seed}, groups of {size}");
        }
    }
}

/// The published average over each sequence's tokens has a length bias: its direction is another one.
#[test]
fn the_mean_over_tokens_has_another_direction() {
    let strings = Strings::new(0);
    let exact = strings.policy_gradient();
    let config = GrpoConfig { aggregation: Aggregation::SeqMeanTokenMean, ..config(Advantage::LeaveOneOut) };
    let found = strings.expected_step(2, &config);
    let product: f64 = found.iter().zip(&exact).map(|(found, exact)| found * exact).sum();
    let cosine = product / norm(&found) / norm(&exact);
    assert!(cosine > 0.8 && cosine < 0.999, "cosine {cosine}");
}
