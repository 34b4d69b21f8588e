//! The indexer with V3.2's shapes: scores, selection, and both together.

use anyhow::Result;
use candle_core::{DType, Tensor};
use deepseek_v32::ops::fp8::{Fp8Row, act_quant, row_dequant};
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use deepseek_v32::ops::{indexer_topk, mqa_logits, topk as select};
use rand::Rng;

use crate::Bench;
use crate::ceilings::Ceiling;
use crate::check::{numbers, relative_error};
use crate::report::{Case, Report};
use crate::timer::Call;

const HEADS: usize = 64;
const DIM: usize = 128;
const TOPK: usize = 2048;
const ROW: Fp8Row = Fp8Row { quantized: DIM, plain: 0 };
/// Products of codes are exact, sums are f32.
const TOLERANCE: f64 = 1e-3;
/// The same with bf16 numbers.
const BF16_TOLERANCE: f64 = 1e-2;
/// Scores of a row that are computed on the host.
const SAMPLED: usize = 64;

/// Queries `[tokens, HEADS, DIM]` in e4m3, and the weights of the heads.
fn queries(bench: &Bench, tokens: usize) -> Result<(Tensor, Tensor)> {
    let (codes, scale) = act_quant(&bench.normal((tokens, HEADS, DIM))?, DIM, true)?;
    let weights = (bench.normal((tokens, HEADS))? * ((HEADS * DIM) as f64).powf(-0.5))?;
    Ok((codes, (weights * scale.squeeze(2)?)?))
}

/// The error of some scores of some rows.
fn error(
    bench_seed: u64,
    (q, keys, weights): (&Tensor, &Tensor, &Tensor),
    layout: &BatchLayout,
    sampled: &[usize],
) -> Result<f64> {
    use rand::SeedableRng;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(bench_seed);
    let scores = mqa_logits(q, keys, weights, layout)?;
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for &row in sampled {
        let Some(span) = layout.spans.iter().find(|span| span.tokens.contains(&row)) else { continue };
        let sees = span.start + row - span.tokens.start + 1;
        let positions: Vec<usize> = (0..SAMPLED).map(|_| rng.random_range(0..sees)).collect();
        let slots: Vec<u32> = positions.iter().map(|&position| span.slot(position) as u32).collect();
        let slots = Tensor::from_vec(slots, SAMPLED, keys.device())?;
        let keys = keys.index_select(&slots, 0)?;
        let keys = numbers(&if keys.dtype() == DType::U8 { row_dequant(&keys, ROW)? } else { keys })?;
        let q: Vec<f64> = match q.dtype() {
            DType::F8E4M3 => {
                let codes = q.narrow(0, row, 1)?.flatten_all()?.to_vec1::<float8::F8E4M3>()?;
                codes.into_iter().map(|code| f64::from(code.to_f32())).collect()
            }
            _ => numbers(&q.narrow(0, row, 1)?)?,
        };
        let weights = numbers(&weights.narrow(0, row, 1)?)?;
        let all = scores.narrow(0, row, 1)?.flatten_all()?.to_vec1::<f32>()?;
        for (position, key) in positions.iter().zip(keys.chunks(DIM)) {
            found.push(f64::from(all[*position]));
            let head =
                |(q, weight): (&[f64], &f64)| weight * q.iter().zip(key).map(|(a, b)| a * b).sum::<f64>().max(0.0);
            expected.push(q.chunks(DIM).zip(&weights).map(head).sum());
        }
    }
    Ok(relative_error(&found, &expected))
}

/// 4,096 rows at the end of a context: scores, and scores with selection.
pub fn prefill(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let tokens = 4096;
    for context in [8192, 32_768, 131_072] {
        let shape = format!("S{tokens} h{HEADS} d{DIM} kv{context} causal");
        let ops = ["mqa_logits prefill", "indexer_topk prefill", "mqa_logits bf16 prefill"];
        if !ops.iter().any(|op| report.wants(op, &shape)) {
            continue;
        }
        let (q, weights) = queries(bench, tokens)?;
        let keys = bench.packed(context, ROW)?;
        let start = context - tokens;
        let block_table = bench.pages(context);
        let span = Span { tokens: 0..tokens, start, block_table, prefill: Some(0..context) };
        let layout = BatchLayout { spans: vec![span] };
        let pairs = (start + 1..=context).sum::<usize>();
        let flops = 2.0 * (pairs * HEADS * DIM) as f64;
        let sampled = [0, 1, 511, tokens - 1];
        let topk_shape = format!("rows{tokens} N{context} k{TOPK} n");
        if report.wants(ops[0], &shape) {
            let call: Call = Box::new(|| mqa_logits(&q, &keys, &weights, &layout).map(drop));
            report.run(Case {
                op: ops[0],
                shape: shape.clone(),
                flops,
                bytes: 4.0 * pairs as f64,
                ceiling: Ceiling::Fp8,
                peers: vec![("indexer", shape.clone())],
                tolerance: TOLERANCE,
                calls: vec![call],
                check: Box::new(|| error(7, (&q, &keys, &weights), &layout, &sampled)),
            })?;
        }
        if report.wants(ops[1], &shape) {
            let call: Call = Box::new(|| indexer_topk(&q, &keys, &weights, &layout, TOPK).map(drop));
            report.run(Case {
                op: ops[1],
                shape: shape.clone(),
                flops,
                bytes: 0.0,
                ceiling: Ceiling::Fp8,
                peers: vec![("indexer", shape.clone()), ("topk", topk_shape)],
                tolerance: 0.0,
                calls: vec![call],
                check: Box::new(|| selection_error(&q, &keys, &weights, &layout, &sampled)),
            })?;
        }
        if report.wants(ops[2], &shape) {
            let q = bench.normal((tokens, HEADS, DIM))?.to_dtype(DType::BF16)?;
            let keys = bench.normal((context, DIM))?.to_dtype(DType::BF16)?;
            let call: Call = Box::new(|| mqa_logits(&q, &keys, &weights, &layout).map(drop));
            report.run(Case {
                op: ops[2],
                shape: shape.clone(),
                flops,
                bytes: 4.0 * pairs as f64,
                ceiling: Ceiling::Bf16,
                peers: Vec::new(),
                tolerance: BF16_TOLERANCE,
                calls: vec![call],
                check: Box::new(|| error(7, (&q, &keys, &weights), &layout, &sampled)),
            })?;
        }
    }
    Ok(())
}

/// The share of the sampled rows' slots that are not those of the largest scores.
fn selection_error(
    q: &Tensor,
    keys: &Tensor,
    weights: &Tensor,
    layout: &BatchLayout,
    sampled: &[usize],
) -> Result<f64> {
    let slots = indexer_topk(q, keys, weights, layout, TOPK)?;
    let scores = mqa_logits(q, keys, weights, layout)?;
    let span = &layout.spans[0];
    let mut wrong = 0;
    for &row in sampled {
        let scores = scores.narrow(0, row, 1)?.flatten_all()?.to_vec1::<f32>()?;
        let chosen = slots.narrow(0, row, 1)?.flatten_all()?.to_vec1::<i32>()?;
        let expected = best(&scores[..span.start + row + 1]);
        let expected = expected.into_iter().map(|position| span.slot(position) as i32);
        wrong += expected.zip(chosen).filter(|(a, b)| a != b).count();
    }
    Ok(wrong as f64 / (sampled.len() * TOPK) as f64)
}

/// The places of the largest scores in ascending order; of equal ones the first.
fn best(scores: &[f32]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    places.truncate(TOPK);
    places.sort_unstable();
    places
}

/// One row of each sequence.
pub fn decode(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let op = "mqa_logits decode";
    let cases = [(1, 32_768), (1, 131_072), (8, 131_072), (32, 32_768), (128, 4096), (128, 32_768), (128, 131_072)];
    let named = |&(batch, context): &(usize, usize)| format!("b{batch} ctx{context} h{HEADS}");
    let wanted: Vec<_> = cases.into_iter().filter(|case| report.wants(op, &named(case))).collect();
    let Some(slots) = wanted.iter().map(|(batch, context)| batch * context).max() else { return Ok(()) };
    let all = bench.packed(slots, ROW)?;
    for (batch, context) in wanted {
        let keys = all.narrow(0, 0, batch * context)?;
        let sets = (64 / batch).clamp(1, 4);
        let inputs = (0..sets).map(|_| queries(bench, batch)).collect::<Result<Vec<_>>>()?;
        let pages = bench.pages(batch * context);
        let spans = pages.chunks(context / PAGE_SIZE).enumerate().map(|(row, pages)| Span {
            tokens: row..row + 1,
            start: context - 1,
            block_table: pages.to_vec(),
            prefill: None,
        });
        let layout = BatchLayout { spans: spans.collect() };
        let calls =
            inputs.iter().map(|(q, weights)| -> Call { Box::new(|| mqa_logits(q, &keys, weights, &layout).map(drop)) });
        let shape = named(&(batch, context));
        let (q, weights) = &inputs[0];
        report.run(Case {
            op,
            peers: vec![("idxdecode", shape.clone())],
            shape,
            flops: 2.0 * (batch * context * HEADS * DIM) as f64,
            // Keys with their scales, and scores.
            bytes: (batch * context * (ROW.bytes() + 4)) as f64,
            ceiling: Ceiling::Copy,
            tolerance: TOLERANCE,
            calls: calls.collect(),
            check: Box::new(|| error(7, (q, &keys, weights), &layout, &[0, batch - 1])),
        })?;
    }
    Ok(())
}

/// The largest 2,048 of rows of scores, of a normal distribution and nearly tied.
pub fn topk(bench: &mut Bench, report: &mut Report) -> Result<()> {
    const BYTES: usize = 200 << 20;
    let op = "topk";
    let cases = [
        (4096, 8192, "n"),
        (4096, 32_768, "n"),
        (4096, 131_072, "n"),
        (4096, 32_768, "skew"),
        (1, 32_768, "n"),
        (1, 131_072, "n"),
        (8, 131_072, "n"),
        (32, 131_072, "n"),
        (64, 131_072, "n"),
        (128, 8192, "n"),
        (128, 32_768, "n"),
        (128, 131_072, "n"),
    ];
    for (count, columns, kind) in cases {
        let shape = format!("rows{count} N{columns} k{TOPK} {kind}");
        if !report.wants(op, &shape) {
            continue;
        }
        let sets = (BYTES / (4 * count * columns)).clamp(1, 8);
        let scores = (0..sets).map(|_| match kind {
            "n" => bench.normal((count, columns)),
            _ => Ok(((bench.normal((count, columns))? * 0.01)? + 100.0)?),
        });
        let scores = scores.collect::<Result<Vec<_>>>()?;
        let calls = scores.iter().map(|scores| -> Call { Box::new(|| select(scores, TOPK).map(drop)) });
        let check = || {
            let chosen = select(&scores[0], TOPK)?;
            let mut wrong = 0;
            let sampled = [0, count / 2, count - 1];
            for row in sampled {
                let scores = scores[0].narrow(0, row, 1)?.flatten_all()?.to_vec1::<f32>()?;
                let chosen = chosen.narrow(0, row, 1)?.flatten_all()?.to_vec1::<i32>()?;
                wrong += best(&scores).iter().zip(chosen).filter(|(a, b)| **a as i32 != *b).count();
            }
            Ok(wrong as f64 / (sampled.len() * TOPK) as f64)
        };
        report.run(Case {
            op,
            peers: vec![("topk", shape.clone())],
            shape,
            flops: 0.0,
            bytes: 4.0 * (count * (columns + TOPK)) as f64,
            ceiling: Ceiling::Copy,
            tolerance: 0.0,
            calls: calls.collect(),
            check: Box::new(check),
        })?;
    }
    Ok(())
}
