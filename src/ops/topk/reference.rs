//! `topk` by a stable sort of each row on the host.

use candle::{DType, Result, Tensor};
use candle_core as candle;

/// See the op's documentation. The selection has no gradient.
pub fn topk(logits: &Tensor, k: usize) -> Result<Tensor> {
    let (tokens, columns) = logits.dims2()?;
    let mut indices = Vec::new();
    for (row, logits) in logits.to_dtype(DType::F32)?.to_vec2::<f32>()?.iter().enumerate() {
        if let Some(column) = logits.iter().position(|x| x.is_nan()) {
            candle::bail!("topk: logits[{row}, {column}] is NaN");
        }
        let mut chosen = (0..columns).filter(|&i| logits[i] > f32::NEG_INFINITY).collect::<Vec<_>>();
        chosen.sort_by(|&a, &b| compare(logits[b], logits[a]).then(a.cmp(&b)));
        chosen.truncate(k);
        chosen.sort_unstable();
        indices.extend(chosen.iter().map(|&i| i as i32));
        indices.resize((row + 1) * k, -1);
    }
    Tensor::from_vec(indices, (tokens, k), logits.device())
}

/// Order of two numbers that are not NaN; the two zeros are equal.
fn compare(a: f32, b: f32) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
}
