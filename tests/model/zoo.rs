//! The model with the reference ops compiles alone, as it would stand in candle-transformers, and passes a golden case.
//!
//! The steps are those of `docs/zoo.md`. The scratch crate sees candle (under that name), candle-nn, serde and serde_json, in edition
//! 2021, and nothing else: rustc is given these four and no other crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the scratch crate may depend on: the name it uses, and the package's name.
const DEPENDENCIES: [(&str, &str); 4] =
    [("candle", "candle_core"), ("candle_nn", "candle_nn"), ("serde", "serde"), ("serde_json", "serde_json")];

const MAIN: &str = r#"
mod models {
    pub mod deepseek_v32;
}

use candle::{DType, Device, IndexOp, Result, Tensor};
use candle_nn::VarBuilder;
use models::deepseek_v32::{config::Config, model::Model};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).expect("the golden case's folder");
    let cfg = std::fs::read_to_string(format!("{dir}/config.json"))?;
    let cfg = Config::from_json(&cfg).expect("a valid config");
    let weights = [format!("{dir}/model.safetensors")];
    let vb = unsafe { VarBuilder::from_mmaped_safetensors(&weights, DType::F32, &Device::Cpu)? };
    let mut model = Model::new(&cfg, vb)?;
    let golden = candle::safetensors::load(format!("{dir}/golden.safetensors"), &Device::Cpu)?;
    let ids = golden["input_ids"].to_dtype(DType::U32)?;
    let close = |logits: &Tensor, expected: &Tensor| -> Result<f32> {
        (logits - expected)?.abs()?.max_all()?.to_scalar::<f32>()
    };
    let prefill = model.forward(&ids, 0)?;
    let prefill = close(&prefill, &golden["logits"].i((.., ids.dim(1)? - 1, ..))?)?;
    let next = golden["greedy_tokens"].i((.., ..1))?.to_dtype(DType::U32)?;
    let decode = model.forward(&next, ids.dim(1)?)?;
    let decode = close(&decode, &golden["decode_logits"].i((.., 0, ..))?)?;
    println!("{}", prefill.max(decode));
    Ok(())
}
"#;

#[test]
fn compiles_alone_and_matches_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let module = scratch.path().join("models/deepseek_v32");
    copy_module(root, &module);
    fs::write(scratch.path().join("main.rs"), MAIN).unwrap();

    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2021", "--crate-name", "zoo", "-C", "opt-level=1", "-D", "unsafe_op_in_unsafe_fn"]);
    rustc.arg(scratch.path().join("main.rs")).arg("-o").arg(scratch.path().join("zoo"));
    for (name, path) in dependencies() {
        rustc.arg("-L").arg(format!("dependency={}", path.parent().unwrap().display()));
        rustc.arg("--extern").arg(format!("{name}={}", path.display()));
    }
    let output = rustc.output().unwrap();
    assert!(output.status.success(), "rustc: {}", String::from_utf8_lossy(&output.stderr));

    let case = root.join("tests/data/golden/v32_f32");
    let output = Command::new(scratch.path().join("zoo")).arg(case).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let difference: f32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!(difference <= 1e-4, "logits differ by {difference}");
}

/// Steps 1 to 4 of `docs/zoo.md`.
fn copy_module(root: &Path, module: &Path) {
    let mut facade = String::from("pub mod deferred;\npub mod layout;\n");
    let ops = root.join("src/ops");
    let mut names: Vec<PathBuf> = fs::read_dir(&ops).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for op in names.iter().filter(|path| path.join("reference.rs").exists()) {
        let name = op.file_name().unwrap().to_string_lossy().into_owned();
        copy(&op.join("reference.rs"), &module.join("ops").join(format!("{name}.rs")));
        facade.push_str(&format!("pub mod {name};\n#[allow(unused_imports)]\npub use {name}::*;\n"));
    }
    fs::write(module.join("ops/mod.rs"), facade).unwrap();
    for file in ["deferred.rs", "layout.rs"] {
        copy(&ops.join(file), &module.join("ops").join(file));
    }
    for folder in ["model", "config"] {
        for file in fs::read_dir(root.join("src").join(folder)).unwrap() {
            let path = file.unwrap().path();
            copy(&path, &module.join(folder).join(path.file_name().unwrap()));
        }
    }
    copy(&root.join("src/show.rs"), &module.join("show.rs"));
    fs::write(module.join("mod.rs"), "pub mod config;\npub mod model;\npub mod ops;\nmod show;\n").unwrap();
}

fn copy(from: &Path, to: &Path) {
    let text = fs::read_to_string(from).unwrap();
    let text = text.replace("use candle_core as candle;\n", "").replace("crate::", "crate::models::deepseek_v32::");
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, text).unwrap();
}

/// Where cargo put the libraries that this very test was built with.
fn dependencies() -> Vec<(&'static str, PathBuf)> {
    let mut cargo = crate::cargo_build::cargo(&["test", "--no-run", "--test", "model"]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let messages: Vec<serde_json::Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    DEPENDENCIES
        .iter()
        .map(|&(name, package)| {
            let of_package = |message: &&serde_json::Value| {
                message["reason"] == "compiler-artifact" && message["target"]["name"] == package
            };
            let files = messages.iter().filter(of_package).filter_map(|message| message["filenames"].as_array());
            let rlib = files.flatten().filter_map(|file| file.as_str()).rfind(|file| file.ends_with(".rlib"));
            (name, PathBuf::from(rlib.unwrap_or_else(|| panic!("cargo built no {package}"))))
        })
        .collect()
}
