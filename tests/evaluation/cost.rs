//! The counted work, against enumeration and against the list of a checkpoint's tensors.

use deepseek_v32::Config;
use deepseek_v32::config::MlpType;
use deepseek_v32::evaluation::{CostModel, Rates, Step, Storage, WeightFormat};
use deepseek_v32::model::CacheFormat;
use deepseek_v32::weights::{TensorKind, for_each_tensor};

/// Relative difference of two f64 sums of the same numbers.
const TOLERANCE: f64 = 1e-9;

fn close(what: &str, a: f64, b: f64) {
    assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "{what}: {a}, expected {b}");
}

fn model(config: Config, cache: CacheFormat) -> CostModel {
    let storage = Storage::new(&config, WeightFormat::Fp8, cache);
    CostModel::new(config, storage)
}

#[test]
fn rows_of_a_cache_have_their_bytes() {
    let bytes = |config: Config, format| {
        let storage = Storage::new(&config, WeightFormat::Bf16, format);
        (storage.latent_row, storage.index_row)
    };
    assert_eq!(bytes(Config::v32(), CacheFormat::Fp8), (656.0, 132.0));
    assert_eq!(bytes(Config::v32(), CacheFormat::Bf16), (1152.0, 256.0));
    assert_eq!(bytes(Config::v3(), CacheFormat::F32), (2304.0, 0.0));
}

#[test]
fn a_batch_that_needs_every_expert_reads_every_weight() {
    for config in [Config::v32(), Config::v3(), Config::tiny()] {
        let config = Config { num_nextn_predict_layers: 0, ..config };
        let (mut linear, mut matrix) = (0.0, 0.0);
        for_each_tensor(&config, |name, shape, kind| {
            let elements = shape.iter().product::<usize>() as f64;
            match kind {
                TensorKind::Linear => linear += elements,
                // Of the embedding, rows are read.
                TensorKind::Matrix if name != "model.embed_tokens.weight" => matrix += elements,
                _ => {}
            }
            Ok::<(), ()>(())
        })
        .unwrap();
        // So many rows that every expert is chosen, of sequences without a past.
        let batch = 1 << 20;
        let (model, step) = (model(config.clone(), CacheFormat::Bf16), Step::Decode { batch, context: 1 });
        let storage = model.storage();
        let rows = batch as f64 * config.num_hidden_layers as f64 * (storage.latent_row + storage.index_row);
        let embedding = batch as f64 * config.hidden_size as f64 * storage.matrix;
        let weights = linear * storage.linear + matrix * storage.matrix;
        close("bytes", model.work(step).unwrap().bytes, weights + rows + embedding);
    }
}

/// The operations of one layer, row by row and position by position.
fn enumerated(c: &Config, rows: &[usize], dense_prefill: bool) -> [f64; 3] {
    let (mut absorbed, mut expanded, mut scores) = (0usize, 0usize, 0usize);
    let topk = c.index_topk.filter(|_| c.has_indexer()).unwrap_or(usize::MAX);
    for &seen in rows {
        for position in 0..seen {
            if position < topk {
                absorbed += c.num_attention_heads * (2 * c.kv_lora_rank + c.qk_rope_head_dim);
                expanded += c.num_attention_heads * (c.qk_head_dim() + c.v_head_dim);
            }
            if seen > topk {
                scores += c.index_n_heads.unwrap() * c.index_head_dim.unwrap();
            }
        }
    }
    // What was there before the chunk is expanded again.
    let before = rows.first().map_or(0, |seen| seen - 1);
    expanded += before * c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
    let attention = if dense_prefill { absorbed.min(expanded) } else { absorbed };
    let index = match (c.has_indexer(), c.q_lora_rank, c.index_n_heads, c.index_head_dim) {
        (true, Some(rank), Some(heads), Some(dim)) => rank * heads * dim + c.hidden_size * (dim + heads),
        _ => 0,
    };
    let expert = 3 * c.hidden_size * c.moe_intermediate_size;
    let moe = expert * (c.num_experts_per_tok + c.n_shared_experts) + c.hidden_size * c.n_routed_experts;
    let two = |count: usize| 2.0 * count as f64;
    [two(attention), two(scores + index * rows.len()), two(moe * rows.len())]
}

#[test]
fn operations_are_those_of_every_row_and_position() {
    let without = Config { model_type: deepseek_v32::config::ModelType::DeepseekV3, ..Config::tiny() };
    for config in [Config::tiny(), without] {
        let is_dense = !config.has_indexer();
        let model = model(config.clone(), CacheFormat::F32);
        let cases = [(0, 1), (0, 10), (0, 16), (0, 17), (3, 40), (15, 1), (16, 1), (100, 7)];
        for (start, tokens) in cases {
            let rows: Vec<usize> = (start + 1..=start + tokens).collect();
            let layer = model.layer(Step::Prefill { start, tokens }, MlpType::Sparse).unwrap();
            let expected = enumerated(&config, &rows, is_dense);
            let found = [layer.attention.flops, layer.indexer.flops, layer.feed_forward.flops];
            for (part, (found, expected)) in ["attention", "indexer", "experts"].iter().zip(found.iter().zip(expected))
            {
                close(&format!("{part} of {tokens} rows from {start}"), *found, expected);
            }
        }
        for (batch, context) in [(1, 1), (5, 16), (5, 17), (3, 90)] {
            let layer = model.layer(Step::Decode { batch, context }, MlpType::Sparse).unwrap();
            let expected = enumerated(&config, &vec![context; batch], false);
            close("attention", layer.attention.flops, expected[0]);
            close("indexer", layer.indexer.flops, expected[1]);
        }
    }
}

#[test]
fn decode_reads_what_it_chose_and_every_index_key() {
    let model = model(Config::v32(), CacheFormat::Fp8);
    for (batch, context) in [(1usize, 4096usize), (8, 131_072)] {
        let layer = model.layer(Step::Decode { batch, context }, MlpType::Sparse).unwrap();
        assert_eq!(layer.attention.bytes, (batch * (2048 + 1) * 656) as f64);
        let weights = 1536 * 64 * 128 + 7168 * 128;
        let index = (batch * context * 132) as f64;
        let expected = index + f64::from(weights) * model.storage().linear + 7168.0 * 64.0 * 2.0;
        close("indexer", layer.indexer.bytes, expected);
    }
}

#[test]
fn a_part_takes_the_longer_of_its_two_times() {
    let model = model(Config::v32(), CacheFormat::Fp8);
    let step = Step::Decode { batch: 8, context: 65_536 };
    let work = model.work(step).unwrap();
    // With all operations for nothing the bytes are left, and the other way round.
    let bytes = model.seconds(step, &Rates::uniform(1e30, 4e12)).unwrap();
    close("bytes", bytes, work.bytes / 4e12);
    let flops = model.seconds(step, &Rates::uniform(7e14, 1e30)).unwrap();
    close("operations", flops, work.flops / 7e14);
    let both = model.seconds(step, &Rates::uniform(7e14, 4e12)).unwrap();
    assert!(both >= bytes.max(flops) && both <= bytes + flops);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let model = model(Config::tiny(), CacheFormat::F32);
    for (step, part) in [
        (Step::Decode { batch: 0, context: 1 }, "batch is 0"),
        (Step::Decode { batch: 1, context: 0 }, "context is 0"),
        (Step::Prefill { start: 1, tokens: 0 }, "tokens is 0"),
    ] {
        assert!(model.work(step).unwrap_err().to_string().starts_with(part));
    }
    let step = Step::Decode { batch: 1, context: 1 };
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = model.seconds(step, &Rates::uniform(rate, 1.0)).unwrap_err().to_string();
        assert_eq!(error, format!("product_flops is {rate}, expected a finite number above 0"));
    }
}
