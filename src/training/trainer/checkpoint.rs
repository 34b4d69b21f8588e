//! The state of a run on disk: everything that the next step depends on.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, safetensors};
use serde::{Deserialize, Serialize};

use super::{Trainer, TrainerOptions};
use crate::training::error::{Result, TrainingError};
use crate::training::packing::Position;
use crate::weights::{self, Checkpoint, LoadOptions};

/// The version of the format.
const SCHEMA_VERSION: u32 = 1;
const STATE_FILE: &str = "state.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Bytes of a file of weights.
const SHARD_BYTES: u64 = 5 << 30;

/// What is beside the weights and the optimizer's tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schema_version: u32,
    steps: u64,
    position: Position,
    options: TrainerOptions,
}

impl Trainer {
    /// Writes the weights in Hugging Face's format, the optimizer's state and the position in the data to
    /// `DIR/step-NNNNNNNN`, and returns that path. The folder is written under another name and then renamed, so that it
    /// is whole where it is there. Then removes the oldest ones beyond `keep`, at least 1.
    ///
    /// # Errors
    /// [`TrainingError::Write`] names the path that could not be written, as on a full disk; what was there before is as
    /// it was.
    pub fn save(&self, dir: impl AsRef<Path>, keep: usize) -> Result<PathBuf> {
        save_step(dir.as_ref(), self.steps, keep, |temporary| self.write(temporary))
    }

    fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(write_error(dir))?;
        weights::save_variables(dir, self.model.config(), &self.varmap, SHARD_BYTES)?;
        let path = dir.join(OPTIMIZER_FILE);
        let state: HashMap<String, _> = self.optimizer.state()?.into_iter().collect();
        safetensors::save(&state, &path).map_err(|error| write_error(&path)(io::Error::other(error)))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(write_error(&path))?;
        let state = State {
            schema_version: SCHEMA_VERSION,
            steps: self.steps,
            position: self.packer.position(),
            options: self.options.clone(),
        };
        let path = dir.join(STATE_FILE);
        let text = serde_json::to_string_pretty(&state).map_err(|error| write_error(&path)(error.into()))?;
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(write_error(&path))
    }

    /// Goes on from a checkpoint that [`Self::save`] wrote: the next steps have the bits that they would have had. The
    /// trainer must have been made with the same config, examples and number of ranks.
    ///
    /// # Errors
    /// [`TrainingError::Read`] and [`TrainingError::State`] name the file and what is wrong with it: another version,
    /// optimizer or packing, or tensors of another model. The trainer is of no use then.
    pub fn resume(&mut self, checkpoint: impl AsRef<Path>) -> Result<()> {
        let dir = checkpoint.as_ref();
        let path = dir.join(STATE_FILE);
        let fault = |problem: String| TrainingError::State { path: path.clone(), problem };
        let text = fs::read_to_string(&path).map_err(|source| TrainingError::Read { path: path.clone(), source })?;
        let state: State = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        if state.schema_version != SCHEMA_VERSION {
            return Err(fault(format!("schema_version is {}, expected {SCHEMA_VERSION}", state.schema_version)));
        }
        let (own, its) = (&self.options, &state.options);
        for (name, same) in [
            ("optimizer", std::mem::discriminant(&own.optimizer) == std::mem::discriminant(&its.optimizer)),
            ("packing", own.packing == its.packing),
            ("objective.stage", own.objective.stage == its.objective.stage),
            ("batches_per_step", own.batches_per_step == its.batches_per_step),
        ] {
            if !same {
                return Err(fault(format!("{name} is not that of this run")));
            }
        }
        let options = LoadOptions { device: self.model.device().clone(), ..LoadOptions::default() };
        Checkpoint::open(dir)?.load_variables(&self.varmap, &options, |_| ())?;
        let optimizer = dir.join(OPTIMIZER_FILE);
        let tensors = safetensors::load(&optimizer, &Device::Cpu);
        let tensors =
            tensors.map_err(|error| TrainingError::State { path: optimizer.clone(), problem: error.to_string() })?;
        let place = |(name, tensor): (String, candle_core::Tensor)| Ok((name, tensor.to_device(self.model.device())?));
        let tensors: HashMap<_, _> = tensors.into_iter().map(place).collect::<Result<_>>()?;
        self.optimizer.load_state(&tensors)?;
        self.packer.seek(state.position)?;
        self.steps = state.steps;
        Ok(())
    }
}

/// Has `write` fill a folder under another name, renames it to `DIR/step-NNNNNNNN`, which is returned, and removes the
/// oldest checkpoints beyond `keep`, at least 1.
pub(crate) fn save_step<E: From<TrainingError>>(
    dir: &Path,
    steps: u64,
    keep: usize,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<PathBuf, E> {
    let path = dir.join(format!("step-{steps:08}"));
    let temporary = dir.join(format!(".step-{steps:08}.{}.tmp", std::process::id()));
    let written = write(&temporary).and_then(|()| {
        // Left behind by a run that had come as far and was then resumed from an earlier step.
        if path.exists() {
            fs::remove_dir_all(&path).map_err(write_error(&path))?;
        }
        Ok(fs::rename(&temporary, &path).map_err(write_error(&path))?)
    });
    if let Err(error) = written {
        // What cannot be removed stays under its temporary name.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let mut whole = checkpoints(dir)?;
    whole.sort();
    for (_, old) in whole.iter().rev().skip(keep.max(1)) {
        fs::remove_dir_all(old).map_err(write_error(old))?;
    }
    Ok(path)
}

/// The whole checkpoint of the most steps in a folder; `None` if there is none, or no folder.
///
/// # Errors
/// [`TrainingError::Read`] if the folder cannot be read.
pub fn latest_checkpoint(dir: impl AsRef<Path>) -> Result<Option<PathBuf>> {
    Ok(checkpoints(dir.as_ref())?.into_iter().max().map(|(_, path)| path))
}

/// Whole checkpoints with their steps.
fn checkpoints(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let read_error = |source| TrainingError::Read { path: dir.to_path_buf(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let steps = name.strip_prefix("step-").and_then(|digits| digits.parse().ok());
        if let Some(steps) = steps.filter(|_| path.join(STATE_FILE).is_file()) {
            found.push((steps, path));
        }
    }
    Ok(found)
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> TrainingError {
    move |source| TrainingError::Write { path: path.to_path_buf(), source }
}
