//! The calling convention of candle's model zoo over the slot cache.

use candle::{IndexOp, Result, Tensor};
use candle_core as candle;

use super::{Cache, Model, SequenceId};

/// A cache with one sequence for each row of the caller's batch.
#[derive(Debug)]
pub(super) struct Adapter {
    cache: Cache,
    sequences: Vec<SequenceId>,
}

impl Model {
    /// Logits `[b, vocab_size]` f32 of the last token of each row of `ids: [b, t]` u32.
    ///
    /// `offset` is how many tokens of these rows were given before; the model keeps its cache, from which tokens
    /// beyond `offset` are dropped. Offset 0 starts anew.
    ///
    /// # Errors
    /// If `ids` is empty or not a matrix, if its batch size changes at an offset above 0, or if fewer than `offset`
    /// tokens are cached.
    pub fn forward(&mut self, ids: &Tensor, offset: usize) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        if b == 0 || t == 0 {
            candle::bail!("ids of shape [{b}, {t}]: there is nothing to run")
        }
        let mut adapter = match self.adapter.take() {
            Some(adapter) if offset > 0 => adapter,
            _ => {
                let mut cache = self.new_cache(0)?;
                let sequences = (0..b).map(|_| cache.create()).collect();
                Adapter { cache, sequences }
            }
        };
        let last = self.run(&mut adapter, ids, offset);
        self.adapter = Some(adapter);
        last
    }

    /// Forgets the tokens given to [`Model::forward`].
    pub fn clear_kv_cache(&mut self) {
        self.adapter = None;
    }

    fn run(&self, adapter: &mut Adapter, ids: &Tensor, offset: usize) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        if adapter.sequences.len() != b {
            candle::bail!("{b} rows of ids, but the cache holds {}: start anew at offset 0", adapter.sequences.len())
        }
        for &sequence in &adapter.sequences {
            adapter.cache.truncate(sequence, offset)?;
        }
        let batch: Vec<_> = adapter.sequences.iter().map(|&sequence| (sequence, t)).collect();
        let layout = adapter.cache.append(&batch)?;
        let ids = ids.flatten_all()?.to_dtype(candle::DType::U32)?.to_vec1::<u32>()?;
        let hidden = self.forward_batch(&ids, &layout, &mut adapter.cache, None)?;
        let last = hidden.reshape((b, t, ()))?.i((.., t - 1, ..))?.contiguous()?;
        self.logits(&last)
    }
}
