//! GRPO learns: a bandit, and a copy task of two steps, for every seed.

use candle_core::{D, Device, Tensor, Var};
use deepseek_v32::rl::{self, Batch, GrpoConfig, KeptSets, Policy};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::common::{rng, softmax};

/// What the mean reward must exceed at the end.
const SOLVED: f64 = 0.95;
/// Answers to each prompt.
const GROUP: usize = 8;

/// A task whose prompts have answers of `STEPS` tokens; the policy is a table of logits by prompt, step and token.
struct Task {
    prompts: usize,
    steps: usize,
    vocab: usize,
    /// The reward of an answer to a prompt, in [0, 1].
    reward: fn(usize, &[u32]) -> f64,
}

impl Task {
    fn sample(probabilities: &[f64], rng: &mut ChaCha8Rng) -> u32 {
        let mut rest: f64 = rng.random();
        let chosen = probabilities.iter().position(|p| {
            rest -= p;
            rest < 0.0
        });
        chosen.unwrap_or(probabilities.len() - 1) as u32
    }

    /// Trains with V3.2's loss from a table of zeros; returns the mean reward of the last updates.
    fn learn(&self, seed: u64, updates: usize, rate: f64) -> f64 {
        let mut rng = rng(seed);
        let config = GrpoConfig { drop_zero_variance: true, ..GrpoConfig::v32() };
        let states = self.prompts * self.steps;
        let table = Var::zeros((states, self.vocab), candle_core::DType::F32, &Device::Cpu).unwrap();
        let uniform = -(self.vocab as f64).ln();
        let mut rewards_of_last = Vec::new();
        for update in 0..updates {
            let logits = table.to_dtype(candle_core::DType::F64).unwrap().to_vec2::<f64>().unwrap();
            let (mut states, mut tokens, mut seq_id, mut old_logp) = (vec![], vec![], vec![], vec![]);
            let (mut rewards, mut group_id) = (vec![], vec![]);
            for prompt in 0..self.prompts {
                for _ in 0..GROUP {
                    let mut answer = Vec::new();
                    for step in 0..self.steps {
                        let state = prompt * self.steps + step;
                        let p = softmax(&logits[state]);
                        let token = Self::sample(&p, &mut rng);
                        states.push(state as u32);
                        seq_id.push(rewards.len() as u32);
                        old_logp.push(p[token as usize].ln());
                        answer.push(token);
                    }
                    rewards.push((self.reward)(prompt, &answer));
                    group_id.push(prompt as i64);
                    tokens.extend(answer);
                }
            }
            if update + 10 >= updates {
                rewards_of_last.extend(rewards.clone());
            }
            let (rows, sequences) = (tokens.len(), rewards.len());
            let states = Tensor::new(states, &Device::Cpu).unwrap();
            let mut batch = Batch {
                policy: Policy::LogProbs(states.clone()),
                tokens,
                seq_id,
                gen_mask: vec![true; rows],
                old_logp,
                // The reference is the table of zeros.
                ref_logp: Some(vec![uniform; rows]),
                kept: KeptSets::full(rows),
                rewards,
                group_id,
                beta: vec![1e-3; sequences],
                truncated: vec![false; sequences],
            };
            // Two updates a rollout: the second is off policy.
            for _ in 0..2 {
                batch.policy = Policy::Logits(table.index_select(&states, 0).unwrap());
                let (loss, _) = rl::loss(&batch, &config).unwrap();
                let gradients = loss.backward().unwrap();
                let step = (gradients.get(&table).unwrap() * rate).unwrap();
                table.set(&(table.as_tensor() - step).unwrap()).unwrap();
            }
        }
        assert_eq!(table.dim(D::Minus1).unwrap(), self.vocab);
        rewards_of_last.iter().sum::<f64>() / rewards_of_last.len() as f64
    }
}

#[test]
fn a_bandit_is_solved() {
    let task = Task { prompts: 1, steps: 1, vocab: 8, reward: |_, answer| f64::from(u8::from(answer[0] == 5)) };
    for seed in 0..5 {
        let reward = task.learn(seed, 150, 4.0);
        assert!(reward > SOLVED, "seed {seed}: {reward}");
    }
}

#[test]
fn two_symbols_are_copied() {
    // A prompt is a pair of four symbols, and the reward what part of it the answer repeats.
    fn copied(prompt: usize, answer: &[u32]) -> f64 {
        let pair = [prompt as u32 / 4, prompt as u32 % 4];
        let right = answer.iter().zip(pair).filter(|(found, symbol)| **found == *symbol).count();
        right as f64 / 2.0
    }
    let task = Task { prompts: 16, steps: 2, vocab: 4, reward: copied };
    for seed in 0..5 {
        let reward = task.learn(seed, 80, 60.0);
        assert!(reward > SOLVED, "seed {seed}: {reward}");
    }
}
