//! Checkpoints in the Hugging Face layout: `config.json` beside `model.safetensors`, or beside shards and
//! `model.safetensors.index.json`.
//!
//! [`Checkpoint::open`] maps the files and checks everything that can be checked without reading the data: headers,
//! index, and every tensor's name, shape and dtype against the [`Config`]. [`Checkpoint::var_builder`] then reads each
//! tensor once, in parallel, into its own memory and releases the mapped pages, so that peak memory stays near the
//! size of the model. [`load`] does both. Nothing is returned unless all of it is sound.
//!
//! [`save`] and [`Checkpoint::save_to`] write the same layout.

use std::io::Read;
use std::path::Path;

use candle_nn::VarBuilder;

use crate::config::Config;

mod checkpoint;
mod decode;
mod error;
mod foreign;
mod generation_config;
mod header;
#[cfg(feature = "hub")]
pub mod hub;
mod index;
mod load;
mod names;
mod read;
mod save;

pub use crate::foreign::ForeignFile;
pub use checkpoint::Checkpoint;
pub use error::{CheckpointProblem, Result, TensorProblem, WeightsError};
pub use generation_config::GenerationConfig;
pub use header::{Header, HeaderError, MAX_HEADER_BYTES, TensorEntry, parse_header};
pub use index::{Index, IndexError, parse_index};
pub use load::{LoadOptions, Progress};
pub use names::{TensorKind, for_each_tensor};
pub use save::{DEFAULT_SHARD_BYTES, SaveTensor, save, save_tensors, save_variables};

/// The configuration file of a checkpoint.
pub const CONFIG_FILE: &str = "config.json";
/// The tensors of an unsharded checkpoint.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The largest index that is read: that of the 671B model takes a tenth of it.
const MAX_INDEX_BYTES: u64 = 1 << 27;
/// The largest config that is read: a thousand times those of the releases.
const MAX_CONFIG_BYTES: u64 = 1 << 22;

/// Opens the checkpoint in `dir` and loads all of it.
///
/// `progress` is called after every tensor, from one thread at a time.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::var_builder`].
pub fn load(
    dir: impl AsRef<Path>,
    options: &LoadOptions,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<(Config, VarBuilder<'static>)> {
    let checkpoint = Checkpoint::open(dir)?;
    let vb = checkpoint.var_builder(options, progress)?;
    Ok((checkpoint.config().clone(), vb))
}

/// Refuses a path that is no folder of a checkpoint in safetensors format, as far as its names and first bytes tell: a file
/// of another kind, such as GGUF, or a folder with weights of another kind alone. What is not there is not looked at.
///
/// # Errors
/// [`WeightsError::Checkpoint`] names the kind.
pub fn check_folder(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let is_there = |name: &str| dir.join(name).symlink_metadata().is_ok();
    if is_there(WEIGHTS_FILE) || is_there(INDEX_FILE) { Ok(()) } else { foreign::check_directory(dir) }
}

/// Reads and validates the `config.json` in `dir`.
///
/// # Errors
/// [`WeightsError::Io`] if it cannot be read, [`WeightsError::Checkpoint`] if it is a file of another kind,
/// [`WeightsError::Config`] if it is refused.
pub fn load_config(dir: impl AsRef<Path>) -> Result<Config> {
    read_config(dir.as_ref()).map(|(config, _)| config)
}

/// The configuration in `dir`, and its text.
fn read_config(dir: &Path) -> Result<(Config, String)> {
    let path = dir.join(CONFIG_FILE);
    if path.symlink_metadata().is_err() {
        foreign::check_directory(dir)?;
    }
    let text = read_text(&path, MAX_CONFIG_BYTES)?;
    let config = Config::from_json(&text).map_err(|source| WeightsError::Config { path, source })?;
    Ok((config, text))
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> WeightsError + '_ {
    |source| WeightsError::Io { path: path.to_path_buf(), source }
}

/// Refuses directories, pipes and devices before they are opened, which could block.
fn require_file(path: &Path) -> Result<()> {
    let io = io_error(path);
    if std::fs::metadata(path).map_err(&io)?.is_file() {
        return Ok(());
    }
    Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file")))
}

/// The text of a file of at most so many bytes.
fn read_text(path: &Path, most: u64) -> Result<String> {
    let io = io_error(path);
    require_file(path)?;
    let file = std::fs::File::open(path).map_err(&io)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(&io)?;
    foreign::check(path, &bytes, "JSON")?;
    let json = |message: String| WeightsError::Json { path: path.to_path_buf(), message };
    if bytes.len() as u64 > most {
        return Err(json(format!("larger than {} MiB", most >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| json("not UTF-8".to_string()))
}
