//! The tensors a [`Config`] asks for.

use crate::config::{Config, IndexerType, MlpType};

/// The kind of a tensor, which decides the dtypes it may be stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// A linear weight that block-FP8 checkpoints quantize: f32, bf16, f16, or F8_E4M3 with scales.
    Linear,
    /// Any other matrix (embedding, head, router, indexer head weights, `eh_proj`): f32, bf16 or f16.
    Matrix,
    /// A norm's weight or bias, or the router's selection bias: f32, bf16 or f16.
    Vector,
}

/// The tensor of the router's selection bias, which must stay f32.
pub(super) const SELECTION_BIAS: &str = "e_score_correction_bias";
/// The suffix of the name of a weight's scales.
pub(super) const SCALE_SUFFIX: &str = "_scale_inv";
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// How the embedding's name and those of the MTP layers' copies of it end.
pub(super) const EMBEDDING_SUFFIX: &str = "embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";

/// The place of one routed expert's tensor in the stack of all: `model.layers.3.mlp.experts.7.up_proj.weight` is
/// number 7 of `model.layers.3.mlp.experts.up_proj.weight`.
pub(super) fn place_in_stack(name: &str) -> Option<(String, usize)> {
    let (layer, rest) = name.split_once(EXPERTS)?;
    let (expert, projection) = rest.split_once('.')?;
    Some((format!("{layer}{EXPERTS}{projection}"), expert.parse().ok()?))
}

/// The name of one expert's tensor in the stack `name`: the reverse of [`place_in_stack`]; `None` if `name` is that of
/// no stack.
pub(super) fn name_in_stack(name: &str, expert: usize) -> Option<String> {
    let (layer, projection) = name.split_once(EXPERTS)?;
    let is_stack = projection.starts_with(|c: char| c.is_ascii_lowercase());
    is_stack.then(|| format!("{layer}{EXPERTS}{expert}.{projection}"))
}

/// The prefix of the names of a layer's experts.
const EXPERTS: &str = ".mlp.experts.";

/// Calls `visit(name, shape, kind)` for every tensor of the main model, then for those of the MTP layers, without
/// scales and without the MTP layers' copies of embedding and head; stops at the first error.
///
/// # Errors
/// The first that `visit` returns.
pub fn for_each_tensor<E>(
    config: &Config,
    mut visit: impl FnMut(String, &[usize], TensorKind) -> Result<(), E>,
) -> Result<(), E> {
    main_tensors(config, &mut visit)?;
    (0..config.num_nextn_predict_layers).try_for_each(|k| mtp_tensors(config, k, &mut visit))
}

/// Tensors of everything but the MTP layers.
pub(super) fn main_tensors<E>(
    c: &Config,
    visit: &mut impl FnMut(String, &[usize], TensorKind) -> Result<(), E>,
) -> Result<(), E> {
    visit(EMBEDDING.to_string(), &[c.vocab_size, c.hidden_size], TensorKind::Matrix)?;
    for layer in 0..c.num_hidden_layers {
        layer_tensors(c, layer, visit)?;
    }
    visit("model.norm.weight".to_string(), &[c.hidden_size], TensorKind::Vector)?;
    if !c.tie_word_embeddings {
        visit(HEAD.to_string(), &[c.vocab_size, c.hidden_size], TensorKind::Matrix)?;
    }
    Ok(())
}

/// The prefix of MTP layer `k`'s tensors.
pub(super) fn mtp_prefix(c: &Config, k: usize) -> String {
    format!("model.layers.{}.", c.num_hidden_layers + k)
}

/// The names of MTP layer `k`'s optional copies of the embedding and the head.
pub(super) fn mtp_copies(c: &Config, k: usize) -> [String; 2] {
    let prefix = mtp_prefix(c, k);
    [format!("{prefix}embed_tokens.weight"), format!("{prefix}shared_head.head.weight")]
}

/// Tensors of MTP layer `k`, without its copies of the embedding and the head.
pub(super) fn mtp_tensors<E>(
    c: &Config,
    k: usize,
    visit: &mut impl FnMut(String, &[usize], TensorKind) -> Result<(), E>,
) -> Result<(), E> {
    let prefix = mtp_prefix(c, k);
    let hidden = c.hidden_size;
    visit(format!("{prefix}eh_proj.weight"), &[hidden, 2 * hidden], TensorKind::Matrix)?;
    for norm in ["enorm", "hnorm", "shared_head.norm"] {
        visit(format!("{prefix}{norm}.weight"), &[hidden], TensorKind::Vector)?;
    }
    layer_tensors(c, c.num_hidden_layers + k, visit)
}

/// Names within `self_attn.indexer.`, each with its kind.
pub(super) const INDEXER: [(&str, TensorKind); 5] = [
    ("wq_b.weight", TensorKind::Linear),
    ("wk.weight", TensorKind::Linear),
    ("k_norm.weight", TensorKind::Vector),
    ("k_norm.bias", TensorKind::Vector),
    ("weights_proj.weight", TensorKind::Matrix),
];

fn layer_tensors<E>(
    c: &Config,
    layer: usize,
    visit: &mut impl FnMut(String, &[usize], TensorKind) -> Result<(), E>,
) -> Result<(), E> {
    use TensorKind::{Linear, Matrix, Vector};
    let hidden = c.hidden_size;
    let mut add = |name: &str, shape: &[usize], kind| visit(format!("model.layers.{layer}.{name}"), shape, kind);
    add("input_layernorm.weight", &[hidden], Vector)?;
    add("post_attention_layernorm.weight", &[hidden], Vector)?;

    let heads = c.num_attention_heads;
    match c.q_lora_rank {
        Some(rank) => {
            add("self_attn.q_a_proj.weight", &[rank, hidden], Linear)?;
            add("self_attn.q_a_layernorm.weight", &[rank], Vector)?;
            add("self_attn.q_b_proj.weight", &[heads * c.qk_head_dim(), rank], Linear)?;
        }
        None => add("self_attn.q_proj.weight", &[heads * c.qk_head_dim(), hidden], Linear)?,
    }
    let latent = c.kv_lora_rank;
    add("self_attn.kv_a_proj_with_mqa.weight", &[latent + c.qk_rope_head_dim, hidden], Linear)?;
    add("self_attn.kv_a_layernorm.weight", &[latent], Vector)?;
    add("self_attn.kv_b_proj.weight", &[heads * (c.qk_nope_head_dim + c.v_head_dim), latent], Linear)?;
    add("self_attn.o_proj.weight", &[hidden, heads * c.v_head_dim], Linear)?;
    if c.indexer_type(layer) == Some(IndexerType::Full) {
        // Validation has made sure that all of these are present.
        let (heads, dim) = (c.index_n_heads.unwrap_or(0), c.index_head_dim.unwrap_or(0));
        let rank = c.q_lora_rank.unwrap_or(0);
        let shapes: [&[usize]; 5] = [&[heads * dim, rank], &[dim, hidden], &[dim], &[dim], &[heads, hidden]];
        for ((name, kind), shape) in INDEXER.into_iter().zip(shapes) {
            add(&format!("self_attn.indexer.{name}"), shape, kind)?;
        }
    }

    let mut mlp = |prefix: &str, width: usize| {
        add(&format!("mlp.{prefix}gate_proj.weight"), &[width, hidden], Linear)?;
        add(&format!("mlp.{prefix}up_proj.weight"), &[width, hidden], Linear)?;
        add(&format!("mlp.{prefix}down_proj.weight"), &[hidden, width], Linear)
    };
    if c.mlp_type(layer) == MlpType::Dense {
        return mlp("", c.intermediate_size);
    }
    for expert in 0..c.n_routed_experts {
        mlp(&format!("experts.{expert}."), c.moe_intermediate_size)?;
    }
    if c.n_shared_experts > 0 {
        mlp("shared_experts.", c.n_shared_experts * c.moe_intermediate_size)?;
    }
    add("mlp.gate.weight", &[c.n_routed_experts, hidden], Matrix)?;
    add(&format!("mlp.gate.{SELECTION_BIAS}"), &[c.n_routed_experts], Vector)
}
