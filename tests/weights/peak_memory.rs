//! Loading takes the memory of the model and of one tensor, not of the files beside it; prefill takes memory that grows
//! with the tokens, not with their square.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use crate::checkpoint_writer::{Files, RawTensor, tiny_config};
use deepseek_v32::config::{Config, IndexerType, MlpType};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{LoadOptions, load};

/// Names the checkpoint to the process that loads it.
const DIR: &str = "PEAK_MEMORY_DIR";
/// How many tokens it then reads at once.
const TOKENS: &str = "PEAK_MEMORY_TOKENS";
/// What threads, small buffers and the allocator may take beside.
const SLACK: usize = 12 << 20;

/// A figure of this process in bytes, such as `VmHWM`, the most memory that it ever had.
fn status(key: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Not a test by itself: the process that [`peak`] starts.
#[test]
fn loads_where_it_is_told() {
    let (Ok(dir), Ok(tokens)) = (std::env::var(DIR), std::env::var(TOKENS)) else { return };
    let tokens: usize = tokens.parse().unwrap();
    let before = status("VmRSS");
    let (config, vb) = load(dir, &LoadOptions::default(), |_| ()).unwrap();
    let model = Model::new(&config, vb).unwrap();
    if tokens > 0 {
        let mut cache = model.new_cache(tokens).unwrap();
        let sequence = cache.create();
        let layout = cache.append(&[(sequence, tokens)]).unwrap();
        let ids: Vec<u32> = (0..tokens).map(|i| (i * i % config.vocab_size) as u32).collect();
        model.forward_batch(&ids, &layout, &mut cache, None).unwrap();
    }
    println!("peak {}", status("VmHWM") - before);
}

/// The most memory that a process had which loads a checkpoint and reads so many tokens at once.
fn peak(dir: &Path, tokens: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "peak_memory::loads_where_it_is_told", "--nocapture"])
        .env(DIR, dir)
        .env(TOKENS, tokens.to_string());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = text.lines().find_map(|line| line.split_once("peak ")?.1.trim().parse().ok());
    peak.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_long_prefill_has_no_square_of_scores() {
    const TOKENS: usize = 1 << 15;
    // Scores alone would take 4 GiB.
    const MOST: usize = 1 << 29;
    let config = Config {
        num_hidden_layers: 1,
        num_nextn_predict_layers: 0,
        mlp_layer_types: vec![MlpType::Dense],
        indexer_types: vec![IndexerType::Full],
        max_position_embeddings: TOKENS,
        ..tiny_config()
    };
    let dir = tempfile::tempdir().unwrap();
    Files::new(&config, "BF16", "BF16").write_single(dir.path());
    let peak = peak(dir.path(), TOKENS);
    assert!(peak < MOST, "{peak}");
}

#[test]
fn the_peak_is_the_model_and_one_tensor() {
    let mut config = tiny_config();
    (config.vocab_size, config.tie_word_embeddings) = (1 << 16, false);
    (config.hidden_size, config.num_nextn_predict_layers) = (256, 0);
    let files = Files::new(&config, "BF16", "BF16");
    let sizes: Vec<usize> = files.tensors.values().map(|tensor| tensor.bytes.len()).collect();
    let (model, largest) = (sizes.iter().sum::<usize>(), *sizes.iter().max().unwrap());
    assert!(largest > 2 * SLACK && model > largest * 3 / 2, "too small to tell");
    for shards in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        match shards {
            1 => files.write_single(dir.path()),
            count => files.write_sharded(dir.path(), count),
        }
        let peak = peak(dir.path(), 0);
        assert!(peak <= model + largest + SLACK, "{shards} shards: {peak} for {model} and {largest}");
        assert!(peak >= model, "{peak} is less than the model's {model}");
    }
}

/// The experts of a layer are read into one tensor: beside it there is never more than one of them.
#[test]
fn a_stack_of_experts_is_not_held_twice() {
    const EXPERTS: usize = 32;
    const WIDTH: usize = 2048;
    let config = Config { n_routed_experts: EXPERTS, num_nextn_predict_layers: 0, ..tiny_config() };
    let mut files = Files::new(&config, "BF16", "BF16");
    let hidden = config.hidden_size;
    files.config["moe_intermediate_size"] = WIDTH.into();
    for (name, tensor) in &mut files.tensors {
        let shape = match () {
            () if !name.contains(".mlp.experts.") && !name.contains("shared_experts") => continue,
            () if name.contains("down_proj") => vec![hidden, WIDTH],
            () => vec![WIDTH, hidden],
        };
        // 0.0117 in bf16, as good as any.
        *tensor = RawTensor { dtype: "BF16".to_string(), bytes: [0x40, 0x3c].repeat(hidden * WIDTH), shape };
    }
    let model: usize = files.tensors.values().map(|tensor| tensor.bytes.len()).sum();
    let expert = 2 * hidden * WIDTH;
    assert!(EXPERTS * expert > SLACK + expert, "too small to tell");
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let peak = peak(dir.path(), 0);
    assert!(peak <= model + expert + SLACK, "{peak} for {model} and {expert}");
    assert!(peak >= model, "{peak} is less than the model's {model}");
}
