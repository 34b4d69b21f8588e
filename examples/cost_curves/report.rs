//! Measured and expected numbers as a table, as JSON and as a chart.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::DType;
use deepseek_v32::error::one_line_path;
use deepseek_v32::evaluation::{CostModel, Panel, Rates, Series, Step, crossover, dollars_per_million_tokens, svg};
use serde_json::{Value, json};

use super::measure::{Plan, Times};

/// Takes one point out of times.
pub type Pick<'a> = dyn Fn(&Times) -> f64 + 'a;
/// The seconds of the whole model at a point.
pub type Scale<'a> = dyn Fn(&Pick) -> deepseek_v32::evaluation::Result<f64> + 'a;

/// One measured point beside what is expected.
struct Point {
    step: Step,
    position: usize,
    /// Seconds of a step of what was measured.
    stack_seconds: f64,
    /// The same of the whole model.
    seconds: f64,
    expected_seconds: f64,
    /// The time that the bytes of the measured step take at the least, over the time it took.
    memory_share: f64,
    dollars: f64,
    expected_dollars: f64,
}

/// The points of one kind of attention.
pub struct Curves {
    /// `DSA` or `dense MLA`.
    name: &'static str,
    /// For each batch, then for prompts.
    points: Vec<Vec<Point>>,
}

impl Curves {
    /// `cost` is of the model that times are scaled to, `stacked` of what was measured; `model_seconds` scales the point
    /// that a function takes out of times.
    pub fn new(
        cost: CostModel,
        stacked: CostModel,
        plan: &Plan,
        rates: &Rates,
        price: f64,
        whole: &Times,
        model_seconds: &Scale,
    ) -> Result<Self> {
        let point = |step: Step, position: usize, of: &Pick| -> Result<Point> {
            let (stack_seconds, seconds) = (of(whole), model_seconds(of)?);
            let expected_seconds = cost.seconds(step, rates)?;
            let tokens = step.rows() as f64;
            Ok(Point {
                step,
                position,
                stack_seconds,
                seconds,
                expected_seconds,
                memory_share: stacked.work(step)?.bytes / rates.bytes_per_second / stack_seconds,
                dollars: dollars_per_million_tokens(seconds / tokens, price)?,
                expected_dollars: dollars_per_million_tokens(expected_seconds / tokens, price)?,
            })
        };
        let mut points = Vec::with_capacity(plan.batches.len() + 1);
        for (b, &batch) in plan.batches.iter().enumerate() {
            let one = |(i, &context): (usize, &usize)| {
                point(Step::Decode { batch, context }, context, &|times| times.decode[b][i])
            };
            points.push(plan.contexts.iter().enumerate().map(one).collect::<Result<_>>()?);
        }
        let one = |(i, &context): (usize, &usize)| {
            let tokens = plan.chunk_at(context);
            point(Step::Prefill { start: context - tokens, tokens }, context, &|times| times.prefill[i])
        };
        points.push(plan.contexts.iter().enumerate().map(one).collect::<Result<_>>()?);
        let name = if cost.config().has_indexer() { "DSA" } else { "dense MLA" };
        Ok(Self { name, points })
    }
}

/// All that a run found.
pub struct Report<'a> {
    pub name: &'a str,
    pub device: String,
    pub dtype: DType,
    pub price: f64,
    pub rates: &'a Rates,
    pub plan: &'a Plan<'a>,
    /// With sparse attention first, if the model has it.
    pub curves: Vec<Curves>,
}

impl Report<'_> {
    /// The numbers as text.
    pub fn table(&self) -> Result<String> {
        let mut out = format!(
            "{} on {}, {}: {:.1} TFLOP/s, {:.2} TB/s, {} dollars an hour\n",
            self.name,
            self.device,
            self.dtype.as_str(),
            self.rates.product_flops / 1e12,
            self.rates.bytes_per_second / 1e12,
            self.price
        );
        writeln!(
            out,
            "{:<10} {:<10} {:>8} {:>11} {:>11} {:>11} {:>7} {:>11} {:>10} {:>10}",
            "attention",
            "phase",
            "position",
            "stack ms",
            "model ms",
            "expected",
            "memory",
            "tokens/s",
            "$/M",
            "expected"
        )?;
        for curves in &self.curves {
            for point in curves.points.iter().flatten() {
                writeln!(
                    out,
                    "{:<10} {:<10} {:>8} {:>11.3} {:>11.3} {:>11.3} {:>7.3} {:>11.1} {:>10.4} {:>10.4}",
                    curves.name,
                    phase(point.step),
                    point.position,
                    point.stack_seconds * 1e3,
                    point.seconds * 1e3,
                    point.expected_seconds * 1e3,
                    point.memory_share,
                    point.step.rows() as f64 / point.seconds,
                    point.dollars,
                    point.expected_dollars
                )?;
            }
        }
        for (i, name) in self.phases().iter().enumerate() {
            let slopes = self.curves.iter().map(|curves| format!("{} {:.2}", curves.name, slope(&curves.points[i])));
            writeln!(out, "{name}: last position over first: {}", slopes.collect::<Vec<_>>().join(", "))?;
            for (what, of) in [("", measured as Cost), ("expected ", expected as Cost)] {
                if let Some(text) = self.crossing(i, of)? {
                    writeln!(out, "{name}: {what}{text}")?;
                }
            }
        }
        Ok(out)
    }

    /// Says from which position on sparse attention costs less.
    fn crossing(&self, phase: usize, of: Cost) -> Result<Option<String>> {
        let [sparse, dense] = &self.curves[..] else { return Ok(None) };
        let line = |curves: &Curves| curves.points[phase].iter().map(of).collect::<Vec<_>>();
        Ok(Some(match crossover(&line(sparse), &line(dense))? {
            Some(position) => format!("DSA costs less than dense MLA from position {position:.0} on"),
            None => "DSA costs more than dense MLA at the last position".to_string(),
        }))
    }

    fn phases(&self) -> Vec<String> {
        let decode = self.plan.batches.iter().map(|batch| format!("decode b{batch}"));
        decode.chain(["prefill".to_string()]).collect()
    }

    /// The numbers as JSON.
    pub fn json(&self) -> Result<String> {
        let mut points = Vec::new();
        for curves in &self.curves {
            for point in curves.points.iter().flatten() {
                points.push(json!({
                    "attention": curves.name,
                    "phase": phase(point.step),
                    "position": point.position,
                    "rows": point.step.rows(),
                    "stack_seconds": point.stack_seconds,
                    "seconds": point.seconds,
                    "expected_seconds": point.expected_seconds,
                    "memory_share": point.memory_share,
                    "dollars_per_million_tokens": point.dollars,
                    "expected_dollars_per_million_tokens": point.expected_dollars,
                }));
            }
        }
        let mut crossings = serde_json::Map::new();
        if let [sparse, dense] = &self.curves[..] {
            for (i, name) in self.phases().into_iter().enumerate() {
                let at = |of: Cost| {
                    let line = |curves: &Curves| curves.points[i].iter().map(of).collect::<Vec<_>>();
                    crossover(&line(sparse), &line(dense))
                };
                let crossing = json!({"measured": at(measured)?, "expected": at(expected)?});
                crossings.insert(name, crossing);
            }
        }
        let value: Value = json!({
            "schema_version": 1,
            "model": self.name,
            "device": self.device,
            "dtype": self.dtype.as_str(),
            "dollars_per_hour": self.price,
            "flops_per_second": self.rates.product_flops,
            "bytes_per_second": self.rates.bytes_per_second,
            "crossover": crossings,
            "points": points,
        });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// Two panels: prompts, and decoding with the largest batch.
    pub fn svg(&self) -> Result<String> {
        let prefill = self.plan.batches.len();
        let largest = (0..prefill).max_by_key(|&i| self.plan.batches[i]).unwrap_or(0);
        let panel = |title: String, phase: usize| {
            let series = self.curves.iter().enumerate().flat_map(|(colour, curves)| {
                let line = |of: Cost| curves.points[phase].iter().map(of).collect();
                let name = |what: &str| format!("{}{what}", curves.name);
                [
                    Series { name: name(""), points: line(measured), dashed: false, colour },
                    Series { name: name(", expected"), points: line(expected), dashed: true, colour },
                ]
            });
            Panel {
                title,
                x_label: "Position in the context (tokens)".to_string(),
                y_label: "Dollars per million tokens".to_string(),
                series: series.collect(),
            }
        };
        let decode = format!("Decoding, batch of {}", self.plan.sequences());
        Ok(svg(&[panel("Prefilling".to_string(), prefill), panel(decode, largest)])?)
    }
}

/// A point of a line: its position and its cost.
type Cost = fn(&Point) -> (f64, f64);

fn measured(point: &Point) -> (f64, f64) {
    (point.position as f64, point.dollars)
}

fn expected(point: &Point) -> (f64, f64) {
    (point.position as f64, point.expected_dollars)
}

fn phase(step: Step) -> String {
    match step {
        Step::Decode { batch, .. } => format!("decode b{batch}"),
        Step::Prefill { .. } => "prefill".to_string(),
    }
}

/// What the last position costs over what the first does.
fn slope(points: &[Point]) -> f64 {
    match points {
        [first, .., last] => last.dollars / first.dollars,
        _ => 1.0,
    }
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| one_line_path(path))
}
