//! The cases: which are run, how they are timed, and what is said of them.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use serde_json::{Value, json};

use crate::ceilings::{Ceiling, Ceilings};
use crate::timer::{Call, Timer};

/// Milliseconds below which a call is also timed in a graph.
const SHORT_MS: f64 = 0.06;

/// What a case is.
pub struct Case<'a> {
    pub op: &'static str,
    pub shape: String,
    /// Operations and bytes that it must do and move at the least; 0 for what does not bound it.
    pub flops: f64,
    pub bytes: f64,
    pub ceiling: Ceiling,
    /// The cases of `bench_peers.py` that do the same, one after the other: op and shape.
    pub peers: Vec<(&'static str, String)>,
    /// The relative error up to which a result is right.
    pub tolerance: f64,
    /// Calls with different inputs.
    pub calls: Vec<Call<'a>>,
    /// The relative error of a result.
    pub check: Box<dyn Fn() -> Result<f64> + 'a>,
}

pub struct Report {
    timer: Timer,
    ceilings: Ceilings,
    device: String,
    wanted: Vec<String>,
    rows: Vec<Value>,
    wrong: Vec<String>,
}

impl Report {
    pub fn new(device: &Device, wanted: Vec<String>) -> Result<Self> {
        let mut timer = Timer::new(device)?;
        let ceilings = Ceilings::measure(device, &mut timer)?;
        let name = device.as_cuda_device()?.cuda_stream().context().name()?;
        println!(
            "{name}: bf16 matmul {:.0} TFLOP/s, fp8 matmul {:.0} TFLOP/s, copy {:.0} GB/s",
            ceilings.bf16 / 1e12,
            ceilings.fp8 / 1e12,
            ceilings.copy / 1e9
        );
        println!(
            "{:<22} {:<34} {:>9} {:>9} {:>8} {:>8} {:>6} {:<12} {:>9}",
            "op", "shape", "ms", "graph", "TFLOP/s", "GB/s", "share", "of", "error"
        );
        Ok(Self { timer, ceilings, device: name, wanted, rows: Vec::new(), wrong: Vec::new() })
    }

    /// Whether the case is to be run: its inputs need not be made otherwise.
    pub fn wants(&self, op: &str, shape: &str) -> bool {
        self.wanted.is_empty()
            || self.wanted.iter().any(|part| op.contains(part.as_str()) || shape.contains(part.as_str()))
    }

    /// Checks and times a case. One that fails becomes a line that says so.
    pub fn run(&mut self, case: Case) -> Result<()> {
        let (op, shape) = (case.op, case.shape.clone());
        if let Err(error) = self.time(case) {
            println!("{op:<22} {shape:<34} FAILED {error:#}");
            self.rows.push(json!({"op": op, "shape": shape, "fail": format!("{error:#}")}));
            self.wrong.push(format!("{op} {shape}"));
        }
        Ok(())
    }

    fn time(&mut self, case: Case) -> Result<()> {
        let error = (case.check)()?;
        let ms = self.timer.cold(&case.calls)?;
        let graph = match ms < SHORT_MS {
            true => Some(self.timer.graph(&case.calls)?),
            false => None,
        };
        let seconds = graph.unwrap_or(ms) / 1e3;
        let rate = |amount: f64, unit: f64| (amount > 0.0).then(|| amount / seconds / unit);
        let (tflops, gbps) = (rate(case.flops, 1e12), rate(case.bytes, 1e9));
        let amount = if case.ceiling == Ceiling::Copy { case.bytes } else { case.flops };
        let share = amount / seconds / self.ceilings.of(case.ceiling);
        let ok = error <= case.tolerance;
        let shown =
            |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |value| format!("{value:.digits$}"));
        println!(
            "{:<22} {:<34} {ms:>9.4} {:>9} {:>8} {:>8} {share:>6.3} {:<12} {error:>9.2e}{}",
            case.op,
            case.shape,
            shown(graph, 4),
            shown(tflops, 1),
            shown(gbps, 0),
            case.ceiling.name(),
            if ok { "" } else { " WRONG" }
        );
        if !ok {
            self.wrong.push(format!("{} {}", case.op, case.shape));
        }
        let peers: Vec<_> = case.peers.iter().map(|(op, shape)| json!({"op": op, "shape": shape})).collect();
        self.rows.push(json!({
            "op": case.op, "shape": case.shape, "ms": ms, "ms_graph": graph, "tflops": tflops, "GBps": gbps,
            "share": share, "of": case.ceiling.name(), "err": error, "ok": ok, "peers": peers,
        }));
        Ok(())
    }

    /// Writes the JSON whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let value = json!({
            "schema_version": 1,
            "device": self.device,
            "ceilings": {
                "bf16_tflops": self.ceilings.bf16 / 1e12,
                "fp8_tflops": self.ceilings.fp8 / 1e12,
                "copy_GBps": self.ceilings.copy / 1e9,
            },
            "rows": self.rows,
        });
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(serde_json::to_string_pretty(&value)?.as_bytes())?;
            file.persist(path)?;
            Ok(())
        };
        write().with_context(|| path.display().to_string())
    }

    /// Fails if a case failed or was wrong.
    pub fn finish(self) -> Result<()> {
        ensure!(self.wrong.is_empty(), "failed or wrong: {}", self.wrong.join("; "));
        Ok(())
    }
}
