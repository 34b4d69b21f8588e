//! `/metrics`.
#![cfg(feature = "server")]

use std::time::{Duration, Instant};

use crate::generation_support::Mock;
use crate::server_support::http::{get, metric, post};
use crate::server_support::{Running, golden, loaded, mock};
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::ops::layout::PAGE_SIZE;
use deepseek_v32::server::ServerOptions;
use serde_json::json;

#[test]
fn requests_and_times_are_counted() {
    let server = mock(Mock::new(2560, 1 << 20), EngineOptions::default(), ServerOptions::default());
    assert_eq!(get(server.address, "/health").json(), json!({"status": "ok"}));
    let metrics = get(server.address, "/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    assert!(metrics.body.contains("http_requests_total{route=\"/health\",status=\"200\"} 1\n"), "{}", metrics.body);
    assert!(metrics.body.contains("time_to_first_token_seconds_bucket{le=\"+Inf\"} 0\n"), "{}", metrics.body);
    // Each metric has its help and its type once.
    let names = |of: &str| -> Vec<String> {
        let lines = metrics.body.lines().filter_map(|line| line.strip_prefix(of));
        lines.map(|line| line.split(' ').next().unwrap().to_string()).collect()
    };
    let mut sorted = names("# HELP ");
    assert_eq!(sorted, names("# TYPE "));
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), names("# HELP ").len());
}

/// The counts of the cache are those that the answers report, and its pages those that the kept prefixes fill.
#[test]
fn the_cache_is_counted() {
    let server = Running::start(loaded(), ServerOptions::default());
    let count = |name: &str| metric(server.address, name) as usize;
    let counts = || [count("engine_prefix_hits_total"), count("engine_cached_tokens_total")];
    assert_eq!(counts(), [0, 0]);
    assert_eq!([count("prefix_tokens"), count("cache_pages_used")], [0, 0]);
    let prompt = golden()[3]["prompt"].clone();
    let (mut hits, mut cached) = (0, 0);
    for _ in 0..3 {
        let body = json!({"prompt": prompt, "max_tokens": 2, "temperature": 0});
        let usage = post(server.address, "/v1/completions", &body).json()["usage"].clone();
        let tokens = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() as usize;
        hits += usize::from(tokens > 0);
        cached += tokens;
    }
    // The engine counts after it has answered.
    let deadline = Instant::now() + Duration::from_secs(60);
    while count("requests_running") > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!([count("requests_running"), count("requests_waiting")], [0, 0]);
    // The first one finds nothing, the others each whole page of the prompt.
    assert_eq!(hits, 2);
    assert_eq!(counts(), [hits, cached]);
    let used = count("cache_pages_used");
    assert!(used > 0);
    assert_eq!(count("prefix_tokens"), used * PAGE_SIZE);
    assert_eq!(cached, hits * count("prefix_tokens"));
    // The page of the prompt's end is free again.
    assert!(count("cache_pages_free") > 0);
}
