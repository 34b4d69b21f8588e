//! The engine on a GPU: the embedded checkpoint's first token, decoding alone and in batches, and prompts.
//!
//! `cargo bench --features cuda --bench engine_cuda [-- no-graphs] [-- steps N]`; `no-graphs` launches every kernel by itself,
//! `steps` runs a prompt of 1,000 tokens 16 times and N steps of 64 answers once, for a profiler.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use deepseek_v32::generation::{Engine, EngineOptions, LocalModel, Request, SamplingParams};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{self, LoadOptions};

/// Tokens generated for each request.
const GENERATED: usize = 256;
/// Tokens of each prompt that is timed, and how many there are at once.
const PROMPT: usize = 1000;
const PROMPTS: [usize; 2] = [1, 16];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let graphs = !arguments.iter().any(|argument| argument == "no-graphs");
    let steps = arguments.iter().skip_while(|argument| *argument != "steps").nth(1).map(|steps| steps.parse());
    let device = Device::new_cuda(0).context("no GPU")?;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");
    let options = LoadOptions { dtype: DType::F32, device: device.clone(), ..LoadOptions::default() };
    let began = Instant::now();
    let (config, vb) = weights::load(dir, &options, |_| ())?;
    let model = Arc::new(Model::new(&config, vb)?);
    device.synchronize()?;
    println!("weights: {:.3} s", began.elapsed().as_secs_f64());
    let engine = |draft_tokens| -> Result<Engine<LocalModel>> {
        let mut model = LocalModel::new(model.clone())?;
        model.set_graphs(graphs);
        Ok(Engine::new(model, EngineOptions { draft_tokens, step_tokens: 1 << 15, ..EngineOptions::default() })?)
    };
    let began = Instant::now();
    run(&mut engine(0)?, 1, 7, 1, &SamplingParams::greedy())?;
    println!("first token: {:.3} s", began.elapsed().as_secs_f64());

    if let Some(steps) = steps {
        for (batch, prompt, tokens) in [(16, PROMPT, 1), (64, 40, steps?)] {
            run(&mut engine(0)?, batch, prompt, tokens, &SamplingParams::greedy())?;
        }
        return Ok(());
    }
    let sampled = SamplingParams { top_k: Some(50), top_p: 0.95, ..SamplingParams::sampled(1.0, 1) };
    for (name, params, drafts) in [
        ("greedy", SamplingParams::greedy(), 0),
        ("greedy, drafts", SamplingParams::greedy(), 1),
        ("sampled", sampled, 0),
    ] {
        for batch in [1, 8, 64] {
            let mut engine = engine(drafts)?;
            run(&mut engine, batch, 40, GENERATED, &params)?;
            let before = *engine.stats();
            let tokens = run(&mut engine, batch, 40, GENERATED, &params)?;
            let seconds = engine.stats().decode_seconds - before.decode_seconds;
            let graphs = engine.model().graphs();
            println!("decode {name}, batch {batch}: {:.0} tokens/s ({graphs} graphs)", tokens as f64 / seconds);
        }
    }
    for prompts in PROMPTS {
        let mut engine = engine(0)?;
        run(&mut engine, prompts, PROMPT, 1, &SamplingParams::greedy())?;
        let began = Instant::now();
        for _ in 0..3 {
            run(&mut engine, prompts, PROMPT, 1, &SamplingParams::greedy())?;
        }
        println!(
            "prefill {prompts} x {PROMPT}: {:.0} tokens/s",
            (3 * prompts * PROMPT) as f64 / began.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// Generates for a batch of prompts; returns the tokens.
fn run(
    engine: &mut Engine<LocalModel>,
    batch: usize,
    prompt: usize,
    tokens: usize,
    params: &SamplingParams,
) -> Result<usize> {
    for number in 0..batch {
        let ids: Vec<u32> = (0..prompt).map(|i| ((i * 7919 + i / 3 + 31 * number) % 2560) as u32).collect();
        let mut request = Request::new(ids);
        request.max_tokens = Some(tokens);
        request.params = params.clone();
        engine.add(request)?;
    }
    let before = engine.stats().generated_tokens;
    while !engine.is_idle() {
        for (_, event) in engine.step()? {
            event?;
        }
    }
    Ok(engine.stats().generated_tokens - before)
}
