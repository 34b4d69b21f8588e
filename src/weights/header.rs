//! The header of a safetensors file, validated strictly.
//!
//! A file is an 8-byte little-endian length, that many bytes of JSON, and the tensors' bytes, which the entries must
//! cover exactly: no gap, no overlap, nothing left over.
//!
//! # Source
//! The format section of the safetensors README.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::error::WeightsError;
use super::error::{CheckpointProblem, TensorProblem};
use crate::config::json;
use crate::show::quoted;

/// The longest header accepted, as in the safetensors crate.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The most dimensions accepted.
const MAX_RANK: usize = 8;
const LENGTH_BYTES: usize = 8;

/// Where a tensor is in its file, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, none of them zero.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub start: usize,
    /// One past the last byte, counted from the start of the file.
    pub end: usize,
}

/// A safetensors file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// By name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// Why a header was refused.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderError {
    /// The file as a whole.
    File(CheckpointProblem),
    /// One tensor's entry.
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// Why.
        problem: TensorProblem,
    },
}

impl HeaderError {
    /// The same as the crate's error, about the file at `path`.
    pub fn at(self, path: &Path) -> WeightsError {
        let path = path.to_path_buf();
        match self {
            Self::File(problem) => WeightsError::Checkpoint { path, problem },
            Self::Tensor { tensor, problem } => WeightsError::Tensor { path, tensor, problem },
        }
    }
}

fn tensor_error(tensor: &str, problem: TensorProblem) -> HeaderError {
    HeaderError::Tensor { tensor: tensor.to_string(), problem }
}

fn bad_entry(tensor: &str, message: impl Into<String>) -> HeaderError {
    tensor_error(tensor, TensorProblem::BadEntry(message.into()))
}

/// Reads the header of a safetensors file of `file_len` bytes from its first bytes (the whole file, or at least the
/// header), and checks that the tensors cover the rest of the file exactly.
///
/// # Errors
/// The first thing found wrong, tensors in the order of their data.
pub fn parse_header(bytes: &[u8], file_len: u64) -> Result<Header, HeaderError> {
    let truncated = |needed: u64| HeaderError::File(CheckpointProblem::TruncatedHeader { needed, found: file_len });
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(truncated(LENGTH_BYTES as u64));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(HeaderError::File(CheckpointProblem::HeaderTooLarge(length)));
    }
    // At most MAX_HEADER_BYTES, so neither the sum nor the cast overflows.
    let data_start = LENGTH_BYTES as u64 + length;
    let text = match rest.get(..length as usize) {
        Some(text) if data_start <= file_len => text,
        _ => return Err(truncated(data_start)),
    };
    let bad_header = |message: String| HeaderError::File(CheckpointProblem::BadHeader(message));
    let text = std::str::from_utf8(text).map_err(|_| bad_header("not UTF-8".to_string()))?;
    let value = json::parse(text).map_err(|e| bad_header(format!("invalid JSON: {e}")))?;
    let Value::Object(map) = value else {
        return Err(bad_header(format!("expected a JSON object, found {}", json::describe(&value))));
    };
    let (metadata, mut entries) = read_entries(&map).map_err(|e| e.unwrap_or_else(bad_header))?;
    entries.sort_by_key(|(name, entry)| (entry.begin, entry.end, *name));
    check_coverage(&entries, data_start, file_len)?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        // The whole file is addressable, and the coverage check has bounded every offset by its length.
        let place = |offset: u64| usize::try_from(data_start + offset).map_err(|_| bad_entry(name, "offset too large"));
        let (start, end) = (place(entry.begin)?, place(entry.end)?);
        tensors.insert(name.to_string(), TensorEntry { dtype: entry.dtype, shape: entry.shape, start, end });
    }
    Ok(Header { tensors, metadata })
}

/// An entry as written: offsets count from the end of the header.
struct RawEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    begin: u64,
    end: u64,
}

/// An error about the header as a whole is a plain message.
enum EntryError {
    Header(String),
    Tensor(HeaderError),
}

impl EntryError {
    fn unwrap_or_else(self, header: impl Fn(String) -> HeaderError) -> HeaderError {
        match self {
            Self::Header(message) => header(message),
            Self::Tensor(error) => error,
        }
    }
}

type Entries<'a> = Vec<(&'a str, RawEntry)>;

fn read_entries(map: &Map<String, Value>) -> Result<(BTreeMap<String, String>, Entries<'_>), EntryError> {
    let mut metadata = BTreeMap::new();
    let mut entries = Vec::with_capacity(map.len());
    for (name, value) in map {
        if name == "__metadata__" {
            let Value::Object(pairs) = value else {
                return Err(EntryError::Header("__metadata__ is not an object".to_string()));
            };
            for (key, value) in pairs {
                let Value::String(text) = value else {
                    return Err(EntryError::Header(format!("__metadata__: {} is not a string", quoted(key))));
                };
                metadata.insert(key.clone(), text.clone());
            }
        } else {
            entries.push((name.as_str(), read_entry(name, value).map_err(EntryError::Tensor)?));
        }
    }
    Ok((metadata, entries))
}

fn read_entry(name: &str, value: &Value) -> Result<RawEntry, HeaderError> {
    let Value::Object(map) = value else {
        return Err(bad_entry(name, "not an object"));
    };
    let field = |key: &str| map.get(key).ok_or_else(|| bad_entry(name, format!("{key} is missing")));
    let dtype = field("dtype")?;
    let dtype: Dtype = serde_json::from_value(dtype.clone())
        .map_err(|_| bad_entry(name, format!("unknown dtype {}", json::describe(dtype))))?;
    let numbers = |key: &str| -> Result<Vec<u64>, HeaderError> {
        let not_numbers = || bad_entry(name, format!("{key} is not a list of whole numbers"));
        field(key)?.as_array().and_then(|list| list.iter().map(Value::as_u64).collect()).ok_or_else(not_numbers)
    };
    let dims = numbers("shape")?;
    if dims.len() > MAX_RANK {
        return Err(bad_entry(name, format!("{} dimensions", dims.len())));
    }
    if dims.contains(&0) {
        return Err(bad_entry(name, format!("a dimension of shape {dims:?} is zero")));
    }
    let overflow = || bad_entry(name, format!("shape {dims:?} overflows"));
    let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim)).ok_or_else(overflow)?;
    let bits = elements.checked_mul(dtype.bitsize() as u64).ok_or_else(overflow)?;
    let shape: Vec<usize> =
        dims.iter().map(|dim| usize::try_from(*dim).ok()).collect::<Option<_>>().ok_or_else(overflow)?;
    let &[begin, end] = numbers("data_offsets")?.as_slice() else {
        return Err(bad_entry(name, "data_offsets are not two numbers"));
    };
    let Some(found) = end.checked_sub(begin) else {
        return Err(bad_entry(name, format!("data_offsets [{begin}, {end}] run backwards")));
    };
    let expected = bits.div_ceil(8);
    if found != expected {
        return Err(tensor_error(name, TensorProblem::WrongLength { found, expected }));
    }
    Ok(RawEntry { dtype, shape, begin, end })
}

/// Checks that the entries, sorted by offset, cover the bytes from `data_start` to `file_len` exactly.
fn check_coverage(entries: &[(&str, RawEntry)], data_start: u64, file_len: u64) -> Result<(), HeaderError> {
    let data_len = file_len - data_start;
    let (mut covered, mut last) = (0u64, "");
    for (name, entry) in entries {
        if entry.begin < covered {
            return Err(tensor_error(name, TensorProblem::Overlap(last.to_string())));
        }
        if entry.end > data_len {
            let end = data_start.saturating_add(entry.end);
            return Err(tensor_error(name, TensorProblem::Truncated { end, found: file_len }));
        }
        if entry.begin > covered {
            return Err(tensor_error(name, TensorProblem::Gap(entry.begin - covered)));
        }
        (covered, last) = (entry.end, name);
    }
    match data_len - covered {
        0 => Ok(()),
        unused => Err(HeaderError::File(CheckpointProblem::TrailingBytes(unused))),
    }
}
