//! Files of formats that this crate does not read, found where a checkpoint is expected; errors name the format.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{CheckpointProblem, Result, WeightsError};

/// A file that is none of a checkpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForeignFile {
    /// A few lines of text that stand for a file which Git LFS has not fetched.
    LfsPointer,
    /// Weights for llama.cpp.
    Gguf,
    /// Weights that `torch.save` wrote.
    PyTorch,
    /// A web page, saved in place of a file.
    Html,
}

/// How many bytes of a file are enough to name its format.
const FIRST_BYTES: u64 = 64;

impl ForeignFile {
    /// What the file with these first bytes is; `None` if it is nothing that is known here.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let starts =
            |text: &str| bytes.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()));
        match () {
            () if starts("version https://git-lfs") => Some(Self::LfsPointer),
            () if starts("GGUF") => Some(Self::Gguf),
            // A zip archive, which no header's length can begin like, or a pickle of protocol 2 with PyTorch's number.
            () if starts("PK\x03\x04") && bytes.get(4..8) != Some(&[0; 4]) => Some(Self::PyTorch),
            () if bytes.starts_with(b"\x80\x02\x8a\x0a") => Some(Self::PyTorch),
            () if starts("<!doctype html") || starts("<html") => Some(Self::Html),
            () => None,
        }
    }

    /// What a file with this name holds, by its ending.
    fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "gguf" => Some(Self::Gguf),
            "bin" | "pt" | "pth" => Some(Self::PyTorch),
            _ => None,
        }
    }
}

impl fmt::Display for ForeignFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LfsPointer => "a Git LFS pointer (`git lfs pull` fetches the file that it stands for)",
            Self::Gguf => "a GGUF file, which is not supported",
            Self::PyTorch => "a PyTorch file, which is not supported",
            Self::Html => "a web page",
        })
    }
}

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
