//! Loading takes the memory of the model and of one tensor, not of the files beside it.
#![cfg(target_os = "linux")]

mod checkpoint_writer;

use std::process::Command;

use checkpoint_writer::{Files, tiny_config};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{LoadOptions, load};

/// Names the checkpoint to the process that loads it.
const DIR: &str = "WEIGHTS_MEMORY_DIR";
/// What threads, small buffers and the allocator may take beside.
const SLACK: usize = 12 << 20;

/// A figure of this process in bytes, such as `VmHWM`, the most memory that it ever had.
fn status(key: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Not a test by itself: the process that [`the_peak_is_the_model_and_one_tensor`] starts.
#[test]
fn loads_where_it_is_told() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let before = status("VmRSS");
    let (config, vb) = load(dir, &LoadOptions::default(), |_| ()).unwrap();
    let model = Model::new(&config, vb).unwrap();
    println!("peak {}", status("VmHWM") - before);
    drop(model);
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
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "loads_where_it_is_told", "--nocapture"]).env(DIR, dir.path());
        let output = child.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let peak = text.lines().find_map(|line| line.split_once("peak ")?.1.trim().parse::<usize>().ok());
        let peak = peak.unwrap_or_else(|| panic!("{text} {:?}", output.stderr));
        assert!(peak <= model + largest + SLACK, "{shards} shards: {peak} for {model} and {largest}");
        assert!(peak >= model, "{peak} is less than the model's {model}");
    }
}
