//! The divergence (A4, A5): the gradient of equation 7 is the exact one, on policy and off policy; others are not.

use candle_core::{D, Device, Tensor, Var};
use deepseek_v32::rl::{self, Aggregation, GrpoConfig, Kl, Policy, RlError};

use crate::common::{self, Row, Sequence, gradient, kl_gradient, one_token, plain, relative_error, softmax};
use crate::common::{random_logits, token_derivatives};

/// Of an exact gradient, relative to its length.
const EXACT: f64 = 1e-10;
/// What every estimate with a biased gradient is wrong by, at least.
const BIASED: f64 = 1e-2;
const VOCAB: usize = 7;

fn config(kl: Kl) -> GrpoConfig {
    GrpoConfig { kl, ..plain() }
}

/// Logits of the policy, of the sampler and of the reference.
struct Case {
    policy: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
}

impl Case {
    fn random(seed: u64) -> Self {
        let mut rng = common::rng(seed);
        let mut logits = || random_logits(&mut rng, VOCAB, 1.5);
        Self { policy: logits(), old: logits(), reference: logits() }
    }

    /// The policy gives one token, which sampler and reference like, 8 nats less.
    fn suppressed(seed: u64) -> Self {
        let mut case = Self::random(seed);
        (case.old[2], case.reference[2], case.policy[2]) = (2.0, 2.0, -6.0);
        case
    }

    fn on_policy(self) -> Self {
        Self { old: self.policy.clone(), ..self }
    }

    fn exact(&self) -> Vec<f64> {
        kl_gradient(&softmax(&self.policy), &softmax(&self.reference))
    }

    fn logp(logits: &[f64]) -> Vec<f64> {
        (0..VOCAB as u32).map(|token| common::log_prob(logits, token, None, 1.0)).collect()
    }

    /// `E_old` of an estimate's gradient through the crate's loss: a sequence for each token, weighted by `beta`.
    fn expected(&self, kl: Kl) -> Vec<f64> {
        let (old, reference) = (Self::logp(&self.old), Self::logp(&self.reference));
        let sequences: Vec<_> = (0..VOCAB)
            .map(|token| {
                let mut sequence = one_token(old[token], reference[token], 1.0, 0, old[token].exp() * VOCAB as f64);
                sequence.rows[0].token = token as u32;
                sequence
            })
            .collect();
        let logits = Var::new(self.policy.clone(), &Device::Cpu).unwrap();
        let rows = logits.unsqueeze(0).unwrap().broadcast_as((VOCAB, VOCAB)).unwrap();
        let (loss, _) = rl::loss(&common::batch(&sequences, Policy::Logits(rows)), &config(kl)).unwrap();
        gradient(&loss, &logits)
    }

    /// `E_old` of the gradient of an estimate that the crate does not offer, from `(rho, k3)`, both `[V]`.
    fn expected_of(&self, estimate: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Vec<f64> {
        let constant = |values: Vec<f64>| Tensor::new(values, &Device::Cpu).unwrap();
        let (old, reference) = (constant(Self::logp(&self.old)), constant(Self::logp(&self.reference)));
        let logits = Var::new(self.policy.clone(), &Device::Cpu).unwrap();
        let logp = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap();
        let rho = (&logp - &old).unwrap().exp().unwrap();
        let d = (reference - &logp).unwrap();
        let k3 = ((d.exp().unwrap() - d).unwrap() - 1.0).unwrap();
        let weighted = (estimate(&rho, &k3).unwrap() * old.exp().unwrap()).unwrap();
        gradient(&weighted.sum_all().unwrap(), &logits)
    }
}

#[test]
fn the_unbiased_one_is_exact_on_and_off_policy() {
    for seed in 0..30 {
        for case in [
            Case::random(seed),
            Case::random(seed).on_policy(),
            Case::suppressed(seed),
            Case::suppressed(seed).on_policy(),
        ] {
            let exact = case.exact();
            for kl in [Kl::RhoK3, Kl::RhoK2Detached] {
                let error = relative_error(&case.expected(kl), &exact);
                assert!(error < EXACT, "seed {seed}, {kl:?}: {error}");
            }
        }
    }
}

#[test]
fn others_are_biased() {
    for seed in 0..30 {
        let (off, on) = (Case::random(seed), Case::random(seed).on_policy());
        for (case, kinds) in [(&off, [Kl::K1, Kl::K2, Kl::K3].as_slice()), (&on, &[Kl::K1, Kl::K3])] {
            for &kl in kinds {
                let error = relative_error(&case.expected(kl), &case.exact());
                assert!(error > BIASED, "seed {seed}, {kl:?}: {error}");
            }
        }
        // On policy, the square has the exact gradient, and the loss -d none at all.
        assert!(relative_error(&on.expected(Kl::K2), &on.exact()) < EXACT);
        assert!(common::norm(&on.expected(Kl::K1)) < EXACT);
    }
}

/// The ratio must be neither detached nor clipped: such forms fail the check that the crate's form passes.
#[test]
fn a_ratio_that_is_detached_or_clipped_is_biased() {
    for seed in 0..30 {
        let (off, on) = (Case::random(seed), Case::random(seed).on_policy());
        // The form itself, by automatic derivatives: the check is the same.
        assert!(relative_error(&off.expected_of(|rho, k3| rho * k3), &off.exact()) < EXACT);
        for case in [&off, &on] {
            let detached = case.expected_of(|rho, k3| rho.detach() * k3);
            assert!(relative_error(&detached, &case.exact()) > BIASED, "seed {seed}");
        }
        let clipped = off.expected_of(|rho, k3| rho.clamp(0.8, 1.2)? * k3);
        assert!(relative_error(&clipped, &off.exact()) > BIASED, "seed {seed}");
    }
}

/// 8 nats: the weight of equation 7 stays below 1, that of k3 exceeds 1000, and its expectation is far off.
#[test]
fn a_suppressed_token_has_a_small_weight_but_in_k3() {
    let weight = |kl| {
        let sequences = [one_token(-1.0, -1.0, 0.0, 0, 1.0)];
        token_derivatives(&[-9.0], &sequences, &config(kl)).1[0].abs()
    };
    assert!(weight(Kl::RhoK3) < 1.0 && weight(Kl::RhoK2Detached) < 1.0, "{}", weight(Kl::RhoK3));
    assert!(weight(Kl::K3) > 1e3, "{}", weight(Kl::K3));
    let case = Case::suppressed(0);
    assert!(relative_error(&case.expected(Kl::K3), &case.exact()) > 100.0);
}

/// A policy 120 nats below the reference: `exp(d)` is beyond f32, and its product with the ratio is not.
#[test]
fn large_differences_do_not_overflow() {
    let found = |kl| {
        let logp = Var::new(&[-120f32], &Device::Cpu).unwrap();
        let batch = common::batch(&[one_token(-1.0, -0.5, 0.0, 0, 1.0)], Policy::LogProbs(logp.as_tensor().clone()));
        rl::loss(&batch, &config(kl)).map(|(loss, _)| (common::scalar(&loss), gradient(&loss, &logp)[0]))
    };
    let (value, derivative) = found(Kl::RhoK3).unwrap();
    // exp(ref - old) - r (d + 1), and -r d, with r = exp(-119).
    assert!((value - 0.5f64.exp()).abs() < 1e-6, "{value}");
    assert!(derivative.abs() < 1e-40, "{derivative}");
    let (value, _) = found(Kl::RhoK2Detached).unwrap();
    assert!(value < 1e-40);
    match found(Kl::K3) {
        Err(RlError::NotFinite { row: 0, dtype: "f32", .. }) => {}
        other => panic!("k3 is {other:?}"),
    }
    // In f64 it is a number up to 700 nats, and the unbiased one beyond.
    let beyond = [one_token(-1.0, -0.5, 0.0, 0, 1.0)];
    let (found, derivatives) = token_derivatives(&[-2000.0], &beyond, &config(Kl::RhoK3));
    assert!((found.metrics.kl_loss - 0.5f64.exp()).abs() < 1e-12 && derivatives[0] == 0.0);
}

/// Values and derivatives by finite differences; those without the ratio's gradient hold the ratio.
#[test]
fn derivatives_are_those_of_the_values() {
    const STEP: f64 = 1e-6;
    let value = |kl: Kl, logp: f64, old: f64, reference: f64| {
        let (found, derivatives) = token_derivatives(&[logp], &[one_token(old, reference, 0.0, 0, 1.0)], &config(kl));
        assert_eq!(found.metrics.mean_kl, found.metrics.kl_loss);
        (found.metrics.kl_loss, derivatives[0])
    };
    for kl in [Kl::K1, Kl::K2, Kl::K3, Kl::RhoK3, Kl::RhoK2Detached] {
        for (logp, old, reference) in
            [(-1.0, -1.5, -0.7), (-3.0, -1.0, -1.0), (-0.5, -0.5, -4.0), (-2.0, -2.0, -2.0 + 1e-9)]
        {
            let at = |logp: f64| match kl {
                // With `old` moved along, the ratio stays.
                Kl::RhoK2Detached => {
                    value(kl, logp + STEP, old + STEP, reference).0 - value(kl, logp - STEP, old - STEP, reference).0
                }
                _ => value(kl, logp + STEP, old, reference).0 - value(kl, logp - STEP, old, reference).0,
            };
            let (difference, derivative) = (at(logp) / (2.0 * STEP), value(kl, logp, old, reference).1);
            assert!(
                (difference - derivative).abs() < 1e-7 * (1.0 + derivative.abs()),
                "{kl:?}: {derivative} for {difference}"
            );
        }
    }
}

/// Two tokens: the expectation is the sum over steps of the prefixes' divergences, weighted by the sampler, which is
/// not the divergence of whole strings.
#[test]
fn its_scope_is_the_token_under_the_samplers_prefixes() {
    const SYMBOLS: usize = 3;
    let mut rng = common::rng(5);
    // Row 0 is for the first token, row 1 + a follows token a.
    let mut table = || -> Vec<Vec<f64>> { (0..4).map(|_| random_logits(&mut rng, SYMBOLS, 1.5)).collect() };
    let (policy, old, reference) = (table(), table(), table());
    let (mut sequences, mut rows) = (Vec::new(), Vec::new());
    for (first, second) in (0..9).map(|string| (string / 3, string % 3)) {
        let steps = [(0, first), (1 + first, second)];
        let row = |(row, token): (usize, usize)| {
            let logp = |table: &[Vec<f64>]| common::log_prob(&table[row], token as u32, None, 1.0);
            let (old_logp, ref_logp) = (logp(&old), logp(&reference));
            Row { logits: Vec::new(), token: token as u32, generated: true, old_logp, ref_logp, kept: None }
        };
        rows.extend(steps.map(|(row, _)| row as u32));
        let rows = steps.map(row).to_vec();
        let probability: f64 = rows.iter().map(|row| row.old_logp).sum::<f64>().exp();
        sequences.push(Sequence { rows, reward: 0.0, group: 0, beta: 9.0 * probability, truncated: false });
    }
    let logits = Var::new(policy.clone(), &Device::Cpu).unwrap();
    let rows = Tensor::new(rows, &Device::Cpu).unwrap();
    let batch = common::batch(&sequences, Policy::Logits(logits.index_select(&rows, 0).unwrap()));
    let config = GrpoConfig { aggregation: Aggregation::SeqMeanTokenSum, ..config(Kl::RhoK3) };
    let found = gradient(&rl::loss(&batch, &config).unwrap().0, &logits);

    let p = |table: &[Vec<f64>]| table.iter().map(|logits| softmax(logits)).collect::<Vec<_>>();
    let (policy_p, old_p, reference_p) = (p(&policy), p(&old), p(&reference));
    let steps: Vec<Vec<f64>> = (0..4).map(|row| kl_gradient(&policy_p[row], &reference_p[row])).collect();
    let mut expected = steps[0].clone();
    for first in 0..SYMBOLS {
        expected.extend(steps[1 + first].iter().map(|gradient| gradient * old_p[0][first]));
    }
    assert!(relative_error(&found, &expected) < EXACT);

    // Of whole strings: KL_0 + sum_a p(a) KL_a. The first step's logits also move the weights p(a).
    let kl: Vec<f64> = (0..4).map(|row| common::kl(&policy_p[row], &reference_p[row])).collect();
    let mean: f64 = (0..SYMBOLS).map(|first| policy_p[0][first] * kl[1 + first]).sum();
    let mut whole: Vec<f64> =
        (0..SYMBOLS).map(|first| steps[0][first] + policy_p[0][first] * (kl[1 + first] - mean)).collect();
    for first in 0..SYMBOLS {
        whole.extend(steps[1 + first].iter().map(|gradient| gradient * policy_p[0][first]));
    }
    assert!(relative_error(&found, &whole) > BIASED);
}
