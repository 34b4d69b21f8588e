//! Speed of the CUDA ops on one GPU, each beside the ceiling that the same run measures.
//!
//! `cargo bench --features cuda --bench ops_cuda [-- --ops topk,moe] [--json FILE]`
//!
//! A call is timed between two events, after a write that flushes the L2 cache and hides the launch, over inputs taken in
//! turn; the median counts. `graph` is the time of one call of twenty in a captured graph that is replayed. Every case is
//! checked in the same run: against f64 loops on the host over some rows, or against the op's reference.
//! `join_peers.py` puts the JSON beside that of other implementations.

mod attention;
mod ceilings;
mod check;
mod indexer;
mod products;
mod report;
mod timer;

use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use clap::Parser;
use deepseek_v32::ops::fp8::{Fp8Row, row_quant};
use deepseek_v32::ops::layout::PAGE_SIZE;
use rand::SeedableRng;
use rand::seq::{SliceRandom, index};
use rand_chacha::ChaCha8Rng;

use report::Report;

#[derive(Debug, Parser)]
#[command(about = "Times the CUDA ops")]
struct Args {
    /// Parts of the names of the cases to run, or of their shapes. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "PART,PART")]
    ops: Vec<String>,
    /// Write every number to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Which GPU.
    #[arg(long, default_value_t = 0)]
    gpu: usize,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = Device::new_cuda(args.gpu).with_context(|| format!("--gpu {}", args.gpu))?;
    device.set_seed(1)?;
    println!("{}", deepseek_v32::ops::backend_report_on(&device));
    let mut report = Report::new(&device, args.ops)?;
    let mut bench = Bench { rng: ChaCha8Rng::seed_from_u64(1), device };
    attention::prefill(&mut bench, &mut report)?;
    attention::decode(&mut bench, &mut report)?;
    attention::backward(&mut bench, &mut report)?;
    indexer::prefill(&mut bench, &mut report)?;
    indexer::decode(&mut bench, &mut report)?;
    indexer::topk(&mut bench, &mut report)?;
    products::moe(&mut bench, &mut report)?;
    products::linear(&mut bench, &mut report)?;
    let path = args.json.as_deref();
    path.map_or(Ok(()), |path| report.write(path))?;
    report.finish()
}

/// Makes inputs.
struct Bench {
    rng: ChaCha8Rng,
    device: Device,
}

/// Rows that are made at a time.
const ROWS: usize = 1 << 18;

impl Bench {
    /// Numbers of a normal distribution, f32.
    fn normal(&self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        Ok(Tensor::randn(0f32, 1.0, shape, &self.device)?)
    }

    /// `count` rows of an FP8 cache, `[count, bytes]` u8.
    fn packed(&self, count: usize, row: Fp8Row) -> Result<Tensor> {
        let rows = Tensor::zeros((count, row.bytes()), candle_core::DType::U8, &self.device)?;
        for first in (0..count).step_by(ROWS) {
            let some = self.normal((ROWS.min(count - first), row.width()))?;
            rows.slice_set(&row_quant(&some, row, true)?, 0, first)?;
        }
        Ok(rows)
    }

    /// For each of `rows` rows `k` different numbers below `n` in random order, `[rows, k]` i32, `offset(row)` added.
    fn choices(&mut self, rows: usize, n: usize, k: usize, offset: impl Fn(usize) -> usize) -> Result<Tensor> {
        let mut chosen = Vec::with_capacity(rows * k);
        for row in 0..rows {
            let sample = index::sample(&mut self.rng, n, k);
            chosen.extend(sample.iter().map(|index| (index + offset(row)) as i32));
        }
        Ok(Tensor::from_vec(chosen, (rows, k), &self.device)?)
    }

    /// The pages of `slots` slots in random order.
    fn pages(&mut self, slots: usize) -> Vec<u32> {
        let mut pages: Vec<u32> = (0..(slots / PAGE_SIZE) as u32).collect();
        pages.shuffle(&mut self.rng);
        pages
    }
}
