//! A small checkpoint with bytes changed at will, loaded and run: an answer, or an error on one line.
//!
//! The input is a list of edits of six bytes: which part (of `config.json`, of the header, of the data), where (two
//! bytes), what to do (write a byte, write some digits, cut, double), and its operand.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use deepseek_v32::config::{Config, IndexerType, MlpType, QuantizationConfig};
use deepseek_v32::model::{Model, Precision};
use deepseek_v32::weights::{CONFIG_FILE, Checkpoint, LoadOptions, TensorKind, WEIGHTS_FILE, for_each_tensor};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

/// `config.json`, the header and the data of a good checkpoint.
static PARTS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(parts);

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("deepseek-v32-fuzz-load-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let [config, header, data] = edited(bytes);
    fs::write(FOLDER.join(CONFIG_FILE), config).expect("config.json");
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat();
    fs::write(FOLDER.join(WEIGHTS_FILE), file).expect("model.safetensors");
    if let Err(error) = run(bytes.len() % 2 == 0) {
        assert!(!error.is_empty() && !error.contains('\n'), "{error}");
    }
});

fn run(fp8: bool) -> Result<(), String> {
    let checkpoint = Checkpoint::open(&*FOLDER).map_err(|error| error.to_string())?;
    let vb = checkpoint.var_builder(&LoadOptions::default(), |_| {}).map_err(|error| error.to_string())?;
    let precision = if fp8 { Precision::Fp8 } else { Precision::Dequant };
    let model = Model::with_options(checkpoint.config(), precision, vb).map_err(first_line)?;
    let mut cache = model.new_cache(0).map_err(first_line)?;
    let sequence = cache.create();
    for ids in [&[0u32, 1, 2][..], &[3]] {
        let layout = cache.append(&[(sequence, ids.len())]).map_err(first_line)?;
        let hidden = model.forward_batch(ids, &layout, &mut cache, None).map_err(first_line)?;
        model.logits(&hidden).map_err(first_line)?;
    }
    Ok(())
}

/// A backtrace may follow.
fn first_line(error: impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

fn edited(bytes: &[u8]) -> [Vec<u8>; 3] {
    let mut parts = PARTS.clone();
    for edit in bytes.chunks_exact(6) {
        let &[part, high, low, action, operand, more] = edit else { continue };
        let part = &mut parts[usize::from(part) % 3];
        let at = usize::from(u16::from_be_bytes([high, low])) % part.len().max(1);
        match action % 4 {
            0 => part.iter_mut().skip(at).take(1).for_each(|byte| *byte = operand),
            1 => drop(part.splice(at..(at + usize::from(more % 8)).min(part.len()), operand.to_string().into_bytes())),
            2 => part.truncate(at),
            _ => {
                let copy = part[at..(at + usize::from(operand)).min(part.len())].to_vec();
                drop(part.splice(at..at, copy));
            }
        }
    }
    parts
}

fn parts() -> [Vec<u8>; 3] {
    let config = Config {
        vocab_size: 8,
        hidden_size: 8,
        intermediate_size: 4,
        moe_intermediate_size: 4,
        num_hidden_layers: 2,
        num_nextn_predict_layers: 0,
        num_attention_heads: 1,
        n_routed_experts: 2,
        kv_lora_rank: 4,
        q_lora_rank: Some(4),
        qk_rope_head_dim: 2,
        v_head_dim: 2,
        qk_nope_head_dim: 2,
        n_group: 1,
        topk_group: 1,
        num_experts_per_tok: 1,
        index_n_heads: Some(1),
        index_head_dim: Some(4),
        index_topk: Some(2),
        indexer_types: vec![IndexerType::Full; 2],
        mlp_layer_types: vec![MlpType::Dense, MlpType::Sparse],
        quantization_config: Some(QuantizationConfig { weight_block_size: [128, 128], ue8m0: false }),
        ..Config::tiny()
    };
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let begin = data.len();
        data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.to_string(), entry);
    };
    let written: Result<(), ()> = for_each_tensor(&config, |name, shape, kind| {
        let count: usize = shape.iter().product();
        let value = |i: usize| (i * 7 % 11) as f32 / 11.0 - 0.4;
        match kind {
            TensorKind::Linear => {
                add(&name, "F8_E4M3", shape, (0..count).map(|i| (i * 37 % 256) as u8 & 0xbf).collect());
                add(&format!("{name}_scale_inv"), "F32", &[1, 1], 0.3f32.to_le_bytes().to_vec());
            }
            _ => add(&name, "F32", shape, (0..count).flat_map(|i| value(i).to_le_bytes()).collect()),
        }
        Ok(())
    });
    written.expect("no visit fails");
    [config.to_json().into_bytes(), Value::Object(header).to_string().into_bytes(), data]
}
