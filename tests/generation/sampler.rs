//! The sampler against naive f64 enumeration.

use std::collections::BTreeMap;

use deepseek_v32::generation::{GenerationError, Report, Sampler, SamplingParams};
use proptest::prelude::*;

/// Probabilities are computed in f64 on both sides.
const PROBABILITY: f64 = 1e-12;
/// Log-probabilities are reported in f32.
const LOGPROB: f64 = 1e-5;
/// Slack for a cumulated probability that may fall on either side of `top_p` by rounding.
const BOUNDARY: f64 = 1e-9;

fn sampler(params: &SamplingParams, prompt: &[u32], vocab_size: usize) -> Sampler {
    Sampler::new(params.clone(), prompt, vocab_size, 7).unwrap()
}

/// Logits after penalties and bias, by the definition.
fn penalised(params: &SamplingParams, prompt: &[u32], answer: &[u32], logits: &[f32]) -> Vec<f64> {
    let all: Vec<u32> = prompt.iter().chain(answer).copied().collect();
    let window = &all[all.len() - params.repeat_last_n.unwrap_or(all.len()).min(all.len())..];
    let mut values: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for (id, value) in values.iter_mut().enumerate() {
        let id = id as u32;
        if window.contains(&id) {
            *value *= if *value > 0.0 { 1.0 / params.repetition_penalty } else { params.repetition_penalty };
        }
        let count = answer.iter().filter(|&&token| token == id).count() as f64;
        *value -= params.presence_penalty * count.min(1.0) + params.frequency_penalty * count;
        *value += f64::from(params.logit_bias.get(&id).copied().unwrap_or(0.0));
    }
    values
}

/// The kept tokens by the definition of each truncation in turn, each renormalising, with their probabilities.
fn reference(params: &SamplingParams, values: &[f64]) -> BTreeMap<u32, f64> {
    let softmax = |ids: &[u32]| -> Vec<f64> {
        let weights: Vec<f64> = ids.iter().map(|&id| (values[id as usize] / params.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    };
    let mut ids: Vec<u32> = (0..values.len() as u32).filter(|&id| values[id as usize] > f64::NEG_INFINITY).collect();
    ids.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b)));
    ids.truncate(params.top_k.unwrap_or(usize::MAX));
    if params.top_p < 1.0 {
        let mut mass = 0.0;
        let probs = softmax(&ids);
        let enough = probs.iter().position(|prob| {
            mass += prob;
            mass >= params.top_p
        });
        ids.truncate(enough.map_or(ids.len(), |last| last + 1));
    }
    let probs = softmax(&ids);
    let kept = probs.iter().filter(|&&prob| prob >= params.min_p * probs[0]).count();
    ids.truncate(kept);
    ids.iter().copied().zip(softmax(&ids)).collect()
}

fn assert_same(params: &SamplingParams, sampler: &Sampler, values: &[f64], logits: &[f32]) {
    let expected = reference(params, values);
    let got = sampler.distribution(logits).unwrap();
    let got: BTreeMap<u32, f64> = got.ids.into_iter().zip(got.probs).collect();
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "kept sets, {params:?}");
    for (id, prob) in expected {
        assert!((got[&id] - prob).abs() < PROBABILITY, "token {id}: {} and {prob}, {params:?}", got[&id]);
    }
}

#[test]
fn distribution_is_the_definition() {
    // No two sums of these weights come near the thresholds below.
    let logits: Vec<f32> = (0..300).map(|i| ((i * 7919) % 300) as f32 * 0.037 - 4.0 + (i as f32 * 0.7).sin()).collect();
    for temperature in [0.3, 1.0, 2.5] {
        for top_k in [None, Some(1), Some(2), Some(40), Some(299), Some(300), Some(5000)] {
            for top_p in [1.0, 0.97, 0.61, 0.05, 1e-9] {
                for min_p in [0.0, 0.013, 0.5, 1.0] {
                    let params = SamplingParams { temperature, top_k, top_p, min_p, ..SamplingParams::default() };
                    let values: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
                    assert_same(&params, &sampler(&params, &[1], 300), &values, &logits);
                }
            }
        }
    }
}

#[test]
fn ties_go_to_the_smaller_id() {
    let logits = [1.0, 3.0, 3.0, 3.0, 2.0, 2.0];
    let kept = |params: SamplingParams| {
        let mut ids = sampler(&params, &[0], 6).distribution(&logits).unwrap().ids;
        ids.sort_unstable();
        ids
    };
    let sampled = SamplingParams::sampled(1.0, 1);
    assert_eq!(kept(SamplingParams { top_k: Some(2), ..sampled.clone() }), [1, 2]);
    assert_eq!(kept(SamplingParams { top_k: Some(4), ..sampled.clone() }), [1, 2, 3, 4]);
    assert_eq!(kept(SamplingParams { top_p: 0.4, ..sampled.clone() }), [1, 2]);
    assert_eq!(kept(SamplingParams { min_p: 1.0, ..sampled }), [1, 2, 3]);
    assert_eq!(kept(SamplingParams::greedy()), [1]);
    // A zero is a zero, whatever its sign, on both ways to the greedy token.
    let zeros = [-1.0, -0.0, 0.0];
    let biased = SamplingParams { logit_bias: [(0, 0.5)].into(), ..SamplingParams::greedy() };
    for params in [SamplingParams::greedy(), biased] {
        assert_eq!(sampler(&params, &[0], 3).sample(&zeros, Report::default()).unwrap().id, 1);
    }
}

#[test]
fn extreme_numbers_stay_numbers() {
    let logits = [f32::MAX, f32::MIN, 1e30, -1e30, 0.0, f32::NEG_INFINITY];
    let hostile = [
        SamplingParams { temperature: f64::MIN_POSITIVE, ..SamplingParams::default() },
        SamplingParams { temperature: 5e-324, top_p: 5e-324, ..SamplingParams::default() },
        SamplingParams { temperature: f64::MAX, min_p: 1.0, ..SamplingParams::default() },
        SamplingParams { temperature: 1.0, repetition_penalty: f64::MIN_POSITIVE, ..SamplingParams::default() },
        SamplingParams { temperature: 1.0, repetition_penalty: f64::MAX, top_k: Some(3), ..SamplingParams::default() },
        SamplingParams {
            temperature: 1e-3,
            logit_bias: [(0, f32::MAX), (1, f32::MIN), (4, f32::NEG_INFINITY)].into(),
            top_p: 0.5,
            ..SamplingParams::default()
        },
    ];
    for params in hostile {
        let mut sampler = sampler(&params, &[0, 1, 2, 3, 4, 5], 6);
        for _ in 0..20 {
            let distribution = sampler.distribution(&logits).unwrap();
            assert!((distribution.probs.iter().sum::<f64>() - 1.0).abs() < PROBABILITY, "{params:?}");
            let sampled = sampler.sample(&logits, Report { logprobs: Some(9), kept: true }).unwrap();
            let logprobs = sampled.logprobs.unwrap();
            assert!(!logprobs.logprob.is_nan() && logprobs.sampled_logprob <= 0.0, "{params:?}");
            assert_ne!(sampled.id, 5, "a forbidden token was chosen, {params:?}");
        }
    }
}

#[test]
fn logprobs_are_the_models_and_the_samplers() {
    let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 1.3).cos() * 3.0).collect();
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let params = SamplingParams { top_k: Some(5), logit_bias: [(7, 8.0)].into(), ..SamplingParams::sampled(0.7, 3) };
    let mut sampler = sampler(&params, &[1], 50);
    for _ in 0..50 {
        let distribution = sampler.distribution(&logits).unwrap();
        let sampled = sampler.sample(&logits, Report { logprobs: Some(3), kept: true }).unwrap();
        let logprobs = sampled.logprobs.unwrap();
        let raw = |id: u32| f64::from(logits[id as usize]) - total.ln();
        assert!((f64::from(logprobs.logprob) - raw(sampled.id)).abs() < LOGPROB);
        assert!((f64::from(logprobs.sampled_logprob) - distribution.prob(sampled.id).ln()).abs() < LOGPROB);
        assert_eq!(logprobs.top.len(), 3);
        let mut by_logit: Vec<u32> = (0..50).collect();
        by_logit.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        for (&(id, logprob), &expected) in logprobs.top.iter().zip(&by_logit) {
            assert_eq!(id, expected);
            assert!((f64::from(logprob) - raw(id)).abs() < LOGPROB);
        }
        let kept = sampled.kept.unwrap();
        assert!(kept.len() == 5 && kept.is_sorted() && kept.contains(&7) && kept.contains(&sampled.id));
    }
    // Nothing left out, nothing to report; asked for nothing, nothing is reported.
    let mut whole = Sampler::new(SamplingParams::sampled(1.0, 1), &[1], 50, 0).unwrap();
    assert_eq!(whole.sample(&logits, Report { logprobs: None, kept: true }).unwrap().kept, None);
    assert_eq!(whole.sample(&logits, Report::default()).unwrap().logprobs, None);
}

#[test]
fn draws_follow_the_distribution() {
    // The share of the uniform numbers that lead to a token is its probability: with a seed for every draw the
    // shares of 20,000 draws lie within 5 standard deviations.
    let logits = [0.0, 1.0, 2.0, -1.0];
    let params = SamplingParams { top_k: Some(3), ..SamplingParams::sampled(0.8, 0) };
    let expected = sampler(&params, &[0], 4).distribution(&logits).unwrap();
    let draws = 20_000;
    let mut counts = [0.0; 4];
    for seed in 0..draws {
        let mut sampler = sampler(&SamplingParams { seed: Some(seed), ..params.clone() }, &[0], 4);
        counts[sampler.sample(&logits, Report::default()).unwrap().id as usize] += 1.0;
    }
    for (id, count) in counts.into_iter().enumerate() {
        let p = expected.prob(id as u32);
        let deviation = (draws as f64 * p * (1.0 - p)).sqrt();
        assert!((count - draws as f64 * p).abs() <= 5.0 * deviation, "token {id}: {count} draws at p = {p}");
    }
}

#[test]
fn bad_parameters_are_named() {
    let default = SamplingParams::default;
    let nan = f64::NAN;
    let bad = [
        ("temperature", SamplingParams { temperature: nan, ..default() }),
        ("temperature", SamplingParams { temperature: -0.1, ..default() }),
        ("temperature", SamplingParams { temperature: f64::INFINITY, ..default() }),
        ("top_k", SamplingParams { top_k: Some(0), ..default() }),
        ("top_p", SamplingParams { top_p: 0.0, ..default() }),
        ("top_p", SamplingParams { top_p: 1.0001, ..default() }),
        ("top_p", SamplingParams { top_p: nan, ..default() }),
        ("min_p", SamplingParams { min_p: -0.1, ..default() }),
        ("min_p", SamplingParams { min_p: 1.1, ..default() }),
        ("min_p", SamplingParams { min_p: nan, ..default() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: 0.0, ..default() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: nan, ..default() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: f64::INFINITY, ..default() }),
        ("presence_penalty", SamplingParams { presence_penalty: 2.1, ..default() }),
        ("frequency_penalty", SamplingParams { frequency_penalty: nan, ..default() }),
        ("logit_bias", SamplingParams { logit_bias: [(1, f32::NAN)].into(), ..default() }),
        ("logit_bias", SamplingParams { logit_bias: [(1, f32::INFINITY)].into(), ..default() }),
        ("logit_bias", SamplingParams { logit_bias: [(10, 1.0)].into(), ..default() }),
    ];
    for (name, params) in bad {
        let error = params.validate(10).expect_err(name);
        assert!(error.to_string().starts_with(name), "{error}");
    }
    assert!(SamplingParams { logit_bias: [(9, f32::NEG_INFINITY)].into(), ..default() }.validate(10).is_ok());
}

#[test]
fn bad_logits_are_named() {
    for params in [
        SamplingParams::greedy(),
        SamplingParams::sampled(1.0, 1),
        SamplingParams { repetition_penalty: 1.1, ..SamplingParams::greedy() },
    ] {
        let mut sampler = sampler(&params, &[0], 3);
        let mut sample = |logits: &[f32]| sampler.sample(logits, Report { logprobs: Some(1), kept: true });
        let nan = sample(&[0.0, f32::NAN, 0.0]);
        assert!(matches!(nan, Err(GenerationError::Logit { id: 1, value }) if value.is_nan()));
        let infinite = sample(&[0.0, 0.0, f32::INFINITY]);
        assert!(matches!(infinite, Err(GenerationError::Logit { id: 2, value: f32::INFINITY })));
        assert!(matches!(sample(&[f32::NEG_INFINITY; 3]), Err(GenerationError::NoCandidate { vocab_size: 3 })));
        assert!(matches!(sample(&[0.0; 4]), Err(GenerationError::ModelOutput { .. })));
        assert!(matches!(sample(&[]), Err(GenerationError::ModelOutput { .. })));
    }
    let banned =
        SamplingParams { logit_bias: (0..3).map(|id| (id, f32::NEG_INFINITY)).collect(), ..Default::default() };
    let error = sampler(&banned, &[0], 3).sample(&[0.0; 3], Report::default());
    assert!(matches!(error, Err(GenerationError::NoCandidate { .. })));
}

fn params_strategy(vocab_size: u32) -> impl Strategy<Value = SamplingParams> {
    let truncation =
        (prop::option::of(1usize..40), prop_oneof![Just(1.0), 0.01f64..1.0], prop_oneof![Just(0.0), 0.0f64..1.0]);
    let penalties = (
        prop_oneof![Just(1.0), 0.5f64..2.0],
        prop::option::of(0usize..12),
        prop_oneof![Just(0.0), -2.0f64..2.0],
        prop_oneof![Just(0.0), -2.0f64..2.0],
    );
    let bias =
        prop::collection::btree_map(0..vocab_size, prop_oneof![4 => -5.0f32..5.0, 1 => Just(f32::NEG_INFINITY)], 0..4);
    (0.1f64..3.0, truncation, penalties, bias, any::<u64>()).prop_map(
        |(temperature, (top_k, top_p, min_p), (repetition, repeat_last_n, presence, frequency), logit_bias, seed)| {
            SamplingParams {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty: repetition,
                repeat_last_n,
                presence_penalty: presence,
                frequency_penalty: frequency,
                logit_bias,
                seed: Some(seed),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Penalties, kept sets and probabilities over a whole answer, and the same answer from the same seed.
    #[test]
    fn answers_follow_the_definition(
        params in params_strategy(30),
        prompt in prop::collection::vec(0u32..30, 1..20),
        rows in prop::collection::vec(prop::collection::vec(-6.0f32..6.0, 30), 1..12),
    ) {
        let mut first = sampler(&params, &prompt, 30);
        let mut second = Sampler::new(params.clone(), &prompt, 30, 12345).unwrap();
        let mut answer = Vec::new();
        for logits in &rows {
            let values = penalised(&params, &prompt, &answer, logits);
            let distribution = first.distribution(logits).unwrap();
            let expected = reference(&params, &values);
            // A sum may fall on either side of the threshold by rounding: then the sets differ by the last token.
            let on_boundary = {
                let loose = |slack: f64| {
                    reference(&SamplingParams {
                        top_p: (params.top_p + slack).min(1.0),
                        min_p: (params.min_p - slack).max(0.0),
                        ..params.clone()
                    }, &values).len()
                };
                loose(BOUNDARY) != loose(-BOUNDARY)
            };
            if !on_boundary {
                prop_assert_eq!(distribution.ids.len(), expected.len());
                for (&id, &prob) in distribution.ids.iter().zip(&distribution.probs) {
                    prop_assert!((expected.get(&id).copied().unwrap_or(-1.0) - prob).abs() < BOUNDARY);
                }
            }
            let report = Report { logprobs: Some(2), kept: true };
            let sampled = first.sample(logits, report).unwrap();
            prop_assert!(distribution.prob(sampled.id) > 0.0);
            if let Some(kept) = &sampled.kept {
                let mut ids = distribution.ids.clone();
                ids.sort_unstable();
                prop_assert_eq!(kept, &ids);
            } else {
                prop_assert_eq!(distribution.ids.len(), 30);
            }
            // What is reported does not change what is chosen.
            prop_assert_eq!(second.sample(logits, Report::default()).unwrap().id, sampled.id);
            answer.push(sampled.id);
        }
    }

    /// Greedy = the largest penalised logit, ties to the smaller id, whatever the truncation.
    #[test]
    fn greedy_is_the_largest(
        params in params_strategy(20),
        prompt in prop::collection::vec(0u32..20, 1..9),
        rows in prop::collection::vec(prop::collection::vec((-8i8..8).prop_map(f32::from), 20), 1..9),
        plain in any::<bool>(),
    ) {
        let params = if plain { SamplingParams::greedy() } else { SamplingParams { temperature: 0.0, ..params } };
        let mut sampler = sampler(&params, &prompt, 20);
        let mut answer = Vec::new();
        for logits in &rows {
            let values = penalised(&params, &prompt, &answer, logits);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let id = sampler.sample(logits, Report::default()).unwrap().id;
            prop_assert!((values[id as usize] - max).abs() < BOUNDARY);
            if plain {
                prop_assert_eq!(Some(id as usize), values.iter().position(|&value| value == max));
            }
            answer.push(id);
        }
    }
}
