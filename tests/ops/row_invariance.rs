//! The bits of a row depend neither on how many rows a call has nor on its neighbours, for the ops that compute on CPU and
//! every instruction set.

use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::ops::fp8::{BLOCK, act_dequant, act_quant, block_quant};
use deepseek_v32::ops::gate::{GateConfig, gate};
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};
use deepseek_v32::ops::linear::{LinearMode, LinearWeight, StackedWeight, linear_many};
use deepseek_v32::ops::moe::{ExpertWeights, mlp, moe};
use deepseek_v32::ops::simd::{Isa, isa, with_isa};
use deepseek_v32::ops::*;

use crate::common::{ISAS, bits, tensor};

/// Rows of the inputs.
const ROWS: usize = 64;
/// Rows of the calls that are compared with a row alone.
const BATCHES: [usize; 6] = [2, 5, 17, 31, 32, 64];
/// Rows from which the matrix unit (AMX) computes products with these weights, in another order of additions.
const AMX_ROWS: usize = 32;

/// A call with some of the rows, by index: the bits of each row's result.
type Call<'a> = Box<dyn Fn(&[usize]) -> Result<Vec<Vec<u32>>> + 'a>;

fn take(x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    x.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)
}

fn by_row(x: &Tensor) -> Result<Vec<Vec<u32>>> {
    (0..x.dim(0)?).map(|row| x.narrow(0, row, 1).map(|row| bits(&row))).collect()
}

/// The results of several tensors side by side.
fn beside(parts: &[&Tensor]) -> Result<Vec<Vec<u32>>> {
    let mut rows = by_row(parts[0])?;
    for part in &parts[1..] {
        rows.iter_mut().zip(by_row(part)?).for_each(|(row, more)| row.extend(more));
    }
    Ok(rows)
}

/// Compares every row of batches of these sizes with the row alone.
fn check(name: &str, most: usize, call: &Call) {
    let alone: Vec<_> = (0..ROWS).map(|row| call(&[row]).unwrap().swap_remove(0)).collect();
    assert!(alone.iter().any(|row| row.iter().any(|&bits| bits << 1 != 0)), "{name}: a result of zeros shows nothing");
    for batch in BATCHES.into_iter().filter(|&batch| batch <= most) {
        // Neighbours, and rows from everywhere.
        for stride in [1, 27] {
            let rows: Vec<usize> = (0..batch).map(|i| (i * stride + batch) % ROWS).collect();
            let together = call(&rows).unwrap();
            for (row, bits) in rows.iter().zip(&together) {
                assert!(*bits == alone[*row], "{name}, {:?}: row {row} in a batch of {batch}", isa());
            }
        }
    }
}

/// The instruction sets that this machine has.
fn isas() -> Vec<Isa> {
    ISAS.into_iter().filter(|&wanted| with_isa(wanted, isa) == wanted).collect()
}

fn has_amx() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "amx_bf16")
}

fn weight(seed: u64, n: usize, k: usize, dtype: DType) -> LinearWeight {
    let weight = tensor(seed, &[n, k], DType::F32);
    if dtype == DType::F8E4M3 {
        let (codes, scale) = block_quant(&weight, BLOCK, false).unwrap();
        return LinearWeight { weight: codes, weight_scale_inv: Some(scale) };
    }
    LinearWeight { weight: weight.to_dtype(dtype).unwrap(), weight_scale_inv: None }
}

#[test]
fn of_linear_layers_and_experts() {
    let (k, inner) = (300, 70);
    let x = tensor(1, &[ROWS, k], DType::F32);
    let logits = tensor(2, &[ROWS, 4], DType::F32);
    let cfg = GateConfig {
        n_group: 2,
        topk_group: 1,
        num_experts_per_tok: 2,
        norm_topk_prob: true,
        routed_scaling_factor: 2.5,
    };
    let modes =
        [LinearMode::Dequant, LinearMode::Bf16, LinearMode::Fp8 { ue8m0: true }, LinearMode::Fp8 { ue8m0: false }];
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F8E4M3] {
        let one = weight(3, inner, k, dtype);
        let many = [weight(4, 33, k, dtype), weight(5, 1, k, dtype)];
        let stack = |seed: u64, n, k| {
            let one = [10u64, 20, 30, 40].map(|expert| weight(expert + seed, n, k, dtype));
            let scales: Vec<&Tensor> = one.iter().filter_map(|weight| weight.weight_scale_inv.as_ref()).collect();
            StackedWeight {
                weight: Tensor::stack(&one.each_ref().map(|weight| &weight.weight), 0).unwrap(),
                weight_scale_inv: (!scales.is_empty()).then(|| Tensor::stack(&scales, 0).unwrap()),
            }
        };
        let experts =
            ExpertWeights { gate_proj: stack(0, inner, k), up_proj: stack(1, inner, k), down_proj: stack(2, k, inner) };
        let [gate_proj, up_proj, down_proj] =
            [&experts.gate_proj, &experts.up_proj, &experts.down_proj].map(|stack| stack.get(0).unwrap());
        for mode in modes {
            let applies = match mode {
                LinearMode::Fp8 { .. } => dtype == DType::F8E4M3,
                LinearMode::Bf16 => dtype == DType::BF16,
                LinearMode::Dequant => true,
            };
            if !applies {
                continue;
            }
            let calls: [(&str, Call); 4] = [
                ("linear", Box::new(|rows| by_row(&one.forward(&take(&x, rows)?, mode)?))),
                (
                    "linear_many",
                    Box::new(|rows| {
                        let outs = linear_many(&take(&x, rows)?, &[&many[0], &many[1]], mode)?;
                        beside(&[&outs[0], &outs[1]])
                    }),
                ),
                ("mlp", Box::new(|rows| by_row(&mlp(&take(&x, rows)?, &gate_proj, &up_proj, &down_proj, mode)?))),
                (
                    "gate and moe",
                    Box::new(|rows| {
                        let (chosen, weights) = gate(&take(&logits, rows)?, None, &cfg)?;
                        let out = moe(&take(&x, rows)?, &experts, &chosen, &weights, mode)?;
                        beside(&[&out, &chosen, &weights])
                    }),
                ),
            ];
            for isa in isas() {
                let unit = matches!(dtype, DType::BF16 | DType::F8E4M3) && !matches!(mode, LinearMode::Fp8 { .. });
                let most = if unit && isa == Isa::Avx512 && has_amx() { AMX_ROWS - 1 } else { ROWS };
                for (name, call) in &calls {
                    with_isa(isa, || check(&format!("{name} {dtype:?} {mode:?}"), most, call));
                }
            }
        }
    }
}

#[test]
fn of_absorbed_weights() {
    let (heads, nope, value, latent) = (3, 40, 33, 130);
    let q = tensor(1, &[ROWS, heads, nope], DType::F32);
    let x = tensor(2, &[ROWS, heads, latent], DType::F32);
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F8E4M3] {
        let weight = weight(3, heads * (nope + value), latent, dtype);
        let calls: [(&str, Call); 2] = [
            ("absorb_query", Box::new(|rows| by_row(&absorb_query(&take(&q, rows)?, &weight, value)?))),
            ("absorb_value", Box::new(|rows| by_row(&absorb_value(&take(&x, rows)?, &weight, nope)?))),
        ];
        for isa in isas() {
            for (name, call) in &calls {
                with_isa(isa, || check(&format!("{name} {dtype:?}"), ROWS, call));
            }
        }
    }
}

#[test]
fn of_norms_and_element_wise_ops() {
    let (heads, width) = (4, 128);
    let table = |seed| tensor(seed, &[ROWS, width / 2], DType::F32);
    let (cos, sin) = (table(3), table(4));
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        let x = tensor(1, &[ROWS, heads * width], dtype);
        let up = tensor(2, &[ROWS, heads * width], dtype);
        let (scale, bias) = (tensor(5, &[heads * width], dtype), tensor(6, &[heads * width], dtype));
        let rotated = |rows: &[usize], interleaved| {
            let x = take(&x, rows)?.reshape(((), heads, width))?;
            by_row(&rope(&x, &take(&cos, rows)?, &take(&sin, rows)?, interleaved)?)
        };
        let calls: [(&str, Call); 7] = [
            ("rms_norm", Box::new(|rows| by_row(&rms_norm(&take(&x, rows)?, &scale, 1e-6)?))),
            ("layer_norm", Box::new(|rows| by_row(&layer_norm(&take(&x, rows)?, &scale, &bias, 1e-6)?))),
            ("rope of pairs", Box::new(|rows| rotated(rows, true))),
            ("rope of halves", Box::new(|rows| rotated(rows, false))),
            ("swiglu", Box::new(|rows| by_row(&swiglu(&take(&x, rows)?, &take(&up, rows)?)?))),
            ("hadamard", Box::new(|rows| by_row(&hadamard(&take(&x, rows)?)?))),
            (
                "act_quant and act_dequant",
                Box::new(|rows| {
                    let (codes, scale) = act_quant(&take(&x, rows)?, BLOCK, false)?;
                    beside(&[&act_dequant(&codes, &scale, BLOCK)?, &scale])
                }),
            ),
        ];
        for isa in isas() {
            for (name, call) in &calls {
                with_isa(isa, || check(&format!("{name} {dtype:?}"), ROWS, call));
            }
        }
    }
}

/// Rows of several sequences, each row with its own position and block table.
struct Batch {
    spans: Vec<(usize, Vec<u32>)>,
}

/// Pages of the caches.
const PAGES: usize = 12;

impl Batch {
    fn new() -> Self {
        let page = |row: usize, i: usize| ((row * 7 + i * 5) % PAGES) as u32;
        let span = |row: usize| ((row * 37) % 150, (0..3).map(|i| page(row, i)).collect());
        Self { spans: (0..ROWS).map(span).collect() }
    }

    /// The layout of a batch of these rows.
    fn layout(&self, rows: &[usize]) -> BatchLayout {
        let span = |(i, &row): (usize, &usize)| {
            let (start, block_table) = self.spans[row].clone();
            Span { tokens: i..i + 1, start, block_table, prefill: None }
        };
        BatchLayout { spans: rows.iter().enumerate().map(span).collect() }
    }

    /// The slots of the contexts of a layout, one after the other.
    fn slots(layout: &BatchLayout) -> Vec<usize> {
        layout.spans.iter().flat_map(Span::context_slots).collect()
    }
}

#[test]
fn of_attention_and_the_indexer() {
    let (heads, dim, value, k) = (5, 72, 40, 50);
    let batch = Batch::new();
    let q = tensor(1, &[ROWS, heads, dim], DType::F32);
    let weights = tensor(2, &[ROWS, heads], DType::F32);
    for dtype in [DType::F32, DType::BF16] {
        let kv = tensor(3, &[PAGES * PAGE_SIZE, dim], dtype);
        let keys = tensor(4, &[PAGES * PAGE_SIZE, heads, dim], dtype);
        let values = tensor(5, &[PAGES * PAGE_SIZE, heads, value], dtype);
        let selected =
            |rows: &[usize]| indexer_topk(&take(&q, rows)?, &kv, &take(&weights, rows)?, &batch.layout(rows), k);
        let calls: [(&str, Call); 6] = [
            (
                "dense_mla",
                Box::new(|rows| {
                    let (out, lse) = dense_mla(&take(&q, rows)?, &kv, &batch.layout(rows), value, 0.3)?;
                    beside(&[&out, &lse])
                }),
            ),
            (
                "sparse_mla",
                Box::new(|rows| {
                    let (out, lse) = sparse_mla(&take(&q, rows)?, &kv, &selected(rows)?, value, 0.3)?;
                    beside(&[&out, &lse])
                }),
            ),
            (
                "mha",
                Box::new(|rows| {
                    let layout = batch.layout(rows);
                    let slots = Batch::slots(&layout);
                    let (k, v) = (take(&keys, &slots)?, take(&values, &slots)?);
                    let (out, lse) = mha(&take(&q, rows)?, &k, &v, &layout, 0.3)?;
                    beside(&[&out, &lse])
                }),
            ),
            (
                "mqa_logits",
                Box::new(|rows| {
                    let layout = batch.layout(rows);
                    let logits = mqa_logits(&take(&q, rows)?, &kv, &take(&weights, rows)?, &layout)?;
                    let own = by_row(&logits)?.into_iter().zip(&layout.spans);
                    Ok(own.map(|(row, span)| row[..span.context()].to_vec()).collect())
                }),
            ),
            ("indexer_topk", Box::new(|rows| by_row(&selected(rows)?))),
            ("topk", Box::new(|rows| by_row(&topk(&take(&q, rows)?.flatten_from(1)?.contiguous()?, k)?))),
        ];
        for isa in isas() {
            for (name, call) in &calls {
                with_isa(isa, || check(&format!("{name} {dtype:?}"), ROWS, call));
            }
        }
    }
}

/// Rows of one sequence: in chunks of any size, a row has the bits that it has alone.
#[test]
fn of_attention_over_one_sequence() {
    let (heads, dim, value, start, k) = (5, 72, 40, 61, 50);
    let block_table = vec![3, 0, 2];
    let slots: Vec<usize> = {
        let layout = BatchLayout {
            spans: vec![Span { tokens: 0..ROWS, start, block_table: block_table.clone(), prefill: None }],
        };
        Batch::slots(&layout)
    };
    let q = tensor(1, &[ROWS, heads, dim], DType::F32);
    let weights = tensor(2, &[ROWS, heads], DType::F32);
    let kv = tensor(3, &[4 * PAGE_SIZE, dim], DType::F32);
    let (keys, values) =
        (tensor(4, &[4 * PAGE_SIZE, heads, dim], DType::F32), tensor(5, &[4 * PAGE_SIZE, heads, value], DType::F32));
    let run = |first: usize, rows: usize| -> Result<Vec<Vec<u32>>> {
        let span = Span { tokens: 0..rows, start: start + first, block_table: block_table.clone(), prefill: None };
        let context = span.context();
        let layout = BatchLayout { spans: vec![span] };
        let (q, weights) = (q.narrow(0, first, rows)?, weights.narrow(0, first, rows)?);
        let selected = indexer_topk(&q, &kv, &weights, &layout, k)?;
        let (dense, dense_lse) = dense_mla(&q, &kv, &layout, value, 0.3)?;
        let (sparse, sparse_lse) = sparse_mla(&q, &kv, &selected, value, 0.3)?;
        let (k, v) = (take(&keys, &slots[..context])?, take(&values, &slots[..context])?);
        let (own, own_lse) = mha(&q, &k, &v, &layout, 0.3)?;
        beside(&[&selected, &dense, &dense_lse, &sparse, &sparse_lse, &own, &own_lse])
    };
    for isa in isas() {
        with_isa(isa, || {
            let alone: Vec<_> = (0..ROWS).map(|row| run(row, 1).unwrap().swap_remove(0)).collect();
            for batch in BATCHES {
                for first in [0, (ROWS - batch) / 2, ROWS - batch] {
                    assert!(run(first, batch).unwrap() == alone[first..first + batch], "{isa:?}: {batch} from {first}");
                }
            }
        });
    }
}
