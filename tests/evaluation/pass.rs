//! The estimator of pass@k beside the count of all choices.

use deepseek_v32::evaluation::pass_at_k;

#[test]
fn the_estimate_is_the_share_of_choices_with_a_success() {
    for attempts in 1..=9u64 {
        for solved in 0..=attempts {
            for k in 1..=attempts {
                // Attempts are bits, the first `solved` of them succeeded.
                let choices = (0u64..1 << attempts).filter(|choice| u64::from(choice.count_ones()) == k);
                let hits = choices.clone().filter(|choice| choice & ((1 << solved) - 1) != 0).count();
                let naive = hits as f64 / choices.count() as f64;
                let estimate = pass_at_k(attempts, solved, k).unwrap();
                assert!((estimate - naive).abs() < 1e-12, "{attempts} {solved} {k}: {estimate}, {naive}");
            }
        }
    }
}

#[test]
fn large_counts_do_not_overflow_and_impossible_ones_have_no_estimate() {
    let one = pass_at_k(1_000_000, 1, 500_000).unwrap();
    assert!((one - 0.5).abs() < 1e-12, "{one}");
    assert_eq!(pass_at_k(100_000, 0, 100), Some(0.0));
    for (attempts, solved, k) in [(4, 2, 0), (4, 2, 5), (4, 5, 1), (0, 0, 1)] {
        assert_eq!(pass_at_k(attempts, solved, k), None);
    }
}
