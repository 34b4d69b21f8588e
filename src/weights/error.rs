//! Errors of reading and writing checkpoints.

use std::path::PathBuf;

use safetensors::Dtype;

use crate::config::ConfigError;
use crate::foreign::ForeignFile;
use crate::show::{self, one_line, one_line_path};

/// `std::result::Result` with [`WeightsError`].
pub type Result<T> = std::result::Result<T, WeightsError>;

/// An error of [`crate::weights`]. Its text is one line that names the file and the tensor or key at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A configuration file was refused.
    #[error("{}: {source}", one_line_path(path))]
    Config {
        /// The file.
        path: PathBuf,
        /// The key at fault and why.
        source: ConfigError,
    },
    /// A file or directory could not be read or written.
    #[error("{}: {source}", one_line_path(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{}: {}", one_line_path(path), one_line(message))]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A checkpoint's directory, index or shard was refused as a whole.
    #[error("{}: {problem}", one_line_path(path))]
    Checkpoint {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        problem: CheckpointProblem,
    },
    /// A tensor of a checkpoint was refused.
    #[error("{}: tensor `{}`: {problem}", one_line_path(path), one_line(tensor))]
    Tensor {
        /// The shard the tensor is in, or the shard or index it should be in.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Why.
        problem: TensorProblem,
    },
    /// A download failed.
    #[error("{}: {}", one_line(repo), one_line(message))]
    Hub {
        /// `owner/name`.
        repo: String,
        /// Why.
        message: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Why a checkpoint's directory, index or shard was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointProblem {
    /// Neither kind of checkpoint is in the directory.
    #[error("neither model.safetensors nor model.safetensors.index.json is here")]
    NoWeights,
    /// The directory has no safetensors file, but weights of another kind.
    #[error(
        "holds {}, {found}; expected model.safetensors, or model.safetensors.index.json and its shards",
        show::quoted(file)
    )]
    ForeignWeights {
        /// The first such file by name.
        file: String,
        /// What it is.
        found: ForeignFile,
    },
    /// The file is of another kind.
    #[error("is {found}; expected {expected}")]
    ForeignFile {
        /// What it is.
        found: ForeignFile,
        /// What it should be.
        expected: &'static str,
    },
    /// The index names no tensor at all.
    #[error("weight_map is empty")]
    EmptyIndex,
    /// The index names a shard that is not there.
    #[error(
        "names the shard {} (for tensor `{}`), which is not in the directory",
        show::quoted(shard),
        one_line(tensor)
    )]
    MissingShard {
        /// The shard's file name.
        shard: String,
        /// The first tensor it should hold.
        tensor: String,
    },
    /// The index names a shard that is not a plain `.safetensors` file name.
    #[error(
        "tensor `{}`: the shard name {} is not a plain file name ending in .safetensors",
        one_line(tensor),
        show::quoted(shard)
    )]
    BadShardName {
        /// The name.
        shard: String,
        /// The first tensor it should hold.
        tensor: String,
    },
    /// The file ends before its header does.
    #[error("truncated: the header takes {needed} bytes, the file has {found}")]
    TruncatedHeader {
        /// Bytes the header takes, its length field included.
        needed: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The length field asks for an absurd header.
    #[error("the header length {0} is absurd; this is no safetensors file")]
    HeaderTooLarge(u64),
    /// The header is not a JSON object of the safetensors format.
    #[error("header: {}", one_line(.0))]
    BadHeader(String),
    /// The file has more bytes than its tensors.
    #[error("{0} bytes after the last tensor")]
    TrailingBytes(u64),
}

/// Why a tensor was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// `config.json` asks for the tensor, the checkpoint lacks it.
    #[error("missing, but config.json asks for it")]
    Missing,
    /// The checkpoint has the tensor, `config.json` does not ask for it.
    #[error("unexpected: config.json asks for no such tensor")]
    Unexpected,
    /// The shape is not the one that follows from `config.json`.
    #[error("found shape {found:?}, expected {expected:?} from config.json")]
    Shape {
        /// In the file.
        found: Vec<usize>,
        /// From `config.json`.
        expected: Vec<usize>,
    },
    /// The dtype is not one this tensor may have.
    #[error("found dtype {found}, expected {expected}")]
    DType {
        /// In the file.
        found: Dtype,
        /// The dtypes that it may have.
        expected: &'static str,
    },
    /// The tensor belongs to a weight that is quantized in a format that is not supported.
    #[error("belongs to a weight in {0} format, which is not supported; expected F32, BF16, F16 or block FP8")]
    Quantized(&'static str),
    /// An FP8 weight, but `config.json` has no `quantization_config`.
    #[error("is F8_E4M3, but config.json has no quantization_config")]
    UnexpectedFp8,
    /// An FP8 weight without its scales.
    #[error("is F8_E4M3, but its scales `{}` are missing", one_line(.0))]
    MissingScale(String),
    /// Scales of a weight that is not FP8.
    #[error("are the scales of a weight that is {0}, not F8_E4M3")]
    UnexpectedScale(Dtype),
    /// A value that is infinite or NaN.
    #[error("element {element} is not finite ({value})")]
    NonFinite {
        /// Index in row-major order.
        element: usize,
        /// The value.
        value: f32,
    },
    /// A scale that is not positive and finite, or that makes a weight overflow.
    #[error(
        "scale {element} is {}, expected a positive number of at most {}",
        show::number(*value),
        show::number(*max)
    )]
    BadScale {
        /// Index in row-major order.
        element: usize,
        /// The value.
        value: f32,
        /// The largest that keeps the weights finite.
        max: f32,
    },
    /// A value too large for the dtype that it is converted to.
    #[error("element {element} ({}) does not fit in {dtype}", show::number(*value))]
    Overflow {
        /// Index in row-major order.
        element: usize,
        /// The value.
        value: f32,
        /// That dtype.
        dtype: &'static str,
    },
    /// The header's entry is malformed.
    #[error("header entry: {}", one_line(.0))]
    BadEntry(String),
    /// The entry's bytes are not as many as its shape and dtype take.
    #[error("its data_offsets span {found} bytes, its shape and dtype take {expected}")]
    WrongLength {
        /// Bytes between the offsets.
        found: u64,
        /// Bytes of the shape.
        expected: u64,
    },
    /// The tensor ends beyond the end of the file.
    #[error("truncated: its data end at byte {end}, the file has {found}")]
    Truncated {
        /// Byte of the file the tensor ends at.
        end: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The tensor shares bytes with another.
    #[error("overlaps with tensor `{}`", one_line(.0))]
    Overlap(String),
    /// Bytes before the tensor belong to no tensor.
    #[error("{0} unused bytes before its data")]
    Gap(u64),
    /// The index places the tensor in a shard that lacks it.
    #[error("the index places it here, but the shard does not have it")]
    NotInShard,
    /// The tensor is in a shard, but the index does not say so.
    #[error("is in this shard, but the index {}", one_line(.0))]
    NotInIndex(String),
    /// `tie_word_embeddings` is true, yet the head differs from the embedding.
    #[error("differs from model.embed_tokens.weight, but config.json has tie_word_embeddings true")]
    NotTied,
    /// A multi-token-prediction layer follows one that is absent.
    #[error("belongs to an MTP layer, but the MTP layer before it is absent")]
    MtpOrder,
}
