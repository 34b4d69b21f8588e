//! Money, scaling and crossings, with numbers worked out by hand.

use deepseek_v32::evaluation::{crossover, dollars_per_million_tokens, scaled_seconds};

#[test]
fn money_follows_time() {
    // A thousand tokens a second at 3.6 dollars an hour: a dollar for a million.
    assert!((dollars_per_million_tokens(0.001, 3.6).unwrap() - 1.0).abs() < 1e-12);
    let error = dollars_per_million_tokens(0.001, -2.0).unwrap_err().to_string();
    assert_eq!(error, "dollars_per_hour is -2, expected a finite number above 0");
}

#[test]
fn layers_are_counted_apart_from_the_ends() {
    // Ends of 5, an MLP layer of 2, a layer with experts of 3.
    let (one, two, whole) = (7.0, 9.0, 9.0 + 4.0 * 3.0);
    assert_eq!(scaled_seconds(one, two, whole, 4, [2, 4]).unwrap(), whole);
    assert_eq!(scaled_seconds(one, two, whole, 4, [3, 58]).unwrap(), 5.0 + 3.0 * 2.0 + 58.0 * 3.0);
    // Two equal stacks and noise: no layer takes less than no time.
    assert_eq!(scaled_seconds(7.0, 6.5, 9.5, 1, [1, 2]).unwrap(), 7.0 + 2.0 * 3.0);
    assert!(scaled_seconds(1.0, 2.0, 2.0, 0, [2, 0]).is_ok());
    let error = scaled_seconds(1.0, 2.0, 2.0, 0, [2, 1]).unwrap_err().to_string();
    assert_eq!(error, "stacked is 0, expected at least 1");
}

#[test]
fn a_crossing_lies_between_its_points() {
    let flat = [(1.0, 4.0), (2.0, 4.0), (4.0, 4.0)];
    let rising = [(1.0, 2.0), (2.0, 3.0), (4.0, 7.0)];
    // 3 + 4 · (x - 2) / 2 = 4 at 2.5.
    assert_eq!(crossover(&flat, &rising).unwrap(), Some(2.5));
    assert_eq!(crossover(&rising, &flat).unwrap(), None);
    let above = [(1.0, 9.0), (2.0, 9.0), (4.0, 9.0)];
    assert_eq!(crossover(&flat, &above).unwrap(), Some(1.0));
    // What dips below and comes back does not count before it stays.
    let dips = [(1.0, 3.0), (2.0, 5.0), (4.0, 3.0)];
    assert_eq!(crossover(&dips, &flat).unwrap(), Some(3.0));
    assert_eq!(crossover(&[], &[]).unwrap(), None);
    for (a, b, part) in [
        (&flat[..2], &rising[..], "position is of 2 and of 3 points"),
        (&[(2.0, 1.0), (1.0, 1.0)], &[(2.0, 1.0), (1.0, 1.0)], "position is 1, expected positions in ascending order"),
        (&[(2.0, f64::NAN)], &[(2.0, 1.0)], "position is 2, expected finite numbers"),
    ] {
        let error = crossover(a, b).unwrap_err().to_string();
        assert!(error.starts_with(part), "{error}");
    }
}
