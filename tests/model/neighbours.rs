//! A sequence's numbers have the same bits alone and beside others, however its prompt is cut into chunks.

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use deepseek_v32::model::{Cache, Model, Precision, SequenceId};
use deepseek_v32::weights::{self, LoadOptions};

/// How many tokens of sequence `i` run in a step.
type Chunk = fn(usize, usize) -> usize;

/// Rows of a batch from which AMX multiplies FP8 weights in another order.
const AMX_ROWS: usize = 32;

/// A sequence: a prompt and tokens that are decoded one by one, all taken from a list of ids.
#[derive(Clone, Copy)]
struct Sequence {
    first_id: usize,
    prompt: usize,
    decoded: usize,
}

/// `index_topk` of the cases is 16: prompts below, at and beyond it, and one that reaches it while it is decoded.
const SEQUENCES: [Sequence; 5] = [
    Sequence { first_id: 0, prompt: 9, decoded: 3 },
    Sequence { first_id: 5, prompt: 57, decoded: 2 },
    Sequence { first_id: 2, prompt: 14, decoded: 5 },
    Sequence { first_id: 11, prompt: 1, decoded: 4 },
    Sequence { first_id: 20, prompt: 31, decoded: 6 },
];

/// What a sequence came to: logits of every position, and the rows of every layer's cache.
#[derive(PartialEq)]
struct Bits {
    logits: Vec<Vec<u32>>,
    cache: Vec<Vec<u32>>,
}

struct Case {
    model: Model,
    ids: Vec<u32>,
}

impl Case {
    fn load(name: &str, precision: Precision) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
        let (config, vb) = weights::load(&dir, &LoadOptions::default(), |_| ()).unwrap();
        let golden = candle_core::safetensors::load(dir.join("golden.safetensors"), &Device::Cpu).unwrap();
        let ids = golden["input_ids"].flatten_all().unwrap().to_dtype(candle_core::DType::U32).unwrap();
        Self { model: Model::with_options(&config, precision, vb).unwrap(), ids: ids.to_vec1().unwrap() }
    }

    /// Runs the sequences together. In every step, each takes as many tokens of its prompt as `chunk` says of the step
    /// and the sequence (0: it waits), or decodes one.
    fn run(&self, sequences: &[Sequence], chunk: impl Fn(usize, usize) -> usize, most: usize) -> Vec<Bits> {
        let mut cache = self.model.new_cache(1).unwrap();
        let handles: Vec<SequenceId> = sequences.iter().map(|_| cache.create()).collect();
        let mut logits = vec![Vec::new(); sequences.len()];
        for step in 0.. {
            let mut work = Vec::new();
            let mut left = most;
            for (i, sequence) in sequences.iter().enumerate() {
                let done = cache.len(handles[i]);
                let rest = sequence.prompt.saturating_sub(done);
                let tokens = match rest {
                    0 => usize::from(done < sequence.prompt + sequence.decoded),
                    _ => chunk(step, i).min(rest),
                };
                if tokens > 0 && tokens <= left {
                    left -= tokens;
                    work.push((i, done, tokens));
                }
            }
            if work.is_empty() {
                if (0..sequences.len()).all(|i| cache.len(handles[i]) == sequences[i].prompt + sequences[i].decoded) {
                    break;
                }
                continue;
            }
            let new: Vec<_> = work.iter().map(|&(i, _, tokens)| (handles[i], tokens)).collect();
            let mut layout = cache.append(&new).unwrap();
            let mut ids = Vec::new();
            for (span, &(i, done, tokens)) in layout.spans.iter_mut().zip(&work) {
                let prompt = sequences[i].prompt;
                span.prefill = (done < prompt).then_some(0..prompt);
                ids.extend_from_slice(&self.ids[sequences[i].first_id + done..][..tokens]);
            }
            let hidden = self.model.forward_batch(&ids, &layout, &mut cache, None).unwrap();
            let rows = bits(&self.model.logits(&hidden).unwrap());
            for (span, &(i, ..)) in layout.spans.iter().zip(&work) {
                logits[i].extend_from_slice(&rows[span.tokens.clone()]);
            }
        }
        logits.into_iter().zip(handles).map(|(logits, id)| Bits { logits, cache: self.cached(&cache, id) }).collect()
    }

    fn cached(&self, cache: &Cache, sequence: SequenceId) -> Vec<Vec<u32>> {
        let rows = |layer| {
            let (kv, index_k) = cache.rows(sequence, layer).unwrap();
            [Some(kv), index_k].into_iter().flatten().map(|rows| bits(&rows).concat()).collect::<Vec<_>>()
        };
        (0..self.model.config().num_hidden_layers).flat_map(rows).collect()
    }

    /// Every sequence alone against all together, under several schedules.
    fn check(&self, name: &str, most: usize) {
        let alone: Vec<Bits> =
            SEQUENCES.iter().flat_map(|&sequence| self.run(&[sequence], |_, _| most.min(64), most)).collect();
        let schedules: [(&str, Chunk); 4] = [
            ("whole prompts at once", |_, _| usize::MAX),
            ("chunks of 7", |_, _| 7),
            ("token by token", |_, _| 1),
            // Each begins later than the one before and has other cuts, so that prefill meets decoding.
            ("staggered", |step, i| if step < 2 * i { 0 } else { 3 + 5 * ((step + i) % 3) }),
        ];
        for (schedule, chunk) in schedules {
            let together = self.run(&SEQUENCES, |step, i| chunk(step, i).min(most), most);
            for (i, (found, expected)) in together.iter().zip(&alone).enumerate() {
                for (at, (found, expected)) in found.logits.iter().zip(&expected.logits).enumerate() {
                    assert!(found == expected, "{name}: {schedule}: sequence {i}: logits at position {at}");
                }
                assert!(found == expected, "{name}: {schedule}: sequence {i}: rows of the cache");
            }
        }
    }
}

/// The rows of a matrix of f32.
fn bits(rows: &Tensor) -> Vec<Vec<u32>> {
    let rows = rows.to_vec2::<f32>().unwrap();
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

#[test]
fn dense_attention() {
    Case::load("v3_f32", Precision::Dequant).check("v3_f32", 1000);
}

#[test]
fn sparse_attention() {
    Case::load("v32_f32", Precision::Dequant).check("v32_f32", 1000);
}

#[test]
fn a_selection_shared_by_layers() {
    Case::load("glm_dsa_f32", Precision::Dequant).check("glm_dsa_f32", 1000);
}

#[test]
fn fp8_arithmetic() {
    Case::load("v32_fp8", Precision::Fp8).check("v32_fp8", AMX_ROWS - 1);
}
