//! The slot cache: random schedules of sequences give every one the logits it has alone.

use std::path::PathBuf;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use deepseek_v32::model::{Cache, Model, SequenceId};
use deepseek_v32::weights::{self, LoadOptions};
use proptest::prelude::*;

/// Greatest difference of logits between a sequence in a batch and the same tokens alone.
const TOLERANCE: f32 = 1e-4;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/v32_f32");
    let (config, vb) = weights::load(dir, &LoadOptions::default(), |_| ()).unwrap();
    Model::new(&config, vb).unwrap()
});

#[derive(Debug, Clone)]
enum Step {
    Create,
    /// Appends so many tokens to every live sequence whose bit is set.
    Append(usize, u8),
    Truncate(usize, usize),
    Fork(usize),
    Free(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Create),
        (1usize..80, any::<u8>()).prop_map(|(tokens, which)| Step::Append(tokens, which)),
        (any::<usize>(), any::<usize>()).prop_map(|(which, len)| Step::Truncate(which, len)),
        any::<usize>().prop_map(Step::Fork),
        any::<usize>().prop_map(Step::Free),
    ];
    prop::collection::vec(step, 1..14)
}

/// Runs new tokens of several sequences in one batch and returns the last hidden state of each.
fn run(cache: &mut Cache, batch: &[(SequenceId, Vec<u32>)]) -> Vec<Vec<f32>> {
    let new: Vec<_> = batch.iter().map(|(id, tokens)| (*id, tokens.len())).collect();
    let layout = cache.append(&new).unwrap();
    let ids: Vec<u32> = batch.iter().flat_map(|(_, tokens)| tokens.clone()).collect();
    let hidden = MODEL.forward_batch(&ids, &layout, cache, None).unwrap();
    let last: Vec<u32> = layout.spans.iter().map(|span| span.tokens.end as u32 - 1).collect();
    let last = hidden.index_select(&Tensor::new(last, &Device::Cpu).unwrap(), 0).unwrap();
    MODEL.logits(&last).unwrap().to_vec2().unwrap()
}

fn alone(tokens: &[u32]) -> Vec<f32> {
    let mut cache = MODEL.new_cache(0).unwrap();
    let id = cache.create();
    run(&mut cache, &[(id, tokens.to_vec())]).remove(0)
}

fn close(found: &[f32], expected: &[f32]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= TOLERANCE, "{found} is not {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_is_as_if_alone(steps in steps(), seed in any::<u32>()) {
        let mut cache = MODEL.new_cache(1).unwrap();
        let mut live: Vec<(SequenceId, Vec<u32>)> = vec![(cache.create(), Vec::new())];
        let mut next = seed;
        for step in steps {
            match step {
                Step::Create if live.len() < 6 => live.push((cache.create(), Vec::new())),
                Step::Fork(which) if !live.is_empty() && live.len() < 6 => {
                    let (id, tokens) = live[which % live.len()].clone();
                    live.push((cache.fork(id).unwrap(), tokens));
                }
                Step::Free(which) if live.len() > 1 => {
                    let (id, _) = live.swap_remove(which % live.len());
                    cache.free(id);
                }
                Step::Truncate(which, len) if !live.is_empty() => {
                    let count = live.len();
                    let (id, tokens) = &mut live[which % count];
                    tokens.truncate(len % (tokens.len() + 1));
                    cache.truncate(*id, tokens.len()).unwrap();
                }
                Step::Append(tokens, which) => {
                    let mut batch = Vec::new();
                    for (i, (id, all)) in live.iter_mut().enumerate() {
                        if which >> (i % 8) & 1 == 0 || all.len() + tokens > 128 {
                            continue;
                        }
                        let new: Vec<u32> = (0..tokens).map(|_| { next = next.wrapping_mul(1664525).wrapping_add(1013904223); next >> 24 }).collect();
                        all.extend(&new);
                        batch.push((*id, new));
                    }
                    let logits = if batch.is_empty() { Vec::new() } else { run(&mut cache, &batch) };
                    for ((id, _), logits) in batch.iter().zip(logits) {
                        let (_, all) = live.iter().find(|(other, _)| other == id).unwrap();
                        close(&logits, &alone(all));
                    }
                }
                _ => (),
            }
            for (id, tokens) in &live {
                prop_assert_eq!(cache.len(*id), tokens.len());
            }
            prop_assert!(cache.free_pages() <= cache.pages());
        }
        live.iter().for_each(|(id, _)| cache.free(*id));
        prop_assert_eq!(cache.free_pages(), cache.pages());
    }
}

#[test]
fn a_full_cache_refuses_and_stays_as_it_was() {
    let mut cache = MODEL.new_cache(2).unwrap();
    cache.set_max_pages(2);
    let (a, b) = (cache.create(), cache.create());
    cache.append(&[(a, 60)]).unwrap();
    let error = cache.append(&[(a, 4), (b, 65)]).unwrap_err().to_string();
    assert!(error.contains("full"), "{error}");
    assert_eq!((cache.len(a), cache.len(b), cache.free_pages()), (60, 0, 1));
    // A fork that must copy its half-full page needs a page for that too.
    let c = cache.fork(a).unwrap();
    cache.append(&[(c, 1)]).unwrap();
    assert!(cache.append(&[(b, 1)]).is_err());
    cache.free(c);
    cache.append(&[(b, 1)]).unwrap();
}

#[test]
fn misuse_is_an_error() {
    let mut cache = MODEL.new_cache(0).unwrap();
    let a = cache.create();
    assert!(cache.append(&[(a, 1), (a, 1)]).is_err());
    assert!(cache.append(&[(a, usize::MAX)]).is_err());
    assert!(cache.truncate(a, 1).is_err());
    cache.free(a);
    cache.free(a);
    assert!(cache.fork(a).is_err() && cache.append(&[(a, 1)]).is_err() && cache.rows(a, 0).is_err());
    let b = cache.create();
    let layout = cache.append(&[(b, 2)]).unwrap();
    assert!(MODEL.forward_batch(&[1], &layout, &mut cache, None).is_err());
    let error = MODEL.forward_batch(&[1, 256], &layout, &mut cache, None).unwrap_err().to_string();
    assert!(error.contains("256") && error.contains("vocab_size"), "{error}");
    assert!(
        MODEL
            .forward_mtp(&[1, 2], &Tensor::zeros((2, 96), DType::F32, &Device::Cpu).unwrap(), &layout, &mut cache, None)
            .is_err()
    );
}

#[test]
fn the_model_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Model>();
    check::<Cache>();
}

/// Expanding a context costs so many rows of all layers: counted by hand for a model of V3's kind.
#[test]
fn a_chunk_costs_its_context() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/v3_f32");
    let (config, vb) = weights::load(dir, &LoadOptions::default(), |_| ()).unwrap();
    let model = Model::new(&config, vb).unwrap();
    let (hidden, heads, latent) = (config.hidden_size, config.num_attention_heads, config.kv_lora_rank);
    let qk = config.qk_nope_head_dim + config.qk_rope_head_dim;
    let expansion = latent * heads * (config.qk_nope_head_dim + config.v_head_dim);
    let rank = config.q_lora_rank.unwrap();
    let attention = hidden * rank
        + rank * heads * qk
        + hidden * (latent + config.qk_rope_head_dim)
        + heads * config.v_head_dim * hidden
        + expansion;
    let dense = config.first_k_dense_replace;
    let experts = config.num_experts_per_tok + config.n_shared_experts;
    let sparse = config.num_hidden_layers - dense;
    let mlps = 3 * hidden * (dense * config.intermediate_size + sparse * experts * config.moe_intermediate_size);
    let (all, row) = (config.num_hidden_layers * expansion, config.num_hidden_layers * attention + mlps);
    for context in [0, 1, 100, 5000] {
        assert_eq!(model.chunk_overhead(context), context * all / row);
    }
    assert!(model.chunk_overhead(5000) > 16);
    // A sparse model's rows from `index_topk` on expand nothing.
    let sparse = &MODEL;
    let topk = sparse.config().index_topk.unwrap();
    assert!(sparse.chunk_overhead(topk - 1) > 0 && sparse.chunk_overhead(topk) == 0);
}

#[test]
fn rows_written_from_elsewhere_are_those_of_a_run() {
    let layers = MODEL.config().num_hidden_layers + usize::from(MODEL.has_mtp());
    let tokens: Vec<u32> = (0..90).map(|i| i * 7 % MODEL.config().vocab_size as u32).collect();
    let mut first = MODEL.new_cache(0).unwrap();
    let a = first.create();
    run(&mut first, &[(a, tokens.clone())]);

    let mut second = MODEL.new_cache(0).unwrap();
    // Another sequence before it, so that the slots are others.
    let (other, b) = (second.create(), second.create());
    second.append(&[(other, 70)]).unwrap();
    let layout = second.append(&[(b, tokens.len())]).unwrap();
    for layer in 0..layers {
        let (kv, index_k) = first.rows(a, layer).unwrap();
        second.write(&layout, layer, &kv, index_k.as_ref()).unwrap();
    }
    close(&run(&mut second, &[(b, vec![5])])[0], &run(&mut first, &[(a, vec![5])])[0]);

    let (kv, index_k) = first.rows(a, 0).unwrap();
    let kv = kv.narrow(0, 0, tokens.len()).unwrap();
    let error = second.write(&layout, 0, &kv, None).unwrap_err().to_string();
    assert!(error.starts_with("layer 0 has an indexer, but no index keys were given"), "{error}");
    let error = second.write(&layout, layers, &kv, index_k.as_ref()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("the cache has no layer {layers}")), "{error}");
    assert!(second.write(&layout, 0, &kv.narrow(1, 1, 4).unwrap(), index_k.as_ref()).is_err());
}
