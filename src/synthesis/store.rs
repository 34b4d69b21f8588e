//! The files of a run: parts that are written whole or not at all, and what is made of them in the end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::category::Category;
use super::error::{Result, SynthesisError};
use super::report::Counts;
use super::run::{Output, Run, Size};

/// A run with its folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    run: Run,
}

/// What a run has made so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Environments made.
    pub environments: u64,
    /// Tasks made.
    pub tasks: u64,
    /// Tasks rejected.
    pub rejects: u64,
}

/// What a part has besides records.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// The category.
    pub category: Category,
    /// How many tasks came to the gates.
    pub examined: u64,
}

/// Environments of one category that are made and written together.
struct Part {
    category: Category,
    number: u64,
    range: Range<u64>,
}

impl Store {
    /// A run in a folder, which is made if it isn't there.
    ///
    /// # Errors
    /// The folder can't be made, or holds another run.
    pub fn open(folder: impl Into<PathBuf>, run: Run) -> Result<Self> {
        let store = Self { folder: folder.into(), run };
        let parts = store.folder.join("parts");
        fs::create_dir_all(&parts).map_err(SynthesisError::file(&parts))?;
        let families: Vec<&str> = store.run.families.iter().map(|family| family.name).collect();
        let settings = json!({
            "schema_version": super::record::SCHEMA_VERSION,
            "seed": store.run.seed,
            "plan": store.run.plan,
            "levels": [store.run.levels.start(), store.run.levels.end()],
            "families": families,
        });
        let path = store.folder.join("run.json");
        let text = format!("{settings:#}\n");
        match fs::read_to_string(&path) {
            Ok(found) if found == text => {}
            Ok(_) => {
                let problem = "the folder holds a run with other settings".to_string();
                return Err(SynthesisError::Content { path, problem });
            }
            Err(_) => write_whole(&path, text.as_bytes())?,
        }
        Ok(store)
    }

    fn path(&self, part: &Part) -> PathBuf {
        self.folder.join("parts").join(format!("{}-{:06}.txt", part.category, part.number))
    }

    /// The parts of the run, in the order of its records.
    fn parts(&self) -> Vec<Part> {
        let of_category = |(category, size): (Category, Size)| {
            let count = category.part();
            (0..size.environments.div_ceil(count)).map(move |number| {
                let range = number * count..size.environments.min((number + 1) * count);
                Part { category, number, range }
            })
        };
        self.run.plan.iter().flat_map(of_category).collect()
    }

    /// Makes the parts of a shard: every `of`-th one, from `shard` on. With `resume`, parts that are there stay.
    /// `on_part` is told of every part as it ends.
    ///
    /// # Errors
    /// There is no such shard, an environment can't be made, or a file can't be written.
    pub fn make(&self, (shard, of): (u64, u64), resume: bool, on_part: &(dyn Fn(&Progress) + Sync)) -> Result<()> {
        if shard >= of {
            let expected = format!("less than the {of} shards");
            return Err(SynthesisError::Value { what: "the shard", expected, got: shard.to_string() });
        }
        let due: Vec<Part> =
            (0..).zip(self.parts()).filter(|(at, _): &(u64, _)| at % of == shard).map(|(_, part)| part).collect();
        due.into_par_iter().try_for_each(|part| {
            let path = self.path(&part);
            if resume && path.exists() {
                on_part(&Progress { environments: part.range.end - part.range.start, ..Progress::default() });
                return Ok(());
            }
            let mut text = Vec::new();
            let mut progress = Progress::default();
            for index in part.range {
                let output = self.run.make(part.category, index)?;
                progress.environments += 1;
                progress.tasks += output.tasks.len() as u64;
                progress.rejects += output.rejects.len() as u64;
                lines(&output, &mut text);
            }
            write_whole(&path, &text)?;
            on_part(&progress);
            Ok(())
        })
    }

    /// Whether every part of the run is there.
    pub fn is_whole(&self) -> bool {
        self.parts().iter().all(|part| self.path(part).exists())
    }

    /// Writes `envs.jsonl`, `tasks.jsonl`, `rejects.jsonl` and `report.md` from the parts, and returns the report.
    ///
    /// # Errors
    /// A part is missing or is no part, or a file can't be written.
    pub fn merge(&self) -> Result<String> {
        let names = ["environment", "task", "reject"];
        let files = ["envs.jsonl", "tasks.jsonl", "rejects.jsonl"].map(|name| self.folder.join(name));
        let mut writers = Vec::new();
        for path in &files {
            let path = path.with_extension("jsonl.tmp");
            writers.push(BufWriter::new(File::create(&path).map_err(SynthesisError::file(&path))?));
        }
        let mut counts = Counts::default();
        for part in self.parts() {
            let path = self.path(&part);
            let reader = BufReader::new(File::open(&path).map_err(SynthesisError::file(&path))?);
            for line in reader.lines() {
                let line = line.map_err(SynthesisError::file(&path))?;
                let bad = |problem: String| SynthesisError::Content { path: path.clone(), problem };
                let (kind, text) = line.split_once('\t').ok_or_else(|| bad("a line has no kind".to_string()))?;
                counts.add(kind, text).map_err(|error| bad(error.to_string()))?;
                let Some(at) = names.iter().position(|name| *name == kind) else { continue };
                writeln!(writers[at], "{text}").map_err(SynthesisError::file(&files[at]))?;
            }
        }
        for (mut writer, path) in writers.into_iter().zip(&files) {
            writer.flush().map_err(SynthesisError::file(path))?;
            writer.get_ref().sync_all().map_err(SynthesisError::file(path))?;
            fs::rename(path.with_extension("jsonl.tmp"), path).map_err(SynthesisError::file(path))?;
        }
        let report = counts.report(&self.run);
        write_whole(&self.folder.join("report.md"), report.as_bytes())?;
        Ok(report)
    }
}

/// The lines of a part.
fn lines(output: &Output, text: &mut Vec<u8>) {
    let mut line = |kind: &str, json: String| text.extend_from_slice(format!("{kind}\t{json}\n").as_bytes());
    line("environment", json_line(&output.environment));
    output.tasks.iter().for_each(|task| line("task", json_line(task)));
    output.rejects.iter().for_each(|reject| line("reject", json_line(reject)));
    let tally = Tally { category: output.environment.category, examined: output.examined };
    line("tally", json_line(&tally));
}

/// A record as it is written. Records are made of texts and whole numbers, which always have a form in JSON.
fn json_line(record: &impl Serialize) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

/// Writes a file under another name and renames it: where it is, it is whole.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(SynthesisError::file(path))
}
