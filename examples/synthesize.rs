//! Makes environments and verified tasks for agents from a seed, without a model.
//!
//! ```bash
//! cargo run --release --example synthesize -- --out DIR                                      # the whole run
//! cargo run --release --example synthesize -- --out DIR --tasks 2000                         # a part of it
//! cargo run --release --example synthesize -- --out DIR --categories general --envs 100 --tasks 400
//! cargo run --release --example synthesize -- --out DIR --tasks 2000 --shard 0/2   # on one machine
//! cargo run --release --example synthesize -- --out DIR --tasks 2000 --shard 1/2   # on another
//! cargo run --release --example synthesize -- --export python --from DIR --sample 12 --out TASKS
//! ```
//!
//! `DIR` gets `envs.jsonl`, `tasks.jsonl`, `rejects.jsonl` and `report.md` once all parts of the run are in `DIR/parts`.

#[allow(dead_code)] // other examples use the rest
mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use deepseek_v32::synthesis::family::{FAMILIES, family};
use deepseek_v32::synthesis::{Category, Plan, Progress, Run, Store, export_python};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Python,
}

#[derive(Debug, Parser)]
#[command(about = "Makes environments and verified tasks for agents")]
struct Args {
    /// The folder of the run, or of the export.
    #[arg(long)]
    out: PathBuf,
    /// The categories, with commas between them. Default: all.
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// Environments of the general category; those of the others follow in proportion. Default: as many as go with the
    /// tasks, 1827 in a whole run.
    #[arg(long)]
    envs: Option<u64>,
    /// Tasks of all chosen categories. Default: as many as go with the environments, or a whole run.
    #[arg(long)]
    tasks: Option<u64>,
    /// The seed; the same one gives the same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The part of the run to make, as i/n with i from 0.
    #[arg(long, default_value = "0/1")]
    shard: String,
    /// Families of the general category, with commas between them. Default: all.
    #[arg(long, value_delimiter = ',')]
    families: Vec<String>,
    /// The levels of the tasks, from 1 to 5.
    #[arg(long, default_value = "1-5")]
    levels: String,
    /// Keep the parts that are there.
    #[arg(long)]
    resume: bool,
    /// Write tasks of a run as folders for another language.
    #[arg(long, requires = "from")]
    export: Option<Format>,
    /// The run's folder, for an export.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Tasks of an export.
    #[arg(long, default_value_t = 100)]
    sample: usize,
}

fn main() -> ExitCode {
    common::start(synthesize)
}

fn synthesize(args: Args) -> Result<()> {
    if let (Some(Format::Python), Some(from)) = (args.export, &args.from) {
        let count = export_python(from, args.sample, args.seed, &args.out)?;
        println!("{count} tasks in {}", args.out.display());
        return Ok(());
    }
    let mut families = Vec::new();
    for name in &args.families {
        families.push(family(name).with_context(|| {
            let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
            format!("there is no family {name:?}; there are {}", known.join(", "))
        })?);
    }
    if families.is_empty() {
        families = FAMILIES.to_vec();
    }
    let (low, high) = pair(&args.levels, '-').context("--levels is two numbers, such as 1-5")?;
    let (shard, of) = pair(&args.shard, '/').context("--shard is two numbers, such as 0/4")?;
    if !(1..=high).contains(&low) || high > 5 {
        bail!("--levels is {}, expected levels from 1 to 5", args.levels);
    }
    let levels = u8::try_from(low)?..=u8::try_from(high)?;
    let mut categories = Vec::new();
    for name in &args.categories {
        categories.push(Category::from_name(name).with_context(|| {
            let known: Vec<&str> = Category::ALL.into_iter().map(Category::name).collect();
            format!("there is no category {name:?}; there are {}", known.join(", "))
        })?);
    }
    if categories.is_empty() {
        categories = Category::ALL.to_vec();
    }
    let plan = Plan::scaled(&categories, args.envs, args.tasks);
    let environments = plan.environments();
    let run = Run { seed: args.seed, plan, levels, families };
    let store = Store::open(&args.out, run)?;
    let bar = ProgressBar::new(environments / of.max(1))
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} environments, {msg}, {elapsed}, {eta} left")?);
    let (begin, sum) = (Instant::now(), Mutex::new(Progress::default()));
    store.make((shard, of), args.resume, &|part| {
        let Ok(mut sum) = sum.lock() else { return };
        sum.environments += part.environments;
        sum.tasks += part.tasks;
        sum.rejects += part.rejects;
        bar.set_position(sum.environments);
        bar.set_message(format!("{} tasks, {} rejected", sum.tasks, sum.rejects));
    })?;
    bar.finish_and_clear();
    let sum = sum.into_inner().unwrap_or_default();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} environments, {} tasks, {} rejected in {seconds:.1} s: {:.0} tasks a second",
        sum.environments,
        sum.tasks,
        sum.rejects,
        sum.tasks as f64 / seconds.max(1e-9)
    );
    if store.is_whole() {
        println!("\n{}", store.merge()?);
    }
    Ok(())
}

fn pair(text: &str, between: char) -> Option<(u64, u64)> {
    let (first, second) = text.split_once(between)?;
    Some((first.parse().ok()?, second.parse().ok()?))
}
