//! Aggregation (A9): a step's gradient does not depend on how its sequences are split, packed or ordered.

use candle_core::DType;
use deepseek_v32::rl::{self, Aggregation, GrpoConfig, Kl, Metrics, Plan, Truncated};

use crate::common::{self, Row, Sequence, evaluated, gradient, greatest_difference, random_sequences, with_logits};

/// Of a loss or a gradient, in f64.
const TOLERANCE: f64 = 1e-13;
const VOCAB: usize = 6;
const MODES: [Aggregation; 4] = [
    Aggregation::SeqMeanTokenMean,
    Aggregation::TokenMean,
    Aggregation::SeqMeanTokenSum,
    Aggregation::SeqMeanTokenSumConst,
];

/// Every mode, with everything that leaves sequences or tokens out, and without.
fn configs() -> Vec<GrpoConfig> {
    let mut found = Vec::new();
    for aggregation in MODES {
        for (truncated, drop_zero_variance, opsm_delta) in [
            (Truncated::Drop, true, Some(0.05)),
            (Truncated::ZeroReward, false, Some(0.0)),
            (Truncated::Keep, false, None),
        ] {
            found.push(GrpoConfig {
                aggregation,
                agg_const: Some(3.5),
                truncated,
                drop_zero_variance,
                opsm_delta,
                kl: Kl::RhoK3,
                ..GrpoConfig::v32()
            });
        }
    }
    found
}

/// Twelve sequences in three groups, one of which has equal rewards; one sequence has no generated token.
fn sequences() -> Vec<Sequence> {
    let mut found = random_sequences(8, 12, VOCAB);
    found[4..8].iter_mut().for_each(|sequence| sequence.reward = 0.25);
    found[1].rows.iter_mut().for_each(|row| row.generated = false);
    (found[2].truncated, found[5].truncated) = (true, true);
    found
}

/// Metrics and gradient of the part `indices` of a step, the latter by sequence.
fn part(all: &[Sequence], indices: &[usize], config: &GrpoConfig) -> (Metrics, Vec<Vec<f64>>) {
    let plan = Plan::of(&with_logits(all).1, config).unwrap();
    let chosen: Vec<_> = indices.iter().map(|&index| all[index].clone()).collect();
    let (logits, batch) = with_logits(&chosen);
    let found = rl::evaluate(&batch, &plan.select(indices).unwrap(), config).unwrap();
    let gradient = gradient(&found.loss, &logits);
    let loss = common::scalar(&found.loss);
    assert!((found.metrics.pg_loss + found.metrics.kl_loss - loss).abs() < TOLERANCE);
    let mut rows = gradient.as_slice();
    let by_sequence = chosen.iter().map(|sequence| {
        let (own, rest) = rows.split_at(sequence.rows.len() * VOCAB);
        rows = rest;
        own.to_vec()
    });
    (found.metrics, by_sequence.collect())
}

fn loss(metrics: &Metrics) -> f64 {
    metrics.pg_loss + metrics.kl_loss
}

/// Compares all metrics.
fn same(found: &Metrics, expected: &Metrics) {
    let value = |metrics| serde_json::to_value(metrics).unwrap();
    let (found, expected) = (value(found), value(expected));
    for (key, expected) in expected.as_object().unwrap() {
        let difference = (found[key].as_f64().unwrap() - expected.as_f64().unwrap()).abs();
        assert!(difference < TOLERANCE, "{key}: {} for {expected}", found[key]);
    }
}

#[test]
fn micro_batches_and_shards_add_up() {
    let all = sequences();
    for config in configs() {
        let (metrics, gradient) = part(&all, &(0..12).collect::<Vec<_>>(), &config);
        assert!(gradient.iter().flatten().any(|value| value.abs() > 1e-4));
        // One at a time, contiguous, across groups, the last uneven.
        let shards: [&[&[usize]]; 4] = [
            &[&[0], &[1], &[2], &[3], &[4], &[5], &[6], &[7], &[8], &[9], &[10], &[11]],
            &[&[0, 1, 2, 3, 4], &[5, 6, 7, 8, 9], &[10, 11]],
            &[&[0, 2, 4, 6, 8, 10], &[1, 3, 5, 7, 9, 11]],
            &[&[11, 3, 7], &[0, 9, 1, 2, 4, 5, 6, 8, 10]],
        ];
        for shards in shards {
            let mut parts = Vec::new();
            for indices in shards {
                let (metrics, found) = part(&all, indices, &config);
                parts.push(metrics);
                for (&index, found) in indices.iter().zip(&found) {
                    assert!(greatest_difference(found, &gradient[index]) < TOLERANCE, "{config:?}");
                }
            }
            // The loss is `pg_loss + kl_loss`.
            same(&Metrics::merged(&parts), &metrics);
        }
    }
}

/// Denominators of the micro-batch itself would be wrong: the test above can fail.
#[test]
fn a_micro_batchs_own_denominators_do_not_add_up() {
    let all = sequences();
    for config in configs() {
        let whole = loss(&part(&all, &(0..12).collect::<Vec<_>>(), &config).0);
        let halves: f64 =
            [&all[..4], &all[4..]].map(|half| common::scalar(&evaluated(half, &config).0.loss)).iter().sum();
        assert!((whole - halves).abs() > 1e-4, "{config:?}");
    }
}

#[test]
fn neither_order_nor_padding_matters() {
    let all = sequences();
    let order = [7, 2, 9, 0, 11, 4, 1, 8, 3, 10, 6, 5];
    let padding =
        Row { logits: vec![9.0; VOCAB], token: 0, generated: false, old_logp: 7.5, ref_logp: 7.5, kept: None };
    for config in configs() {
        let whole: Vec<usize> = (0..12).collect();
        let (metrics, gradient) = part(&all, &whole, &config);
        let shuffled: Vec<_> = order.iter().map(|&index| all[index].clone()).collect();
        let (shuffled_metrics, shuffled) = part(&shuffled, &whole, &config);
        same(&shuffled_metrics, &metrics);
        for (&index, found) in order.iter().zip(&shuffled) {
            assert!(greatest_difference(found, &gradient[index]) < TOLERANCE);
        }
        let mut padded = all.clone();
        for (index, sequence) in padded.iter_mut().enumerate() {
            sequence.rows.extend(vec![padding.clone(); index % 3]);
            sequence.rows.splice(0..0, vec![padding.clone(); index % 2]);
        }
        let (padded_metrics, padded) = part(&padded, &whole, &config);
        same(&padded_metrics, &metrics);
        for (index, found) in padded.iter().enumerate() {
            let before = index % 2 * VOCAB;
            let own = &found[before..before + gradient[index].len()];
            assert!(greatest_difference(own, &gradient[index]) < TOLERANCE);
            assert!(found[..before].iter().chain(&found[before + own.len()..]).all(|&value| value == 0.0));
        }
    }
}

#[test]
fn weights_of_tokens_are_those_of_the_modes() {
    // Two sequences of 1 and 3 tokens with advantages 1 and -1, on policy: the loss is minus the sum of weight times advantage.
    let row = Row { logits: vec![0.0; 2], token: 0, generated: true, old_logp: 0.5f64.ln(), ref_logp: 0.0, kept: None };
    let of =
        |rows: usize, reward| Sequence { rows: vec![row.clone(); rows], reward, group: 0, beta: 0.0, truncated: false };
    let sequences = [of(1, 1.0), of(3, -1.0)];
    for (mode, expected) in MODES.into_iter().zip([0.0, 2.0 / 4.0, 2.0 / 2.0, 2.0 / (2.0 * 3.5)]) {
        let config = GrpoConfig { aggregation: mode, agg_const: Some(3.5), ..common::plain() };
        let loss = common::scalar(&evaluated(&sequences, &config).0.loss);
        assert!((loss - expected).abs() < TOLERANCE, "{mode:?}: {loss}");
    }
}

/// Where no sequence counts, the loss and every gradient are exactly 0.
#[test]
fn nothing_that_counts_is_a_loss_of_zero() {
    let config = GrpoConfig { drop_zero_variance: true, kl: Kl::RhoK3, ..GrpoConfig::v32() };
    let mut all = sequences();
    all.iter_mut().for_each(|sequence| sequence.reward = 1.0);
    let (found, gradient) = evaluated(&all, &config);
    assert_eq!((common::scalar(&found.loss), found.metrics.n_seq, found.metrics.n_tok), (0.0, 0, 0));
    assert!(gradient.len() > 100 && gradient.iter().all(|&value| value == 0.0));
    assert_eq!(found.loss.dtype(), DType::F64);
    assert!(found.logp.iter().chain(&found.ratio).chain(&found.drift).all(Option::is_none));
}
