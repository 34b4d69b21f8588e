//! Off-policy sequence masking (A6): which sequences, and what stays of them.

use deepseek_v32::rl::{GrpoConfig, Kl};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::common::{self, Row, Sequence, evaluated, greatest_difference, one_token, plain, random_sequences, rng};

/// Of a gradient, in f64.
const TOLERANCE: f64 = 1e-13;

fn config(delta: Option<f64>) -> GrpoConfig {
    GrpoConfig { opsm_delta: delta, ..plain() }
}

/// Which of these sequences the loss masks.
fn masked(sequences: &[Sequence], delta: f64) -> Vec<bool> {
    evaluated(sequences, &config(Some(delta))).0.masked
}

/// A sequence of uniform logits over four ids whose rows have these drifts, and a partner with the opposite reward.
fn drifting(drifts: &[(f64, bool)], reward: f64) -> [Sequence; 2] {
    let logp = -(4f64.ln());
    let row = |&(drift, generated): &(f64, bool)| Row {
        logits: vec![0.0; 4],
        token: 1,
        generated,
        old_logp: logp + drift,
        ref_logp: logp,
        kept: None,
    };
    let of = |rows: Vec<Row>, reward| Sequence { rows, reward, group: 3, beta: 0.1, truncated: false };
    [of(drifts.iter().map(row).collect(), reward), of(vec![row(&(0.0, true))], -reward)]
}

/// Rows (drift, generated), reward, whether a delta of 0.3 masks.
type Case = (&'static [(f64, bool)], f64, bool);

#[test]
fn negatives_above_delta_are_masked_and_no_others() {
    const TOOL: (f64, bool) = (100.0, false);
    let cases: [Case; 9] = [
        (&[(0.2, true), (0.5, true)], -1.0, true),
        (&[(0.2, true), (0.5, true)], 1.0, false),
        (&[(0.2, true), (0.3, true)], -1.0, false),
        (&[(0.2, true), (0.3, true)], 1.0, false),
        // The policy moved towards it: one-sided.
        (&[(-2.0, true), (-0.5, true)], -1.0, false),
        // Rows of tools count neither in the sum nor in the length.
        (&[(0.2, true), TOOL, (0.5, true)], -1.0, true),
        (&[(0.2, true), TOOL, (0.3, true)], -1.0, false),
        (&[(0.4, true), (-90.0, false)], -1.0, true),
        // Not longer sequences, but those that drift more for each token.
        (&[(0.2, true); 12], -1.0, false),
    ];
    for (drifts, reward, expected) in cases {
        let sequences = drifting(drifts, reward);
        assert_eq!(masked(&sequences, 0.3), [expected, false], "{drifts:?} with reward {reward}");
        // Padding, as rows that were not generated.
        let mut padded = sequences.clone();
        padded[0].rows.extend(vec![Row { generated: false, ..sequences[1].rows[0].clone() }; 3]);
        assert_eq!(masked(&padded, 0.3), [expected, false]);
    }
}

#[test]
fn it_is_a_bound_of_the_geometric_mean_of_ratios() {
    let mut rng = rng(11);
    for seed in 0..30 {
        let sequences = random_sequences(seed, 8, 5);
        let delta = rng.random_range(0.01..0.3);
        let (found, _) = evaluated(&sequences, &config(Some(delta)));
        let mut row = 0;
        for (index, sequence) in sequences.iter().enumerate() {
            let ratios: Vec<f64> = found.ratio[row..row + sequence.rows.len()].iter().flatten().copied().collect();
            row += sequence.rows.len();
            let mean = ratios.iter().product::<f64>().powf(1.0 / ratios.len() as f64);
            let advantage = {
                let group: Vec<f64> =
                    sequences.iter().filter(|other| other.group == sequence.group).map(|other| other.reward).collect();
                sequence.reward - group.iter().sum::<f64>() / group.len() as f64
            };
            let expected = !ratios.is_empty() && advantage < 0.0 && mean < (-delta).exp();
            assert_eq!(found.masked[index], expected, "seed {seed}, sequence {index}: {mean}");
        }
        // The order of tokens does not matter.
        let mut shuffled = sequences.clone();
        shuffled.iter_mut().for_each(|sequence| sequence.rows.shuffle(&mut rng));
        assert_eq!(evaluated(&shuffled, &config(Some(delta))).0.masked, found.masked);
    }
}

#[test]
fn a_greater_delta_masks_fewer() {
    let sequences = random_sequences(2, 40, 5);
    let sets: Vec<Vec<bool>> = [0.0, 0.01, 0.05, 0.1, 0.2, 0.5].map(|delta| masked(&sequences, delta)).into();
    let count = |set: &Vec<bool>| set.iter().filter(|&&masked| masked).count();
    assert!(count(&sets[0]) > count(&sets[5]), "{:?}", sets.iter().map(count).collect::<Vec<_>>());
    for pair in sets.windows(2) {
        assert!(pair[1].iter().zip(&pair[0]).all(|(more, less)| !more || *less), "a mask that delta adds");
    }
}

/// Without a bound, and where no advantage is negative, bits are those of no mask.
#[test]
fn it_is_the_identity_where_it_cannot_bind() {
    let sequences = random_sequences(3, 12, 5);
    let bits = |sequences: &[Sequence], delta| {
        let (found, gradient) = evaluated(sequences, &config(delta));
        let bits: Vec<u64> = gradient.iter().map(|value| value.to_bits()).collect();
        (common::scalar(&found.loss).to_bits(), bits)
    };
    assert_eq!(bits(&sequences, Some(f64::INFINITY)), bits(&sequences, None));
    assert!(bits(&sequences, Some(0.0)) != bits(&sequences, None), "a case that masks nothing");
    // Groups of one have advantage 0.
    let alone: Vec<_> =
        sequences.iter().enumerate().map(|(group, of)| Sequence { group: group as i64, ..of.clone() }).collect();
    assert_eq!(bits(&alone, Some(0.0)), bits(&alone, None));
}

/// The mask takes the surrogate's gradient away, and leaves the divergence's and the others' as they are.
#[test]
fn the_divergence_and_the_denominators_stay() {
    let sequences = random_sequences(4, 12, 5);
    let with = |kl, delta| evaluated(&sequences, &GrpoConfig { kl, ..config(delta) });
    let (masked, all) = with(Kl::RhoK3, Some(0.05));
    let (unmasked, surrogate_and_kl) = with(Kl::RhoK3, None);
    let surrogate = with(Kl::None, None).1;
    let vocab = 5;
    let owners = sequences.iter().enumerate().flat_map(|(index, of)| vec![index; of.rows.len() * vocab]);
    let expected: Vec<f64> = owners
        .zip(surrogate_and_kl.iter().zip(&surrogate))
        .map(|(owner, (both, surrogate))| if masked.masked[owner] { both - surrogate } else { *both })
        .collect();
    assert!(masked.masked.contains(&true) && greatest_difference(&all, &expected) < TOLERANCE);
    assert_eq!((masked.metrics.n_seq, masked.metrics.n_tok), (unmasked.metrics.n_seq, unmasked.metrics.n_tok));
    assert_eq!(masked.metrics.kl_loss, unmasked.metrics.kl_loss);
}

#[test]
fn fractions_are_of_sequences_and_of_tokens() {
    let mut sequences = drifting(&[(0.5, true), (0.5, true), (9.0, false)], -1.0).to_vec();
    sequences.push(Sequence { group: 4, ..one_token(0.0, 0.0, 0.0, 0, 0.0) });
    sequences[2].rows[0].logits = vec![0.0; 4];
    let metrics = evaluated(&sequences, &config(Some(0.1))).0.metrics;
    assert_eq!((metrics.opsm_seq_frac, metrics.opsm_tok_frac), (1.0 / 3.0, 2.0 / 4.0));
}
