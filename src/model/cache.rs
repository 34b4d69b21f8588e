//! The key cache: a pool of token slots in pages, owned by sequences through block tables.

use std::collections::BTreeMap;

use candle::{DType, Device, Result, Tensor};
use candle_core as candle;

use crate::config::{Config, IndexerType};
use crate::ops;
use crate::ops::fp8::Fp8Row;
use crate::ops::layout::{BatchLayout, PAGE_SIZE, Span};

/// A sequence in a [`Cache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// How a [`Cache`] keeps latents and index keys.
///
/// [`Precision::Fp8`](super::Precision::Fp8) rounds the values to e4m3 with their scales before they are kept; the format
/// is that of the rounded numbers. [`Fp8`](Self::Fp8) keeps these to within a last bit of f32, and `k_pe` in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheFormat {
    /// 4 bytes a number, exact for f32 activations.
    F32,
    /// 2 bytes a number.
    Bf16,
    /// 2 bytes a number; overflows above 65,504.
    F16,
    /// Latents and index keys in e4m3 by groups of 128 with f32 scales, `k_pe` in bf16, packed as
    /// [`Fp8Row`](crate::ops::fp8::Fp8Row): 656 and 132 bytes a token and layer for V3.2. Scales of index keys, and those of
    /// latents if the checkpoint's `scale_fmt` is `ue8m0`, are powers of two.
    Fp8,
}

impl CacheFormat {
    /// Returns the format that keeps activations of this dtype as they are.
    ///
    /// # Errors
    /// If `dtype` is not f32, bf16 or f16.
    pub fn exact_for(dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::BF16 => Ok(Self::Bf16),
            DType::F16 => Ok(Self::F16),
            _ => candle::bail!("a cache keeps f32, bf16 or f16, not {}", dtype.as_str()),
        }
    }

    /// Returns the dtype of the cache's tensors; u8 for packed rows.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::Fp8 => DType::U8,
        }
    }
}

/// The keys of one layer.
#[derive(Debug)]
pub(super) struct LayerCache {
    /// `[slots, kv_lora_rank + qk_rope_head_dim]`: the normalised latent, then the rotated `k_pe`; or packed rows.
    pub(super) kv: Tensor,
    /// `[slots, index_head_dim]`, where the layer has an indexer; or packed rows.
    pub(super) index_k: Option<Tensor>,
    pub(super) packing: Option<Packing>,
}

/// How the rows of an FP8 cache are packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    kv: Fp8Row,
    index_k: Fp8Row,
    /// Whether the scales of latents are powers of two; those of index keys always are.
    ue8m0: bool,
}

impl Packing {
    fn new(cfg: &Config) -> Self {
        Self {
            kv: Fp8Row { quantized: cfg.kv_lora_rank, plain: cfg.qk_rope_head_dim },
            index_k: Fp8Row { quantized: cfg.index_head_dim.unwrap_or(0), plain: 0 },
            ue8m0: cfg.quantization_config.as_ref().is_some_and(|quantization| quantization.ue8m0),
        }
    }
}

impl LayerCache {
    /// Writes `rows: [T, kv_lora_rank + qk_rope_head_dim]` to their slots.
    pub(super) fn write_kv(&self, rows: &Tensor, slots: &Tensor) -> Result<()> {
        match self.packing {
            Some(Packing { kv, ue8m0, .. }) => {
                ops::cache_write(&self.kv, &ops::fp8::row_quant(rows, kv, ue8m0)?, slots)
            }
            None => ops::cache_write(&self.kv, rows, slots),
        }
    }

    /// Writes `rows: [T, index_head_dim]` to their slots of `index_k`, a tensor of this layer.
    pub(super) fn write_index_k(&self, index_k: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
        match self.packing {
            Some(packing) => ops::cache_write(index_k, &ops::fp8::row_quant(rows, packing.index_k, true)?, slots),
            None => ops::cache_write(index_k, rows, slots),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Sequence {
    pages: Vec<u32>,
    len: usize,
}

/// Latents and index keys of many sequences, for every layer of a model and its MTP layer.
///
/// All layers share the block tables: position `p` of a sequence lies in the same slot everywhere. Sequences
/// that were forked share pages until one of them writes.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
    /// How many sequences own each page.
    owners: Vec<u32>,
    free_pages: Vec<u32>,
    max_pages: usize,
    sequences: BTreeMap<SequenceId, Sequence>,
    next_id: u64,
}

impl Cache {
    /// Returns an empty cache with `pages` pages of 64 tokens, which grows on demand; with
    /// [`set_max_pages`](Self::set_max_pages) of the same number it never allocates again.
    ///
    /// # Errors
    /// If `device` lacks the memory for `pages`.
    pub fn new(cfg: &Config, format: CacheFormat, device: &Device, pages: usize) -> Result<Self> {
        let dtype = format.dtype();
        let mtp_layers = cfg.num_nextn_predict_layers.min(1);
        let packing = (format == CacheFormat::Fp8).then(|| Packing::new(cfg));
        let width = packing.map_or(cfg.kv_lora_rank + cfg.qk_rope_head_dim, |packing| packing.kv.bytes());
        let mut layers = Vec::with_capacity(cfg.num_hidden_layers + mtp_layers);
        for layer in 0..cfg.num_hidden_layers + mtp_layers {
            let full = cfg.indexer_types.get(layer).copied().unwrap_or(IndexerType::Full) == IndexerType::Full;
            let index_k = match cfg.index_head_dim {
                Some(dim) if full && cfg.has_indexer() => {
                    let width = packing.map_or(dim, |packing| packing.index_k.bytes());
                    Some(Tensor::zeros((0, width), dtype, device)?)
                }
                _ => None,
            };
            layers.push(LayerCache { kv: Tensor::zeros((0, width), dtype, device)?, index_k, packing });
        }
        let mut cache = Self {
            layers,
            owners: Vec::new(),
            free_pages: Vec::new(),
            max_pages: u32::MAX as usize / PAGE_SIZE,
            sequences: BTreeMap::new(),
            next_id: 0,
        };
        cache.grow(pages)?;
        Ok(cache)
    }

    /// Returns the bytes that a token takes in a cache of this format, in all layers together.
    pub fn bytes_per_token(cfg: &Config, format: CacheFormat) -> usize {
        let packing = (format == CacheFormat::Fp8).then(|| Packing::new(cfg));
        let number = format.dtype().size_in_bytes();
        let kv = packing.map_or(cfg.kv_lora_rank + cfg.qk_rope_head_dim, |packing| packing.kv.bytes());
        let index_k = packing.map_or(cfg.index_head_dim.unwrap_or(0), |packing| packing.index_k.bytes());
        let of_layer = |layer: usize| {
            let full = cfg.indexer_types.get(layer).copied().unwrap_or(IndexerType::Full) == IndexerType::Full;
            number * (kv + if full && cfg.has_indexer() { index_k } else { 0 })
        };
        (0..cfg.num_hidden_layers + cfg.num_nextn_predict_layers.min(1)).map(of_layer).sum()
    }

    /// Refuses to grow beyond `pages` pages from now on.
    pub fn set_max_pages(&mut self, pages: usize) {
        self.max_pages = pages.min(u32::MAX as usize / PAGE_SIZE);
    }

    /// Pages in the pool.
    pub fn pages(&self) -> usize {
        self.owners.len()
    }

    /// Pages that no sequence owns.
    pub fn free_pages(&self) -> usize {
        self.free_pages.len()
    }

    /// Starts an empty sequence.
    pub fn create(&mut self) -> SequenceId {
        self.insert(Sequence::default())
    }

    /// Tokens in a sequence; 0 if there is no such sequence.
    pub fn len(&self, id: SequenceId) -> usize {
        self.sequences.get(&id).map_or(0, |sequence| sequence.len)
    }

    /// Whether a sequence has no tokens.
    pub fn is_empty(&self, id: SequenceId) -> bool {
        self.len(id) == 0
    }

    /// Drops the tokens of a sequence from position `len` on.
    ///
    /// # Errors
    /// If there is no such sequence or it is shorter than `len`.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<()> {
        let sequence = self.sequence(id)?;
        if len > sequence.len {
            candle::bail!("cannot truncate sequence {} of {} tokens to {len}", id.0, sequence.len)
        }
        let dropped = match self.sequences.get_mut(&id) {
            Some(sequence) => {
                sequence.len = len;
                sequence.pages.split_off(len.div_ceil(PAGE_SIZE))
            }
            None => Vec::new(),
        };
        self.release(dropped);
        Ok(())
    }

    /// A second sequence with the same tokens; pages are shared until one of the two writes to them.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        let sequence = self.sequence(id)?.clone();
        for &page in &sequence.pages {
            self.owners[page as usize] += 1;
        }
        Ok(self.insert(sequence))
    }

    /// Ends a sequence and gives its pages back; does nothing if there is no such sequence.
    pub fn free(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.remove(&id) {
            self.release(sequence.pages);
        }
    }

    /// Allocates slots for new tokens, `(sequence, how many)` each. Returns where they and their contexts lie.
    ///
    /// The rows of the batch follow the order of `tokens`. Either all sequences have grown or none. The new tokens of a
    /// sequence count as a whole prefill, one alone as a step of decoding; a caller that cuts a prefill into chunks, or
    /// decodes several tokens at once, sets [`Span::prefill`].
    ///
    /// # Errors
    /// If a sequence is unknown or named twice, or if the pool would exceed its limit.
    pub fn append(&mut self, tokens: &[(SequenceId, usize)]) -> Result<BatchLayout> {
        let mut needed = 0usize;
        for (i, &(id, new)) in tokens.iter().enumerate() {
            if tokens[..i].iter().any(|&(other, _)| other == id) {
                candle::bail!("sequence {} is in the batch twice", id.0)
            }
            let sequence = self.sequence(id)?;
            let pages = match sequence.len.checked_add(new) {
                Some(len) => len.div_ceil(PAGE_SIZE),
                None => candle::bail!("{new} tokens are too many for sequence {}", id.0),
            };
            needed += pages - sequence.pages.len() + usize::from(new > 0 && self.shares_tail(sequence));
        }
        self.reserve(needed)?;
        let mut layout = BatchLayout::default();
        let mut row = 0;
        for &(id, new) in tokens {
            if new > 0 {
                self.own_tail(id)?;
            }
            let Self { sequences, free_pages, owners, .. } = self;
            let sequence = match sequences.get_mut(&id) {
                Some(sequence) => sequence,
                None => candle::bail!("no sequence {}", id.0),
            };
            let start = sequence.len;
            sequence.len += new;
            while sequence.pages.len() * PAGE_SIZE < sequence.len {
                match free_pages.pop() {
                    Some(page) => {
                        owners[page as usize] = 1;
                        sequence.pages.push(page);
                    }
                    None => candle::bail!("the cache has no free page"),
                }
            }
            let prefill = (new > 1).then(|| start..start + new);
            layout.spans.push(Span { tokens: row..row + new, start, block_table: sequence.pages.clone(), prefill });
            row += new;
        }
        Ok(layout)
    }

    /// The cached `(latent, k_pe)` rows `[len, kv_lora_rank + qk_rope_head_dim]` of a sequence in one layer, and its
    /// index keys `[len, index_head_dim]` where the layer has them; in f32 from an FP8 cache.
    ///
    /// # Errors
    /// If there is no such sequence or layer.
    pub fn rows(&self, id: SequenceId, layer: usize) -> Result<(Tensor, Option<Tensor>)> {
        let sequence = self.sequence(id)?;
        let layer = self.layer(layer)?;
        let span = Span { tokens: 0..sequence.len, start: 0, block_table: sequence.pages.clone(), prefill: None };
        let slots: Vec<u32> = (0..sequence.len).map(|p| span.slot(p) as u32).collect();
        let slots = Tensor::from_vec(slots, sequence.len, layer.kv.device())?;
        let values = |rows: &Tensor, row: Option<Fp8Row>| {
            let rows = rows.index_select(&slots, 0)?;
            row.map_or(Ok(rows.clone()), |row| ops::fp8::row_dequant(&rows, row))
        };
        let index_k = layer.index_k.as_ref().map(|keys| values(keys, layer.packing.map(|packing| packing.index_k)));
        Ok((values(&layer.kv, layer.packing.map(|packing| packing.kv))?, index_k.transpose()?))
    }

    /// Writes rows that were computed elsewhere, or made up, to the slots of `layout`'s rows `[T]` in one layer, as a step
    /// of the model does: `kv: [T, kv_lora_rank + qk_rope_head_dim]`, the normalised latent and the rotated `k_pe`, and
    /// `index_k: [T, index_head_dim]` where the layer has an indexer; f32, bf16 or f16, rounded to the cache's format.
    ///
    /// The MTP layer has the number after the last.
    ///
    /// # Errors
    /// If there is no such layer, a shape or dtype is another, or index keys are missing or too many.
    pub fn write(&mut self, layout: &BatchLayout, layer: usize, kv: &Tensor, index_k: Option<&Tensor>) -> Result<()> {
        layout.check(layout.tokens(), self.pages() * PAGE_SIZE)?;
        let cached = self.layer(layer)?;
        let slots = Tensor::from_vec(layout.slots(), layout.tokens(), kv.device())?;
        match (&cached.index_k, index_k) {
            (Some(keys), Some(rows)) => cached.write_index_k(keys, rows, &slots)?,
            (None, None) => {}
            (Some(_), None) => candle::bail!("layer {layer} has an indexer, but no index keys were given"),
            (None, Some(_)) => candle::bail!("layer {layer} has no indexer, but index keys were given"),
        }
        cached.write_kv(kv, &slots)
    }

    pub(super) fn layer(&self, layer: usize) -> Result<&LayerCache> {
        match self.layers.get(layer) {
            Some(layer) => Ok(layer),
            None => candle::bail!("the cache has no layer {layer}: it was made for another model"),
        }
    }

    fn insert(&mut self, sequence: Sequence) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.insert(id, sequence);
        id
    }

    fn sequence(&self, id: SequenceId) -> Result<&Sequence> {
        match self.sequences.get(&id) {
            Some(sequence) => Ok(sequence),
            None => candle::bail!("no sequence {} in the cache", id.0),
        }
    }

    fn release(&mut self, pages: Vec<u32>) {
        for page in pages {
            let owners = &mut self.owners[page as usize];
            *owners -= 1;
            if *owners == 0 {
                self.free_pages.push(page);
            }
        }
    }

    /// Whether the page that the next token goes to is half full and another sequence's too.
    fn shares_tail(&self, sequence: &Sequence) -> bool {
        let partial = !sequence.len.is_multiple_of(PAGE_SIZE);
        partial && sequence.pages.last().is_some_and(|&page| self.owners[page as usize] > 1)
    }

    /// Copies the last page of a sequence if another sequence owns it too.
    fn own_tail(&mut self, id: SequenceId) -> Result<()> {
        let sequence = self.sequence(id)?;
        if !self.shares_tail(sequence) {
            return Ok(());
        }
        let last = sequence.pages.len() - 1;
        let from = sequence.pages[last] as usize;
        let to = match self.free_pages.last() {
            Some(&page) => page as usize,
            None => candle::bail!("the cache has no free page"),
        };
        for layer in &self.layers {
            for keys in std::iter::once(&layer.kv).chain(&layer.index_k) {
                let page = keys.narrow(0, from * PAGE_SIZE, PAGE_SIZE)?.force_contiguous()?;
                place(keys, &page, to * PAGE_SIZE)?;
            }
        }
        self.free_pages.pop();
        self.owners[to] = 1;
        self.owners[from] -= 1;
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.pages[last] = to as u32;
        }
        Ok(())
    }

    /// Makes sure that `pages` pages are free.
    fn reserve(&mut self, pages: usize) -> Result<()> {
        let missing = pages.saturating_sub(self.free_pages.len());
        if missing == 0 {
            return Ok(());
        }
        let wanted = self.pages().saturating_add(missing);
        if wanted > self.max_pages {
            candle::bail!("the cache is full: {wanted} pages are needed, {} are allowed", self.max_pages)
        }
        // Doubling keeps the copies of a growing pool linear in its final size.
        self.grow(wanted.max(self.pages().saturating_mul(2)).min(self.max_pages))
    }

    fn grow(&mut self, pages: usize) -> Result<()> {
        let old = self.pages();
        // One tensor after the other, so that little is there twice. If the memory ends half-way, those that have grown
        // stay so, and the pool keeps its size.
        for layer in &mut self.layers {
            for keys in std::iter::once(&mut layer.kv).chain(&mut layer.index_k) {
                if keys.dim(0)? < pages * PAGE_SIZE {
                    *keys = grow(keys, old, pages)?;
                }
            }
        }
        self.owners.resize(pages, 0);
        // Low pages first, so that a single sequence lies in order.
        self.free_pages.splice(0..0, (old as u32..pages as u32).rev());
        Ok(())
    }
}

/// A copy of `keys: [old * 64, dim]` with space for `new` pages.
fn grow(keys: &Tensor, old: usize, new: usize) -> Result<Tensor> {
    let grown = Tensor::zeros((new * PAGE_SIZE, keys.dim(1)?), keys.dtype(), keys.device())?;
    if old > 0 {
        place(&grown, &keys.narrow(0, 0, old * PAGE_SIZE)?, 0)?;
    }
    Ok(grown)
}

/// Copies `rows` to `keys` from slot `first` on.
fn place(keys: &Tensor, rows: &Tensor, first: usize) -> Result<()> {
    let count = rows.dim(0)?;
    let slots = Tensor::from_vec((first as u32..(first + count) as u32).collect(), count, keys.device())?;
    ops::cache_write(keys, rows, &slots)
}
