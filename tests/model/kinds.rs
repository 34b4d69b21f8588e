//! Random checkpoints of kinds that no recorded case has, against plain f64 loops: all at once, in chunks, token by token.

use crate::checkpoint_writer::{Files, tiny_config, tiny_v3_config};
use crate::naive_model::{Expected, Naive};
use candle_core::{DType, Tensor};
use deepseek_v32::config::{Config, IndexerType, MlpType, ModelType, QuantizationConfig, Rope, Yarn};
use deepseek_v32::model::{Model, Trace};
use deepseek_v32::ops::{Backend, with_backend};
use deepseek_v32::weights::{self, LoadOptions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Greatest absolute difference of logits and hidden states.
const TOLERANCE: f64 = 1e-4;
/// The least distance at a choice that f32 cannot turn over: what the loops choose must be what everyone chooses.
const MARGIN: f64 = 2e-6;

/// A kind of checkpoint.
struct Kind {
    config: Config,
    /// Dtype of the linear weights and of everything else.
    dtypes: [&'static str; 2],
    shards: usize,
    tokens: usize,
    /// Chosen so that no choice is closer than [`MARGIN`].
    seed: u64,
}

/// Weights of a size that keeps activations near one, as a trained model has them.
fn randomise(files: &mut Files, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scales: Vec<String> = files.tensors.keys().filter(|name| name.ends_with("_scale_inv")).cloned().collect();
    for name in scales {
        let scale = files.get(&name);
        // A weight of 448 times this is about one over the square root of the width; no two are a power of two apart.
        let values: Vec<f32> = (0..scale.bytes.len() / 4).map(|_| rng.random_range(3e-4..5e-4)).collect();
        *scale = crate::checkpoint_writer::RawTensor::from_f32(&scale.shape.clone(), &values);
    }
    for (name, tensor) in files.tensors.iter_mut().filter(|(name, _)| !name.ends_with("_scale_inv")) {
        let width = (tensor.shape.last().copied().unwrap_or(1) as f32).sqrt();
        let range = match name.as_str() {
            name if name.ends_with("norm.weight") => 0.5..1.5,
            name if name.ends_with("bias") => -0.3..0.3,
            name if name.ends_with("embed_tokens.weight") => -1.7..1.7,
            _ => -1.7 / width..1.7 / width,
        };
        let count: usize = tensor.shape.iter().product();
        tensor.bytes = match tensor.dtype.as_str() {
            // Any code but the two NaNs.
            "F8_E4M3" => {
                (0..count).map(|_| rng.random::<u8>()).map(|code| if code & 0x7f == 0x7f { 0 } else { code }).collect()
            }
            "F32" => (0..count).flat_map(|_| rng.random_range(range.clone()).to_le_bytes()).collect(),
            "BF16" => {
                (0..count).flat_map(|_| half::bf16::from_f32(rng.random_range(range.clone())).to_le_bytes()).collect()
            }
            _ => (0..count).flat_map(|_| half::f16::from_f32(rng.random_range(range.clone())).to_le_bytes()).collect(),
        };
    }
}

fn flat(rows: &[Vec<f64>]) -> Vec<f64> {
    rows.concat()
}

fn close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = found.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(difference <= TOLERANCE, "{what} differs by {difference}");
}

/// Runs `ids` in chunks and compares everything with what is expected.
fn check(what: &str, model: &Model, ids: &[u32], chunk: usize, expected: &Expected) {
    let mut cache = model.new_cache(0).unwrap();
    // Another sequence's pages lie between this one's.
    let (other, sequence) = (cache.create(), cache.create());
    let (mut hidden, mut traces) = (Vec::new(), Vec::new());
    for part in ids.chunks(chunk) {
        cache.append(&[(other, part.len())]).unwrap();
        let layout = cache.append(&[(sequence, part.len())]).unwrap();
        let mut trace = Trace::default();
        hidden.push(model.forward_batch(part, &layout, &mut cache, Some(&mut trace)).unwrap());
        traces.push(trace);
    }
    let logits = model.logits(&Tensor::cat(&hidden, 0).unwrap()).unwrap();
    close(&format!("{what}: logits"), &logits, &flat(&expected.logits));
    for layer in 0..model.config().num_hidden_layers {
        let hidden: Vec<_> = traces.iter().map(|trace| &trace.hidden[layer]).collect();
        close(&format!("{what}: hidden {layer}"), &Tensor::cat(&hidden, 0).unwrap(), &flat(&expected.hidden[layer]));
        if let Some(topk) = expected.topk.get(&layer) {
            let found = traces.iter().flat_map(|t| t.topk_indices[layer].as_ref().unwrap().to_vec2::<i64>().unwrap());
            let found: Vec<Vec<i64>> = found.map(|row| row.into_iter().filter(|&p| p >= 0).collect()).collect();
            assert_eq!(&found, topk, "{what}: selection {layer}");
        }
        if let Some(experts) = expected.experts.get(&layer) {
            let found = traces.iter().flat_map(|t| t.expert_indices[layer].as_ref().unwrap().to_vec2::<u32>().unwrap());
            assert_eq!(&found.collect::<Vec<_>>(), experts, "{what}: experts {layer}");
        }
    }
}

fn check_kind(kind: Kind) {
    kind.config.validate().unwrap();
    let mut files = Files::new(&kind.config, kind.dtypes[0], kind.dtypes[1]);
    randomise(&mut files, kind.seed);
    let dir = tempfile::tempdir().unwrap();
    match kind.shards {
        1 => files.write_single(dir.path()),
        shards => files.write_sharded(dir.path(), shards),
    }
    let (config, vb) = weights::load(dir.path(), &LoadOptions::default(), |_| {}).unwrap();
    assert_eq!(config, kind.config);
    let model = Model::new(&config, vb).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(kind.seed);
    let ids: Vec<u32> = (0..kind.tokens).map(|_| rng.random_range(0..config.vocab_size as u32)).collect();
    let expected = Naive::new(&config, &files).forward(&ids);
    assert!(expected.margin > MARGIN, "a choice is as close as {}: take another seed", expected.margin);
    // Or else the tolerance would say nothing.
    assert!(flat(&expected.logits).into_iter().fold(0.0, f64::max) > 1.0);
    for chunk in [kind.tokens, 100, 64, 1] {
        check(&format!("chunks of {chunk}"), &model, &ids, chunk, &expected);
    }
    with_backend(Backend::Reference, || check("reference", &model, &ids, kind.tokens, &expected));
}

fn yarn(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> Rope {
    let original_max_position_embeddings = 64;
    let (beta_fast, beta_slow, truncate, attention_factor) = (32.0, 1.0, true, None);
    let yarn = Yarn {
        factor,
        original_max_position_embeddings,
        beta_fast,
        beta_slow,
        mscale,
        mscale_all_dim,
        truncate,
        attention_factor,
    };
    Rope { rope_theta: 10000.0, yarn: Some(yarn) }
}

/// V3 as Moonlight has it: no query latent, one group; tied, odd sizes, plain RoPE.
#[test]
fn direct_queries_in_one_group_with_a_tied_head() {
    let config = Config {
        q_lora_rank: None,
        n_group: 1,
        topk_group: 1,
        n_routed_experts: 5,
        num_attention_heads: 3,
        v_head_dim: 7,
        qk_nope_head_dim: 9,
        tie_word_embeddings: true,
        num_hidden_layers: 3,
        mlp_layer_types: vec![MlpType::Dense, MlpType::Sparse, MlpType::Sparse],
        rope: Rope { rope_theta: 50000.0, yarn: None },
        max_position_embeddings: 4096,
        ..tiny_v3_config()
    };
    check_kind(Kind { config, dtypes: ["BF16", "BF16"], shards: 1, tokens: 330, seed: 1 });
}

/// Ragged FP8 blocks with scales that are no powers of two, in shards that part weights from scales.
#[test]
fn ragged_fp8_blocks_in_shards() {
    let config = Config {
        num_attention_heads: 5,
        n_group: 3,
        topk_group: 2,
        n_routed_experts: 6,
        moe_intermediate_size: 129,
        num_nextn_predict_layers: 0,
        index_n_heads: Some(11),
        index_head_dim: Some(16),
        index_topk: Some(24),
        rope: yarn(40.0, Some(0.707), Some(0.707)),
        max_position_embeddings: 2560,
        quantization_config: Some(QuantizationConfig { weight_block_size: [128, 128], ue8m0: false }),
        ..tiny_config()
    };
    check_kind(Kind { config, dtypes: ["F8_E4M3", "BF16"], shards: 3, tokens: 330, seed: 1 });
}

/// GLM: layers that share a selection, interleaved index RoPE, two shared experts.
#[test]
fn shared_selections() {
    let config = Config {
        model_type: ModelType::GlmMoeDsa,
        num_attention_heads: 7,
        num_hidden_layers: 4,
        num_nextn_predict_layers: 0,
        n_group: 1,
        topk_group: 1,
        n_shared_experts: 2,
        index_n_heads: Some(13),
        index_head_dim: Some(24),
        index_topk: Some(33),
        indexer_rope_interleave: true,
        indexer_types: vec![IndexerType::Full, IndexerType::Shared, IndexerType::Full, IndexerType::Shared],
        mlp_layer_types: vec![MlpType::Dense, MlpType::Sparse, MlpType::Sparse, MlpType::Sparse],
        rms_norm_eps: 1e-5,
        rope: Rope { rope_theta: 1e6, yarn: None },
        max_position_embeddings: 4096,
        ..tiny_config()
    };
    check_kind(Kind { config, dtypes: ["F16", "F32"], shards: 2, tokens: 200, seed: 1 });
}

/// All layers sparse, no shared expert, weights not normalised, one head, two scales of YaRN that differ.
#[test]
fn sparse_from_the_first_layer() {
    let config = Config {
        num_attention_heads: 1,
        num_nextn_predict_layers: 0,
        n_shared_experts: 0,
        norm_topk_prob: false,
        routed_scaling_factor: 0.7,
        num_experts_per_tok: 1,
        first_k_dense_replace: 0,
        mlp_layer_types: vec![MlpType::Sparse; 2],
        index_n_heads: Some(16),
        index_head_dim: Some(32),
        index_topk: Some(64),
        rope: yarn(8.0, Some(1.0), Some(0.5)),
        max_position_embeddings: 512,
        ..tiny_config()
    };
    check_kind(Kind { config, dtypes: ["F32", "F32"], shards: 1, tokens: 300, seed: 1 });
}
