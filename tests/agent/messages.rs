//! Errors are one line of bounded length that says where.

use std::fs;
use std::path::Path;

use crate::checkpoint_writer::*;
use candle_core::DType;
use deepseek_v32::Error;
use deepseek_v32::agent::{AgentError, AgentOptions};
use deepseek_v32::chat::{Json, ResponseFormat, ToolChoice, ToolError};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::config::{Config, IndexerType};
use deepseek_v32::error::{one_line, one_line_path};
use deepseek_v32::generation::{Engine, EngineOptions, GenerationError, LocalModel, Request, Tokenizer};
use deepseek_v32::model::{Model, Trace};
use deepseek_v32::weights::{LoadOptions, load};

fn load_as(files: &Files, dtype: DType) -> Result<Model, Error> {
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let (config, vb) = load(dir.path(), &LoadOptions { dtype, ..LoadOptions::default() }, |_| {})?;
    Ok(Model::new(&config, vb)?)
}

fn set(files: &mut Files, name: &str, element: usize, value: f32) {
    files.get(name).bytes[element * 4..element * 4 + 4].copy_from_slice(&value.to_le_bytes());
}

/// Errors of every module become the crate's with `?`, and keep their words on the way up.
#[test]
fn the_crate_s_error_takes_those_of_every_layer() {
    fn tool() -> Result<(), Error> {
        Ok(ToolChoice::Required.check_tools(&[])?)
    }
    fn grammar() -> Result<(), Error> {
        ResponseFormat::from_json(&Json::Null)?;
        Ok(())
    }
    fn own() -> Result<(), Error> {
        Ok(AgentOptions { context_threshold: 2.0, ..AgentOptions::default() }.validate()?)
    }
    assert!(matches!(tool(), Err(Error::Tool(ToolError::NoTools))));
    assert!(matches!(grammar(), Err(Error::Grammar(_))));
    let Err(error @ Error::Agent(_)) = own() else { panic!() };
    assert_eq!(error.to_string(), "context_threshold is 2: expected a number in (0, 1]");
    let stopped = AgentError::from(GenerationError::Stopped);
    assert!(matches!(stopped, AgentError::ChatModel(ChatModelError::Generation(GenerationError::Stopped))));
    let missing = load(Path::new("/nowhere"), &LoadOptions::default(), |_| {}).err().unwrap();
    let text = missing.to_string();
    let chat = ChatModelError::from(missing);
    assert!(matches!(&chat, ChatModelError::Weights(_)));
    assert_eq!(Error::from(AgentError::from(chat)).to_string(), text);
}

#[test]
fn a_line_break_in_a_name_or_path_is_escaped() {
    assert_eq!(one_line("a\nb\u{1b}[31m \"c\" d\\e 你"), "a\\nb\\u{1b}[31m \"c\" d\\e 你");
    assert_eq!(one_line(&"x".repeat(1000)).len(), 203);
    assert_eq!(one_line_path(Path::new("a\nb/c")), "a\\nb/c");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("two\nlines");
    let line = |error: &dyn std::fmt::Display| {
        let line = error.to_string();
        assert!(line.contains("two\\nlines") && !line.contains('\n'), "{line:?}");
    };
    line(&load(&dir, &LoadOptions::default(), |_| {}).err().unwrap());
    line(&Tokenizer::load(&dir).unwrap_err());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("tokenizer.json"), "{").unwrap();
    fs::write(dir.join("config.json"), "{").unwrap();
    line(&load(&dir, &LoadOptions::default(), |_| {}).err().unwrap());
    line(&Tokenizer::load(&dir).unwrap_err());
    Files::new(&tiny_config(), "F32", "F32").write_config(&dir);
    line(&load(&dir, &LoadOptions::default(), |_| {}).err().unwrap());
    fs::write(dir.join("model.safetensors"), "{").unwrap();
    line(&load(&dir, &LoadOptions::default(), |_| {}).err().unwrap());
}

#[test]
fn a_value_too_large_for_the_activations_is_named_at_load() {
    for name in [
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.1.self_attn.indexer.k_norm.bias",
        "model.layers.2.shared_head.norm.weight",
        "model.embed_tokens.weight",
    ] {
        let mut files = Files::new(&tiny_config(), "F32", "F32");
        set(&mut files, name, 5, -70000.0);
        let line = load_as(&files, DType::F16).unwrap_err().to_string();
        assert!(line.contains(&format!("`{name}`: element 5 (-70000) does not fit in F16")), "{line}");
        load_as(&files, DType::BF16).unwrap();
        set(&mut files, name, 5, 3.4e38);
        let line = load_as(&files, DType::BF16).unwrap_err().to_string();
        assert!(line.contains(&format!("`{name}`: element 5 (3.4e38) does not fit in BF16")), "{line}");
        load_as(&files, DType::F32).unwrap();
    }
    // The router's bias stays f32.
    let mut files = Files::new(&tiny_config(), "F32", "F32");
    set(&mut files, "model.layers.1.mlp.gate.e_score_correction_bias", 1, 1e6);
    load_as(&files, DType::F16).unwrap();
}

/// The first line of what generation with `files` in `dtype` says.
fn generation_error(files: &Files, dtype: DType, draft_tokens: usize) -> String {
    let model = LocalModel::new(load_as(files, dtype).unwrap().into()).unwrap();
    let options = EngineOptions { draft_tokens, ..EngineOptions::default() };
    let mut engine = Engine::new(model, options).unwrap();
    let error = engine.generate(Request::new([1, 2, 3]), |_| {}).unwrap_err();
    assert!(matches!(error, GenerationError::Candle(_)), "{error}");
    error.to_string().lines().next().unwrap().to_string()
}

#[test]
fn what_goes_wrong_in_a_layer_names_it() {
    let spoilt = |name: &str, value: f32| {
        let mut files = Files::new(&tiny_config(), "F32", "F32");
        for element in 0..files.get(name).shape[0] {
            set(&mut files, name, element, value);
        }
        files
    };
    let norm = |layer: usize| format!("model.layers.{layer}.post_attention_layernorm.weight");
    // The dense layer, the sparse one and the MTP layer.
    for layer in 0..3 {
        let line = generation_error(&spoilt(&norm(layer), 3e38), DType::F32, 1);
        assert!(line.starts_with(&format!("model.layers.{layer}: ")), "{line}");
    }
    // Values that fit, products that do not.
    let files = spoilt(&norm(0), 6e4);
    let line = generation_error(&files, DType::F16, 0);
    assert_eq!(line, "model.layers.0: the residual stream of row 0 is not finite: the weights overflow in f16");
    let model = LocalModel::new(load_as(&files, DType::BF16).unwrap().into()).unwrap();
    let mut engine = Engine::new(model, EngineOptions::default()).unwrap();
    engine.generate(Request { max_tokens: Some(2), ..Request::new([1, 2, 3]) }, |_| {}).unwrap();
    let line = generation_error(&spoilt("model.norm.weight", 3e38), DType::F32, 0);
    assert!(line.starts_with("model.norm: "), "{line}");
}

#[test]
fn log_probabilities_of_more_tokens_than_there_are_are_refused() {
    let files = Files::new(&tiny_config(), "F32", "F32");
    let model = LocalModel::new(load_as(&files, DType::F32).unwrap().into()).unwrap();
    let mut engine = Engine::new(model, EngineOptions::default()).unwrap();
    let request = |top| Request { logprobs: Some(top), max_tokens: Some(1), ..Request::new([1]) };
    let line = engine.generate(request(41), |_| {}).unwrap_err().to_string();
    assert!(line.starts_with("logprobs is 41"), "{line}");
    engine.generate(request(40), |_| {}).unwrap();
}

#[test]
fn a_trace_is_no_wider_than_the_context() {
    let config = Config { index_topk: Some(1 << 24), indexer_types: vec![IndexerType::Full; 2], ..tiny_config() };
    let model = load_as(&Files::new(&config, "F32", "F32"), DType::F32).unwrap();
    let mut cache = model.new_cache(0).unwrap();
    let sequence = cache.create();
    let layout = cache.append(&[(sequence, 3)]).unwrap();
    let mut trace = Trace::default();
    model.forward_batch(&[1, 2, 3], &layout, &mut cache, Some(&mut trace)).unwrap();
    for chosen in trace.topk_indices {
        assert_eq!(chosen.unwrap().to_vec2::<i64>().unwrap(), [[0, -1, -1], [0, 1, -1], [0, 1, 2]]);
    }
}
