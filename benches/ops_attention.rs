//! Times the attention ops: the fast path, the reference, and their ratio.
//!
//! `cargo bench --bench ops_attention [-- part of a name]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor};
use deepseek_v32::ops::dense_mla::dense_mla;
use deepseek_v32::ops::indexer_topk::indexer_topk;
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use deepseek_v32::ops::mha::mha;
use deepseek_v32::ops::mqa_logits::mqa_logits;
use deepseek_v32::ops::sparse_mla::sparse_mla;
use deepseek_v32::ops::topk::topk;
use deepseek_v32::ops::{Backend, backend_report, with_backend};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Time to spend on each measurement, at least one call.
const BUDGET: Duration = Duration::from_millis(400);

/// The sizes of a model that matter here.
struct Sizes {
    name: &'static str,
    heads: usize,
    dim: usize,
    value_dim: usize,
    index_heads: usize,
    index_dim: usize,
    topk: usize,
    contexts: &'static [usize],
}

const SIZES: [Sizes; 2] = [
    Sizes {
        name: "lite",
        heads: 16,
        dim: 576,
        value_dim: 512,
        index_heads: 16,
        index_dim: 128,
        topk: 2048,
        contexts: &[1024, 8192, 32768],
    },
    Sizes {
        name: "tiny",
        heads: 8,
        dim: 80,
        value_dim: 64,
        index_heads: 8,
        index_dim: 32,
        topk: 128,
        contexts: &[1024],
    },
];

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Result<Tensor> {
    let data = (0..shape.iter().product()).map(|_| rng.random_range(-1f32..1.)).collect::<Vec<_>>();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// The fastest of several calls.
fn time<R>(body: &impl Fn() -> Result<R>) -> Result<Duration> {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    while begin.elapsed() < BUDGET || best == Duration::MAX {
        let start = Instant::now();
        black_box(body()?);
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// Prints a line; `work` is in multiply-adds.
fn report<R>(name: String, work: usize, with_reference: bool, body: impl Fn() -> Result<R>) -> Result<()> {
    if std::env::args().skip(1).any(|filter| !filter.starts_with("--") && !name.contains(&filter)) {
        return Ok(());
    }
    body()?;
    let ours = time(&body)?;
    let speed = 2. * work as f64 / ours.as_secs_f64() / 1e9;
    print!("{name:<44} {:>10.1} us {speed:>7.1} GFLOP/s", ours.as_secs_f64() * 1e6);
    if with_reference {
        let reference = with_backend(Backend::Reference, || time(&body))?;
        let ratio = reference.as_secs_f64() / ours.as_secs_f64();
        print!(" {:>12.1} us {ratio:>6.1}x", reference.as_secs_f64() * 1e6);
    }
    println!();
    Ok(())
}

/// `tokens` rows at the end of a context whose pages lie backwards in the cache.
fn layout(context: usize, tokens: usize) -> BatchLayout {
    let block_table = (0..context.div_ceil(PAGE_SIZE) as u32).rev().collect();
    BatchLayout { spans: vec![Span { tokens: 0..tokens, start: context - tokens, block_table, prefill: None }] }
}

fn main() -> Result<()> {
    println!("{}", backend_report());
    println!("{:<44} {:>13} {:>15} {:>15} {:>7}", "op", "fast path", "", "reference", "ratio");
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    for size in &SIZES {
        for &context in size.contexts {
            let kv = random(rng, &[context, size.dim])?;
            let index_k = random(rng, &[context, size.index_dim])?;
            for tokens in [1, 64, 512] {
                let case = |op: &str| format!("{op}/{}/context {context}/T {tokens}", size.name);
                let layout = layout(context, tokens);
                let q = random(rng, &[tokens, size.heads, size.dim])?;
                let index_q = random(rng, &[tokens, size.index_heads, size.index_dim])?;
                let weights = random(rng, &[tokens, size.index_heads])?;
                let small = tokens * context <= 1 << 20;
                let work = tokens * context * size.index_heads * size.index_dim;
                report(case("mqa_logits"), work, small, || mqa_logits(&index_q, &index_k, &weights, &layout))?;
                let logits = mqa_logits(&index_q, &index_k, &weights, &layout)?;
                report(case("topk"), 0, small, || topk(&logits, size.topk))?;
                let select = || indexer_topk(&index_q, &index_k, &weights, &layout, size.topk);
                report(case("indexer_topk"), work, small, select)?;
                let indices = select()?;
                let (value_dim, scale) = (size.value_dim, 0.1);
                let work = tokens * size.heads * (size.dim + size.value_dim);
                let sparse = || sparse_mla(&q, &kv, &indices, value_dim, scale);
                report(case("sparse_mla"), work * size.topk.min(context), tokens < 512, sparse)?;
                if tokens == 1 {
                    let dense = || dense_mla(&q, &kv, &layout, value_dim, scale);
                    report(case("dense_mla"), work * context, true, dense)?;
                }
            }
        }
    }
    let logits = random(rng, &[1, 1 << 20])?;
    report("topk/1M columns/k 2048".to_string(), 0, true, || topk(&logits, 2048))?;
    for (heads, dim, value_dim, tokens) in
        [(8, 32, 16, 64), (8, 32, 16, 1024), (16, 192, 128, 64), (16, 192, 128, 256), (16, 192, 128, 4096)]
    {
        let layout = BatchLayout::single(tokens);
        let (q, k) = (random(rng, &[tokens, heads, dim])?, random(rng, &[tokens, heads, dim])?);
        let v = random(rng, &[tokens, heads, value_dim])?;
        let name = format!("mha/H {heads} D {dim} V {value_dim}/T {tokens}");
        let work = tokens * (tokens + 1) / 2 * heads * (dim + value_dim);
        report(name, work, tokens <= 1024, || mha(&q, &k, &v, &layout, 0.1))?;
    }
    Ok(())
}
