//! Many clients stream from the server at once; every answer must be the one that its request gets alone.
//!
//! ```bash
//! cargo bench --features server --bench serve_load -- --clients 64 --seconds 60
//! cargo bench --features server --bench serve_load -- --compare
//! cargo bench --features server --bench serve_load -- --prefills
//! ```
//!
//! Prints throughput and the time to the first token; ends with status 1 if a stream was cut or wrong. The embedded
//! checkpoint answers questions for orders; each client asks for orders of its own, so that mixed-up streams show.
//!
//! With `--compare`, the log-probabilities of all tokens and of the five most probable ones must have the same bits, too.
//! Prefixes are not shared then: what is in the cache already is not computed in the same way again.
//!
//! With `--prefills`, a few clients stream long completions while another one sends a prompt of 1,000 tokens every
//! second. Prints the time between two tokens of a stream without and with the prompts; ends with status 1 if the 99th
//! percentile with them is 3 times that without, or more.

#[path = "../tests/support/server_support/http.rs"]
mod http;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use deepseek_v32::chat_model::LocalChat;
use deepseek_v32::generation::EngineOptions;
use deepseek_v32::model::Precision;
use deepseek_v32::server::{Server, ServerOptions};
use deepseek_v32::weights::LoadOptions;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
struct Args {
    /// Clients that ask at once.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How long they ask.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Different requests of each client.
    #[arg(long, default_value_t = 2)]
    questions: usize,
    /// Draft tokens with the MTP layer.
    #[arg(long)]
    mtp: bool,
    /// Compare log-probabilities bit for bit, too.
    #[arg(long)]
    compare: bool,
    /// Measure the time between tokens while long prompts come in, with `--streams` in place of `--clients`.
    #[arg(long)]
    prefills: bool,
    /// Streams beside the long prompts.
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Tokens that a prompt adds to a step beside answers; the engine's default if it is not given.
    #[arg(long)]
    mixed_prefill_tokens: Option<usize>,
    /// Tokens of prompts that each row of an answer allows; the engine's default if it is not given.
    #[arg(long)]
    prefill_per_decode: Option<usize>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a stream brought.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    reasoning: String,
    content: String,
    calls: Vec<(String, String)>,
    finish: String,
    tokens: u64,
    /// Log-probabilities as the server writes them: the shortest text that has the number's bits.
    logprobs: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32");
    let mut engine = EngineOptions::speculative(args.mtp);
    engine.prefix_tokens = if args.compare { 0 } else { 32768 };
    engine.mixed_prefill_tokens = args.mixed_prefill_tokens.unwrap_or(engine.mixed_prefill_tokens);
    engine.prefill_per_decode = args.prefill_per_decode.unwrap_or(engine.prefill_per_decode);
    let (mixed, per_decode) = (engine.mixed_prefill_tokens, engine.prefill_per_decode);
    let load = LoadOptions::default();
    let chat = LocalChat::load(dir, &load, Precision::default(), engine, |_| ()).expect("the embedded checkpoint");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(Server::new(chat, ServerOptions::default()).serve(listener, std::future::pending()));

    if args.prefills {
        println!("at most {mixed} tokens a prompt in a step beside answers, or {per_decode} for each answer");
        return prefills(address, args.streams, args.seconds);
    }
    let requests = |client: usize| (0..args.questions).map(move |question| request(client, question, args.compare));
    let asked: Vec<Vec<Value>> = (0..args.clients).map(|client| requests(client).collect()).collect();
    let began = Instant::now();
    let alone: Vec<Vec<Heard>> = asked
        .iter()
        .map(|requests| requests.iter().map(|request| ask(address, request).expect("an answer").0).collect())
        .collect();
    let tokens: u64 = alone.iter().flatten().map(|heard| heard.tokens).sum();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "one after the other: {} requests, {:.0} tokens/s",
        args.clients * args.questions,
        tokens as f64 / seconds
    );

    let began = Instant::now();
    let end = began + Duration::from_secs_f64(args.seconds);
    let results: Vec<(Vec<Duration>, u64, Vec<String>)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (asked.iter().zip(&alone))
            .map(|(requests, alone)| scope.spawn(move || client(address, requests, alone, end)))
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut first: Vec<Duration> = results.iter().flat_map(|(first, ..)| first.clone()).collect();
    first.sort();
    let tokens: u64 = results.iter().map(|(_, tokens, _)| tokens).sum();
    let wrong: Vec<&String> = results.iter().flat_map(|(.., wrong)| wrong).collect();
    let at = |share: f64| first.get((first.len() as f64 * share) as usize).map_or(f64::NAN, Duration::as_secs_f64);
    println!(
        "{} clients, {seconds:.1} s: {} streams, {:.1} requests/s, {:.0} tokens/s, time to first token p50 {:.0} ms, \
         p99 {:.0} ms, {} wrong or cut",
        args.clients,
        first.len(),
        first.len() as f64 / seconds,
        tokens as f64 / seconds,
        at(0.5) * 1e3,
        at(0.99) * 1e3,
        wrong.len()
    );
    wrong.iter().take(5).for_each(|wrong| println!("{wrong}"));
    if wrong.is_empty() && !first.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Asks until the end; the times to the first token, tokens in all, and what was wrong.
fn client(address: SocketAddr, requests: &[Value], alone: &[Heard], end: Instant) -> (Vec<Duration>, u64, Vec<String>) {
    let (mut times, mut tokens, mut wrong) = (Vec::new(), 0, Vec::new());
    for (request, alone) in requests.iter().zip(alone).cycle() {
        if Instant::now() >= end {
            break;
        }
        match ask(address, request) {
            Ok((heard, first)) => {
                times.push(first);
                tokens += heard.tokens;
                if heard != *alone {
                    wrong.push(format!("{heard:?} instead of {alone:?}"));
                }
            }
            Err(error) => wrong.push(error),
        }
    }
    (times, tokens, wrong)
}

/// A question for an order that no other client asks for.
fn request(client: usize, question: usize, logprobs: bool) -> Value {
    let number = client * 31 + question * 7;
    let letter = |at: usize| char::from(b'A' + (at % 26) as u8);
    let code = format!("{}{}{:03}", letter(client), letter(number / 26), 100 + number % 900);
    let mut request = json!({
        "stream": true,
        "stream_options": {"include_usage": true},
        "thinking": {"type": if question.is_multiple_of(2) { "disabled" } else { "enabled" }},
        "messages": [
            {"role": "system", "content": "You are Xavier."},
            {"role": "user", "content": format!("Where is my order {code}?")},
        ],
        "tools": [{"type": "function", "function": {
            "name": "lookup_parcel",
            "description": "Get the status of an order by its code.",
            "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
        }}],
    });
    if logprobs {
        request["logprobs"] = json!(true);
        request["top_logprobs"] = json!(5);
    }
    request
}

/// Streams an answer; also says when its first token came.
fn ask(address: SocketAddr, request: &Value) -> Result<(Heard, Duration), String> {
    let began = Instant::now();
    let mut stream = http::begin(address, "/v1/chat/completions", request);
    if stream.status != 200 {
        return Err(stream.whole().body);
    }
    let (mut events, mut first, mut done) = (Vec::new(), None, false);
    while let Some(data) = stream.event() {
        done = data == "[DONE]";
        if done {
            continue;
        }
        let event: Value = serde_json::from_str(&data).map_err(|error| error.to_string())?;
        if event.get("error").is_some() {
            return Err(data);
        }
        // The role comes before anything is generated.
        if !events.is_empty() {
            first.get_or_insert_with(|| began.elapsed());
        }
        events.push(event);
    }
    if !done {
        return Err("the stream was cut".to_string());
    }
    let choice = http::gather(&events).into_iter().next().ok_or("no answer")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let function = |call: &Value| (text(&call["function"]["name"]), text(&call["function"]["arguments"]));
    let heard = Heard {
        reasoning: text(&choice["message"]["reasoning_content"]),
        content: text(&choice["message"]["content"]),
        calls: choice["message"]["tool_calls"].as_array().into_iter().flatten().map(function).collect(),
        finish: text(&choice["finish_reason"]),
        logprobs: events.iter().flat_map(logprobs).collect(),
        tokens: events.last().and_then(|event| event["usage"]["completion_tokens"].as_u64()).unwrap_or(0),
    };
    Ok((heard, first.unwrap_or_default()))
}

/// The log-probabilities in an event, of reasoning and content.
fn logprobs(event: &Value) -> Vec<String> {
    let all = event["choices"][0]["logprobs"].as_object().into_iter().flat_map(|lists| lists.values());
    all.filter_map(Value::as_array).flatten().map(Value::to_string).collect()
}

// ---- long prompts beside streams

/// Tokens of a long prompt.
const PROMPT: usize = 1000;
/// Tokens of a stream.
const STREAM: usize = 1000;
/// The largest share of the 99th percentiles with and without prompts.
const MOST: f64 = 3.0;

/// Streams for a while without prompts, then with one every second.
fn prefills(address: SocketAddr, streams: usize, seconds: f64) -> ExitCode {
    let idle = between_tokens(address, streams, seconds, false);
    let loaded = between_tokens(address, streams, seconds, true);
    for (name, measured) in [("without prompts", &idle), ("a prompt of 1,000 tokens a second", &loaded)] {
        println!(
            "{streams} streams, {name}: between tokens p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {:.0} tokens/s \
             generated, {:.0} tokens/s of prompts, prompt p50 {:.0} ms",
            percentile(&measured.gaps, 0.5),
            percentile(&measured.gaps, 0.99),
            percentile(&measured.gaps, 1.0),
            measured.gaps.len() as f64 / measured.seconds,
            (measured.prompts.len() * PROMPT) as f64 / measured.seconds,
            percentile(&measured.prompts, 0.5),
        );
    }
    let ratio = percentile(&loaded.gaps, 0.99) / percentile(&idle.gaps, 0.99);
    println!("p99 with prompts is {ratio:.2} x p99 without, at most {MOST} is wanted");
    if ratio < MOST && !loaded.prompts.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Milliseconds, sorted.
struct Measured {
    /// Between two tokens of a stream.
    gaps: Vec<f64>,
    /// From a long prompt to its token.
    prompts: Vec<f64>,
    seconds: f64,
}

fn between_tokens(address: SocketAddr, streams: usize, seconds: f64, prompts: bool) -> Measured {
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(seconds);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let (mut gaps, mut times) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let streaming: Vec<_> = (0..streams)
            .map(|client| {
                scope.spawn(move || {
                    let mut gaps = Vec::new();
                    for round in 0.. {
                        let mut stream =
                            http::begin(address, "/v1/completions", &completion(8, client + 100 * round, STREAM));
                        let mut last = None;
                        while let Some(_event) = stream.event() {
                            let now = Instant::now();
                            gaps.extend(last.map(|last| milliseconds(now - last)));
                            last = Some(now);
                            if now >= end {
                                return gaps;
                            }
                        }
                        assert!(last.is_some(), "a stream was refused");
                        // The last event carries no token.
                        gaps.pop();
                    }
                    gaps
                })
            })
            .collect();
        for number in 0.. {
            let due = began + Duration::from_secs(number as u64 + 1);
            if !prompts || due >= end {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let asked = Instant::now();
            let mut stream = http::begin(address, "/v1/completions", &completion(PROMPT, 7919 * (number + 1), 1));
            while stream.event().is_some() {}
            times.push(milliseconds(asked.elapsed()));
        }
        streaming.into_iter().for_each(|client| gaps.extend(client.join().expect("a client")));
    });
    gaps.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    Measured { gaps, prompts: times, seconds: began.elapsed().as_secs_f64() }
}

/// A completion of a prompt of its own that does not end before `max_tokens`.
fn completion(tokens: usize, salt: usize, max_tokens: usize) -> Value {
    let ids: Vec<usize> = (0..tokens).map(|at| 300 + (at * at + salt * (at + 1)) % 2000).collect();
    json!({
        "stream": true,
        "prompt": ids,
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": salt,
        "logit_bias": {"1": -100},
    })
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
