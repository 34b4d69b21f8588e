//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::error::{CheckpointProblem, WeightsError};
use crate::config::json;
use crate::show::one_line;

/// A sharded checkpoint's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Tensor name to the shard's file name.
    pub weight_map: BTreeMap<String, String>,
}

/// Why an index was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexError {
    /// It is not the JSON it should be.
    Json(String),
    /// It names something impossible.
    Problem(CheckpointProblem),
}

impl IndexError {
    /// The same as the crate's error, about the file at `path`.
    pub fn at(self, path: &Path) -> WeightsError {
        let path = path.to_path_buf();
        match self {
            Self::Json(message) => WeightsError::Json { path, message },
            Self::Problem(problem) => WeightsError::Checkpoint { path, problem },
        }
    }
}

/// Reads the text of a `model.safetensors.index.json`.
///
/// # Errors
/// If it is not an object with a `weight_map` of names to plain `.safetensors` file names: a shard name with a
/// directory in it could reach outside the checkpoint.
pub fn parse_index(text: &str) -> Result<Index, IndexError> {
    let value = json::parse(json::without_bom(text)).map_err(|e| IndexError::Json(format!("invalid JSON: {e}")))?;
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(IndexError::Json("`weight_map`: expected an object".to_string()));
    };
    if map.is_empty() {
        return Err(IndexError::Problem(CheckpointProblem::EmptyIndex));
    }
    let mut weight_map = BTreeMap::new();
    for (tensor, shard) in map {
        let Value::String(shard) = shard else {
            let found = json::describe(shard);
            return Err(IndexError::Json(format!(
                "`weight_map`: `{}`: expected a file name, found {found}",
                one_line(tensor)
            )));
        };
        if !is_plain_shard_name(shard) {
            let (shard, tensor) = (shard.clone(), tensor.clone());
            return Err(IndexError::Problem(CheckpointProblem::BadShardName { shard, tensor }));
        }
        weight_map.insert(tensor.clone(), shard.clone());
    }
    Ok(Index { weight_map })
}

fn is_plain_shard_name(name: &str) -> bool {
    let plain = |c: char| !matches!(c, '/' | '\\' | ':') && !c.is_control();
    name.strip_suffix(".safetensors").is_some_and(|stem| !stem.is_empty()) && name.chars().all(plain)
}
