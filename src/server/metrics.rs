//! Counts for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::generation::Load;

/// Upper bounds of the buckets of times, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answered requests by route and status.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// Answers that nobody waited for.
    pub cancelled: AtomicU64,
    /// Requests refused because too many wait.
    pub refused: AtomicU64,
    /// Answers with a call that could not be read.
    pub malformed: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub completion_tokens: AtomicU64,
    pub reasoning_tokens: AtomicU64,
    /// From a request's arrival to its first token.
    pub first_token: Histogram,
    /// From a request's arrival to the end of its answer.
    pub whole: Histogram,
}

impl Metrics {
    /// A request was answered, or its stream begun.
    pub fn answered(&self, route: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route.to_string(), status)).or_default() += 1;
    }

    /// The text that Prometheus reads.
    pub fn text(&self, load: &Load) -> String {
        let mut out = String::new();
        let name = "http_requests_total";
        head(&mut out, name, "counter", "Requests by route and status.");
        for ((route, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(out, "{PREFIX}{name}{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &load.stats;
        for (name, help, value) in [
            ("cancelled_total", "Requests whose client left before the end.", read(&self.cancelled)),
            ("refused_total", "Requests refused because the queue was full.", read(&self.refused)),
            ("malformed_total", "Chat answers with a call that could not be read.", read(&self.malformed)),
            ("prompt_tokens_total", "Tokens of answered prompts.", read(&self.prompt_tokens)),
            ("cached_tokens_total", "Those of them that were in the cache.", read(&self.cached_tokens)),
            ("completion_tokens_total", "Tokens of whole answers.", read(&self.completion_tokens)),
            ("reasoning_tokens_total", "Those of them that were reasoning.", read(&self.reasoning_tokens)),
            ("engine_steps_total", "Passes through the model.", stats.steps as u64),
            ("engine_prompt_tokens_total", "Prompt tokens that went through the model.", stats.prompt_tokens as u64),
            ("engine_prefix_hits_total", "Requests whose prompt began in the cache.", stats.prefix_hits as u64),
            ("engine_cached_tokens_total", "Prompt tokens that the cache had.", stats.cached_tokens as u64),
            ("engine_generated_tokens_total", "Tokens generated.", stats.generated_tokens as u64),
            ("engine_drafted_tokens_total", "Tokens drafted by the MTP layer.", stats.drafted as u64),
            ("engine_accepted_tokens_total", "Drafted tokens that were right.", stats.accepted as u64),
        ] {
            head(&mut out, name, "counter", help);
            let _ = writeln!(out, "{PREFIX}{name} {value}");
        }
        let mut gauges = vec![
            ("requests_running", "Answers being generated.", load.running),
            ("requests_waiting", "Answers waiting for a place.", load.waiting()),
            ("prefix_tokens", "Tokens of ended answers that the cache keeps for later prompts.", load.prefix_tokens),
        ];
        if let Some(pages) = load.pages {
            gauges.push(("cache_pages_used", "Cache pages of answers and kept prefixes.", pages.used));
            gauges.push(("cache_pages_free", "Allocated cache pages that hold nothing.", pages.free));
        }
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{PREFIX}{name} {value}");
        }
        self.first_token.text(&mut out, "time_to_first_token_seconds", "From a request to its first token.");
        self.whole.text(&mut out, "request_duration_seconds", "From a request to the end of its answer.");
        out
    }
}

const PREFIX: &str = "deepseek_v32_";

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
}

/// How often times fell into each bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a time.
    pub fn observe(&self, time: Duration) {
        let at = BOUNDS.iter().position(|&bound| time.as_secs_f64() <= bound).unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn text(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        let mut count = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS.get(at).map_or("+Inf".to_string(), f64::to_string);
            let _ = writeln!(out, "{PREFIX}{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{PREFIX}{name}_sum {sum}\n{PREFIX}{name}_count {count}");
    }
}
