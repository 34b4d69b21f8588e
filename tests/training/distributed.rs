//! Ranks on threads.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::distributed::{Communicator, DistributedError, SingleRank, Threads};

/// What every rank of a run of `world_size` gives for `work`, in order.
fn on_all<T: Send + 'static>(world_size: usize, work: impl Fn(Threads) -> T + Send + Sync + Clone + 'static) -> Vec<T> {
    let spawn = |rank| {
        let work = work.clone();
        std::thread::spawn(move || work(rank))
    };
    let threads: Vec<_> = Threads::new(world_size).into_iter().map(spawn).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn ranks_get_the_same_sums_and_the_roots_tensor() {
    let found = on_all(3, |rank| {
        let own = rank.rank() as f32;
        let mut found = Vec::new();
        for round in 0..50 {
            let tensor = Tensor::new(&[own * 0.1 + round as f32, -own], &Device::Cpu).unwrap();
            found.push(rank.all_reduce_sum(&tensor).unwrap().to_vec1::<f32>().unwrap());
            found.push(rank.broadcast(&tensor, round % 3).unwrap().to_vec1::<f32>().unwrap());
            rank.barrier().unwrap();
        }
        found.push(rank.all_reduce_numbers(&[1.0, f64::from(own)]).unwrap().iter().map(|&x| x as f32).collect());
        found
    });
    for (round, pair) in found[0][..100].chunks(2).enumerate() {
        let at = |rank: usize| rank as f32 * 0.1 + round as f32;
        assert_eq!(pair[0], [at(0) + at(1) + at(2), -3.0]);
        assert_eq!(pair[1], [at(round % 3), -((round % 3) as f32)]);
    }
    assert_eq!(found[0][100], [3.0, 3.0]);
    assert!(found[1] == found[0] && found[2] == found[0]);
}

#[test]
fn ranks_that_differ_or_end_are_told() {
    let errors = on_all(2, |rank| {
        let own = Tensor::zeros(2 + rank.rank(), DType::F32, &Device::Cpu).unwrap();
        rank.all_reduce_sum(&own).unwrap_err().to_string()
    });
    assert_eq!(errors, ["all_reduce_sum: rank 1 gave [3] f32, rank 0 gave [2] f32"; 2]);
    let ended = on_all(2, |rank| if rank.rank() == 0 { Ok(()) } else { rank.barrier() });
    assert!(matches!(ended[1], Err(DistributedError::Ended { operation: "barrier" })));
    let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    let error = SingleRank.broadcast(&tensor, 1).unwrap_err().to_string();
    assert_eq!(error, "rank 1: a run of 1 ranks has ranks 0..1");
}
