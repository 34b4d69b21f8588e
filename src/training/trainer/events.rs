//! Event files that TensorBoard reads.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::training::error::{Result, TrainingError};

/// A file of scalars over steps in TensorBoard's format.
///
/// # Source
/// TensorFlow's `event.proto` and `summary.proto`, and its record format: length, its masked CRC-32C, data, the data's.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Makes a file in a folder, for the steps from `step` on: TensorBoard then forgets what earlier files of the folder
    /// say of them.
    ///
    /// # Errors
    /// [`TrainingError::Write`] with the path.
    pub fn create(dir: impl Into<PathBuf>, step: u64) -> Result<Self> {
        let dir = dir.into();
        let seconds = now() as u64;
        let path = dir.join(format!("events.out.tfevents.{seconds}.{}.{step}", std::process::id()));
        let file = fs::create_dir_all(&dir).and_then(|()| File::create(&path));
        let file = file.map_err(|source| TrainingError::Write { path: path.clone(), source })?;
        let mut events = Self { path, file };
        // file_version
        events.record(&event(0, &field(3, b"brain.Event:2")))?;
        // session_log { status: START }
        events.record(&event(step, &field(7, &[0x08, 1])))?;
        Ok(events)
    }

    /// Adds the values of a step by their names.
    ///
    /// # Errors
    /// [`TrainingError::Write`] with the path.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in values {
            // Value { tag, simple_value }
            let mut bytes = field(1, name.as_bytes());
            bytes.push(0x15);
            bytes.extend((*value as f32).to_le_bytes());
            summary.extend(field(1, &bytes));
        }
        self.record(&event(step, &field(5, &summary)))
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut bytes = length.to_vec();
        bytes.extend(masked_crc32c(&length).to_le_bytes());
        bytes.extend(data);
        bytes.extend(masked_crc32c(data).to_le_bytes());
        self.file.write_all(&bytes).map_err(|source| TrainingError::Write { path: self.path.clone(), source })
    }
}

/// An event at this time: `wall_time`, `step` and what it says.
fn event(step: u64, what: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x09];
    bytes.extend(now().to_le_bytes());
    bytes.push(0x10);
    varint(step, &mut bytes);
    bytes.extend(what);
    bytes
}

/// A field of bytes in Protocol Buffers' encoding.
fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    varint(data.len() as u64, &mut bytes);
    bytes.extend(data);
    bytes
}

fn varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The CRC-32C (Castagnoli), turned and shifted as TensorFlow's records have it.
fn masked_crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}
