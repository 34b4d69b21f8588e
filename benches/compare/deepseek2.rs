//! Compares this crate's V3 model with candle-transformers' `deepseek2`, on the same random weights of
//! DeepSeek-V2-Lite's shapes.
//!
//! `cargo bench --workspace --bench compare_deepseek2 [-- contexts, such as 128,1024]`
//!
//! Two layers, one dense and one with 64 experts, without a query latent as in V2-Lite. Both models compute in f32 from
//! f32 weights of the same values; the third column is this crate from bf16 weights, its usual form. The routers differ
//! by definition (V2: softmax, V3: sigmoid), the number of experts that run does not.

#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/random.rs"]
mod random;

use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::deepseek2::{DeepSeekV2, DeepSeekV2Config};
use deepseek_v32::{Config, DeepSeekV32};
use machine::Machine;
use random::random_weights;
use serde_json::{Value, json};

/// Timed repetitions of a prefill at least, of which the best counts.
const PREFILLS: usize = 2;
/// Timed decode steps, of which the best counts.
const STEPS: usize = 5;

/// Weights that take part in a token: attention of both layers, the dense layer, six routed and two shared experts, the
/// router and the head.
const ACTIVE_WEIGHTS: f64 = (2 * (2048 * 16 * 192 + 2048 * 576 + 512 * 16 * 256 + 16 * 128 * 2048)
    + 3 * 2048 * 10944
    + 8 * 3 * 2048 * 1408
    + 64 * 2048
    + 2048 * 2048) as f64;

/// The config keys of both models.
fn shapes() -> Value {
    json!({
        "vocab_size": 2048, "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
        "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 16, "num_key_value_heads": 16,
        "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": true, "routed_scaling_factor": 1.0, "moe_layer_freq": 1, "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu",
        "attention_bias": false
    })
}

fn with(mut shapes: Value, rest: Value) -> Value {
    let (Value::Object(shapes_map), Value::Object(rest)) = (&mut shapes, rest) else { unreachable!("two objects") };
    shapes_map.extend(rest);
    shapes
}

fn ours(dtype: DType) -> Result<DeepSeekV32> {
    let rest = json!({
        "model_type": "deepseek_v3", "scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 0
    });
    let config = Config::from_json(&with(shapes(), rest).to_string())?;
    Ok(DeepSeekV32::new(&config, random_weights(dtype))?)
}

fn theirs() -> Result<DeepSeekV2> {
    // Its division by the sum of the chosen weights does not broadcast; V2-Lite does not divide.
    let rest =
        json!({ "scoring_func": "softmax", "topk_method": "greedy", "rope_scaling": null, "norm_topk_prob": false });
    let config: DeepSeekV2Config = serde_json::from_value(with(shapes(), rest))?;
    Ok(DeepSeekV2::new(&config, random_weights(DType::F32))?)
}

/// Seconds of a prefill of `context` tokens and of a decode step after it, the best of each.
fn time(context: usize, mut forward: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>) -> Result<(f64, f64)> {
    let ids = |start: usize, count: usize| -> Result<Tensor> {
        let ids: Vec<u32> = (start..start + count).map(|i| ((i * 7919 + i / 3) % 2048) as u32).collect();
        Ok(Tensor::from_vec(ids, (1, count), &Device::Cpu)?)
    };
    let mut run = |start: usize, count: usize| -> Result<f64> {
        let ids = ids(start, count)?;
        let begin = Instant::now();
        forward(&ids, start)?.max_all()?.to_scalar::<f32>()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let (mut prefill, mut decode) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..PREFILLS {
        prefill = prefill.min(run(0, context)?);
    }
    for step in 0..STEPS {
        decode = decode.min(run(context + step, 1)?);
    }
    Ok((prefill, decode))
}

fn main() -> Result<()> {
    let contexts = match std::env::args().skip(1).find(|arg| arg.starts_with(|c: char| c.is_ascii_digit())) {
        Some(list) => list.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>().context("contexts")?,
        None => vec![128, 1024],
    };
    let machine = Machine::measure();
    println!("{}, {} threads", machine.name, rayon::current_num_threads());
    println!("measured: {:.1} GB/s, {:.0} GFLOP/s f32", machine.bandwidth / 1e9, 2e-9 * machine.fma);
    println!(
        "limits by the active weights alone: prefill {:.0} tokens/s, decode {:.1} from f32 weights, {:.1} from bf16",
        machine.fma / ACTIVE_WEIGHTS,
        machine.bandwidth / (4.0 * ACTIVE_WEIGHTS),
        machine.bandwidth / (2.0 * ACTIVE_WEIGHTS)
    );
    let mut rows = Vec::new();
    {
        let mut model = theirs()?;
        for &context in &contexts {
            model.clear_kv_cache();
            // `deepseek2` appends to its cache whatever the offset is: a prefill starts from an empty one.
            rows.push(
                [time(context, |ids, offset| {
                    if offset == 0 {
                        model.clear_kv_cache();
                    }
                    model.forward(ids, offset)
                })?; 3],
            );
        }
    }
    for (column, dtype) in [(1, DType::F32), (2, DType::BF16)] {
        let mut model = ours(dtype)?;
        for (&context, row) in contexts.iter().zip(&mut rows) {
            row[column] = time(context, |ids, offset| model.forward(ids, offset))?;
        }
    }
    println!(
        "{:<32} {:>10} {:>10} {:>7} {:>10} {:>7}",
        "tokens/s", "deepseek2", "ours f32", "ratio", "ours bf16", "ratio"
    );
    for (&context, [theirs, f32s, bf16s]) in contexts.iter().zip(&rows) {
        let line = |what: String, tokens: usize, [theirs, f32s, bf16s]: [f64; 3]| {
            let rate = |seconds: f64| tokens as f64 / seconds;
            println!(
                "{what:<32} {:>10.1} {:>10.1} {:>6.1}x {:>10.1} {:>6.1}x",
                rate(theirs),
                rate(f32s),
                theirs / f32s,
                rate(bf16s),
                theirs / bf16s
            );
        };
        line(format!("prefill, {context} tokens"), context, [theirs.0, f32s.0, bf16s.0]);
        line(format!("decode after {context} tokens"), 1, [theirs.1, f32s.1, bf16s.1]);
    }
    Ok(())
}
