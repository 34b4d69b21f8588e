//! Writing checkpoints in the Hugging Face layout.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use candle_nn::VarMap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use super::checkpoint::Checkpoint;
use super::error::{CheckpointProblem, TensorProblem};
use super::error::{Result, WeightsError};
use super::names::name_in_stack;
use super::{CONFIG_FILE, GenerationConfig, INDEX_FILE, WEIGHTS_FILE, io_error};
use crate::config::Config;

/// The usual size of a shard: 5 GB.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// A value that can be written as a tensor of a checkpoint.
pub trait SaveTensor {
    /// Element type.
    fn dtype(&self) -> Dtype;
    /// Dimensions.
    fn shape(&self) -> &[usize];
    /// The elements in row-major order, little-endian.
    ///
    /// # Errors
    /// If they cannot be copied from their device, or their dtype is one that candle only stores.
    fn bytes(&self) -> Result<Cow<'_, [u8]>>;
}

impl SaveTensor for Tensor {
    fn dtype(&self) -> Dtype {
        Tensor::dtype(self).into()
    }

    fn shape(&self) -> &[usize] {
        self.dims()
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let flat = self.flatten_all()?;
        macro_rules! bytes {
            ($t:ty) => {
                flat.to_vec1::<$t>()?.into_iter().flat_map(<$t>::to_le_bytes).collect()
            };
        }
        Ok(Cow::Owned(match Tensor::dtype(self) {
            DType::F32 => bytes!(f32),
            DType::F64 => bytes!(f64),
            DType::BF16 => bytes!(half::bf16),
            DType::F16 => bytes!(half::f16),
            DType::F8E4M3 => flat.to_vec1::<float8::F8E4M3>()?.iter().map(float8::F8E4M3::to_bits).collect(),
            DType::U8 => bytes!(u8),
            DType::U32 => bytes!(u32),
            DType::I32 => bytes!(i32),
            DType::I64 => bytes!(i64),
            dtype => return Err(candle_core::Error::Msg(format!("cannot save a tensor of dtype {dtype:?}")).into()),
        }))
    }
}

impl<T: SaveTensor + ?Sized> SaveTensor for &T {
    fn dtype(&self) -> Dtype {
        (**self).dtype()
    }

    fn shape(&self) -> &[usize] {
        (**self).shape()
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        (**self).bytes()
    }
}

/// A tensor as a checkpoint's file holds it.
struct Stored<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl SaveTensor for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.bytes))
    }
}

impl Checkpoint {
    /// Writes the checkpoint to the directory `dir`, which is created if it does not exist: every tensor byte for byte under its
    /// name, `config.json` as it was read, and the generation configuration and tokenizer files beside it.
    ///
    /// # Errors
    /// As [`save`].
    pub fn save_to(&self, dir: impl AsRef<Path>, max_shard_bytes: u64) -> Result<()> {
        let dir = dir.as_ref();
        let tensors: Vec<(&str, Stored)> =
            self.tensors().map(|(name, dtype, shape, bytes)| (name, Stored { dtype, shape, bytes })).collect();
        // Read before anything is written, in case `dir` is where they come from.
        let mut beside = Vec::new();
        for entry in fs::read_dir(self.dir()).map_err(io_error(self.dir()))? {
            let entry = entry.map_err(io_error(self.dir()))?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let tokenizer = text.starts_with("tokenizer") || text == "special_tokens_map.json";
            if text == GenerationConfig::FILE || (tokenizer && text.ends_with(".json")) {
                let path = entry.path();
                beside.push((name, fs::read(&path).map_err(io_error(&path))?));
            }
        }
        save(dir, self.config_text(), &tensors, max_shard_bytes)?;
        beside.iter().try_for_each(|(name, bytes)| replace_file(&dir.join(name), bytes))
    }
}

/// Writes `config_json` and `tensors` to the directory `dir`, which is created if it does not exist: `model.safetensors`, or, if
/// they take more than `max_shard_bytes`, shards of at most that size (or of one larger tensor) and their index.
/// Tensors are written in the order of their names.
///
/// Every file is written under a temporary name and renamed when all are complete; then the files of a checkpoint that
/// was there before and are not replaced are removed.
///
/// # Errors
/// [`WeightsError::Io`] naming the file that could not be written, [`WeightsError::Tensor`] for a name given twice, or what
/// [`SaveTensor::bytes`] returns.
pub fn save<S: AsRef<str>, T: SaveTensor>(
    dir: impl AsRef<Path>,
    config_json: &str,
    tensors: &[(S, T)],
    max_shard_bytes: u64,
) -> Result<()> {
    let dir = dir.as_ref();
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    let mut sorted: Vec<(&str, &T)> = tensors.iter().map(|(name, tensor)| (name.as_ref(), tensor)).collect();
    sorted.sort_by_key(|(name, _)| *name);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let problem = TensorProblem::BadEntry("name given twice".to_string());
        return Err(WeightsError::Tensor { path: dir.join(WEIGHTS_FILE), tensor: pair[0].0.to_string(), problem });
    }

    let shards = split(sorted, max_shard_bytes);
    let mut written = Staged::default();
    if let [shard] = shards.as_slice() {
        written.stage(dir.join(WEIGHTS_FILE), |file, path| write_shard(file, path, shard))?;
    } else {
        let mut weight_map = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            let file_name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
            weight_map.extend(shard.iter().map(|(name, _)| (*name, file_name.clone())));
            written.stage(dir.join(&file_name), |file, path| write_shard(file, path, shard))?;
        }
        let total_size: u64 = shards.iter().flatten().map(|(_, tensor)| byte_len(*tensor)).sum();
        let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
        written.stage(dir.join(INDEX_FILE), |file, path| write!(file, "{index:#}").map_err(io_error(path)))?;
    }
    written
        .stage(dir.join(CONFIG_FILE), |file, path| file.write_all(config_json.as_bytes()).map_err(io_error(path)))?;
    let kept = written.commit()?;
    remove_replaced(dir, &kept)
}

/// Writes a model whose weights are the variables of `varmap`, with the names and layout of a checkpoint: as [`save`],
/// the stacked experts of a layer as one tensor for each expert.
///
/// # Errors
/// As [`save`].
pub fn save_variables(dir: impl AsRef<Path>, config: &Config, varmap: &VarMap, max_shard_bytes: u64) -> Result<()> {
    let variables = varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut tensors = Vec::new();
    for (name, variable) in variables.iter() {
        let count = if variable.rank() == 3 { variable.dims()[0] } else { 0 };
        let of_experts: Option<Vec<String>> = (0..count).map(|expert| name_in_stack(name, expert)).collect();
        match of_experts.filter(|names| !names.is_empty()) {
            Some(names) => {
                for (expert, name) in names.into_iter().enumerate() {
                    tensors.push((name, variable.get(expert)?));
                }
            }
            None => tensors.push((name.clone(), variable.as_tensor().clone())),
        }
    }
    save(dir, &config.to_json(), &tensors, max_shard_bytes)
}

fn byte_len(tensor: &impl SaveTensor) -> u64 {
    let elements: u64 = tensor.shape().iter().map(|dim| *dim as u64).product();
    (elements * tensor.dtype().bitsize() as u64).div_ceil(8)
}

/// Consecutive tensors together as long as they fit; at least one shard.
fn split<'a, T: SaveTensor>(tensors: Vec<(&'a str, &'a T)>, max_shard_bytes: u64) -> Vec<Vec<(&'a str, &'a T)>> {
    let mut shards = vec![Vec::new()];
    let mut used = 0;
    for (name, tensor) in tensors {
        let bytes = byte_len(tensor);
        if used > 0 && used + bytes > max_shard_bytes {
            shards.push(Vec::new());
            used = 0;
        }
        used += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push((name, tensor));
        }
    }
    shards
}

fn write_shard<T: SaveTensor>(file: &mut impl Write, path: &Path, tensors: &[(&str, &T)]) -> Result<()> {
    let header_error = |e: &dyn std::fmt::Display| WeightsError::Checkpoint {
        path: path.to_path_buf(),
        problem: CheckpointProblem::BadHeader(e.to_string()),
    };
    let mut offset = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let end = offset + byte_len(*tensor) as usize;
        let info = TensorInfo { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), data_offsets: (offset, end) };
        infos.push((name.to_string(), info));
        offset = end;
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(metadata), infos).map_err(|e| header_error(&e))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| header_error(&e))?;
    // The data then start at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let io = io_error(path);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(&io)?;
    file.write_all(&header).map_err(&io)?;
    for (_, tensor) in tensors {
        file.write_all(&tensor.bytes()?).map_err(&io)?;
    }
    Ok(())
}

/// Files written under temporary names; those not committed are removed.
#[derive(Default)]
struct Staged {
    /// Temporary and final path.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Staged {
    fn stage(&mut self, path: PathBuf, write: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<()>) -> Result<()> {
        // Not the whole name, which may be as long as names can be.
        let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
        let temporary = path.with_file_name(format!(".{name}.{}.{}.tmp", self.files.len(), std::process::id()));
        let io = io_error(&path);
        let file = File::create(&temporary).map_err(&io)?;
        self.files.push((temporary, path.clone()));
        let mut file = BufWriter::with_capacity(1 << 20, file);
        write(&mut file, &path)?;
        let file = file.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(&io)
    }

    /// Renames all; returns the final paths.
    fn commit(mut self) -> Result<BTreeSet<PathBuf>> {
        let files = std::mem::take(&mut self.files);
        let mut committed = BTreeSet::new();
        for (i, (temporary, path)) in files.iter().enumerate() {
            if let Err(source) = fs::rename(temporary, path) {
                self.files = files[i..].to_vec();
                return Err(WeightsError::Io { path: path.clone(), source });
            }
            committed.insert(path.clone());
        }
        Ok(committed)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            // What cannot be removed stays under its temporary name.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Removes the tensors and the index of the checkpoint that `kept` replaces: left behind, they would be taken for this
/// one's.
fn remove_replaced(dir: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shard = name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
        if (shard || name == WEIGHTS_FILE || name == INDEX_FILE) && !kept.contains(&path) {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}

fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut staged = Staged::default();
    staged.stage(path.to_path_buf(), |file, path| file.write_all(bytes).map_err(io_error(path)))?;
    staged.commit().map(drop)
}

/// Writes tensors to one safetensors file, under a temporary name that is renamed when the file is complete. Through a
/// link, the file it points to is replaced. A device or a pipe, such as `/dev/null`, is written to as it is.
///
/// # Errors
/// [`WeightsError::Io`] naming the file, which must not be a folder, or [`WeightsError::Candle`] if a tensor can't be
/// read.
pub fn save_tensors(path: impl AsRef<Path>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = path.as_ref();
    let contiguous: BTreeMap<&String, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, tensor.force_contiguous()?)))
        .collect::<candle_core::Result<_>>()?;
    let bytes = safetensors::tensor::serialize(contiguous.iter(), None).map_err(candle_core::Error::from)?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let source = std::io::Error::new(std::io::ErrorKind::IsADirectory, "a folder, not a file");
            Err(WeightsError::Io { path: path.to_path_buf(), source })
        }
        Ok(found) if !found.is_file() => {
            let file = File::options().write(true).open(path);
            file.and_then(|mut file| file.write_all(&bytes)).map_err(io_error(path))
        }
        Ok(_) => replace_file(&fs::canonicalize(path).map_err(io_error(path))?, &bytes),
        Err(_) => replace_file(path, &bytes),
    }
}
