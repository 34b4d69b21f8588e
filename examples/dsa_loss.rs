//! Computes the loss that the lightning indexer learns from, with its gradients, for the inputs in a file.
//!
//! ```bash
//! cargo run --release --example dsa_loss -- tests/data/dsa_loss/02_sparse_top3.json
//! ```
//!
//! The file has `config` and `inputs`, see `dsa_loss/fixture.rs`. What is printed is one JSON object: `index_scores`
//! `[T][T]`, null where a query sees no key (a later one, or another sequence's); `target_p` `[T][T]`; `kl` `[T]`;
//! `loss_sum` and `loss_mean`; and the gradients of `loss_sum`: `grad_index_scores` `[T][T]`, `grad_q`
//! `[T][index_heads][index_dim]`, `grad_k` `[T][index_dim]`, `grad_w` `[T][index_heads]`.
//!
//! Any error is one line on standard error that names the field, and exit status 1.

mod dsa_loss {
    pub mod fixture;
}
#[allow(dead_code)] // other examples use the rest
mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use clap::{Parser, ValueEnum};
use deepseek_v32::error::one_line_path;
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::training::{ChosenSlots, IndexTarget, IndexerBatch, IndexerBlock, indexer_loss, indexer_loss_with};
use dsa_loss::fixture::Fixture;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
#[command(about = "Computes the indexer's loss and its gradients for the inputs in a JSON file")]
struct Args {
    /// The file.
    fixture: PathBuf,
    /// What is computed in.
    #[arg(long, value_enum, default_value = "f64")]
    dtype: Dtype,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    F64,
}

fn main() -> ExitCode {
    common::start_filter(run)
}

fn run(args: Args) -> Result<()> {
    let text = common::read_text(&args.fixture)?;
    let place = || one_line_path(&args.fixture);
    let fixture = Fixture::read(&text).with_context(place)?;
    let dtype = match args.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
    };
    let output = compute(&fixture, dtype).with_context(place)?;
    writeln!(std::io::stdout(), "{output}").context("standard output")
}

/// Rows by query and columns by key, both as the file has them.
struct Table {
    rows: Vec<Vec<f64>>,
}

fn compute(fixture: &Fixture, dtype: DType) -> Result<Value> {
    let device = Device::Cpu;
    let (t, heads, dim) = (fixture.tokens, fixture.index_heads, fixture.index_dim);
    let variable = |values: &[f64], shape: &[usize]| -> Result<Var> {
        Ok(Var::from_tensor(&Tensor::from_slice(values, shape, &device)?.to_dtype(dtype)?)?)
    };
    let q = variable(&fixture.q, &[t, heads, dim])?;
    let k = variable(&fixture.k, &[t, dim])?;
    let w = variable(&fixture.w, &[t, heads])?;
    // The library has a sequence's rows next to each other, and its keys in pages of their own.
    let order = fixture.order();
    let layout = BatchLayout::uncached(&fixture.lengths());
    let slots = layout.slots();
    let slot_count = layout.spans.iter().map(|span| span.block_table.len() * 64).sum::<usize>();
    let rows: Vec<u32> = order.iter().map(|&row| row as u32).collect();
    let rows = Tensor::from_vec(rows, t, &device)?;
    let mut row_of_slot = vec![0u32; slot_count];
    let mut slot_of_token = vec![0usize; t];
    for (&row, &slot) in order.iter().zip(&slots) {
        row_of_slot[slot as usize] = row as u32;
        slot_of_token[row] = slot as usize;
    }
    let row_of_slot = Tensor::from_vec(row_of_slot, slot_count, &device)?;
    let index_q = q.index_select(&rows, 0)?;
    let weights = w.index_select(&rows, 0)?;
    let index_k = k.index_select(&row_of_slot, 0)?;
    let mass = Tensor::from_slice(&fixture.mass, (t, t), &device)?;
    let mass = mass.index_select(&rows, 0)?.index_select(&row_of_slot, 1)?;
    let chosen = fixture.chosen(&order, &slot_of_token);
    let width = chosen.as_ref().map_or(0, |chosen| chosen.iter().map(Vec::len).max().unwrap_or(0).max(1));
    let chosen = match chosen {
        Some(chosen) => {
            let padded = |row: &Vec<i64>| {
                let mut row = row.clone();
                row.resize(width, -1);
                row
            };
            Some(Tensor::from_vec(chosen.iter().flat_map(padded).collect(), (t, width), &device)?)
        }
        None => None,
    };
    let batch = IndexerBatch {
        index_q: &index_q,
        index_k: &index_k,
        weights: &weights,
        layout: &layout,
        chosen: chosen.as_ref().map(|slots| ChosenSlots { from_position: 0, slots }),
        target: IndexTarget::Mass(&mass),
    };
    let mut row_of_slot = vec![0; slot_count];
    slot_of_token.iter().enumerate().for_each(|(token, &slot)| row_of_slot[slot] = token);
    let place = |table: &mut Table, block: &IndexerBlock, values: &Tensor| -> candle_core::Result<()> {
        let (slots, attended) = (block.slots.to_vec2::<i64>()?, block.attended.to_vec2::<u8>()?);
        let values = values.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        for (i, row) in block.rows.clone().enumerate() {
            let slots = &slots[i.min(slots.len() - 1)];
            for (c, &slot) in slots.iter().enumerate().filter(|(c, _)| attended[i][*c] == 1) {
                table.rows[order[row]][row_of_slot[slot as usize]] = values[i][c];
            }
        }
        Ok(())
    };
    let table = |fill: f64| Table { rows: vec![vec![fill; t]; t] };
    let (mut scores, mut target, mut gradient) = (table(f64::NAN), table(0.0), table(0.0));
    // Scores are those of all that a query sees.
    indexer_loss_with(&IndexerBatch { chosen: None, ..batch }, &vec![1.0; t], |block| {
        Ok(place(&mut scores, block, &block.scores)?)
    })?;
    let sum = indexer_loss_with(&batch, &vec![1.0; t], |block| {
        place(&mut target, block, &block.target)?;
        Ok(place(&mut gradient, block, &block.score_gradient)?)
    })?;
    let mean = indexer_loss(&batch, &vec![1.0 / t.max(1) as f64; t])?;
    let grads = sum.loss.backward()?;
    let mut kl = vec![0.0; t];
    order.iter().zip(&sum.kl).for_each(|(&row, &value)| kl[row] = value);
    let scalar = |loss: &Tensor| loss.to_dtype(DType::F64)?.to_scalar::<f64>();
    let (loss_sum, loss_mean) = (scalar(&sum.loss)?, scalar(&mean.loss)?);
    let (grad_q, grad_k, grad_w) = (gradient_of(&grads, &q)?, gradient_of(&grads, &k)?, gradient_of(&grads, &w)?);
    for (name, tensor) in [("grad_q", &grad_q), ("grad_k", &grad_k), ("grad_w", &grad_w)] {
        let sum = tensor.abs()?.sum_all()?.to_scalar::<f64>()?;
        ensure!(loss_sum.is_finite() && sum.is_finite(), "{name} is not finite: inputs.q, k and w are too large");
    }
    Ok(json!({
        // Not a number is null in JSON.
        "index_scores": scores.rows,
        "target_p": target.rows,
        "kl": kl,
        "loss_sum": loss_sum,
        "loss_mean": loss_mean,
        "grad_index_scores": gradient.rows,
        "grad_q": grad_q.to_vec3::<f64>()?,
        "grad_k": grad_k.to_vec2::<f64>()?,
        "grad_w": grad_w.to_vec2::<f64>()?,
    }))
}

fn gradient_of(grads: &GradStore, variable: &Var) -> Result<Tensor> {
    let gradient = grads.get(variable.as_tensor()).context("a variable has no gradient")?;
    Ok(gradient.to_dtype(DType::F64)?)
}
