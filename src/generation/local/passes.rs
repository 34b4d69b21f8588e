//! Passes on a GPU that wait for it once.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::LocalModel;
use super::graphs::{Input, Output, Pass};
use crate::generation::largest::Largest;
use crate::ops;
use crate::ops::cuda::{empty, write_largest};

impl LocalModel {
    /// A pass over a batch: hidden states of all rows, logits and the largest of them of `rows`. `None` on CPU.
    pub(super) fn pass(&mut self, input: Input, rows: &[usize]) -> Result<Option<Output>> {
        if !self.model.device().is_cuda() {
            return Ok(None);
        }
        if let Some(graphs) = &mut self.graphs
            && let Some(output) = graphs.run(&self.model, &self.cache, input)?
        {
            return only(output, rows).map(Some);
        }
        self.launched(input, rows).map(Some)
    }

    /// The pass, kernel by kernel.
    fn launched(&mut self, input: Input, rows: &[usize]) -> Result<Output> {
        let Device::Cuda(device) = self.model.device() else { bail!("the model is not on a GPU") };
        let largest = empty((rows.len(), 2), DType::U32, device)?;
        match (input.pass, input.hidden) {
            (Pass::Main, _) => {
                let (hidden, finite) = self.model.forward_unchecked(input.ids, input.layout, &self.cache)?;
                let logits = self.model.logits(&rows_of(&hidden, rows)?)?;
                write_largest(&logits, &largest)?;
                finite.finish()?;
                Ok(Output { hidden, logits, largest: read(&largest)? })
            }
            (Pass::Mtp, Some(states)) => {
                let hidden = self.model.forward_mtp(input.ids, states, input.layout, &mut self.cache, None)?;
                let logits = self.model.mtp_logits(&rows_of(&hidden, rows)?)?;
                write_largest(&logits, &largest)?;
                Ok(Output { hidden, logits, largest: read(&largest)? })
            }
            (Pass::Mtp, None) => bail!("the MTP layer takes hidden states"),
        }
    }
}

/// The output with the logits of `rows` alone.
fn only(output: Output, rows: &[usize]) -> Result<Output> {
    let Output { hidden, logits, largest } = output;
    let picked = rows.iter().map(|&row| match largest.get(row) {
        Some(&largest) => Ok(largest),
        None => bail!("row {row} of a pass over {}", largest.len()),
    });
    Ok(Output { hidden, logits: rows_of(&logits, rows)?, largest: picked.collect::<Result<_>>()? })
}

/// `rows` of a matrix, in order.
fn rows_of(matrix: &Tensor, rows: &[usize]) -> Result<Tensor> {
    if rows.len() == matrix.dim(0)? && rows.iter().enumerate().all(|(at, &row)| at == row) {
        return Ok(matrix.clone());
    }
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    ops::gather(matrix, &Tensor::from_slice(&rows, rows.len(), matrix.device())?, matrix.dtype())
}

/// Reads what [`write_largest`] wrote.
fn read(largest: &Tensor) -> Result<Vec<Largest>> {
    let pairs = largest.flatten_all()?.to_vec1::<u32>()?;
    Ok(pairs.chunks_exact(2).map(|pair| Largest { id: pair[0], logit: f32::from_bits(pair[1]) }).collect())
}
