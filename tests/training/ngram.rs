//! The n-gram baseline against its definition.

use std::collections::BTreeSet;

use deepseek_v32::training::{Example, NGram};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOCAB: u32 = 6;
/// Greatest difference of f64 sums in another order.
const TOLERANCE: f64 = 1e-12;
/// Stands before a sequence.
const START: u32 = 99;

fn examples() -> Vec<Example> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // The last id is never seen.
    let mut example = |length| {
        let mut ids = vec![0u32];
        for _ in 1..length {
            let next = if rng.random_bool(0.6) { (ids[ids.len() - 1] + 1) % 5 } else { rng.random_range(0..5) };
            ids.push(next);
        }
        Example::whole(ids)
    };
    [40, 1, 7, 90].into_iter().map(&mut example).collect()
}

/// Every gram of `length` tokens, with starts before each sequence.
fn grams(examples: &[Example], length: usize, order: usize) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for example in examples {
        let padded: Vec<u32> = std::iter::repeat_n(START, order).chain(example.ids.iter().copied()).collect();
        all.extend((order + 1..padded.len()).map(|end| padded[end + 1 - length..=end].to_vec()));
    }
    all
}

/// Kneser-Ney's counts of grams of a length: plain ones of the longest, of others how many tokens precede them.
fn counts(examples: &[Example], length: usize, order: usize) -> Vec<Vec<u32>> {
    if length == order {
        return grams(examples, length, order);
    }
    let longer: BTreeSet<Vec<u32>> = grams(examples, length + 1, order).into_iter().collect();
    longer.into_iter().map(|gram| gram[1..].to_vec()).collect()
}

/// The formula, by counting lists from the beginning.
fn probability(examples: &[Example], order: usize, context: &[u32], id: u32) -> f64 {
    let shorter = match context {
        [] => 1.0 / f64::from(VOCAB),
        context => probability(examples, order, &context[1..], id),
    };
    let all = counts(examples, context.len() + 1, order);
    let of = |gram: &[u32]| all.iter().filter(|own| own.as_slice() == gram).count();
    let different: BTreeSet<&Vec<u32>> = all.iter().collect();
    let with = |count| different.iter().filter(|gram| of(gram) == count).count() as f64;
    let discount = if with(1) == 0.0 { 0.5 } else { with(1) / (with(1) + 2.0 * with(2)) };
    let behind = all.iter().filter(|gram| gram.starts_with(context)).count() as f64;
    if behind == 0.0 {
        return shorter;
    }
    let kinds = different.iter().filter(|gram| gram.starts_with(context)).count() as f64;
    let count = of(&[context, &[id]].concat()) as f64;
    (count - discount).max(0.0) / behind + discount * kinds / behind * shorter
}

#[test]
fn probabilities_are_those_of_the_formula() {
    let examples = examples();
    for order in 1..=3 {
        let model = NGram::count(&examples, order, VOCAB as usize).unwrap();
        for before in [vec![], vec![0], vec![0, 1], vec![3, 3], vec![5, 2], vec![2, 5], vec![4, 0, 1, 2]] {
            let padded: Vec<u32> = std::iter::repeat_n(START, order).chain(before.iter().copied()).collect();
            let context = &padded[padded.len() + 1 - order..];
            let mut sum = 0.0;
            for id in 0..VOCAB {
                let (found, expected) = (model.probability(&before, id), probability(&examples, order, context, id));
                assert!((found - expected).abs() <= TOLERANCE, "{order}, {before:?}, {id}: {found} {expected}");
                assert!(found > 0.0);
                sum += found;
            }
            assert!((sum - 1.0).abs() <= TOLERANCE, "{order}, {before:?}: {sum}");
        }
        assert_eq!(model.probability(&[], VOCAB), 0.0);
    }
}

#[test]
fn the_loss_is_that_of_the_tokens_that_count() {
    let examples = examples();
    let model = NGram::count(&examples, 3, VOCAB as usize).unwrap();
    let some = Example { ids: vec![0, 1, 2, 4], learnt: vec![true, true, false, true] };
    let expected = -(model.probability(&[0], 1).ln() + model.probability(&[0, 1, 2], 4).ln()) / 2.0;
    assert!((model.loss(&[some]).unwrap() - expected).abs() <= TOLERANCE);
    assert!(model.loss(&examples).unwrap() < f64::from(VOCAB).ln());
    assert!(model.loss(&[Example::whole(vec![1])]).is_err());
    assert!(model.loss(&[Example::whole(vec![1, VOCAB])]).unwrap_err().to_string().contains("vocab_size"));
    assert!(NGram::count(&examples, 0, VOCAB as usize).unwrap_err().to_string().contains("order"));
    assert!(NGram::count(&examples, 2, 4).unwrap_err().to_string().contains("vocab_size"));
    // Without a text all ids are alike.
    assert_eq!(NGram::count(&[], 2, 4).unwrap().probability(&[1], 2), 0.25);
}
