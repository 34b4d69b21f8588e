//! Computes the GRPO loss of a batch in a JSON file, with its gradients and metrics, to be compared with another
//! implementation.
//!
//! ```bash
//! cargo run --release --example rl_loss -- tests/data/rl/24_v32_preset.json
//! ```
//!
//! The file has `config` and `batch`; `deepseek_v32::rl::LossCall` says what they hold. Printed is one JSON object, for T
//! rows, N sequences and V ids: `loss`; `metrics`; `[N]` `advantages`, `drift`, `opsm_mask`, `counted`; `[T]` `logp`,
//! `ratio`; `[T][V]` `grad_logits`. What does not exist is null, as is a number that is not finite.

#[allow(dead_code)] // other examples use the rest
mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Var};
use clap::{Parser, ValueEnum};
use deepseek_v32::error::one_line_path;
use deepseek_v32::rl::{self, LossCall, Plan, Policy};
use serde_json::json;

#[derive(Debug, Parser)]
#[command(about = "Computes the GRPO loss of a batch in a JSON file, its gradients and its metrics")]
struct Args {
    /// File with `config` and `batch`.
    file: PathBuf,
    /// Dtype of the logits and of the loss.
    #[arg(long, value_enum, default_value = "f64")]
    dtype: Dtype,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    F64,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    let text = common::read_text(&args.file)?;
    let dtype = match args.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
    };
    let result = answer(&text, dtype).with_context(|| one_line_path(&args.file))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{result}").and_then(|()| out.flush()).context("standard output")
}

/// The loss and all about it.
fn answer(text: &str, dtype: DType) -> Result<serde_json::Value, rl::RlError> {
    let LossCall { config, mut batch } = LossCall::from_json(text, dtype, &Device::Cpu)?;
    let Policy::Logits(logits) = &batch.policy else { unreachable!("a call has logits") };
    let logits = Var::from_tensor(logits)?;
    batch.policy = Policy::Logits(logits.as_tensor().clone());
    let plan = Plan::of(&batch, &config)?;
    let found = rl::evaluate(&batch, &plan, &config)?;
    let gradients = found.loss.backward()?;
    let grad_logits = match gradients.get(&logits) {
        Some(gradient) => gradient.to_dtype(DType::F64)?.to_vec2::<f64>()?,
        None => Vec::new(),
    };
    let bits = |flags: &mut dyn Iterator<Item = bool>| flags.map(u8::from).collect::<Vec<_>>();
    Ok(json!({
        "loss": found.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?,
        "metrics": found.metrics,
        "advantages": plan.advantages,
        "drift": found.drift,
        "opsm_mask": bits(&mut found.masked.iter().map(|masked| !masked)),
        "counted": bits(&mut plan.counted.iter().copied()),
        "logp": found.logp,
        "ratio": found.ratio,
        "grad_logits": grad_logits,
    }))
}
