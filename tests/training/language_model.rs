//! The next-token loss against naive f64 loops.

use candle_core::{DType, Device, Tensor, Var};
use deepseek_v32::ops::linear::LinearWeight;
use deepseek_v32::training::next_token_loss;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{difference, flat, random, scalar};

/// Greatest relative difference from the naive loops in f64 and in f32.
const F64_TOLERANCE: f64 = 1e-11;
const F32_TOLERANCE: f64 = 1e-5;

struct Case {
    rows: usize,
    width: usize,
    vocab_size: usize,
    hidden: Vec<f64>,
    head: Vec<f64>,
    targets: Vec<u32>,
    weights: Vec<f64>,
}

impl Case {
    fn new(rows: usize, width: usize, vocab_size: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weights = (0..rows).map(|row| if row % 3 == 1 { 0.0 } else { rng.random_range(0.1..2.0) }).collect();
        let hidden = random(&mut rng, rows * width, -2.0..2.0);
        let head = random(&mut rng, vocab_size * width, -1.0..1.0);
        // Rows that do not count may name anything.
        let target = |row: usize| if row % 3 == 1 { u32::MAX } else { (row * 31 % vocab_size) as u32 };
        Self { rows, width, vocab_size, hidden, head, targets: (0..rows).map(target).collect(), weights }
    }

    /// Loss, negative log likelihoods, gradients of hidden states and head.
    fn naive(&self) -> (f64, Vec<f64>, Vec<f64>, Vec<f64>) {
        let (width, vocab_size) = (self.width, self.vocab_size);
        let (mut d_hidden, mut d_head) = (vec![0.0; self.hidden.len()], vec![0.0; self.head.len()]);
        let (mut loss, mut nll) = (0.0, vec![0.0; self.rows]);
        for row in (0..self.rows).filter(|&row| self.weights[row] != 0.0) {
            let hidden = &self.hidden[row * width..][..width];
            let logit = |id: usize| (0..width).map(|d| hidden[d] * self.head[id * width + d]).sum::<f64>();
            let exps: Vec<f64> = (0..vocab_size).map(|id| logit(id).exp()).collect();
            let sum: f64 = exps.iter().sum();
            let target = self.targets[row] as usize;
            nll[row] = -(exps[target] / sum).ln();
            loss += self.weights[row] * nll[row];
            for id in 0..vocab_size {
                let d_logit = self.weights[row] * (exps[id] / sum - f64::from(u8::from(id == target)));
                for d in 0..width {
                    d_hidden[row * width + d] += d_logit * self.head[id * width + d];
                    d_head[id * width + d] += d_logit * hidden[d];
                }
            }
        }
        (loss, nll, d_hidden, d_head)
    }

    fn check(&self) {
        let (loss, nll, d_hidden, d_head) = self.naive();
        for (dtype, tolerance) in [(DType::F64, F64_TOLERANCE), (DType::F32, F32_TOLERANCE)] {
            let tensor = |values: &[f64], rows: usize| {
                Tensor::from_slice(values, (rows, self.width), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
            };
            let hidden = Var::from_tensor(&tensor(&self.hidden, self.rows)).unwrap();
            let head = Var::from_tensor(&tensor(&self.head, self.vocab_size)).unwrap();
            let weight = LinearWeight { weight: head.as_tensor().clone(), weight_scale_inv: None };
            let found = next_token_loss(&hidden, &weight, &self.targets, &self.weights).unwrap();
            assert!(difference(&[scalar(&found.loss)], &[loss], 0.0) <= tolerance, "{dtype:?}: loss");
            assert!(difference(&found.negative_log_likelihood, &nll, 0.0) <= tolerance, "{dtype:?}: rows");
            // Whatever the loss is multiplied with multiplies the gradients.
            let grads = (found.loss * 0.5).unwrap().backward().unwrap();
            for (name, variable, expected) in [("hidden", &hidden, &d_hidden), ("head", &head, &d_head)] {
                let expected: Vec<f64> = expected.iter().map(|g| g * 0.5).collect();
                let differ = difference(&flat(grads.get(variable).unwrap()), &expected, 0.0);
                assert!(differ <= tolerance, "{dtype:?}: gradient of {name}: {differ}");
            }
            let untracked = LinearWeight { weight: weight.weight.detach(), weight_scale_inv: None };
            let found = next_token_loss(&hidden.detach(), &untracked, &self.targets, &self.weights).unwrap();
            assert!(difference(&[scalar(&found.loss)], &[loss], 0.0) <= tolerance && !found.loss.track_op());
        }
    }
}

#[test]
fn loss_and_gradients() {
    Case::new(11, 5, 17, 1).check();
    Case::new(1, 3, 2, 2).check();
}

#[test]
fn rows_that_do_not_count() {
    let case = Case { weights: vec![0.0; 4], ..Case::new(4, 3, 5, 4) };
    let hidden = Var::zeros((4, 3), DType::F32, &Device::Cpu).unwrap();
    let head =
        LinearWeight { weight: Tensor::zeros((5, 3), DType::F32, &Device::Cpu).unwrap(), weight_scale_inv: None };
    assert_eq!(scalar(&next_token_loss(&hidden, &head, &case.targets, &case.weights).unwrap().loss), 0.0);
    let refused = |targets: &[u32], weights: &[f64], expected: &str| {
        assert_eq!(next_token_loss(&hidden, &head, targets, weights).unwrap_err().to_string(), expected);
    };
    refused(&[0; 3], &[1.0; 4], "targets: 3 of them, expected 4");
    refused(&[0; 4], &[1.0; 3], "weights: 3 of them, expected 4");
    refused(&[0, 5, 0, 0], &[1.0; 4], "targets[1] is 5, expected below 5");
    refused(&[0; 4], &[1.0, f64::INFINITY, 0.0, 0.0], "weights[1] is inf, expected finite");
}
