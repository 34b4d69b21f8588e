//! Many clients stream from the server at once; every answer must be the one that its request gets alone.
//!
//! ```bash
//! cargo bench --features server --bench serve_load -- --clients 64 --seconds 60
//! ```
//!
//! Prints throughput and the time to the first token; ends with status 1 if a stream was cut or wrong. The embedded
//! checkpoint answers questions for orders; each client asks for orders of its own, so that mixed-up streams show.

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
}

fn main() -> ExitCode {
    let args = Args::parse();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assets/tiny-v32");
    let engine = EngineOptions { prefix_tokens: 32768, ..EngineOptions::speculative(args.mtp) };
    let load = LoadOptions::default();
    let chat = LocalChat::load(dir, &load, Precision::default(), engine, |_| ()).expect("the embedded checkpoint");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(Server::new(chat, ServerOptions::default()).serve(listener, std::future::pending()));

    let requests = |client: usize| (0..args.questions).map(move |question| request(client, question));
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

/// A question for an order that nobody else asks for.
fn request(client: usize, question: usize) -> Value {
    let number = client * 31 + question * 7;
    let letter = |at: usize| char::from(b'A' + (at % 26) as u8);
    let code = format!("{}{}{:03}", letter(client), letter(number / 26), 100 + number % 900);
    json!({
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
    })
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
        tokens: events.last().and_then(|event| event["usage"]["completion_tokens"].as_u64()).unwrap_or(0),
    };
    Ok((heard, first.unwrap_or_default()))
}
