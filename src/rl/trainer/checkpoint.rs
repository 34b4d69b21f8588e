//! The state of a run on disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, safetensors};
use serde::{Deserialize, Serialize};

use super::{GrpoOptions, GrpoTrainer, Reference};
use crate::rl::error::Result;
use crate::training::{TrainingError, save_step};
use crate::weights::{self, Checkpoint, DEFAULT_SHARD_BYTES, LoadOptions};

/// The version of the format.
const SCHEMA_VERSION: u32 = 1;
const STATE_FILE: &str = "state.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const REFERENCE_FILE: &str = "reference.safetensors";

/// What is beside the tensors. The seeds of episodes follow from the options and the group's number, so that no random
/// numbers have a state.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schema_version: u32,
    steps: u64,
    next_task: u64,
    next_group: u64,
    options: GrpoOptions,
}

impl GrpoTrainer {
    /// Writes the weights in Hugging Face's format, the optimizer's state, the reference and the position in the tasks to
    /// `DIR/step-NNNNNNNN`, and returns that path. The folder is written under another name and then renamed, so that it is
    /// whole where it is there. Then removes the oldest ones beyond `keep`, at least 1.
    /// [`latest_checkpoint`](crate::training::latest_checkpoint) finds the last one.
    ///
    /// # Errors
    /// [`TrainingError::Write`] names the path that could not be written, as on a full disk; what was there before is as
    /// it was.
    pub fn save(&self, dir: impl AsRef<Path>, keep: usize) -> Result<PathBuf> {
        save_step(dir.as_ref(), self.steps, keep, |temporary| self.write(temporary))
    }

    fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(write_error(dir))?;
        let saved = weights::save_variables(dir, self.model.config(), &self.varmap, DEFAULT_SHARD_BYTES);
        saved.map_err(TrainingError::from)?;
        write_tensors(&dir.join(OPTIMIZER_FILE), &self.optimizer.state()?.into_iter().collect())?;
        if let Some(reference) = &self.reference {
            write_tensors(&dir.join(REFERENCE_FILE), &reference.weights)?;
        }
        let state = State {
            schema_version: SCHEMA_VERSION,
            steps: self.steps,
            next_task: self.next_task,
            next_group: self.next_group,
            options: self.options.clone(),
        };
        let path = dir.join(STATE_FILE);
        let text = serde_json::to_string_pretty(&state).map_err(|error| write_error(&path)(error.into()))?;
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        Ok(write().map_err(write_error(&path))?)
    }

    /// Goes on from a checkpoint that [`Self::save`] wrote: the next steps have the bits that they would have had. The
    /// trainer must have been made with the same config, options, tasks and rewards; another `schedule` is allowed.
    ///
    /// # Errors
    /// [`TrainingError::Read`] and [`TrainingError::State`] name the file and what is wrong with it. The trainer is of no use
    /// then.
    pub fn resume(&mut self, checkpoint: impl AsRef<Path>) -> Result<()> {
        let dir = checkpoint.as_ref();
        let path = dir.join(STATE_FILE);
        let fault = |problem: String| TrainingError::State { path: path.clone(), problem };
        let text = fs::read_to_string(&path).map_err(|source| TrainingError::Read { path: path.clone(), source })?;
        let state: State = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        if state.schema_version != SCHEMA_VERSION {
            return Err(fault(format!("schema_version is {}, expected {SCHEMA_VERSION}", state.schema_version)).into());
        }
        let own = GrpoOptions { schedule: state.options.schedule, ..self.options.clone() };
        if own != state.options {
            return Err(fault("options are not those of this run".to_string()).into());
        }
        let options = LoadOptions { device: self.model.device().clone(), ..LoadOptions::default() };
        let checkpoint = Checkpoint::open(dir).map_err(TrainingError::from)?;
        checkpoint.load_variables(&self.varmap, &options, |_| ()).map_err(TrainingError::from)?;
        self.optimizer.load_state(&read_tensors(&dir.join(OPTIMIZER_FILE), self.model.device())?)?;
        if self.reference.is_some() {
            let weights = read_tensors(&dir.join(REFERENCE_FILE), self.model.device())?;
            let model = self.frozen(&weights)?;
            self.reference = Some(Reference { weights, model });
        }
        (self.steps, self.next_task, self.next_group) = (state.steps, state.next_task, state.next_group);
        self.publish()?;
        Ok(())
    }
}

fn write_tensors(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<()> {
    safetensors::save(tensors, path).map_err(|error| write_error(path)(io::Error::other(error)))?;
    Ok(File::open(path).and_then(|file| file.sync_all()).map_err(write_error(path))?)
}

fn read_tensors(path: &Path, device: &Device) -> Result<HashMap<String, Tensor>> {
    let fault =
        |error: candle_core::Error| TrainingError::State { path: path.to_path_buf(), problem: error.to_string() };
    Ok(safetensors::load(path, device).map_err(fault)?)
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> TrainingError {
    move |source| TrainingError::Write { path: path.to_path_buf(), source }
}
