//! The clipped surrogate (A3): where the gradient is zero, and what bounds negative advantages.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::rl::{self, GrpoConfig, Policy, RlError};

use crate::common::{Sequence, batch, one_token, plain, token_derivatives};

/// Of a term and its derivative.
const TOLERANCE: f64 = 1e-12;

/// The surrogate and its derivative for these ratios, each with the advantage 1 (first) and -1.
fn terms(ratio: f64, config: &GrpoConfig) -> [(f64, f64); 2] {
    [1.0, -1.0].map(|advantage| {
        // The partner has the other reward, and a term of its own that is subtracted.
        let pair = |old_logp: f64| -> Vec<Sequence> {
            vec![one_token(old_logp, 0.0, advantage, 0, 0.0), one_token(0.0, 0.0, -advantage, 0, 0.0)]
        };
        let (found, derivatives) = token_derivatives(&[0.0, 0.0], &pair(-ratio.ln()), config);
        let partner = -advantage;
        (-(found.metrics.pg_loss * 2.0) - partner, -derivatives[0])
    })
}

#[test]
fn the_gradient_is_zero_exactly_where_a_bound_holds() {
    let clip = |clip: f64| GrpoConfig { clip_low: clip, clip_high: clip, ..plain() };
    let higher = GrpoConfig { clip_low: 0.2, clip_high: 0.28, ..plain() };
    let dual = GrpoConfig { dual_clip: Some(3.0), ..plain() };
    // Ratio; then value and derivative for A = 1 and for A = -1.
    for (config, ratio, positive, negative) in [
        (&clip(0.2), 0.5, (0.5, 0.5), (-0.8, 0.0)),
        (&clip(0.2), 1.0, (1.0, 1.0), (-1.0, -1.0)),
        (&clip(0.2), 1.25, (1.2, 0.0), (-1.25, -1.25)),
        (&clip(0.2), 50.0, (1.2, 0.0), (-50.0, -50.0)),
        // 1 - 10 is below every ratio: nothing is clipped below.
        (&clip(10.0), 0.5, (0.5, 0.5), (-0.5, -0.5)),
        (&clip(10.0), 1.0, (1.0, 1.0), (-1.0, -1.0)),
        (&clip(10.0), 10.5, (10.5, 10.5), (-10.5, -10.5)),
        (&clip(10.0), 11.5, (11.0, 0.0), (-11.5, -11.5)),
        (&higher, 1.25, (1.25, 1.25), (-1.25, -1.25)),
        (&higher, 1.3, (1.28, 0.0), (-1.3, -1.3)),
        (&dual, 2.9, (1.2, 0.0), (-2.9, -2.9)),
        (&dual, 50.0, (1.2, 0.0), (-3.0, 0.0)),
    ] {
        for ((value, derivative), expected) in terms(ratio, config).into_iter().zip([positive, negative]) {
            let what = format!("ratio {ratio}, {config:?}: {value}, {derivative}, expected {expected:?}");
            assert!((value - expected.0).abs() < TOLERANCE * 100.0, "{what}");
            assert!((derivative - expected.1).abs() < TOLERANCE * 100.0, "{what}");
            assert_eq!(derivative == 0.0, expected.1 == 0.0, "{what}");
        }
    }
}

#[test]
fn fractions_count_tokens_by_sign() {
    let config = GrpoConfig { dual_clip: Some(3.0), ..plain() };
    let ratios: [f64; 6] = [0.5, 1.5, 4.0, 0.5, 1.5, 4.0];
    let sequences: Vec<_> = ratios
        .iter()
        .enumerate()
        .map(|(index, ratio)| one_token(-ratio.ln(), 0.0, if index < 3 { 1.0 } else { -1.0 }, 0, 0.0))
        .collect();
    let (found, _) = token_derivatives(&[0.0; 6], &sequences, &config);
    let metrics = found.metrics;
    let fractions = [metrics.clip_frac_high, metrics.clip_frac_low, metrics.dual_clip_frac];
    assert_eq!(fractions, [2.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0]);
    assert!((metrics.max_ratio - 4.0).abs() < TOLERANCE && (metrics.mean_ratio - 2.0).abs() < TOLERANCE);
}

/// A ratio that is infinite in f64 is clipped for a positive advantage; nothing becomes 0 times infinity.
#[test]
fn ratios_beyond_all_numbers_are_clipped_or_refused() {
    let sequences = |reward: f64| [one_token(-800.0, 0.0, reward, 0, 0.0), one_token(0.0, 0.0, -reward, 0, 0.0)];
    let (found, derivatives) = token_derivatives(&[0.0, 0.0], &sequences(1.0), &plain());
    assert_eq!((found.metrics.pg_loss * 2.0, derivatives[0]), (-1.2 + 1.0, 0.0));
    let none = [one_token(-800.0, 0.0, 1.0, 0, 0.0), one_token(0.0, 0.0, 1.0, 0, 0.0)];
    assert_eq!(token_derivatives(&[0.0, 0.0], &none, &plain()).1, [0.0, 0.0]);
    let dual = GrpoConfig { dual_clip: Some(3.0), ..plain() };
    assert_eq!(token_derivatives(&[0.0, 0.0], &sequences(-1.0), &dual).1[0], 0.0);
    let logp = Tensor::zeros(2, DType::F64, &Device::Cpu).unwrap();
    match rl::loss(&batch(&sequences(-1.0), Policy::LogProbs(logp)), &plain()) {
        Err(RlError::NotFinite { row: 0, value: f64::INFINITY, dtype: "f64", .. }) => {}
        other => panic!("{other:?}"),
    }
}
