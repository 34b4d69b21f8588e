//! `--tracing`: spans into a file for chrome://tracing.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use deepseek_v32::error::one_line_path;
use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::prelude::*;

/// A trace being written.
pub struct TraceFile {
    path: PathBuf,
    guard: FlushGuard,
    failure: Failure,
}

/// Why a trace could not be written, once that is known.
type Failure = Arc<Mutex<Option<io::Error>>>;

impl TraceFile {
    /// Collects spans into `path` from now on. A file that is there is refused, unless `overwrite` is set; a device or a
    /// pipe is written to.
    pub fn start(path: &Path, overwrite: bool, checkpoint: &Path) -> Result<Self> {
        crate::common::refuse_checkpoint_file("--tracing", path, checkpoint)?;
        let replaces = overwrite || path.metadata().is_ok_and(|found| !found.is_file());
        let file = if replaces { File::create(path) } else { File::create_new(path) };
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow!("the file exists; --overwrite lets --tracing write over it"),
            _ => error.into(),
        });
        let file = file.with_context(|| one_line_path(path))?;
        let failure = Failure::default();
        let (layer, guard) = ChromeLayerBuilder::new().writer(Patient { file, failure: failure.clone() }).build();
        tracing_subscriber::registry().with(layer).init();
        Ok(Self { path: path.to_path_buf(), guard, failure })
    }

    /// Writes what is left.
    pub fn finish(self) -> Result<()> {
        // Waits for the thread that writes.
        drop(self.guard);
        let failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        failure.map_or(Ok(()), |error| Err(error).with_context(|| one_line_path(&self.path)))
    }
}

/// A file that keeps its first error to itself, for the thread of `tracing_chrome` panics at any.
struct Patient {
    file: File,
    failure: Failure,
}

impl Patient {
    fn attempt(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if failure.is_none() {
            *failure = write(&mut self.file).err();
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|file| file.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(File::flush);
        Ok(())
    }
}
