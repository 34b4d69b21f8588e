//! The files of a run: parts that are written whole or not at all, and what is made of them in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::{Result, SynthesisError};
use super::gate::GATES;
use super::make::{Output, Run};

/// Environments of one part.
const PART: u64 = 16;

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

/// What the report counts of a task.
#[derive(Debug, Deserialize)]
struct Counted {
    family: String,
    level: u8,
    split: Option<String>,
    gate: Option<String>,
    shape: Option<String>,
}

/// What the report counts of an environment.
#[derive(Debug, Deserialize)]
struct CountedEnvironment {
    split: String,
    schema_hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tally {
    examined: u64,
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
            "environments": store.run.environments,
            "tasks": store.run.tasks,
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

    fn part(&self, part: u64) -> PathBuf {
        self.folder.join("parts").join(format!("{part:06}.txt"))
    }

    fn parts(&self) -> u64 {
        self.run.environments.div_ceil(PART)
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
        let due: Vec<u64> = (0..self.parts()).filter(|part| part % of == shard).collect();
        due.into_par_iter().try_for_each(|part| {
            let path = self.part(part);
            if resume && path.exists() {
                on_part(&Progress { environments: self.range(part).count() as u64, ..Progress::default() });
                return Ok(());
            }
            let mut text = Vec::new();
            let mut progress = Progress::default();
            for index in self.range(part) {
                let output = self.run.make(index)?;
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

    fn range(&self, part: u64) -> std::ops::Range<u64> {
        part * PART..self.run.environments.min((part + 1) * PART)
    }

    /// Whether every part of the run is there.
    pub fn is_whole(&self) -> bool {
        (0..self.parts()).all(|part| self.part(part).exists())
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
        for part in 0..self.parts() {
            let path = self.part(part);
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
    line("tally", json_line(&Tally { examined: output.examined }));
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

#[derive(Debug, Default)]
struct Counts {
    environments: u64,
    examined: u64,
    tasks: u64,
    families: BTreeMap<String, u64>,
    levels: BTreeMap<u8, u64>,
    splits: BTreeMap<String, (u64, u64)>,
    gates: BTreeMap<String, u64>,
    schemas: std::collections::BTreeSet<String>,
    shapes: std::collections::BTreeSet<String>,
}

impl Counts {
    fn add(&mut self, kind: &str, text: &str) -> serde_json::Result<()> {
        match kind {
            "environment" => {
                let environment: CountedEnvironment = serde_json::from_str(text)?;
                self.environments += 1;
                self.splits.entry(environment.split).or_default().0 += 1;
                self.schemas.insert(environment.schema_hash);
            }
            "tally" => self.examined += serde_json::from_str::<Tally>(text)?.examined,
            _ => {
                let counted: Counted = serde_json::from_str(text)?;
                if let Some(gate) = counted.gate {
                    *self.gates.entry(gate).or_default() += 1;
                } else {
                    self.tasks += 1;
                    *self.families.entry(counted.family).or_default() += 1;
                    *self.levels.entry(counted.level).or_default() += 1;
                    self.splits.entry(counted.split.unwrap_or_default()).or_default().1 += 1;
                    self.shapes.extend(counted.shape);
                }
            }
        }
        Ok(())
    }

    fn report(&self, run: &Run) -> String {
        let mut text = format!(
            "# Synthesis\n\nSeed {}: {} environments with {} schemas, {} tasks with {} shapes, {} drafts at the \
             gates.\n\n## Gates\n\n| gate | rejected |\n|---|---|\n",
            run.seed,
            self.environments,
            self.schemas.len(),
            self.tasks,
            self.shapes.len(),
            self.examined
        );
        // A text always has room for more.
        for gate in GATES {
            let _ = writeln!(text, "| {gate} | {} |", self.gates.get(gate).copied().unwrap_or_default());
        }
        text.push_str("\n## Levels\n\n| level | tasks |\n|---|---|\n");
        for (level, tasks) in &self.levels {
            let _ = writeln!(text, "| {level} | {tasks} |");
        }
        text.push_str("\n## Splits\n\n| split | environments | tasks |\n|---|---|---|\n");
        for (split, (environments, tasks)) in &self.splits {
            let _ = writeln!(text, "| {split} | {environments} | {tasks} |");
        }
        text.push_str("\n## Families\n\n| family | tasks |\n|---|---|\n");
        for (family, tasks) in &self.families {
            let _ = writeln!(text, "| {family} | {tasks} |");
        }
        text
    }
}
