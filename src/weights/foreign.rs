//! Errors that name the format of files and folders that this crate does not read, found where a checkpoint is expected.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{CheckpointProblem, Result, WeightsError};
use crate::foreign::ForeignFile;

/// The error for the file at `path`, if its first bytes are those of a file of another kind.
pub(super) fn check(path: &Path, bytes: &[u8], expected: &'static str) -> Result<()> {
    match ForeignFile::of(bytes) {
        None => Ok(()),
        Some(found) => {
            let problem = CheckpointProblem::ForeignFile { found, expected };
            Err(WeightsError::Checkpoint { path: path.to_path_buf(), problem })
        }
    }
}

/// How many bytes of a file are enough to name its format.
const FIRST_BYTES: u64 = 64;

/// The error for a checkpoint that is no directory, or one with weights of another kind, if either is so.
pub(super) fn check_directory(dir: &Path) -> Result<()> {
    if dir.is_file() {
        let mut bytes = Vec::new();
        // What cannot be read is refused where it is needed.
        let _ = File::open(dir).and_then(|file| file.take(FIRST_BYTES).read_to_end(&mut bytes));
        return check(dir, &bytes, "the folder of a checkpoint in safetensors format");
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let foreign = names.filter_map(|name| ForeignFile::of_name(&name).map(|found| (name, found)));
    match foreign.min_by(|(a, _), (b, _)| a.cmp(b)) {
        None => Ok(()),
        Some((file, found)) => {
            let problem = CheckpointProblem::ForeignWeights { file, found };
            Err(WeightsError::Checkpoint { path: dir.to_path_buf(), problem })
        }
    }
}

/// The format whose tensors have such names, where it is one that is not supported.
pub(super) fn quantization_of(tensor: &str) -> Option<&'static str> {
    match tensor.rsplit_once('.')?.1 {
        "qweight" | "qzeros" => Some("GPTQ or AWQ"),
        "weight_packed" => Some("compressed-tensors"),
        "weight_scale_2" => Some("NVFP4"),
        _ => None,
    }
}
