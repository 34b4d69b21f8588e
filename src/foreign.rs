//! Files of formats that this crate does not read, found where a file of a checkpoint is expected.

use std::fmt;

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
    pub(crate) fn of_name(name: &str) -> Option<Self> {
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
