//! Compiles `kernels/*.cu` for the feature `cuda`; without it, does nothing.
//!
//! A kernel file becomes a cubin for Hopper (`sm_90a`) and, unless its name begins with `sm90_`, PTX that every GPU from
//! Ampere (`sm_80`) on compiles when it is loaded. The library embeds both and chooses at run time, so that neither a
//! GPU nor a network is needed here.

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

/// Environment variables that name the folder of a toolkit, the first one that is set first.
const TOOLKIT_VARIABLES: [&str; 4] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
const FLAGS: [&str; 5] = ["-std=c++17", "-O3", "-lineinfo", "--expt-relaxed-constexpr", "-Wno-deprecated-gpu-targets"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(error) = compile() {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}

/// One call of nvcc.
struct Unit {
    source: PathBuf,
    output: PathBuf,
    target: [&'static str; 2],
}

fn compile() -> Result<(), String> {
    for variable in TOOLKIT_VARIABLES.iter().chain(&["NVCC", "PATH"]) {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let kernels = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("kernels");
    println!("cargo::rerun-if-changed={}", kernels.display());
    let nvcc = nvcc().ok_or(
        "the feature `cuda` needs nvcc of a CUDA toolkit from 12.8 on: install one and set CUDA_HOME, or make one with \
         `bash kernels/toolchain.sh DIR && . DIR/env.sh`",
    )?;
    let sources = files(&kernels, "cu")?;
    let headers = files(&kernels.join("common"), "cuh")?;
    let newest = headers.iter().chain([&nvcc]).filter_map(|path| changed(path)).max();

    let (mut units, mut table) = (VecDeque::new(), String::new());
    for source in sources {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let cubin = out.join(format!("{name}.sm_90a.cubin"));
        let mut ptx_text = "None".to_string();
        if !name.starts_with("sm90_") {
            let ptx = out.join(format!("{name}.sm_80.ptx"));
            ptx_text = format!("Some(include_str!({ptx:?}))");
            units.push_back(Unit { source: source.clone(), output: ptx, target: ["-ptx", "-arch=compute_80"] });
        }
        let _ = write!(
            table,
            "/// `kernels/{name}.cu`.\npub(crate) static {}: Module = Module {{ name: {name:?}, cubin: \
             include_bytes!({cubin:?}), ptx: {ptx_text} }};\n",
            name.to_uppercase()
        );
        let target = ["-cubin", "-gencode=arch=compute_90a,code=sm_90a"];
        units.push_back(Unit { source, output: cubin, target });
    }
    let is_empty = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.len() == 0);
    units.retain(|unit| is_empty(&unit.output) || changed(&unit.output) <= changed(&unit.source).max(newest));
    run(&nvcc, &kernels.join("common"), units)?;
    fs::write(out.join("kernels.rs"), table).map_err(|error| format!("kernels.rs: {error}"))
}

/// Compiles all units, as many at a time as cargo allows.
fn run(nvcc: &Path, include: &Path, units: VecDeque<Unit>) -> Result<(), String> {
    let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse::<usize>().ok()).unwrap_or(1).max(1);
    let jobs = jobs.min(units.len());
    let (units, errors) = (Mutex::new(units), Mutex::new(Vec::new()));
    let next = || units.lock().ok().and_then(|mut units| units.pop_front());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(unit) = next() {
                    if let (Err(error), Ok(mut errors)) = (unit.compile(nvcc, include), errors.lock()) {
                        errors.push(error);
                    }
                }
            });
        }
    });
    let errors = errors.into_inner().unwrap_or_default();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

impl Unit {
    fn compile(&self, nvcc: &Path, include: &Path) -> Result<(), String> {
        let source = self.source.display();
        let mut command = Command::new(nvcc);
        command.args(FLAGS).args(self.target).arg("-I").arg(include).arg("-o").arg(&self.output).arg(&self.source);
        let output = command.output().map_err(|error| format!("{}: {error}", nvcc.display()))?;
        if output.status.success() {
            return Ok(());
        }
        // A part that was written must not pass for the whole.
        let _ = fs::remove_file(&self.output);
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        for line in text.lines() {
            println!("cargo::warning={line}");
        }
        Err(format!("nvcc does not compile {source} with {}", self.target[1]))
    }
}

/// The compiler: `NVCC`, or that of the toolkit that the environment, the search path or the usual folder names.
fn nvcc() -> Option<PathBuf> {
    let set = |variable: &&str| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(nvcc) = set(&"NVCC") {
        return Some(nvcc.into());
    }
    let toolkits = TOOLKIT_VARIABLES.iter().filter_map(set).map(|toolkit| PathBuf::from(toolkit).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = toolkits.chain(std::env::split_paths(&path)).chain([PathBuf::from("/usr/local/cuda/bin")]);
    folders.map(|folder| folder.join(format!("nvcc{}", std::env::consts::EXE_SUFFIX))).find(|nvcc| nvcc.is_file())
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}

/// The files of a folder with this extension, by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

/// When a file was last written; `None` if it is not there.
fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
