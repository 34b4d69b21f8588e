//! Measures what tokens cost at positions from the start to the end of a long context, with sparse attention (DSA, as in
//! V3.2) and with dense MLA (as in V3.1), and puts a model from operations and bytes beside it.
//!
//! ```bash
//! cargo run --release --example cost_curves                                  # the embedded checkpoint, on CPU
//! cargo run --release --features cuda --example cost_curves -- --price 2     # V3.2's layers, as many as fit on the GPU
//! ```
//!
//! On a GPU it stacks layers of V3.2's shapes with random FP8 weights, two with an MLP and as many with experts as fit, with
//! embedding and head, and scales the times to all layers of the model: money per token is that of one GPU that had
//! the memory. Contexts are random keys in the cache.

#[allow(dead_code)] // other examples use the rest
mod common;
mod cost_curves {
    pub mod measure;
    pub mod report;
    pub mod weights;
}

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use clap::Parser;
use common::terminal::complain;
use deepseek_v32::Config;
use deepseek_v32::config::{IndexerType, MlpType, ModelType};
use deepseek_v32::evaluation::{CostModel, Rates, Storage, WeightFormat, scaled_seconds};
use deepseek_v32::model::{CacheFormat, Model, ModelOptions};
use deepseek_v32::weights;

use cost_curves::measure::{Plan, Times, ceilings, measure};
use cost_curves::report::{self, Curves, Pick, Report};

#[derive(Debug, Parser)]
#[command(about = "Measures the cost of tokens over the position in the context, with sparse and with dense attention")]
struct Args {
    /// Folder of a checkpoint that fits into memory as a whole. Default without a GPU: the embedded one.
    #[arg(long, conflicts_with = "stack")]
    model: Option<String>,
    /// Layers with random weights of the shapes of this config.json instead. Default on a GPU: those of V3.2.
    #[arg(long, value_name = "FILE")]
    stack: Option<PathBuf>,
    /// Layers with experts to stack. Default: as many as fit on the GPU, 1 on CPU.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Positions to measure. Default: 4K to 128K on a GPU, up to the checkpoint's limit on CPU.
    #[arg(long, value_delimiter = ',', value_name = "N,N")]
    contexts: Option<Vec<usize>>,
    /// Sequences that are decoded together.
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_name = "N,N")]
    batches: Vec<usize>,
    /// Tokens of a prompt that are computed at a time. Default: 4096 on a GPU, 256 on CPU.
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Runs of each point, of which the median counts.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Dollars an hour of the machine.
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    price: f64,
    /// Dtype of activations. Default: bf16 with --stack, f32 for a checkpoint.
    #[arg(long, value_enum)]
    dtype: Option<common::Dtype>,
    /// Arithmetic of the projections.
    #[arg(long, value_enum, default_value = "dequant")]
    precision: common::PrecisionArg,
    /// What the cache keeps. Default: the dtype of activations.
    #[arg(long, value_enum)]
    cache_format: Option<common::CacheFormatArg>,
    /// Where it computes: cpu or cuda:N (feature cuda). Default: the first GPU if there is one.
    #[arg(long, value_name = "DEVICE")]
    device: Option<common::DeviceArg>,
    /// Write every number to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the curves of the largest batch to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::start(run)
}

/// A model to measure, and the stacks that tell its layers apart.
struct Subject {
    name: String,
    /// The model that times are scaled to.
    config: Config,
    /// The part of it that is measured.
    stacked: Config,
    vb: VarBuilder<'static>,
    options: ModelOptions,
    weights: WeightFormat,
    cache: CacheFormat,
    scaled: bool,
}

fn run(args: Args) -> Result<()> {
    ensure!(args.price.is_finite() && args.price > 0.0, "--price is {}: expected a number above 0", args.price);
    ensure!(!args.batches.is_empty() && !args.batches.contains(&0), "--batches: expected numbers from 1 on");
    ensure!(args.repeats > 0, "--repeats is 0: expected at least 1");
    let mut model_args = common::ModelArgs {
        dtype: args.dtype.unwrap_or(common::Dtype::F32),
        precision: args.precision,
        cache_format: args.cache_format,
        device: args.device,
    };
    let device = model_args.load_options()?.device;
    let is_stack = args.stack.is_some() || args.model.is_none() && device.is_cuda();
    if is_stack && args.dtype.is_none() {
        model_args.dtype = common::Dtype::Bf16;
    }
    let dtype = DType::from(model_args.dtype);
    let chunk = args.chunk.unwrap_or(if device.is_cuda() { 4096 } else { 256 });
    ensure!(chunk > 0, "--chunk is 0: expected at least 1");
    let whole = config_to_measure(&args, is_stack)?;
    let contexts = contexts(&args, &whole, &device)?;
    // While the memory is free.
    let (flops, bytes) = ceilings(dtype, &device)?;
    let plan = Plan { contexts: &contexts, batches: &args.batches, chunk, repeats: args.repeats };
    let subject = match is_stack {
        true => stack(&args, model_args, whole, &device, &plan)?,
        false => checkpoint(&args, model_args, whole, device.clone())?,
    };
    complain(&format!("{}: {:.0} GFLOP/s, {:.1} GB/s", subject.name, flops / 1e9, bytes / 1e9));

    let rates = Rates::uniform(flops, bytes);
    let sparse = curves(&subject, &plan, &rates, args.price)?;
    let dense = match subject.config.has_indexer() {
        true => Some(curves(&without_indexer(&subject), &plan, &rates, args.price)?),
        false => None,
    };
    let report = Report {
        name: &subject.name,
        device: device_name(&device),
        dtype,
        price: args.price,
        rates: &rates,
        plan: &plan,
        curves: [Some(sparse), dense].into_iter().flatten().collect(),
    };
    print!("{}", report.table()?);
    if let Some(path) = &args.json {
        report::write(path, &report.json()?)?;
    }
    if let Some(path) = &args.svg {
        report::write(path, &report.svg()?)?;
    }
    Ok(())
}

fn config_to_measure(args: &Args, is_stack: bool) -> Result<Config> {
    match &args.stack {
        Some(path) => {
            let text = common::read_text(path)?;
            Config::from_json(&text).with_context(|| deepseek_v32::error::one_line_path(path))
        }
        None if is_stack => Ok(Config::v32()),
        None => Ok(weights::load_config(common::resolve(args.model.as_deref())?)?),
    }
}

fn contexts(args: &Args, config: &Config, device: &Device) -> Result<Vec<usize>> {
    let limit = config.max_position_embeddings;
    let powers =
        |from: usize, to: usize| std::iter::successors(Some(from), |n| Some(n * 2)).take_while(move |n| *n <= to);
    let mut contexts = match &args.contexts {
        Some(contexts) => contexts.clone(),
        None if device.is_cuda() => powers(4096, 131_072.min(limit)).collect(),
        None => powers(256, 8192.min(limit)).collect(),
    };
    contexts.sort_unstable();
    contexts.dedup();
    ensure!(!contexts.is_empty() && contexts[0] > 0, "--contexts: expected positions from 1 on");
    if let Some(context) = contexts.iter().find(|context| **context > limit) {
        bail!("--contexts: {context} is beyond max_position_embeddings, {limit}");
    }
    Ok(contexts)
}

/// The layers of a checkpoint, all of them.
fn checkpoint(args: &Args, model_args: common::ModelArgs, config: Config, device: Device) -> Result<Subject> {
    let dir = common::resolve(args.model.as_deref())?;
    let options = weights::LoadOptions { dtype: model_args.dtype.into(), device, ..Default::default() };
    let (_, vb) = common::with_spinner(&dir, |progress| weights::load(&dir, &options, progress))?;
    let config = Config { num_nextn_predict_layers: 0, ..config };
    let weights = match options.dtype {
        _ if config.quantization_config.is_some() => WeightFormat::Fp8,
        DType::F32 => WeightFormat::F32,
        _ => WeightFormat::Bf16,
    };
    let name = deepseek_v32::error::one_line_path(&dir);
    let cache = cache_format(args, options.dtype)?;
    let options = ModelOptions::from(model_args);
    Ok(Subject { name, stacked: config.clone(), config, vb, options, weights, cache, scaled: false })
}

fn cache_format(args: &Args, dtype: DType) -> Result<CacheFormat> {
    Ok(args.cache_format.map_or_else(|| CacheFormat::exact_for(dtype), |format| Ok(format.into()))?)
}

/// Layers with an MLP in a stack: two, so that their difference is one.
const MLP_LAYERS: usize = 2;

/// Layers with random weights, as many as fit.
fn stack(args: &Args, model_args: common::ModelArgs, config: Config, device: &Device, plan: &Plan) -> Result<Subject> {
    let config = Config { num_nextn_predict_layers: 0, ..config };
    let cache = cache_format(args, model_args.dtype.into())?;
    let weights = WeightFormat::Fp8;
    let layers = match args.layers {
        Some(layers) => layers,
        None => fitting_layers(&config, weights, cache, device, plan)?,
    };
    ensure!(layers > 0, "--layers is 0: expected at least 1");
    let stacked = of_layers(&config, MLP_LAYERS, layers);
    let name = format!("{MLP_LAYERS} + {layers} layers of {}", config.mlp_layer_types.len());
    let vb = cost_curves::weights::random(model_args.dtype.into(), device, 1)?;
    Ok(Subject { name, stacked, config, vb, options: model_args.into(), weights, cache, scaled: true })
}

/// Layers with experts whose weights and cache fit into the memory of the GPU; 1 on CPU.
fn fitting_layers(
    config: &Config,
    weights: WeightFormat,
    cache: CacheFormat,
    device: &Device,
    plan: &Plan,
) -> Result<usize> {
    /// Left for activations, for scores of the indexer, and for what the driver takes.
    const WORKSPACE: f64 = 14e9;
    let Some(free) = free_memory(device)? else { return Ok(1) };
    let storage = Storage::new(config, weights, cache);
    let elements = |config: &Config| {
        let (mut linear, mut matrix) = (0.0, 0.0);
        let each = |_, shape: &[usize], kind| {
            let elements = shape.iter().product::<usize>() as f64;
            match kind {
                weights::TensorKind::Linear => linear += elements,
                _ => matrix += elements,
            }
            Ok::<(), anyhow::Error>(())
        };
        weights::for_each_tensor(config, each)?;
        Ok::<f64, anyhow::Error>(linear * storage.linear + matrix * storage.matrix)
    };
    let slots = (plan.pages() * deepseek_v32::ops::layout::PAGE_SIZE) as f64;
    let rows = slots * (storage.latent_row + storage.index_row);
    let without = elements(&of_layers(config, MLP_LAYERS, 0))?;
    let one = elements(&of_layers(config, MLP_LAYERS, 1))? - without + rows;
    let left = free - WORKSPACE - without - MLP_LAYERS as f64 * rows;
    let layers = (left / one).floor().min(config.num_hidden_layers as f64);
    ensure!(
        layers >= 1.0,
        "not even one layer with experts fits: {:.1} GB are free, {:.1} GB of them left for it",
        free / 1e9,
        left / 1e9
    );
    Ok(layers as usize)
}

#[cfg(feature = "cuda")]
fn free_memory(device: &Device) -> Result<Option<f64>> {
    let Device::Cuda(device) = device else { return Ok(None) };
    let (free, _) = device.cuda_stream().context().mem_get_info()?;
    Ok(Some(free as f64))
}

#[cfg(not(feature = "cuda"))]
fn free_memory(_: &Device) -> Result<Option<f64>> {
    Ok(None)
}

#[cfg(feature = "cuda")]
fn device_name(device: &Device) -> String {
    match device {
        Device::Cuda(device) => device.cuda_stream().context().name().unwrap_or_else(|_| "a GPU".to_string()),
        _ => cpu_name(),
    }
}

#[cfg(not(feature = "cuda"))]
fn device_name(_: &Device) -> String {
    cpu_name()
}

fn cpu_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let name = name.map_or("CPU", |(_, name)| name.trim());
    format!("{name}, {} threads", rayon_threads())
}

fn rayon_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The configuration with so many layers with an MLP, then so many with experts.
fn of_layers(config: &Config, mlp: usize, experts: usize) -> Config {
    let kinds = [(MlpType::Dense, mlp), (MlpType::Sparse, experts)];
    Config {
        num_hidden_layers: mlp + experts,
        first_k_dense_replace: mlp,
        mlp_layer_types: kinds.iter().flat_map(|(kind, count)| vec![*kind; *count]).collect(),
        indexer_types: if config.has_indexer() { vec![IndexerType::Full; mlp + experts] } else { Vec::new() },
        ..config.clone()
    }
}

/// The same weights with dense attention.
fn without_indexer(subject: &Subject) -> Subject {
    let dense = |config: &Config| Config {
        model_type: ModelType::DeepseekV3,
        index_n_heads: None,
        index_head_dim: None,
        index_topk: None,
        indexer_types: Vec::new(),
        ..config.clone()
    };
    Subject {
        name: subject.name.clone(),
        config: dense(&subject.config),
        stacked: dense(&subject.stacked),
        vb: subject.vb.clone(),
        ..*subject
    }
}

/// Measures a subject, and counts what it would take at the least.
fn curves(subject: &Subject, plan: &Plan, rates: &Rates, price: f64) -> Result<Curves> {
    let times = |config: &Config| -> Result<Times> {
        let model = Model::with_options(config, subject.options, subject.vb.clone())?;
        measure(model, plan)
    };
    let whole = times(&subject.stacked)?;
    let parts = match subject.scaled {
        true => Some([times(&of_layers(&subject.stacked, 1, 0))?, times(&of_layers(&subject.stacked, 2, 0))?]),
        false => None,
    };
    let count = |kind| subject.config.mlp_layer_types.iter().filter(|other| **other == kind).count();
    let layers = [count(MlpType::Dense), count(MlpType::Sparse)];
    let stacked = subject.stacked.num_hidden_layers.saturating_sub(MLP_LAYERS);
    let model_seconds = |of: &Pick| match &parts {
        Some([one, two]) => scaled_seconds(of(one), of(two), of(&whole), stacked, layers),
        None => Ok(of(&whole)),
    };
    let cost = |config: &Config| {
        let storage = Storage::new(config, subject.weights, subject.cache);
        CostModel::new(config.clone(), storage)
    };
    Curves::new(cost(&subject.config), cost(&subject.stacked), plan, rates, price, &whole, &model_seconds)
}
