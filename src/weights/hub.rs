//! Checkpoints from the Hugging Face hub.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hf_hub::HFClientSync;
use hf_hub::progress::{DownloadEvent, FileStatus, ProgressEvent, ProgressHandler};

use super::error::{Result, WeightsError};

/// The files of a repository that are fetched.
const FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tiktoken.model",
    "chat_template.*",
    "special_tokens_map.json",
    "*.safetensors",
    "*.index.json",
];

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    /// Files to fetch.
    pub files_total: usize,
    /// Bytes fetched or found in the cache.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
}

/// Fetches the checkpoint `repo` (`owner/name`) at `revision` (a branch, tag or commit; the main branch if `None`) into
/// the hub's cache and returns the directory, to be opened with [`Checkpoint::open`](super::Checkpoint::open). Files
/// in the cache are not fetched again.
///
/// The environment variables `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` and `HF_ENDPOINT` work as usual; if
/// `HF_HUB_OFFLINE` is set, the cache alone is used. `progress` is called from other threads, one at a time, with byte
/// counts that only grow.
///
/// # Errors
/// [`WeightsError::Hub`] for a malformed name, a repository or revision that does not exist, or a failed transfer.
pub fn download(
    repo: &str,
    revision: Option<&str>,
    progress: impl Fn(DownloadProgress) + Send + Sync + 'static,
) -> Result<PathBuf> {
    let error = |message: String| WeightsError::Hub { repo: repo.to_string(), message };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let (owner, name) = repo
        .split_once('/')
        .filter(|(owner, name)| plain(owner) && plain(name))
        .ok_or_else(|| error("expected owner/name".to_string()))?;
    let client = HFClientSync::new().map_err(|e| error(one_line(&e)))?;
    let handler: Arc<dyn ProgressHandler> = Arc::new(Tracker { report: progress, state: Mutex::default() });
    client
        .model(owner, name)
        .snapshot_download()
        .maybe_revision(revision.map(str::to_string))
        .allow_patterns(FILES.map(str::to_string).to_vec())
        .local_files_only(offline(std::env::var("HF_HUB_OFFLINE").ok().as_deref()))
        .progress(handler)
        .send()
        .map_err(|e| error(one_line(&e)))
}

/// Whether `HF_HUB_OFFLINE` asks for the cache alone, by the rule of the Python client.
fn offline(value: Option<&str>) -> bool {
    value.is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Adds up the hub client's events, which report changed files only.
struct Tracker<F> {
    report: F,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files_total: usize,
    bytes_total: u64,
    bytes_done: u64,
    by_file: BTreeMap<String, u64>,
}

impl<F: Fn(DownloadProgress) + Send + Sync> ProgressHandler for Tracker<F> {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let done = match event {
            DownloadEvent::Start { total_files, total_bytes } => {
                (state.files_total, state.bytes_total) = (*total_files, *total_bytes);
                0
            }
            DownloadEvent::Progress { files } => {
                for file in files {
                    let complete = file.status == FileStatus::Complete;
                    let bytes = if complete { file.total_bytes } else { file.bytes_completed };
                    state.by_file.insert(file.filename.clone(), bytes);
                }
                state.by_file.values().sum()
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => *bytes_completed,
            DownloadEvent::Complete => state.bytes_total,
        };
        state.bytes_done = state.bytes_done.max(done.min(state.bytes_total));
        let State { files_total, bytes_done, bytes_total, .. } = *state;
        (self.report)(DownloadProgress { files_total, bytes_done, bytes_total });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_be_owner_and_name() {
        for repo in ["", "name", "/name", "owner/", "a/b/c", "../x", "a/..", "a b/c", "a/b?x"] {
            let error = download(repo, None, |_| {}).unwrap_err().to_string();
            assert!(error.contains("expected owner/name"), "{error}");
        }
    }

    #[test]
    fn offline_follows_the_python_client() {
        for (value, expected) in
            [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true), (Some("TRUE"), true)]
        {
            assert_eq!(offline(value), expected);
        }
    }

    #[test]
    fn progress_adds_files_up_and_only_grows() {
        use hf_hub::progress::FileProgress;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let report = move |p: DownloadProgress| sink.lock().unwrap().push(p.bytes_done);
        let tracker = Tracker { report, state: Mutex::default() };
        let file = |name: &str, bytes_completed, status| FileProgress {
            filename: name.to_string(),
            bytes_completed,
            total_bytes: 50,
            status,
        };
        for event in [
            DownloadEvent::Start { total_files: 2, total_bytes: 100 },
            DownloadEvent::Progress { files: vec![file("a", 10, FileStatus::InProgress)] },
            DownloadEvent::Progress { files: vec![file("b", 20, FileStatus::InProgress)] },
            DownloadEvent::AggregateProgress { bytes_completed: 5, total_bytes: 50, bytes_per_sec: None },
            DownloadEvent::Progress { files: vec![file("a", 0, FileStatus::Complete)] },
            DownloadEvent::Complete,
        ] {
            tracker.on_progress(&ProgressEvent::Download(event));
        }
        assert_eq!(*seen.lock().unwrap(), [0, 10, 30, 30, 70, 100]);
    }
}
