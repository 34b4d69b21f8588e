//! Kept sampling sets (A7), and the log-probabilities that they are part of.

use candle_core::{DType, Device, Tensor, Var};
use deepseek_v32::rl::{self, GrpoConfig, KeptSets, Kl, Policy, log_probs};
use rand::Rng;

use crate::common::{
    self, gradient, greatest_difference, log_prob, plain, random_logits, relative_error, rng, softmax,
};

/// Of a log-probability, a probability or a gradient, in f64.
const TOLERANCE: f64 = 1e-12;
const VOCAB: usize = 9;
const T: f64 = 0.7;

/// The smallest set of the likeliest ids whose probability reaches `top_p`, ascending.
fn nucleus(logits: &[f64], top_p: f64) -> Vec<u32> {
    let p = softmax(&logits.iter().map(|logit| logit / T).collect::<Vec<_>>());
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| p[b as usize].total_cmp(&p[a as usize]));
    let mut sum = 0.0;
    let until = ids.iter().position(|&id| {
        sum += p[id as usize];
        sum >= top_p
    });
    ids.truncate(until.map_or(ids.len(), |last| last + 1));
    ids.sort_unstable();
    ids
}

fn config() -> GrpoConfig {
    GrpoConfig { keep_sampling_mask: true, temperature: T, ..plain() }
}

/// A policy's row, the sampler's and the reference's, and the sampler's kept set.
struct Case {
    policy: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
    kept: Vec<u32>,
}

impl Case {
    fn random(seed: u64) -> Self {
        let mut rng = rng(seed);
        let old = random_logits(&mut rng, VOCAB, 2.0);
        let near = |rng: &mut _, old: &[f64]| -> Vec<f64> {
            random_logits(rng, VOCAB, 0.6).iter().zip(old).map(|(change, old)| change + old).collect()
        };
        let (policy, reference) = (near(&mut rng, &old), near(&mut rng, &old));
        let kept = nucleus(&old, 0.8);
        Self { policy, old, reference, kept }
    }

    /// A sequence for each kept token; `beta` is its probability under the sampler times their number. `ref_kept`: whether
    /// the reference is renormalised on the set.
    fn loss(&self, config: &GrpoConfig, ref_kept: bool) -> (rl::Evaluation, Vec<f64>) {
        let kept = Some(self.kept.as_slice());
        let sequences: Vec<_> = self
            .kept
            .iter()
            .map(|&token| {
                let old_logp = log_prob(&self.old, token, kept, T);
                let ref_logp = log_prob(&self.reference, token, kept.filter(|_| ref_kept), T);
                let mut sequence =
                    common::one_token(old_logp, ref_logp, 0.0, 0, old_logp.exp() * self.kept.len() as f64);
                (sequence.rows[0].token, sequence.rows[0].kept) = (token, Some(self.kept.clone()));
                sequence
            })
            .collect();
        let logits = Var::new(self.policy.clone(), &Device::Cpu).unwrap();
        let rows = logits.unsqueeze(0).unwrap().broadcast_as((sequences.len(), VOCAB)).unwrap();
        let batch = common::batch(&sequences, Policy::Logits(rows));
        let found = rl::evaluate(&batch, &rl::Plan::of(&batch, config).unwrap(), config).unwrap();
        let gradient = gradient(&found.loss, &logits);
        (found, gradient)
    }

    /// `E_old[ratio]`.
    fn mean_ratio(&self, found: &rl::Evaluation) -> f64 {
        let old = self.kept.iter().map(|&token| log_prob(&self.old, token, Some(&self.kept), T).exp());
        old.zip(found.ratio.iter().flatten()).map(|(old, ratio)| old * ratio).sum()
    }
}

#[test]
fn with_the_set_the_expected_ratio_is_one_and_without_it_too_small() {
    for seed in 0..20 {
        let case = Case::random(seed);
        let (found, _) = case.loss(&config(), true);
        let sum: f64 = found.logp.iter().flatten().map(|logp| logp.exp()).sum();
        assert!((sum - 1.0).abs() < TOLERANCE, "probabilities on the set sum to {sum}");
        let mean = case.mean_ratio(&found);
        assert!((mean - 1.0).abs() < TOLERANCE, "seed {seed}: {mean}");
        // Without it the mean is the policy's mass on the set.
        let (full, _) = case.loss(&GrpoConfig { keep_sampling_mask: false, ..config() }, true);
        let p = softmax(&case.policy.iter().map(|logit| logit / T).collect::<Vec<_>>());
        let mass: f64 = case.kept.iter().map(|&id| p[id as usize]).sum();
        let mean = case.mean_ratio(&full);
        assert!((mean - mass).abs() < TOLERANCE && mean < 0.99, "seed {seed}: {mean}, mass {mass}");
        assert_eq!(found.metrics.mean_kept, Some(case.kept.len() as f64));
        assert_eq!(full.metrics.mean_kept, None);
    }
}

#[test]
fn the_divergence_is_exact_on_the_set_and_zero_outside() {
    let config = GrpoConfig { kl: Kl::RhoK3, ..config() };
    for seed in 0..20 {
        let case = Case::random(seed);
        let (found, gradient) = case.loss(&config, true);
        // By hand: the divergence between both softmaxes on the set; T divides the gradient.
        let on_set = |logits: &[f64]| softmax(&case.kept.iter().map(|&id| logits[id as usize] / T).collect::<Vec<_>>());
        let mut expected = vec![0.0; VOCAB];
        let exact = common::kl_gradient(&on_set(&case.policy), &on_set(&case.reference));
        case.kept.iter().zip(exact).for_each(|(&id, gradient)| expected[id as usize] = gradient / T);
        assert!(relative_error(&gradient, &expected) < 1e-10, "seed {seed}");
        for id in (0..VOCAB).filter(|&id| !case.kept.contains(&(id as u32))) {
            assert_eq!(gradient[id], 0.0);
        }
        // A reference over the whole vocabulary has the same expected gradient, and another value.
        let (full, full_gradient) = case.loss(&config, false);
        assert!(relative_error(&full_gradient, &expected) < 1e-10, "seed {seed}");
        assert!((full.metrics.kl_loss - found.metrics.kl_loss).abs() > 1e-4);
    }
}

/// Rows of logits with and without sets, some of which do not enter.
struct Rows {
    logits: Vec<Vec<f64>>,
    tokens: Vec<u32>,
    enters: Vec<bool>,
    kept: Vec<Option<Vec<u32>>>,
}

fn rows(seed: u64, count: usize) -> Rows {
    let mut rng = rng(seed);
    let logits: Vec<_> = (0..count).map(|_| random_logits(&mut rng, VOCAB, 3.0)).collect();
    let kept: Vec<_> = logits.iter().map(|row| rng.random_bool(0.6).then(|| nucleus(row, 0.7))).collect();
    let tokens =
        kept.iter().map(|kept| kept.as_ref().map_or(3, |kept| kept[rng.random_range(0..kept.len())])).collect();
    let enters = (0..count).map(|row| row % 4 != 2).collect();
    Rows { logits, tokens, enters, kept }
}

#[test]
fn log_probabilities_entropies_and_gradients_are_those_of_loops() {
    let Rows { logits, tokens, enters, kept } = rows(1, 30);
    let sets = KeptSets::from_rows(&kept).unwrap();
    let var = Var::new(logits.clone(), &Device::Cpu).unwrap();
    let weights: Vec<f64> = (0..30).map(|row| f64::from(row) / 7.0 - 2.0).collect();
    for with_sets in [true, false] {
        let found = log_probs(&var, &tokens, &enters, with_sets.then_some(&sets), T).unwrap();
        let weighted = (&found.logp * Tensor::new(weights.clone(), &Device::Cpu).unwrap()).unwrap();
        let gradient = gradient(&weighted.sum_all().unwrap(), &var);
        let (logp, entropy) = (found.logp.to_vec1::<f64>().unwrap(), found.entropy.to_vec1::<f64>().unwrap());
        for row in 0..30 {
            let ids: Vec<u32> = match &kept[row] {
                Some(ids) if with_sets => ids.clone(),
                _ => (0..VOCAB as u32).collect(),
            };
            let logp_of = |id: u32| log_prob(&logits[row], id, Some(&ids), T);
            let mut expected = vec![0.0; VOCAB];
            if enters[row] {
                assert!((logp[row] - logp_of(tokens[row])).abs() < TOLERANCE);
                let sum: f64 = ids.iter().map(|&id| -logp_of(id) * logp_of(id).exp()).sum();
                assert!((entropy[row] - sum).abs() < TOLERANCE);
                for &id in &ids {
                    let own = f64::from(u8::from(id == tokens[row]));
                    expected[id as usize] = weights[row] * (own - logp_of(id).exp()) / T;
                }
            } else {
                assert_eq!((logp[row], entropy[row]), (0.0, 0.0));
            }
            assert!(greatest_difference(&gradient[row * VOCAB..][..VOCAB], &expected) < TOLERANCE, "row {row}");
        }
    }
}

/// Logits of a lower precision are computed in f32; the gradient has the logits' dtype.
#[test]
fn lower_precisions_compute_in_f32() {
    let Rows { logits, tokens, enters, kept } = rows(2, 8);
    let sets = KeptSets::from_rows(&kept).unwrap();
    let exact = Tensor::new(logits, &Device::Cpu).unwrap();
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        let rounded = exact.to_dtype(dtype).unwrap();
        let of = |logits: &Tensor| {
            let var = Var::from_tensor(logits).unwrap();
            let found = log_probs(&var, &tokens, &enters, Some(&sets), T).unwrap();
            let gradients = found.logp.sum_all().unwrap().backward().unwrap();
            (found.logp, gradients.get(&var).unwrap().clone())
        };
        let (found, gradient) = of(&rounded);
        let (expected, expected_gradient) = of(&rounded.to_dtype(DType::F64).unwrap());
        assert_eq!((found.dtype(), gradient.dtype()), (DType::F32, dtype));
        let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(greatest_difference(&flat(&found), &flat(&expected)) < 2e-6);
        let rounding = if dtype == DType::F32 { 1e-6 } else { 4e-3 };
        assert!(greatest_difference(&flat(&gradient), &flat(&expected_gradient)) < rounding);
    }
}

/// Rows that do not enter may hold anything, without a trace in the others.
#[test]
fn rows_that_do_not_enter_are_not_read() {
    let logits = Var::new(&[[0f32, 1.0], [f32::NAN, f32::INFINITY]], &Device::Cpu).unwrap();
    let found = log_probs(&logits, &[0, 77], &[true, false], None, 1.0).unwrap();
    let gradient = gradient(&found.logp.sum_all().unwrap(), &logits);
    assert_eq!(gradient[2..], [0.0, 0.0]);
    assert!((gradient[0] - (1.0 - 1.0 / (1.0 + 1f64.exp()))).abs() < 1e-6);
}

/// A likely token's gradient is the sum of the others' probabilities, not 1 less its own, which is 0 in f32.
#[test]
fn gradients_near_zero_keep_their_digits() {
    let logits = Var::new(&[[40f32, 0.0, 0.0]], &Device::Cpu).unwrap();
    let found = log_probs(&logits, &[0], &[true], None, 1.0).unwrap();
    let gradient = gradient(&found.logp.sum_all().unwrap(), &logits);
    let expected = (-40f64).exp();
    assert!((gradient[0] / expected - 2.0).abs() < 1e-5 && (gradient[1] / expected + 1.0).abs() < 1e-5, "{gradient:?}");
}

/// Hidden states with the output weight, and their product, are the same policy: loss, metrics, both gradients.
#[test]
fn hidden_states_are_the_policy_of_their_logits() {
    let sequences = common::random_sequences(6, 8, VOCAB);
    let rows: usize = sequences.iter().map(|sequence| sequence.rows.len()).sum();
    let mut rng = rng(6);
    let mut random = |rows: usize| {
        let values: Vec<Vec<f64>> = (0..rows).map(|_| random_logits(&mut rng, 4, 1.0)).collect();
        Var::new(values, &Device::Cpu).unwrap()
    };
    let (hidden, head) = (random(rows), random(VOCAB));
    let config = GrpoConfig { temperature: T, truncated: rl::Truncated::Drop, ..GrpoConfig::v32() };
    for (dtype, tolerance) in [(DType::F64, TOLERANCE), (DType::F32, 1e-5)] {
        let of = |policy| {
            let (loss, metrics) = rl::loss(&common::batch(&sequences, policy), &config).unwrap();
            (metrics, [common::gradient(&loss, &hidden), common::gradient(&loss, &head)])
        };
        let (a, b) = (hidden.to_dtype(dtype).unwrap(), head.to_dtype(dtype).unwrap());
        let (expected, gradients) = of(Policy::Logits(a.matmul(&b.t().unwrap()).unwrap()));
        let (found, found_gradients) = of(Policy::Hidden { hidden: a, head: b });
        assert!((found.pg_loss - expected.pg_loss).abs() + (found.kl_loss - expected.kl_loss).abs() < tolerance);
        assert_eq!((found.mean_kept, found.n_tok), (expected.mean_kept, expected.n_tok));
        for (found, expected) in found_gradients.iter().zip(&gradients) {
            assert!(common::norm(expected) > 1e-3 && greatest_difference(found, expected) < tolerance);
        }
    }
}
