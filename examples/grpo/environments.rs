//! The tasks of a run, by number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use deepseek_v32::chat::{Json, Message, Tool};
use deepseek_v32::environment::{Environment, Ledger, ToolFailure, Verdict};
use deepseek_v32::error::one_line_path;
use deepseek_v32::rl::Tasks;
use deepseek_v32::synthesis::each_record;
use deepseek_v32::synthesis::record::{EnvironmentRecord, TaskRecord};
use deepseek_v32::synthesis::split::Split;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// Where tasks come from: one of `ledger`, `tasks` and `synthesized`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Transfers between accounts, as many as this in a task. There is no end of these tasks.
    ledger: Option<usize>,
    /// A file of questions, as `distill` takes.
    tasks: Option<PathBuf>,
    /// A folder that `synthesize` made.
    synthesized: Option<PathBuf>,
    /// The split of a synthesized folder.
    #[serde(default = "train")]
    split: Split,
    /// The highest level of synthesized tasks.
    level: Option<u8>,
    /// The domain of the tasks, instead of their own.
    domain: Option<String>,
    /// How many of its tasks come in turn, before those of the next source.
    #[serde(default = "one")]
    share: u64,
    /// Decides ledgers and the order of all other tasks.
    #[serde(default)]
    seed: u64,
}

fn train() -> Split {
    Split::Train
}

fn one() -> u64 {
    1
}

type Boxed = Box<dyn Environment>;

impl Source {
    pub fn path_mut(&mut self) -> Option<&mut PathBuf> {
        self.tasks.as_mut().or(self.synthesized.as_mut())
    }

    /// The task of each number.
    fn open(&self) -> Result<Box<dyn Fn(u64) -> Boxed + Send>> {
        ensure!(self.share > 0, "share is 0, expected at least 1");
        let (seed, domain) = (self.seed, self.domain.clone());
        let tasks = match (self.ledger, &self.tasks, &self.synthesized) {
            (Some(transfers), None, None) => {
                let named =
                    move |number: u64| named(Box::new(Ledger::new(seed.wrapping_add(number), transfers)), &domain);
                return Ok(Box::new(named));
            }
            (None, Some(path), None) => super::questions::read(&path.to_string_lossy(), seed)?,
            (None, None, Some(dir)) => synthesized(dir, self.split, self.level)?,
            _ => bail!("expected one of ledger, tasks and synthesized"),
        };
        // A list is gone through again and again, each time in another order.
        let length = tasks.len() as u64;
        Ok(Box::new(move |number| {
            let mut order: Vec<usize> = (0..tasks.len()).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed ^ (number / length).rotate_left(32)));
            named(tasks[order[(number % length) as usize]].fork(), &domain)
        }))
    }
}

/// The tasks of all sources in turn.
pub fn open(sources: &[Source]) -> Result<Tasks> {
    ensure!(!sources.is_empty(), "[[environments]]: there is none");
    let opened = sources.iter().enumerate().map(|(at, source)| {
        let tasks = source.open().with_context(|| format!("environments[{at}]"))?;
        Ok((source.share, tasks))
    });
    let opened = opened.collect::<Result<Vec<_>>>()?;
    let round: u64 = opened.iter().map(|(share, _)| share).sum();
    Ok(Box::new(move |number| {
        let (rounds, mut place) = (number / round, number % round);
        for (share, tasks) in &opened {
            if place < *share {
                return Some(tasks(rounds * share + place));
            }
            place -= share;
        }
        None
    }))
}

/// The tasks of a run of the synthesis.
fn synthesized(dir: &Path, split: Split, level: Option<u8>) -> Result<Vec<Boxed>> {
    let mut environments = BTreeMap::new();
    each_record::<EnvironmentRecord>(&dir.join("envs.jsonl"), |record| {
        let opened = record.content.open()?;
        environments.insert(record.id, opened);
        Ok(())
    })?;
    let mut records = Vec::new();
    each_record::<TaskRecord>(&dir.join("tasks.jsonl"), |record| {
        if record.split == split && level.is_none_or(|level| record.level <= level) {
            records.push(record);
        }
        Ok(())
    })?;
    let world = |task: TaskRecord| -> Result<Boxed> {
        let of = environments.get(&task.environment);
        let of = of.with_context(|| format!("{}: envs.jsonl lacks its environment", task.id))?;
        let world = of.world(&task).with_context(|| task.id.clone())?;
        Ok(named(world, &Some(task.family)))
    };
    let tasks = records.into_iter().map(world).collect::<Result<Vec<_>>>()?;
    ensure!(!tasks.is_empty(), "{}: no task of this split and level", one_line_path(dir));
    Ok(tasks)
}

/// A task under the domain that the file gives it.
fn named(task: Boxed, domain: &Option<String>) -> Boxed {
    match domain {
        Some(domain) => Box::new(Named { task, domain: domain.clone() }),
        None => task,
    }
}

struct Named {
    task: Boxed,
    domain: String,
}

impl Environment for Named {
    fn id(&self) -> &str {
        self.task.id()
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn reset(&mut self) -> Vec<Message> {
        self.task.reset()
    }

    fn tools(&self) -> Vec<Tool> {
        self.task.tools()
    }

    fn step(&mut self, tool: &str, arguments: &Json) -> std::result::Result<String, ToolFailure> {
        self.task.step(tool, arguments)
    }

    fn verify(&self, answer: Option<&Message>) -> Verdict {
        self.task.verify(answer)
    }

    fn fork(&self) -> Boxed {
        Box::new(Self { task: self.task.fork(), domain: self.domain.clone() })
    }
}
