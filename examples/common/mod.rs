//! What the examples share: choice of checkpoint, loading with a spinner, errors as one line.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::DType;
use clap::ValueEnum;
use deepseek_v32::model::{Model, Precision};
use deepseek_v32::weights::{self, LoadOptions};
use indicatif::{ProgressBar, ProgressStyle};

/// Dtype of activations and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
            Dtype::F16 => DType::F16,
        }
    }
}

/// How FP8 checkpoints are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// Weights dequantized, the rest as it is.
    Dequant,
    /// The reference's FP8 arithmetic.
    Fp8,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Dequant => Precision::Dequant,
            PrecisionArg::Fp8 => Precision::Fp8,
        }
    }
}

/// The checkpoint that comes with the repository.
pub fn embedded_checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32")
}

/// A folder, or with feature `hub` the `owner/name` of a repository that is then downloaded.
pub fn resolve(model: Option<&str>) -> Result<PathBuf> {
    let Some(model) = model else {
        return Ok(embedded_checkpoint());
    };
    if model.is_empty() {
        bail!("--model is empty");
    }
    let path = PathBuf::from(model);
    if path.exists() {
        return Ok(path);
    }
    let is_name = model.split('/').count() == 2 && !model.starts_with(['.', '/']) && !model.ends_with('/');
    if !is_name {
        bail!("{model}: no such folder");
    }
    download(model)
}

#[cfg(feature = "hub")]
fn download(model: &str) -> Result<PathBuf> {
    weights::hub::download(model, None, |_| ()).with_context(|| format!("{model}: download failed"))
}

#[cfg(not(feature = "hub"))]
fn download(model: &str) -> Result<PathBuf> {
    bail!("{model}: no such folder; to download it from the hub, build with --features hub")
}

/// The text of a file of at most 64 MB.
pub fn read_text(path: &Path) -> Result<String> {
    const MAX_BYTES: u64 = 64 << 20;
    let read = || -> Result<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        anyhow::ensure!(bytes.len() as u64 <= MAX_BYTES, "larger than 64 MB");
        String::from_utf8(bytes).context("not UTF-8")
    };
    read().with_context(|| path.display().to_string())
}

/// Loads a model while a spinner on standard error shows how far it is; returns the time it took, too.
pub fn load_model(dir: &Path, dtype: DType, precision: Precision) -> Result<(Model, Duration)> {
    let start = Instant::now();
    let spinner = ProgressBar::new_spinner();
    spinner.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    spinner.enable_steady_tick(Duration::from_millis(80));
    spinner.set_message(format!("loading {}", dir.display()));
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    let (config, vb) = weights::load(dir, &options, |progress| {
        let (done, total) = (progress.bytes_done as f64 / 1e6, progress.bytes_total as f64 / 1e6);
        spinner.set_message(format!("loading {}: {done:.1} of {total:.1} MB", dir.display()));
    })?;
    let model = Model::with_precision(&config, precision, vb)
        .map_err(deepseek_v32::Error::from)
        .with_context(|| dir.display().to_string())?;
    spinner.finish_and_clear();
    Ok((model, start.elapsed()))
}

/// Ends an example: an error becomes one line on standard error and exit status 1. A reader of standard output that has
/// seen enough is no error.
pub fn report(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let broken_pipe = |io: &std::io::Error| io.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    // A cause that its effect's message already quotes is not said twice.
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let text = text.lines().next().unwrap_or_default().trim();
        if !line.contains(text) {
            line = if line.is_empty() { text.to_string() } else { format!("{line}: {text}") };
        }
    }
    eprintln!("error: {line}");
    ExitCode::FAILURE
}
