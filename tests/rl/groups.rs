//! Advantages (A1): sums, shifts, scales, groups of one and groups of equal rewards.

use deepseek_v32::rl::{Advantage, GrpoConfig, Plan, Truncated};
use rand::Rng;

use crate::common::{greatest_difference, plain, rng};

/// Of an advantage, in f64.
const TOLERANCE: f64 = 1e-12;
const KINDS: [Advantage; 3] = [Advantage::Mean, Advantage::MeanStd, Advantage::LeaveOneOut];

fn config(advantage: Advantage) -> GrpoConfig {
    GrpoConfig { advantage, std_eps: 0.0, ..plain() }
}

fn plan(rewards: &[f64], group_id: &[i64], config: &GrpoConfig) -> Plan {
    Plan::new(rewards, group_id, &vec![false; rewards.len()], &vec![3; rewards.len()], config).unwrap()
}

#[test]
fn they_follow_the_formulas() {
    let (rewards, groups) = ([1.0, 0.0, 4.0, 2.0, 3.0], [5, -1, 5, 5, -1]);
    // Rewards 1, 4, 2 have mean 7/3 and squared differences 16/9 + 25/9 + 1/9 = 42/9; 0 and 3 have mean 1.5.
    let mean = [1.0 - 7.0 / 3.0, -1.5, 4.0 - 7.0 / 3.0, 2.0 - 7.0 / 3.0, 1.5];
    let leave_one_out = [1.0 - 3.0, -3.0, 4.0 - 1.5, 2.0 - 2.5, 3.0];
    for (advantage, expected) in [(Advantage::Mean, mean), (Advantage::LeaveOneOut, leave_one_out)] {
        let found = plan(&rewards, &groups, &config(advantage));
        assert!(greatest_difference(&found.advantages, &expected) < TOLERANCE, "{found:?}");
    }
    for (std_ddof, stds) in [(0, [(42f64 / 27.0).sqrt(), 1.5]), (1, [(42f64 / 18.0).sqrt(), 4.5f64.sqrt()])] {
        let config = GrpoConfig { std_ddof, std_eps: 0.25, ..config(Advantage::MeanStd) };
        let expected: Vec<f64> =
            mean.iter().zip(groups).map(|(mean, group)| mean / (stds[usize::from(group == -1)] + 0.25)).collect();
        assert!(greatest_difference(&plan(&rewards, &groups, &config).advantages, &expected) < TOLERANCE);
    }
}

#[test]
fn each_group_sums_to_zero_and_neither_order_nor_shift_matters() {
    let mut rng = rng(1);
    for kind in KINDS {
        for _ in 0..20 {
            let rewards: Vec<f64> = (0..12).map(|_| rng.random_range(-2.0..2.0)).collect();
            let groups: Vec<i64> = (0..12).map(|_| rng.random_range(0..3)).collect();
            let found = plan(&rewards, &groups, &config(kind)).advantages;
            for group in 0..3 {
                let members = (0..12).filter(|&index| groups[index] == group);
                let sum: f64 = members.map(|index| found[index]).sum();
                assert!(sum.abs() < TOLERANCE, "{kind:?}: a group sums to {sum}");
            }
            let shifted: Vec<f64> = rewards.iter().map(|reward| reward + 0.75).collect();
            assert!(greatest_difference(&plan(&shifted, &groups, &config(kind)).advantages, &found) < 1e-11);
            let reversed = |values: &[f64]| values.iter().rev().copied().collect::<Vec<_>>();
            let groups: Vec<i64> = groups.iter().rev().copied().collect();
            let back = plan(&reversed(&rewards), &groups, &config(kind)).advantages;
            assert!(greatest_difference(&reversed(&back), &found) < TOLERANCE);
        }
    }
}

#[test]
fn only_the_one_over_the_deviation_forgets_the_scale() {
    let rewards = [0.5, -1.0, 2.0, 0.25];
    let scaled = rewards.map(|reward| 8.0 * reward);
    for kind in KINDS {
        let (one, eight) = (plan(&rewards, &[0; 4], &config(kind)), plan(&scaled, &[0; 4], &config(kind)));
        let factor = if kind == Advantage::MeanStd { 1.0 } else { 8.0 };
        let expected: Vec<f64> = one.advantages.iter().map(|advantage| advantage * factor).collect();
        assert!(greatest_difference(&eight.advantages, &expected) < TOLERANCE);
    }
}

#[test]
fn equal_rewards_and_groups_of_one_have_exactly_none() {
    // 0.1 + 0.1 + 0.1 over 3 is not 0.1.
    let (rewards, groups) = ([0.1, 0.1, 0.1, 0.7, 1.0, 0.0], [0, 0, 0, 1, 2, 2]);
    for kind in KINDS {
        let kept = plan(&rewards, &groups, &config(kind));
        assert_eq!(kept.advantages[..4], [0.0; 4]);
        assert!(kept.advantages[4] > 0.0 && kept.advantages[5] < 0.0);
        assert_eq!((kept.counted.clone(), kept.denominators.tokens), (vec![true; 6], 18));
        assert_eq!(kept.zero_variance_frac, 2.0 / 3.0);
        let dropped = plan(&rewards, &groups, &GrpoConfig { drop_zero_variance: true, ..config(kind) });
        assert_eq!(dropped.counted, [false, false, false, false, true, true]);
        assert_eq!((dropped.denominators.sequences, dropped.denominators.tokens), (2, 6));
    }
}

#[test]
fn sequences_that_were_cut_off_are_kept_scored_zero_or_dropped() {
    let (rewards, truncated) = ([1.0, 0.5, 0.0], [true, false, false]);
    let plan = |truncate| {
        let config = GrpoConfig { truncated: truncate, ..plain() };
        Plan::new(&rewards, &[0; 3], &truncated, &[1, 2, 3], &config).unwrap()
    };
    assert_eq!(
        (plan(Truncated::Keep).advantages, plan(Truncated::Keep).denominators.tokens),
        (vec![0.5, 0.0, -0.5], 6)
    );
    let zero = plan(Truncated::ZeroReward);
    let expected = [-1.0 / 6.0, 1.0 / 3.0, -1.0 / 6.0];
    assert!(greatest_difference(&zero.advantages, &expected) < TOLERANCE);
    assert_eq!(zero.counted, [true; 3]);
    // Its reward stays in the baseline.
    let dropped = plan(Truncated::Drop);
    assert_eq!(dropped.advantages, [0.5, 0.0, -0.5]);
    assert_eq!((dropped.counted, dropped.denominators.tokens), (vec![false, true, true], 5));
}
