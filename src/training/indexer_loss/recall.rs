//! How much of the attention the indexer's choice keeps.

use candle_core::DType;

use super::{IndexerBatch, indexer_loss_with};
use crate::training::error::Result;

/// For each row of `batch`, which attends to all it sees, the target's mass on the `k` positions with the best scores over
/// its mass on the `k` positions where it is largest, `[T]`, in `0..=1`: 1 where the indexer's choice would lose nothing
/// that a choice of `k` positions must not lose.
///
/// Of equal scores the earlier position is chosen.
///
/// # Errors
/// As [`indexer_loss`](super::indexer_loss), for a batch without chosen slots.
pub fn indexer_recall(batch: &IndexerBatch, k: usize) -> Result<Vec<f64>> {
    let rows = batch.layout.tokens();
    let mut recall = Vec::with_capacity(rows);
    let (index_q, index_k, weights) = (batch.index_q.detach(), batch.index_k.detach(), batch.weights.detach());
    let dense = IndexerBatch { index_q: &index_q, index_k: &index_k, weights: &weights, chosen: None, ..*batch };
    indexer_loss_with(&dense, &vec![0.0; rows], |block| {
        let attended = block.attended.to_vec2::<u8>()?;
        let scores = block.scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let target = block.target.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        for ((scores, target), attended) in scores.iter().zip(&target).zip(&attended) {
            let mut columns: Vec<usize> = (0..scores.len()).filter(|&column| attended[column] == 1).collect();
            let best = |columns: &mut Vec<usize>, by: &[f64]| -> f64 {
                columns.sort_by(|&a, &b| by[b].total_cmp(&by[a]).then(a.cmp(&b)));
                columns.iter().take(k).map(|&column| target[column]).sum()
            };
            let (kept, most) = (best(&mut columns, scores), best(&mut columns, target));
            recall.push(if most > 0.0 { (kept / most).min(1.0) } else { 1.0 });
        }
        Ok(())
    })?;
    Ok(recall)
}
