//! What the examples share: choice of checkpoint, loading with a spinner, what an agent prints, errors as one line.

pub mod printer;
pub mod terminal;

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::utils::{cuda_is_available, metal_is_available};
use candle_core::{DType, Device};
use clap::{Parser, ValueEnum};
use deepseek_v32::agent::{AgentError, AgentOptions};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::error::{one_line, one_line_path};
use deepseek_v32::generation::GenerationError;
use deepseek_v32::model::{CacheFormat, Model, ModelOptions, Precision};
use deepseek_v32::weights::{self, GenerationConfig, LoadOptions, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use terminal::{complain, escaped, takes_codes};

/// How the model computes and what its cache keeps.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ModelArgs {
    /// Dtype of activations and, unless --cache-format says otherwise, of the cache.
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: Dtype,
    /// Arithmetic of the projections.
    #[arg(long, value_enum, default_value = "dequant")]
    pub precision: PrecisionArg,
    /// What the cache keeps.
    #[arg(long, value_enum)]
    pub cache_format: Option<CacheFormatArg>,
    /// Where it computes: cpu or cuda:N (feature cuda). Default: the first GPU if the build has GPU support and finds
    /// one, else the CPU.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceArg>,
}

impl ModelArgs {
    /// How weights are loaded. Says on standard error which device is taken, if it is not named and the build is for a
    /// GPU.
    pub fn load_options(self) -> Result<LoadOptions> {
        let device = match self.device {
            Some(DeviceArg::Cpu) => Device::Cpu,
            Some(DeviceArg::Cuda(ordinal)) => {
                ensure!(
                    cuda_is_available(),
                    "--device cuda:{ordinal}: this program was built without the feature cuda"
                );
                Device::new_cuda(ordinal).with_context(|| format!("--device cuda:{ordinal}"))?
            }
            None => default_device(),
        };
        Ok(LoadOptions { dtype: self.dtype.into(), device, ..LoadOptions::default() })
    }
}

fn default_device() -> Device {
    let (name, device) = if cuda_is_available() {
        ("cuda:0", Device::new_cuda(0))
    } else if metal_is_available() {
        ("metal:0", Device::new_metal(0))
    } else {
        return Device::Cpu;
    };
    match device {
        Ok(device) => {
            complain(&format!("device: {name}"));
            device
        }
        Err(error) => {
            complain(&format!("device: cpu, for there is no {name}: {}", one_line(&error.to_string())));
            Device::Cpu
        }
    }
}

/// A device by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceArg {
    Cpu,
    Cuda(usize),
}

impl std::str::FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok())) {
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(ordinal)) => Ok(Self::Cuda(ordinal)),
            _ => Err("expected cpu or cuda:N".to_string()),
        }
    }
}

impl From<ModelArgs> for ModelOptions {
    fn from(args: ModelArgs) -> Self {
        Self { precision: args.precision.into(), cache_format: args.cache_format.map(Into::into) }
    }
}

/// Dtype of activations.
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

/// What the cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheFormatArg {
    F32,
    Bf16,
    F16,
    /// e4m3 with scales: 656 bytes a token and layer for V3.2's latents, 132 for its index keys.
    Fp8,
}

impl From<CacheFormatArg> for CacheFormat {
    fn from(format: CacheFormatArg) -> Self {
        match format {
            CacheFormatArg::F32 => CacheFormat::F32,
            CacheFormatArg::Bf16 => CacheFormat::Bf16,
            CacheFormatArg::F16 => CacheFormat::F16,
            CacheFormatArg::Fp8 => CacheFormat::Fp8,
        }
    }
}

/// Arithmetic of the projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// Weights dequantized, the rest as it is.
    Dequant,
    /// The reference's FP8 arithmetic.
    Fp8,
    /// Inputs of projections with bf16 weights rounded to bf16: faster on processors that multiply bf16.
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Dequant => Precision::Dequant,
            PrecisionArg::Fp8 => Precision::Fp8,
            PrecisionArg::Bf16 => Precision::Bf16,
        }
    }
}

/// An example that runs a model, from its arguments to its exit status: 2 for arguments that make no sense, 1 for any
/// other error.
pub fn start<A: Parser>(run: impl FnOnce(A) -> Result<()>) -> ExitCode {
    answer(2, |args| start_threads().and_then(|()| run(args)))
}

/// An example that reads and writes text, from its arguments to its exit status: 1 for any error.
pub fn start_filter<A: Parser>(run: impl FnOnce(A) -> Result<()>) -> ExitCode {
    answer(1, run)
}

fn answer<A: Parser>(usage_status: u8, run: impl FnOnce(A) -> Result<()>) -> ExitCode {
    match A::try_parse() {
        Ok(args) => report(run(args)),
        Err(error) if error.use_stderr() => {
            complain(&usage_line(&error.render().to_string()));
            ExitCode::from(usage_status)
        }
        Err(help) => report(help.print().and_then(|()| std::io::stdout().flush()).context("standard output")),
    }
}

/// clap's message without its usage and hints, on one line; of a long value, which stands in its middle, not all.
fn usage_line(message: &str) -> String {
    const LONGEST: usize = 400;
    let hint = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more information");
    let words: Vec<_> = message.lines().map(str::trim).take_while(hint).filter(|line| !line.is_empty()).collect();
    let line: Vec<char> = escaped(&words.join(" "), &[]).chars().collect();
    if line.len() <= LONGEST {
        return line.into_iter().collect();
    }
    let (start, end) = (&line[..LONGEST / 2], &line[line.len() - LONGEST / 2..]);
    format!("{}...{}", String::from_iter(start), String::from_iter(end))
}

/// Starts the threads that everything runs on; rayon's own start would panic where they can't be started.
fn start_threads() -> Result<()> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    const MOST: usize = 4096;
    // 0 and nothing mean as many as there are cores.
    let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).unwrap_or_else(|| "0".into());
    let value = value.to_string_lossy();
    ensure!(
        value.parse::<usize>().is_ok_and(|threads| threads <= MOST),
        "{VARIABLE} is {}: expected a whole number of at most {MOST}",
        one_line(&value)
    );
    rayon::ThreadPoolBuilder::new().build_global().with_context(|| format!("{VARIABLE}: cannot start the threads"))
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
        // Before anything of it is read, so that every example says the same of what is no checkpoint.
        weights::check_folder(&path)?;
        return Ok(path);
    }
    let is_name = model.split('/').count() == 2 && !model.starts_with(['.', '/']) && !model.ends_with('/');
    if !is_name {
        bail!("{}: no such folder", one_line_path(&path));
    }
    download(model)
}

#[cfg(feature = "hub")]
fn download(model: &str) -> Result<PathBuf> {
    weights::hub::download(model, None, |_| ()).context("download failed")
}

#[cfg(not(feature = "hub"))]
fn download(model: &str) -> Result<PathBuf> {
    bail!("{}: no such folder; to download it from the hub, build with --features hub", one_line_path(Path::new(model)))
}

/// Refuses to write a file in the checkpoint's folder, where it could take the place of the checkpoint's own, or one
/// that a link in that folder leads to, as in the hub's cache.
pub fn refuse_checkpoint_file(option: &str, file: &Path, dir: &Path) -> Result<()> {
    let folder = file.parent().and_then(|folder| Path::new(".").join(folder).canonicalize().ok());
    let inside = folder.is_some() && folder == dir.canonicalize().ok();
    let target = file.canonicalize().ok();
    let is_target = |entry: std::fs::DirEntry| entry.path().canonicalize().ok() == target;
    let linked = target.is_some() && dir.read_dir().is_ok_and(|entries| entries.flatten().any(is_target));
    ensure!(!inside && !linked, "{option} {}: a file of the checkpoint's folder", one_line_path(file));
    Ok(())
}

/// Checks how an agent is to work.
pub fn check_agent(options: &AgentOptions) -> Result<()> {
    let checked = options.params.validate(usize::MAX).map_err(AgentError::from).and_then(|()| options.validate());
    checked.map_err(named)
}

/// An error that names the option of the command line, which the library cannot know.
pub fn named(error: impl Into<AgentError>) -> anyhow::Error {
    match error.into() {
        AgentError::ChatModel(ChatModelError::Generation(GenerationError::Parameter { name, value, expected }))
        | AgentError::ChatModel(ChatModelError::Option { name, value, expected })
        | AgentError::Option { name, value, expected } => {
            let option = match name {
                "max_answer_tokens" => "max-tokens".to_string(),
                "runs" => "context".to_string(),
                name => name.replace('_', "-"),
            };
            anyhow!("--{option} is {}: expected {expected}", one_line(&value))
        }
        error => error.into(),
    }
}

/// The checkpoint's `generation_config.json`; names on stderr what of it is not applied.
pub fn generation_config(dir: &Path) -> Result<GenerationConfig> {
    let config = GenerationConfig::load(dir)?.unwrap_or_default();
    if !config.not_applied.is_empty() {
        let keys = config.not_applied.join(", ");
        eprintln!("note: {} asks for {keys}, which is not applied", one_line_path(&dir.join(GenerationConfig::FILE)));
    }
    Ok(config)
}

/// Files beside the weights that `chat` and `generate` look for.
pub const TOKENIZER_FILES: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "tiktoken.model", "generation_config.json"];

/// Copies those of [`TOKENIZER_FILES`] that are there.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_file() {
            std::fs::copy(&from, &to).with_context(|| one_line_path(&to))?;
        }
    }
    Ok(())
}

/// The text of a file of at most 64 MB, without a byte order mark.
pub fn read_text(path: &Path) -> Result<String> {
    const MAX_BYTES: u64 = 64 << 20;
    let read = || -> Result<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= MAX_BYTES, "larger than 64 MB");
        let text = String::from_utf8(bytes).context("not UTF-8")?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
    };
    read().with_context(|| one_line_path(path))
}

/// Loads a model while a spinner on standard error shows how far it is; returns the time it took, too.
pub fn load_model(dir: &Path, options: &LoadOptions, model: ModelArgs) -> Result<(Model, Duration)> {
    let start = Instant::now();
    let model = with_spinner(dir, |progress| {
        let (config, vb) = weights::load(dir, options, progress)?;
        let model = Model::with_options(&config, model, vb).map_err(deepseek_v32::Error::from);
        model.with_context(|| one_line_path(dir))
    })?;
    Ok((model, start.elapsed()))
}

/// Runs `load` while a spinner on standard error shows how far it is.
pub fn with_spinner<T, E: Into<anyhow::Error>>(
    dir: &Path,
    load: impl FnOnce(&(dyn Fn(Progress) + Send + Sync)) -> std::result::Result<T, E>,
) -> Result<T> {
    let spinner = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    if !takes_codes(std::io::stderr().is_terminal()) {
        spinner.set_draw_target(ProgressDrawTarget::hidden());
    }
    spinner.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    spinner.enable_steady_tick(Duration::from_millis(80));
    let name = one_line_path(dir);
    spinner.set_message(format!("loading {name}"));
    let loaded = load(&|progress| {
        let (done, total) = (progress.bytes_done as f64 / 1e6, progress.bytes_total as f64 / 1e6);
        spinner.set_message(format!("loading {name}: {done:.1} of {total:.1} MB"));
    });
    spinner.finish_and_clear();
    loaded.map_err(Into::into)
}

/// A run that came to no answer, and why. The exit status says so.
#[derive(Debug)]
pub struct NoAnswer(pub String);

impl NoAnswer {
    const STATUS: u8 = 3;
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer: {}", self.0)
    }
}

impl std::error::Error for NoAnswer {}

/// Ends an example: an error becomes one line on standard error and exit status 1, or that of [`NoAnswer`]. A reader of
/// standard output that has seen enough is no error.
fn report(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let broken_pipe = |io: &std::io::Error| io.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    complain(&format!("error: {}", error_line(&error)));
    if error.is::<NoAnswer>() { ExitCode::from(NoAnswer::STATUS) } else { ExitCode::FAILURE }
}

/// An error and its causes on one line. A cause that its effect's message already quotes is not said twice.
pub fn error_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // What comes after a line break is a backtrace: messages have none.
        let text = text.lines().next().unwrap_or_default().trim();
        if !line.contains(text) {
            line = if line.is_empty() { text.to_string() } else { format!("{line}: {text}") };
        }
    }
    line
}
