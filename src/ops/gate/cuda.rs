//! The router's selection on a GPU: one block a token, one thread an expert.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::GateConfig;
use crate::ops::cuda::{Launch, device_of, empty, modules, row_block};

/// The most experts, groups and choices together that a block's shared memory holds.
const MOST: usize = 4096;

/// [`gate`](super::gate) of tensors on one GPU; as in the reference there, a row with a NaN score gets NaN weights.
pub(super) fn gate(logits: &Tensor, bias: Option<&Tensor>, cfg: &GateConfig) -> Result<(Tensor, Tensor)> {
    let (tokens, experts) = logits.dims2()?;
    if experts > MOST {
        return super::reference::gate(logits, bias, cfg);
    }
    let device = device_of(logits)?;
    let logits = if logits.stride()[1] == 1 { logits.clone() } else { logits.contiguous()? };
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let k = cfg.num_experts_per_tok;
    let (indices, weights) = (empty((tokens, k), DType::U32, device)?, empty((tokens, k), DType::F32, device)?);
    Launch::new(&modules::GATE, "gate_f32")
        .tensor("logits", &logits)
        .long(logits.stride()[0])
        .maybe("e_score_correction_bias", bias.as_ref())
        .tensor("expert_indices", &indices)
        .tensor("expert_weights", &weights)
        .int(experts)
        .int(cfg.n_group)
        .int(cfg.topk_group)
        .int(k)
        .int(usize::from(cfg.norm_topk_prob))
        .float(cfg.routed_scaling_factor)
        .run(device, [tokens, 1], row_block(experts), (2 * experts + k + cfg.n_group) * size_of::<f32>())?;
    Ok((indices, weights))
}
