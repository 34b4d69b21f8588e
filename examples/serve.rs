//! Serves a checkpoint over HTTP, in OpenAI's protocol, with a page to chat in a browser.
//!
//! ```bash
//! cargo run --release --features server --example serve
//! cargo run --release --features server --example serve -- --model DIR --port 9000 --thinking on --mtp
//! ```
//!
//! Without `--model` it serves the embedded checkpoint, which only knows how to call tools.

#[allow(dead_code)] // other examples use the rest
mod common;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, ValueEnum};
use common::terminal;
use deepseek_v32::chat::Version;
use deepseek_v32::chat_model::{ChatModel, ControlTokens, LocalChat};
use deepseek_v32::error::one_line;
use deepseek_v32::generation::{EngineOptions, SamplingParams};
use deepseek_v32::server::{Server, ServerOptions};
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
#[command(about = "Serves a checkpoint of the DeepSeek-V3 family over HTTP, in OpenAI's protocol")]
struct Args {
    /// Folder of the checkpoint, or owner/name on the hub (feature hub). Default: the embedded one.
    #[arg(long)]
    model: Option<String>,
    /// The model's name in the protocol. Default: the folder's.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    model_name: Option<String>,
    /// Address or name to listen at; 0.0.0.0 is every one that the machine has.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0 = any that is free.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Key that requests must bring, but for /, /health and /metrics.
    #[arg(long, env = "DEEPSEEK_V32_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Origin whose pages may use the server, or *. Default: none but its own.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors: Option<String>,
    /// Host name that requests may name when the server listens on a loopback address, beside localhost; * is any. May
    /// be given again. A reverse proxy that passes its own name on needs it.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Most answers that wait while others run; more get status 429.
    #[arg(long, default_value_t = 256)]
    max_queue: usize,
    /// Most bytes of a request.
    #[arg(long, default_value_t = 8 << 20, value_parser = positive)]
    max_body: usize,
    /// Most answers that run at once.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    max_sequences: usize,
    /// Most tokens of prompt and answer together. Default: the model's context.
    #[arg(long, value_parser = positive)]
    max_context: Option<usize>,
    /// Most tokens of an answer whose request names no number. Default: what the context holds.
    #[arg(long, value_parser = positive)]
    max_tokens: Option<usize>,
    /// Most cached tokens of all running answers together; requests wait until they fit.
    #[arg(long)]
    max_cached_tokens: Option<usize>,
    /// Tokens of ended requests that stay cached for prompts that begin alike; 0 = none.
    #[arg(long, default_value_t = 32768)]
    prefix_tokens: usize,
    /// Whether the model thinks where a request does not say.
    #[arg(long, value_enum, default_value = "off")]
    thinking: Switch,
    /// Chat format: v3, v3-dec2024, v3.1 or v3.2. Default: as the checkpoint's files tell.
    #[arg(long)]
    chat_format: Option<Version>,
    /// Refuse requests whose text has control tokens written out in it. Default: they are plain text.
    #[arg(long)]
    refuse_control_tokens: bool,
    /// Draft tokens with the MTP layer.
    #[arg(long)]
    mtp: bool,
    #[command(flatten)]
    model_args: common::ModelArgs,
    /// Seconds that running answers may take after the signal to end.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    grace: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "expected a whole number above 0".to_string())
}

/// `*`, or scheme, host and port as browsers write them.
fn origin(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let valid = text == "*" || authority.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain));
    if valid { Ok(text.to_string()) } else { Err("expected * or an origin such as https://example.com".to_string()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let valid = text.parse().ok().filter(|number| (0.0..=86400.0).contains(number));
    valid.ok_or_else(|| "expected seconds from 0 to 86400".to_string())
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_max_level(tracing::Level::INFO)
        .init();
    let dir = common::resolve(args.model.as_deref())?;
    let engine = EngineOptions {
        max_sequences: args.max_sequences,
        max_cached_tokens: args.max_cached_tokens,
        prefix_tokens: args.prefix_tokens,
        step_tokens: EngineOptions::default().step_tokens.max(4 * args.max_sequences),
        ..EngineOptions::speculative(args.mtp)
    };
    let load = args.model_args.load_options()?;
    let mut chat = LocalChat::load(&dir, &load, args.model_args, engine, |_| ())?;
    if let Some(name) = &args.model_name {
        chat = chat.with_name(name);
    }
    if let Some(version) = args.chat_format {
        chat = chat.with_version(version)?;
    }
    if args.refuse_control_tokens {
        chat = chat.with_control_tokens(ControlTokens::Refuse);
    }
    let recommended = common::generation_config(&dir)?;
    let context = chat.context_length();
    if let Some(max) = args.max_context.filter(|&max| max > context) {
        bail!("--max-context is {max}: the model's context is {context}");
    }
    // An empty one, of a variable that was never set, would leave the server open; another could not be sent.
    if args.api_key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        bail!("--api-key (or DEEPSEEK_V32_API_KEY): expected visible ASCII characters, and at least one");
    }
    let options = ServerOptions {
        api_key: args.api_key,
        max_sequences: args.max_sequences,
        max_queue: args.max_queue,
        max_body: args.max_body,
        max_tokens: args.max_tokens.or(recommended.max_new_tokens),
        max_context: args.max_context,
        thinking: args.thinking == Switch::On,
        params: SamplingParams::recommended(&recommended),
        cors: args.cors,
        allowed_hosts: args.allow_host,
        grace: Duration::from_secs_f64(args.grace),
        ..ServerOptions::default()
    };
    let has_key = options.api_key.is_some();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = (args.host.as_str(), args.port);
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("--host {} --port {}", one_line(&args.host), args.port))?;
        let open = !has_key && !listener.local_addr()?.ip().is_loopback();
        let (name, version) = (chat.name().to_string(), chat.version());
        // Before the address is known, so that whoever reads it can end the program.
        let signals = Signals::new().context("signals")?;
        writeln!(std::io::stdout(), "{name} ({version}) at http://{}", listener.local_addr()?).context("stdout")?;
        if open {
            terminal::complain(
                "warning: everyone who reaches this machine may use the server; --api-key asks for a key",
            );
        }
        Ok(Server::new(chat, options).serve(listener, end(signals)).await?)
    })
}

/// Waits for a signal to end the program. A second one, while answers are still written, ends it at once.
async fn end(mut signals: Signals) {
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        terminal::complain("ended before its answers");
        std::process::exit(130);
    });
}

/// The signals that end the program. Once they are taken over, they do not end the process by themselves.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
