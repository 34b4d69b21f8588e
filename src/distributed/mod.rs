//! What the ranks of a data-parallel run tell each other.
//!
//! [`Communicator`] is all that training asks for. [`SingleRank`] is a run of one process; [`Threads`] are ranks within
//! one process, each on a thread of its own.

use candle_core::{DType, Tensor};

mod threads;

pub use threads::Threads;

/// Why ranks could not tell each other something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributedError {
    /// No rank has this number.
    #[error("rank {rank}: a run of {world_size} ranks has ranks 0..{world_size}")]
    Rank {
        /// The rank that was asked for.
        rank: usize,
        /// Ranks of the run.
        world_size: usize,
    },
    /// The ranks' tensors do not fit together.
    #[error("{operation}: rank {rank} gave {got}, rank 0 gave {expected}")]
    Mismatch {
        /// The operation.
        operation: &'static str,
        /// The rank that differs.
        rank: usize,
        /// Shape and dtype of rank 0's tensor.
        expected: String,
        /// Shape and dtype of its own.
        got: String,
    },
    /// A rank went away.
    #[error("{operation}: a rank ended before all ranks had come")]
    Ended {
        /// The operation.
        operation: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// One rank of a run. All ranks call the same functions in the same order, with tensors of the same shapes and dtypes.
pub trait Communicator {
    /// This rank, `0..world_size`.
    fn rank(&self) -> usize;

    /// Ranks of the run, at least 1.
    fn world_size(&self) -> usize;

    /// Returns the sum of the ranks' tensors, of the shape and dtype of each, added in the order of the ranks: every rank
    /// gets the same bits.
    ///
    /// # Errors
    /// If a rank's tensor has another shape or dtype, or a rank went away.
    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<Tensor, DistributedError>;

    /// Returns the tensor of rank `root`.
    ///
    /// # Errors
    /// If there is no such rank, a rank's tensor has another shape or dtype, or a rank went away.
    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Tensor, DistributedError>;

    /// Returns when all ranks have come here.
    ///
    /// # Errors
    /// If a rank went away.
    fn barrier(&self) -> Result<(), DistributedError>;

    /// Returns the sums of the ranks' numbers, one by one.
    ///
    /// # Errors
    /// As [`Self::all_reduce_sum`].
    fn all_reduce_numbers(&self, numbers: &[f64]) -> Result<Vec<f64>, DistributedError> {
        let tensor = Tensor::new(numbers, &candle_core::Device::Cpu)?;
        Ok(self.all_reduce_sum(&tensor)?.to_dtype(DType::F64)?.to_vec1()?)
    }
}

/// The only rank of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleRank;

impl Communicator for SingleRank {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, tensor: &Tensor) -> Result<Tensor, DistributedError> {
        Ok(tensor.clone())
    }

    fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<Tensor, DistributedError> {
        check_rank(root, 1)?;
        Ok(tensor.clone())
    }

    fn barrier(&self) -> Result<(), DistributedError> {
        Ok(())
    }
}

fn check_rank(rank: usize, world_size: usize) -> Result<(), DistributedError> {
    if rank < world_size { Ok(()) } else { Err(DistributedError::Rank { rank, world_size }) }
}
