//! `sparse_mla` with V3.2's shapes: prompts, decoding, gradients.

use anyhow::Result;
use candle_core::{DType, Tensor, Var};
use deepseek_v32::ops::fp8::{Fp8Row, row_dequant};
use deepseek_v32::ops::{backends_on, sparse_mla, with_unordered_sums};

use crate::Bench;
use crate::ceilings::Ceiling;
use crate::check::{AttentionRow, numbers, relative_error, rows};
use crate::report::{Case, Report};
use crate::timer::Call;

const HEADS: usize = 128;
const DIM: usize = 576;
const VALUE_DIM: usize = 512;
const TOPK: usize = 2048;
const ROW: Fp8Row = Fp8Row { quantized: VALUE_DIM, plain: DIM - VALUE_DIM };
/// bf16 numbers, and weights of keys rounded to bf16.
const TOLERANCE: f64 = 1e-2;

fn scale() -> f64 {
    (DIM as f64).powf(-0.5)
}

/// Rows of a whole attention step, as the host reads them.
fn host_row(q: &Tensor, kv: &Tensor, indices: &Tensor, row: usize) -> Result<AttentionRow> {
    let slots = indices.narrow(0, row, 1)?.flatten_all()?.to_vec1::<i32>()?;
    let slots: Vec<u32> = slots.into_iter().map(|slot| slot as u32).collect();
    let keys = kv.index_select(&Tensor::new(slots, kv.device())?, 0)?;
    let keys = if keys.dtype() == DType::U8 { row_dequant(&keys, ROW)? } else { keys };
    let q = numbers(&q.narrow(0, row, 1)?)?;
    Ok(AttentionRow { q, keys: numbers(&keys)?, dim: DIM, value_dim: VALUE_DIM, scale: scale() })
}

fn forward_error(q: &Tensor, kv: &Tensor, indices: &Tensor, sampled: &[usize]) -> Result<f64> {
    let (out, _) = sparse_mla(q, kv, indices, VALUE_DIM, scale())?;
    let mut expected = Vec::new();
    for &row in sampled {
        expected.extend(host_row(q, kv, indices, row)?.forward());
    }
    Ok(relative_error(&numbers(&rows(&out, sampled)?)?, &expected))
}

/// 4,096 rows over caches of several lengths, in bf16.
pub fn prefill(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let (op, tokens) = ("sparse_mla prefill", 4096);
    for context in [8192, 32_768, 131_072] {
        let shape = format!("S{tokens} H{HEADS} k{TOPK} kv{context} rand");
        if !report.wants(op, &shape) {
            continue;
        }
        let q = (bench.normal((tokens, HEADS, DIM))? * 0.5)?.to_dtype(DType::BF16)?;
        let kv = bench.normal((context, DIM))?.to_dtype(DType::BF16)?;
        let indices = bench.choices(tokens, context, TOPK, |_| 0)?;
        let call: Call = Box::new(|| sparse_mla(&q, &kv, &indices, VALUE_DIM, scale()).map(drop));
        report.run(Case {
            op,
            peers: vec![("prefill", shape.clone())],
            shape,
            flops: 2.0 * (tokens * HEADS * TOPK * (DIM + VALUE_DIM)) as f64,
            bytes: (2 * tokens * HEADS * (DIM + VALUE_DIM) + 4 * tokens * TOPK + 2 * context * DIM) as f64,
            ceiling: Ceiling::Bf16,
            tolerance: TOLERANCE,
            calls: vec![call],
            check: Box::new(|| forward_error(&q, &kv, &indices, &[0, 17, 1000, tokens - 1])),
        })?;
    }
    Ok(())
}

/// One row of each sequence over FP8 caches, and over bf16 ones.
pub fn decode(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let op = "sparse_mla decode";
    let cases =
        [(1, 4096), (1, 131_072), (4, 32_768), (16, 32_768), (32, 4096), (64, 32_768), (128, 4096), (128, 32_768)];
    let named = |&(batch, context): &(usize, usize), format: &str| format!("b{batch} sq1 ctx{context} {format}");
    let formats = ["fp8kv", "bf16kv"];
    for format in formats {
        let wanted = cases.iter().filter(|case| report.wants(op, &named(case, format))).copied();
        let wanted: Vec<_> = wanted.filter(|case| format == "fp8kv" || [1, 128].contains(&case.0)).collect();
        let Some(slots) = wanted.iter().map(|(batch, context)| batch * context).max() else { continue };
        let all = match format {
            "fp8kv" => bench.packed(slots, ROW)?,
            _ => bench.normal((slots, DIM))?.to_dtype(DType::BF16)?,
        };
        for (batch, context) in wanted {
            let kv = all.narrow(0, 0, batch * context)?;
            let sets = (64 / batch).clamp(1, 4);
            let mut inputs = Vec::new();
            for _ in 0..sets {
                let q = (bench.normal((batch, HEADS, DIM))? * 0.5)?.to_dtype(DType::BF16)?;
                inputs.push((q, bench.choices(batch, context, TOPK, |row| row * context)?));
            }
            let calls = inputs
                .iter()
                .map(|(q, indices)| -> Call { Box::new(|| sparse_mla(q, &kv, indices, VALUE_DIM, scale()).map(drop)) });
            let shape = named(&(batch, context), format);
            let key_bytes = if format == "fp8kv" { ROW.bytes() } else { 2 * DIM };
            let (q, indices) = &inputs[0];
            report.run(Case {
                op,
                peers: if format == "fp8kv" { vec![("decode", shape.clone())] } else { Vec::new() },
                shape,
                flops: 2.0 * (batch * HEADS * TOPK * (DIM + VALUE_DIM)) as f64,
                bytes: (batch * (TOPK * (key_bytes + 4) + 2 * HEADS * (DIM + VALUE_DIM))) as f64,
                ceiling: Ceiling::Bf16,
                tolerance: TOLERANCE,
                calls: calls.collect(),
                check: Box::new(|| forward_error(q, &kv, indices, &[0, batch - 1])),
            })?;
        }
    }
    Ok(())
}

/// The gradients of queries and keys from that of the output: `backward()`, with the forward pass outside.
pub fn backward(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let (op, tokens, context) = ("sparse_mla backward", 4096, 8192);
    let of_op = |backends: &deepseek_v32::ops::OpBackends| backends.op == "sparse_mla";
    let kernel = backends_on(&bench.device).into_iter().find(of_op);
    // The reference would hold the keys of every row.
    if kernel.is_none_or(|backends| backends.training != backends.inference) {
        return Ok(());
    }
    for (heads, is_ordered) in [(64, false), (128, false), (128, true)] {
        let name = format!("S{tokens} H{heads} k{TOPK} kv{context}");
        let shape = if is_ordered { format!("{name} ordered") } else { name.clone() };
        if !report.wants(op, &shape) {
            continue;
        }
        let q = Var::from_tensor(&bench.normal((tokens, heads, DIM))?.to_dtype(DType::BF16)?)?;
        let kv = Var::from_tensor(&bench.normal((context, DIM))?.to_dtype(DType::BF16)?)?;
        let grad = bench.normal((tokens, heads, VALUE_DIM))?.to_dtype(DType::BF16)?;
        let indices = bench.choices(tokens, context, TOPK, |_| 0)?;
        let forward = || sparse_mla(&q, &kv, &indices, VALUE_DIM, scale());
        let (out, _) = if is_ordered { forward()? } else { with_unordered_sums(forward)? };
        // The sum's own gradient is one.
        let loss = (&out * &grad)?.sum_all()?;
        let call: Call = Box::new(|| loss.backward().map(drop));
        let check = || {
            let sampled = [0, 3000, tokens - 1];
            let found = loss.backward()?;
            let found = found.get(&q).map(|found| rows(found, &sampled));
            let Some(found) = found else { anyhow::bail!("q has no gradient") };
            let mut expected = Vec::new();
            for row in sampled {
                let grad = numbers(&grad.narrow(0, row, 1)?)?;
                expected.extend(host_row(&q, &kv, &indices, row)?.backward_q(&grad));
            }
            Ok(relative_error(&numbers(&found?)?, &expected))
        };
        report.run(Case {
            op,
            peers: vec![("bwd", name)],
            shape,
            flops: 2.0 * (tokens * heads * TOPK * (3 * DIM + 2 * VALUE_DIM)) as f64,
            bytes: 0.0,
            ceiling: Ceiling::Bf16,
            tolerance: 2.0 * TOLERANCE,
            calls: vec![call],
            check: Box::new(check),
        })?;
    }
    Ok(())
}
