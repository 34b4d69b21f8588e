//! The choice of tokens from logits on a GPU.

use candle::{DType, Device, Result, Tensor};
use candle_core as candle;

use super::{Launch, device_of, empty, modules, unit_step};

/// How a row's token is chosen; the parameters are those of sampling, in the order in which they apply.
#[derive(Debug, Clone)]
pub(crate) struct SampleRow {
    pub(crate) changes: Vec<Change>,
    /// What may be chosen, a bit for each token; `None` = all.
    pub(crate) allowed: Option<Vec<u32>>,
    pub(crate) repetition_penalty: f64,
    pub(crate) presence_penalty: f64,
    pub(crate) frequency_penalty: f64,
    /// Whether the largest is taken, whatever follows.
    pub(crate) greedy: bool,
    pub(crate) temperature: f64,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: f64,
    pub(crate) min_p: f64,
    /// A random number in `[0, 1)`.
    pub(crate) uniform: f64,
    pub(crate) logprobs: bool,
    pub(crate) kept: bool,
}

/// How a token's logit changes before the choice; `Change` of `kernels/sample.cu`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) id: u32,
    /// Whether the repetition penalty sees it.
    pub(crate) repeated: bool,
    /// How often the answer holds it.
    pub(crate) count: u32,
    pub(crate) bias: f32,
}

/// What was chosen for a row; `Chosen` of `kernels/sample.cu`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    /// The token; `None` if all are forbidden or one is at fault.
    pub(crate) id: Option<u32>,
    /// The first token whose logit is NaN or +inf.
    pub(crate) fault: Option<(u32, f32)>,
    pub(crate) logprob: f32,
    pub(crate) sampled_logprob: f32,
    /// The tokens that it was chosen among, ascending, if they were asked for.
    pub(crate) kept: Vec<u32>,
}

/// Words of 32 bits of a `Row`, a `Change` and a `Chosen` of `kernels/sample.cu`.
const ROW: usize = 22;
const CHANGE: usize = 4;
const CHOSEN: usize = 6;
/// The threads of a block.
const THREADS: usize = 512;
/// What the kernel writes for no token.
const NONE: u32 = u32::MAX;

/// Chooses a token from each row of `logits: [n, V]` f32; reads nothing else back.
///
/// # Errors
/// If a shape or dtype is not as above, V is 0 or above 2^17, or the device fails.
pub(crate) fn sample(logits: &Tensor, rows: &[SampleRow]) -> Result<Vec<Chosen>> {
    let (count, columns) = logits.dims2()?;
    if count != rows.len() || columns == 0 || columns > 1 << 17 || logits.dtype() != DType::F32 {
        candle::bail!("sample: {} rows of logits {:?} {}", rows.len(), logits.dims(), logits.dtype().as_str())
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let (device, logits) = (device_of(logits)?, unit_step(logits)?);
    let (mut words, mut changes, mut allowed) = (Vec::with_capacity(ROW * count), Vec::new(), Vec::new());
    for row in rows {
        let first_word = row.allowed.as_ref().map(|_| allowed.len());
        let first_change = changes.len() / CHANGE;
        for change in &row.changes {
            changes.extend([change.id, u32::from(change.repeated), change.count, change.bias.to_bits()]);
        }
        if let Some(own) = &row.allowed {
            // Tokens beyond the last word are not allowed.
            allowed.extend(own.iter().copied().chain(std::iter::repeat(0)).take(columns.div_ceil(32)));
        }
        let numbers = [
            row.temperature,
            row.top_p,
            row.min_p,
            row.uniform,
            row.repetition_penalty,
            row.presence_penalty,
            row.frequency_penalty,
        ];
        for bits in numbers.map(f64::to_bits) {
            words.extend([bits as u32, (bits >> 32) as u32]);
        }
        let top_k = row.top_k.map_or(0, |k| k.min(columns) as u32);
        words.extend([top_k, first_change as u32, row.changes.len() as u32, first_word.map_or(NONE, |at| at as u32)]);
        words.extend([row.greedy, row.logprobs, row.kept, false].map(u32::from));
    }
    let gpu = Device::Cuda(device.clone());
    // One upload for all.
    let (changes_at, allowed_at) = (words.len(), words.len() + changes.len());
    words.extend(changes);
    words.extend(allowed);
    // Nothing has no address.
    words.push(0);
    let length = words.len();
    let words = Tensor::from_vec(words, length, &gpu)?;
    let part = |at: usize| words.narrow(0, at, length - at);
    let (changes, allowed) = (part(changes_at)?, part(allowed_at)?);
    let scratch = empty((count, 2 * columns), DType::F32, device)?;
    let kept_words = columns.div_ceil(32);
    let wants_kept = rows.iter().any(|row| row.kept);
    let out = empty(CHOSEN * count + if wants_kept { kept_words * count } else { 0 }, DType::U32, device)?;
    let kept_at = if wants_kept { Some(out.narrow(0, CHOSEN * count, kept_words * count)?) } else { None };
    Launch::new(&modules::SAMPLE, "sample_f32")
        .tensor("logits", &logits)
        .long(logits.stride()[0])
        .tensor("rows", &words)
        .tensor("changes", &changes)
        .tensor("allowed", &allowed)
        .tensor("scratch", &scratch)
        .maybe("kept", kept_at.as_ref())
        .tensor("chosen", &out)
        .int(columns)
        .run(device, [count, 1], THREADS, 0)?;
    let out = out.to_vec1::<u32>()?;
    let (chosen, kept) = out.split_at(CHOSEN * count);
    let of_row = |(at, (words, row)): (usize, (&[u32], &SampleRow))| {
        let token = |word: u32| (word != NONE).then_some(word);
        let kept = if row.kept { ids(&kept[at * kept_words..][..kept_words]) } else { Vec::new() };
        Chosen {
            id: token(words[0]),
            fault: token(words[1]).map(|id| (id, f32::from_bits(words[3]))),
            logprob: f32::from_bits(words[4]),
            sampled_logprob: f32::from_bits(words[5]),
            kept,
        }
    };
    Ok(chosen.chunks_exact(CHOSEN).zip(rows).enumerate().map(of_row).collect())
}

/// The numbers of the bits that are set.
fn ids(words: &[u32]) -> Vec<u32> {
    let bits = |(at, word): (usize, &u32)| {
        let word = *word;
        (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at as u32 * 32 + bit)
    };
    words.iter().enumerate().flat_map(bits).collect()
}
