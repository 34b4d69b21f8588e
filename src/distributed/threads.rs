//! Ranks that are threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use candle_core::Tensor;

use super::{Communicator, DistributedError, check_rank};

/// A rank on a thread. The ranks share their tensors' memory, so nothing is copied.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    world_size: usize,
    meeting: Arc<Meeting>,
}

#[derive(Debug)]
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What the ranks brought to the meeting that is going on.
    brought: Vec<Option<Tensor>>,
    /// How many ranks are to take what all have brought.
    to_take: usize,
    /// A rank was dropped.
    ended: bool,
}

impl Threads {
    /// Returns the ranks of a run, at least one; each belongs to the thread that it is moved to.
    ///
    /// ```
    /// use deepseek_v32::candle::{Device, Tensor};
    /// use deepseek_v32::distributed::{Communicator, Threads};
    ///
    /// let sum = |rank: Threads| {
    ///     let own = Tensor::new(&[rank.rank() as f32 + 1.0], &Device::Cpu)?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(rank.all_reduce_sum(&own)?.to_vec1::<f32>()?)
    /// };
    /// let threads: Vec<_> = Threads::new(3).into_iter().map(|rank| std::thread::spawn(move || sum(rank))).collect();
    /// for thread in threads {
    ///     assert_eq!(thread.join().unwrap().unwrap(), [6.0]);
    /// }
    /// ```
    pub fn new(world_size: usize) -> Vec<Self> {
        let world_size = world_size.max(1);
        let state = State { brought: vec![None; world_size], to_take: 0, ended: false };
        let meeting = Arc::new(Meeting { state: Mutex::new(state), changed: Condvar::new() });
        (0..world_size).map(|rank| Self { rank, world_size, meeting: meeting.clone() }).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.meeting.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until `ready`, or a rank went away before that.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        operation: &'static str,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, DistributedError> {
        while !ready(&state) {
            if state.ended {
                return Err(DistributedError::Ended { operation });
            }
            state = self.meeting.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        Ok(state)
    }

    /// What all ranks brought, in their order.
    fn gather(&self, operation: &'static str, own: &Tensor) -> Result<Vec<Tensor>, DistributedError> {
        // The last meeting must be over.
        let mut state = self.wait(self.state(), operation, |state| state.to_take == 0)?;
        state.brought[self.rank] = Some(own.detach());
        if state.brought.iter().all(Option::is_some) {
            state.to_take = self.world_size;
            self.meeting.changed.notify_all();
        }
        let mut state = self.wait(state, operation, |state| state.to_take > 0)?;
        let all: Vec<Tensor> = state.brought.iter().flatten().cloned().collect();
        state.to_take -= 1;
        if state.to_take == 0 {
            state.brought.fill(None);
            self.meeting.changed.notify_all();
        }
        drop(state);
        let describe = |tensor: &Tensor| format!("{:?} {}", tensor.dims(), tensor.dtype().as_str());
        let expected = describe(&all[0]);
        match all.iter().map(describe).enumerate().find(|(_, got)| *got != expected) {
            Some((rank, got)) => Err(DistributedError::Mismatch { operation, rank, expected, got }),
            None => Ok(all),
        }
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<Tensor, DistributedError> {
        let mut all = self.gather("all_reduce_sum", tensor)?.into_iter();
        // There is at least one rank, and its tensor has the same shape.
        let first = all.next().unwrap_or_else(|| tensor.clone());
        Ok(all.try_fold(first, |sum, next| sum + next)?)
    }

    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Tensor, DistributedError> {
        check_rank(root, self.world_size)?;
        Ok(self.gather("broadcast", tensor)?.swap_remove(root))
    }

    fn barrier(&self) -> Result<(), DistributedError> {
        let nothing = Tensor::zeros(0, candle_core::DType::U8, &candle_core::Device::Cpu)?;
        self.gather("barrier", &nothing).map(|_| ())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.state().ended = true;
        self.meeting.changed.notify_all();
    }
}
