//! What is saved is what was loaded, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::checkpoint_writer::*;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use deepseek_v32::Config;
use deepseek_v32::model::Model;
use deepseek_v32::ops::{Backend, with_backend};
use deepseek_v32::weights::{
    Checkpoint, DEFAULT_SHARD_BYTES, LoadOptions, for_each_tensor, load, save, save_variables,
};

type Contents = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

fn contents(dir: &Path) -> Contents {
    let checkpoint = Checkpoint::open(dir).unwrap_or_else(|e| panic!("{e}"));
    let tensors = checkpoint.tensors();
    tensors.map(|(name, dtype, shape, bytes)| (name.to_string(), (dtype, shape.to_vec(), bytes.to_vec()))).collect()
}

fn file_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_golden_checkpoint_survives_one_file_and_shards() {
    let cases = ["v32_f32", "v32_fp8", "v3_f32", "v32_mtp_train", "glm_dsa_f32"].map(golden);
    for source in cases.into_iter().chain([tiny_v32()]) {
        let before = contents(&source);
        for max_shard_bytes in [DEFAULT_SHARD_BYTES, 1 << 20, 300_000] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("made/if/need/be");
            let checkpoint = Checkpoint::open(&source).unwrap();
            checkpoint.save_to(&target, max_shard_bytes).unwrap();
            assert!(contents(&target) == before, "{} differs", source.display());
            assert_eq!(fs::read(target.join("config.json")).unwrap(), fs::read(source.join("config.json")).unwrap());
            assert_eq!(target.join("tokenizer.json").exists(), source.join("tokenizer.json").exists());
            let names = file_names(&target);
            assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
            let sharded = max_shard_bytes < DEFAULT_SHARD_BYTES;
            assert_eq!(target.join("model.safetensors.index.json").exists(), sharded);
            assert_eq!(target.join("model.safetensors").exists(), !sharded);
            let largest = before.values().map(|(_, _, bytes)| bytes.len()).max().unwrap() as u64;
            for name in names.iter().filter(|name| name.starts_with("model-")) {
                let (_, data) = split_file(&fs::read(target.join(name)).unwrap());
                assert!(data.len() as u64 <= max_shard_bytes.max(largest));
            }
        }
    }
}

#[test]
fn other_readers_can_read_what_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::open(golden("v32_fp8")).unwrap().save_to(dir.path(), DEFAULT_SHARD_BYTES).unwrap();
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(length % 8, 0);
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let expected = contents(&golden("v32_fp8"));
    assert_eq!(read.len(), expected.len());
    for (name, view) in read.tensors() {
        assert_eq!((view.dtype(), view.shape().to_vec(), view.data().to_vec()), expected[&name]);
    }
}

#[test]
fn saving_over_a_checkpoint_replaces_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let files = fp8_files();
    files.write_sharded(dir.path(), 3);
    fs::write(dir.path().join("README.md"), "kept").unwrap();
    let before = contents(dir.path());
    // Onto itself, in another number of files, while it is mapped.
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    checkpoint.save_to(dir.path(), DEFAULT_SHARD_BYTES).unwrap();
    assert_eq!(file_names(dir.path()), ["README.md", "config.json", "model.safetensors"]);
    assert!(contents(dir.path()) == before);
    checkpoint.save_to(dir.path(), 10_000).unwrap();
    assert!(!dir.path().join("model.safetensors").exists());
    assert!(contents(dir.path()) == before);
}

#[test]
fn loaded_tensors_save_to_what_loads_equal() {
    for files in [fp8_files(), Files::new(&tiny_config(), "F16", "F32")] {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        files.write_single(source.path());
        let (config, vb) = load(source.path(), &LoadOptions::default(), |_| {}).unwrap();
        let tensors: Vec<(&String, Tensor)> =
            files.tensors.keys().map(|name| (name, vb.get_unchecked(name).unwrap())).collect();
        save(target.path(), &config.to_json(), &tensors, 50_000).unwrap();
        let (again, reloaded) = load(target.path(), &LoadOptions::default(), |_| {}).unwrap();
        assert_eq!(again, config);
        for (name, tensor) in &tensors {
            let other = reloaded.get(tensor.shape(), name).unwrap();
            assert_eq!(other.dtype(), tensor.dtype(), "{name}");
            let flat = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&other), flat(tensor), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_saved_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let twice = [("a", tensor.clone()), ("a", tensor.clone())];
    let error = save(dir.path(), "{}", &twice, DEFAULT_SHARD_BYTES).unwrap_err().to_string();
    assert!(error.contains("`a`") && error.contains("twice"), "{error}");
    // A directory stands where the file should go.
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let error = save(dir.path(), "{}", &[("a", tensor)], DEFAULT_SHARD_BYTES).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    assert_eq!(file_names(dir.path()), ["model.safetensors"]);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Checkpoint::open(golden("v3_f32")).unwrap().save_to(&file, DEFAULT_SHARD_BYTES).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn strided_views_save_in_row_major_order() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((2, 3)).unwrap().t().unwrap();
    save(dir.path(), "{}", &[("a", &tensor)], DEFAULT_SHARD_BYTES).unwrap();
    let (header, data) = split_file(&fs::read(dir.path().join("model.safetensors")).unwrap());
    assert_eq!(header["a"]["shape"], serde_json::json!([3, 2]));
    let values: Vec<f32> = data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
}

/// A new model, MTP layer included, under the names of a checkpoint, and what it computes bit for bit.
#[test]
fn a_new_model_survives_saving() {
    let ids = [3u32, 1, 4, 1, 5, 9, 2, 6];
    let bits = |tensor: Tensor| -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    // Variables are computed by the reference, loaded tensors by the fast paths if not told otherwise.
    let logits = |model: &Model| {
        with_backend(Backend::Reference, || {
            let mut cache = model.new_cache(1).unwrap();
            let sequence = cache.create();
            let layout = cache.append(&[(sequence, ids.len())]).unwrap();
            let hidden = model.forward_batch(&ids, &layout, &mut cache, None).unwrap();
            let mtp = model.forward_mtp(&ids, &hidden, &layout, &mut cache, None).unwrap();
            [bits(model.logits(&hidden).unwrap()), bits(model.mtp_logits(&mtp).unwrap())]
        })
    };
    for (config, dtype) in [
        (tiny_config(), DType::F32),
        (tiny_config(), DType::BF16),
        (Config { tie_word_embeddings: true, ..tiny_config() }, DType::F32),
    ] {
        let varmap = VarMap::new();
        let model = Model::init(&config, &varmap, 11, dtype, &Device::Cpu).unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_variables(dir.path(), &config, &varmap, 100_000).unwrap();
        let names: Vec<String> = contents(dir.path()).into_keys().collect();
        let mut expected = Vec::new();
        for_each_tensor(&config, |name, _, _| {
            expected.push(name);
            Ok::<_, ()>(())
        })
        .unwrap();
        expected.sort();
        assert_eq!(names, expected);
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let (loaded_config, vb) = load(dir.path(), &options, |_| {}).unwrap();
        assert_eq!(loaded_config, config);
        for (name, variable) in varmap.data().lock().unwrap().iter() {
            let loaded = vb.get_unchecked_dtype(name, variable.dtype()).unwrap();
            let wide = |tensor: &Tensor| bits(tensor.to_dtype(DType::F32).unwrap());
            assert_eq!((loaded.dtype(), wide(&loaded)), (variable.dtype(), wide(variable)), "{name}");
        }
        let loaded = Model::new(&config, vb).unwrap();
        assert!(loaded.has_mtp());
        assert!(logits(&loaded) == logits(&model), "{dtype:?}");

        // Back into variables: into those that were made from another seed, and into none.
        let others = VarMap::new();
        Model::init(&config, &others, 12, dtype, &Device::Cpu).unwrap();
        for target in [others, VarMap::new()] {
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            checkpoint.load_variables(&target, &options, |_| {}).unwrap();
            let again = Model::init(&config, &target, 13, dtype, &Device::Cpu).unwrap();
            let names = |varmap: &VarMap| varmap.data().lock().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(&target), names(&varmap));
            assert!(logits(&again) == logits(&model), "{dtype:?}");
        }
    }
}

#[test]
fn variables_of_another_shape_are_named() {
    let checkpoint = Checkpoint::open(golden("v3_f32")).unwrap();
    let varmap = VarMap::new();
    let wrong = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    varmap.data().lock().unwrap().insert("model.norm.weight".to_string(), wrong);
    let error = checkpoint.load_variables(&varmap, &LoadOptions::default(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight"), "{error}");
}
