//! A checkpoint whose files are mapped and checked; the values are read later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::Mmap;
use safetensors::Dtype;

use super::error::{CheckpointProblem, TensorProblem};
use super::error::{Result, WeightsError};
use super::header::{TensorEntry, parse_header};
use super::index::parse_index;
use super::names::{self, EMBEDDING, HEAD, SCALE_SUFFIX, TensorKind};
use super::{INDEX_FILE, MAX_INDEX_BYTES, WEIGHTS_FILE, foreign, io_error, read_config, read_text, require_file};
use crate::config::{Config, IndexerType};

/// How many bytes are read before their pages are released.
pub(super) const CHUNK_BYTES: usize = 16 << 20;

/// A checkpoint whose headers, names, shapes and dtypes agree with its [`Config`].
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: Config,
    config_text: String,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Located>,
    /// What to load, in the order of the model.
    pub(super) plan: Vec<Planned>,
    /// Names that stand for another tensor: what is absent because it is the embedding's or the head's copy.
    pub(super) aliases: Vec<(String, String)>,
    mtp_layers: usize,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// Which shard a tensor is in, and where.
#[derive(Debug)]
pub(super) struct Located {
    shard: usize,
    pub(super) entry: TensorEntry,
}

/// A tensor to load.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) kind: TensorKind,
    /// The name of the scales of an FP8 weight.
    pub(super) scale: Option<String>,
    /// The main tensor that an MTP layer's tensor is usually a copy of.
    pub(super) copy_of: Option<&'static str>,
}

impl Checkpoint {
    /// Opens the checkpoint in the directory `dir`: `config.json` and either `model.safetensors` or
    /// `model.safetensors.index.json` with its shards. The values are not read yet.
    ///
    /// Every tensor that the configuration asks for must be there with its shape and a dtype that can be computed, and
    /// no other. Exceptions: each MTP layer may be absent as a whole, and its copies of embedding and head also alone;
    /// `rotary_emb.inv_freq` is ignored, and so is the indexer of a layer that shares another's selection.
    ///
    /// # Errors
    /// The first thing found wrong, naming the file and the tensor or key.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let (config, config_text) = read_config(&dir)?;
        let (shards, tensors) = open_shards(&dir)?;
        let mut checkpoint =
            Self { dir, config, config_text, shards, tensors, plan: Vec::new(), aliases: Vec::new(), mtp_layers: 0 };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The text of `config.json`.
    pub fn config_text(&self) -> &str {
        &self.config_text
    }

    /// How many of the configuration's MTP layers the files hold.
    pub fn mtp_layers(&self) -> usize {
        self.mtp_layers
    }

    /// Every tensor in the files, by name: dtype, shape, bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize], &[u8])> {
        self.tensors.iter().map(|(name, located)| {
            let entry = &located.entry;
            (name.as_str(), entry.dtype, entry.shape.as_slice(), self.bytes(located))
        })
    }

    /// The bytes of all tensors once they are loaded, with matrices in `weight_dtype`, or as they are stored.
    pub fn loaded_bytes(&self, weight_dtype: Option<DType>) -> u64 {
        let of = |(_, _, shape, bytes): (&str, Dtype, &[usize], &[u8])| match weight_dtype {
            Some(dtype) if shape.len() > 1 => (shape.iter().product::<usize>() * dtype.size_in_bytes()) as u64,
            _ => bytes.len() as u64,
        };
        self.tensors().map(of).sum()
    }

    pub(super) fn located(&self, name: &str) -> Option<&Located> {
        self.tensors.get(name)
    }

    pub(super) fn bytes(&self, located: &Located) -> &[u8] {
        // The header check has made sure that the entry lies within the file.
        self.shards[located.shard].map.get(located.entry.start..located.entry.end).unwrap_or_default()
    }

    /// Releases the pages of `located`'s bytes `range`: they were read and will not be needed again soon.
    pub(super) fn release(&self, located: &Located, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        {
            let map = &self.shards[located.shard].map;
            // SAFETY: the map is a read-only view of a file; dropped pages are read again from it on the next access.
            // A refusal costs memory, not correctness.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    located.entry.start + range.start,
                    range.len(),
                )
            };
        }
        #[cfg(not(unix))]
        let _ = (located, range);
    }

    /// Whether two tensors are the same in dtype, shape and bytes.
    pub(super) fn identical(&self, a: &Located, b: &Located) -> bool {
        if a.entry.dtype != b.entry.dtype || a.entry.shape != b.entry.shape {
            return false;
        }
        let pieces = self.bytes(a).chunks(CHUNK_BYTES).zip(self.bytes(b).chunks(CHUNK_BYTES));
        pieces.enumerate().all(|(i, (piece_a, piece_b))| {
            let equal = piece_a == piece_b;
            let start = i * CHUNK_BYTES;
            self.release(a, start..start + piece_a.len());
            self.release(b, start..start + piece_b.len());
            equal
        })
    }

    /// The error that `problem` with the tensor `name` is, in the file where it is or should be.
    pub(super) fn tensor_error(&self, name: &str, problem: TensorProblem) -> WeightsError {
        let path = match self.tensors.get(name) {
            Some(located) => self.shards[located.shard].path.clone(),
            None => weights_path(&self.dir),
        };
        WeightsError::Tensor { path, tensor: name.to_string(), problem }
    }

    /// Checks names, shapes and dtypes against the configuration and makes the plan.
    fn check(&mut self) -> Result<()> {
        let config = &self.config;
        let mut names = self.tensors.keys();
        if let Some((name, format)) = names.find_map(|name| Some((name, foreign::quantization_of(name)?))) {
            return Err(self.tensor_error(name, TensorProblem::Quantized(format)));
        }
        let mut plan = Vec::new();
        let mut aliases = Vec::new();
        // The names that the configuration accounts for.
        let mut known = BTreeSet::new();
        let mut require =
            |name: String, shape: &[usize], kind: TensorKind, copy_of: Option<&'static str>| -> Result<()> {
                let scale = self.check_tensor(&name, shape, kind)?;
                known.insert(name.clone());
                known.extend(scale.clone());
                plan.push(Planned { name, kind, scale, copy_of });
                Ok(())
            };
        names::main_tensors(config, &mut |name, shape, kind| require(name, shape, kind, None))?;

        let head = if config.tie_word_embeddings { EMBEDDING } else { HEAD };
        let table = [config.vocab_size, config.hidden_size];
        let mut mtp_layers = 0;
        for k in 0..config.num_nextn_predict_layers {
            let prefix = names::mtp_prefix(config, k);
            let Some(first) = self.names_with_prefix(&prefix).find(|name| !is_ignored(config, name)) else {
                continue;
            };
            if mtp_layers < k {
                return Err(self.tensor_error(first, TensorProblem::MtpOrder));
            }
            mtp_layers += 1;
            names::mtp_tensors(config, k, &mut |name, shape, kind| require(name, shape, kind, None))?;
            for (copy, original) in names::mtp_copies(config, k).into_iter().zip([EMBEDDING, head]) {
                if self.tensors.contains_key(&copy) {
                    require(copy, &table, TensorKind::Matrix, Some(original))?;
                } else {
                    aliases.push((copy, original.to_string()));
                }
            }
        }
        if config.tie_word_embeddings {
            let shipped = self.tensors.get(HEAD).zip(self.tensors.get(EMBEDDING));
            if shipped.is_some_and(|(head, embedding)| !self.identical(head, embedding)) {
                return Err(self.tensor_error(HEAD, TensorProblem::NotTied));
            }
            known.insert(HEAD.to_string());
            aliases.push((HEAD.to_string(), EMBEDDING.to_string()));
        }
        for name in self.tensors.keys() {
            if !known.contains(name) && !is_ignored(config, name) {
                return Err(self.tensor_error(name, self.unexpected(name, &known)));
            }
        }
        (self.plan, self.aliases, self.mtp_layers) = (plan, aliases, mtp_layers);
        Ok(())
    }

    fn names_with_prefix(&self, prefix: &str) -> impl Iterator<Item = &str> {
        let range = self.tensors.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        range.map(|(name, _)| name.as_str()).take_while(move |name| name.starts_with(prefix))
    }

    /// Why a name that nothing accounts for is refused.
    fn unexpected(&self, name: &str, known: &BTreeSet<String>) -> TensorProblem {
        let weight = name.strip_suffix(SCALE_SUFFIX).filter(|weight| known.contains(*weight));
        match weight.and_then(|weight| self.tensors.get(weight)) {
            Some(located) => TensorProblem::UnexpectedScale(located.entry.dtype),
            None => TensorProblem::Unexpected,
        }
    }

    /// Checks one tensor and, if it is FP8, its scales, whose name is returned.
    fn check_tensor(&self, name: &str, shape: &[usize], kind: TensorKind) -> Result<Option<String>> {
        let fail = |problem| Err(self.tensor_error(name, problem));
        let Some(located) = self.tensors.get(name) else {
            return fail(TensorProblem::Missing);
        };
        let entry = &located.entry;
        if entry.shape != shape {
            return fail(TensorProblem::Shape { found: entry.shape.clone(), expected: shape.to_vec() });
        }
        match (entry.dtype, kind) {
            (Dtype::F32 | Dtype::BF16 | Dtype::F16, _) => return Ok(None),
            (Dtype::F8_E4M3, TensorKind::Linear) => {}
            (found, TensorKind::Linear) => {
                return fail(TensorProblem::DType { found, expected: "F32, BF16, F16 or F8_E4M3" });
            }
            (found, _) => return fail(TensorProblem::DType { found, expected: "F32, BF16 or F16" }),
        }
        let Some(quantization) = &self.config.quantization_config else {
            return fail(TensorProblem::UnexpectedFp8);
        };
        let scale_name = format!("{name}{SCALE_SUFFIX}");
        let Some(scale) = self.tensors.get(&scale_name) else {
            return fail(TensorProblem::MissingScale(scale_name));
        };
        let expected: Vec<usize> =
            shape.iter().zip(quantization.weight_block_size).map(|(dim, block)| dim.div_ceil(block)).collect();
        let found = &scale.entry;
        if found.shape != expected {
            let problem = TensorProblem::Shape { found: found.shape.clone(), expected };
            return Err(self.tensor_error(&scale_name, problem));
        }
        match found.dtype {
            Dtype::F32 | Dtype::BF16 | Dtype::F8_E8M0 | Dtype::U8 => Ok(Some(scale_name)),
            found => {
                let problem = TensorProblem::DType { found, expected: "F32, BF16, F8_E8M0 or U8" };
                Err(self.tensor_error(&scale_name, problem))
            }
        }
    }
}

/// Names that other implementations write and that carry nothing: precomputed frequencies, and the indexer of a layer
/// that uses another layer's selection.
fn is_ignored(config: &Config, name: &str) -> bool {
    if name.ends_with("rotary_emb.inv_freq") {
        return true;
    }
    let Some((layer, rest)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let shared = layer.parse().is_ok_and(|layer| config.indexer_type(layer) == Some(IndexerType::Shared));
    shared
        && rest.strip_prefix("self_attn.indexer.").is_some_and(|part| {
            let weight = part.strip_suffix(SCALE_SUFFIX).unwrap_or(part);
            names::INDEXER.iter().any(|(known, _)| *known == weight)
        })
}

/// The file that says which tensors there are: the unsharded one if it exists, as in transformers.
fn weights_path(dir: &Path) -> PathBuf {
    let (single, index) = (dir.join(WEIGHTS_FILE), dir.join(INDEX_FILE));
    if is_there(&single) || !is_there(&index) { single } else { index }
}

/// Whether the path exists; a dangling link does.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

type Tensors = BTreeMap<String, Located>;

fn open_shards(dir: &Path) -> Result<(Vec<Shard>, Tensors)> {
    let path = weights_path(dir);
    if !is_there(&path) {
        foreign::check_directory(dir)?;
        let problem = CheckpointProblem::NoWeights;
        return Err(WeightsError::Checkpoint { path: dir.to_path_buf(), problem });
    }
    if path.ends_with(WEIGHTS_FILE) {
        let (shard, entries) = open_shard(path)?;
        let tensors = entries.into_iter().map(|(name, entry)| (name, Located { shard: 0, entry })).collect();
        return Ok((vec![shard], tensors));
    }
    let weight_map = parse_index(&read_text(&path, MAX_INDEX_BYTES)?).map_err(|e| e.at(&path))?.weight_map;
    let mut by_shard: BTreeMap<&str, &str> = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        by_shard.entry(shard).or_insert(tensor);
    }
    for (shard, tensor) in &by_shard {
        if !is_there(&dir.join(shard)) {
            let problem = CheckpointProblem::MissingShard { shard: shard.to_string(), tensor: tensor.to_string() };
            return Err(WeightsError::Checkpoint { path, problem });
        }
    }
    let (mut shards, mut tensors) = (Vec::new(), BTreeMap::new());
    for file_name in by_shard.keys() {
        let (shard, entries) = open_shard(dir.join(file_name))?;
        for (name, entry) in entries {
            let disagreement = match weight_map.get(&name) {
                Some(expected) if expected == file_name => None,
                Some(expected) => Some(format!("places it in {expected}")),
                None => Some("does not name it".to_string()),
            };
            if let Some(message) = disagreement {
                let problem = TensorProblem::NotInIndex(message);
                return Err(WeightsError::Tensor { path: shard.path, tensor: name, problem });
            }
            tensors.insert(name, Located { shard: shards.len(), entry });
        }
        shards.push(shard);
    }
    match weight_map.iter().find(|(tensor, _)| !tensors.contains_key(*tensor)) {
        None => Ok((shards, tensors)),
        Some((tensor, shard)) => {
            let (path, tensor) = (dir.join(shard), tensor.clone());
            Err(WeightsError::Tensor { path, tensor, problem: TensorProblem::NotInShard })
        }
    }
}

fn open_shard(path: PathBuf) -> Result<(Shard, BTreeMap<String, TensorEntry>)> {
    let map = map_file(&path)?;
    foreign::check(&path, &map, "a safetensors file")?;
    let header = parse_header(&map, map.len() as u64).map_err(|e| e.at(&path))?;
    Ok((Shard { path, map }, header.tensors))
}

fn map_file(path: &Path) -> Result<Mmap> {
    let io = io_error(path);
    require_file(path)?;
    let file = File::open(path).map_err(&io)?;
    // SAFETY: the map is only read. Another process that shortens or rewrites the file meanwhile could make reads fail
    // or change; checkpoints are not written in place, by this crate (temporary file and rename) or by others.
    unsafe { Mmap::map(&file) }.map_err(&io)
}
