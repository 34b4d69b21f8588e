//! Options of a server.

use std::time::Duration;

use crate::generation::SamplingParams;

/// Options of a [`Server`](super::Server).
#[derive(Debug, Clone, PartialEq)]
pub struct ServerOptions {
    /// Key that requests must send as `Authorization: Bearer …`, except those to `/`, `/health` and `/metrics`. Default:
    /// none is needed.
    pub api_key: Option<String>,
    /// Most sequences that the engine runs at once. Default 64, as in the engine.
    pub max_sequences: usize,
    /// Most answers that wait while others run; beyond that a request gets status 429. Default 256.
    pub max_queue: usize,
    /// Most bytes of a request's body; beyond that it gets status 413. Default 8 MiB.
    pub max_body: usize,
    /// Most answers of one request: `n` times its prompts. Default 16.
    pub max_choices: usize,
    /// Most tokens of an answer if the request does not say. Default: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Most tokens of prompt and answer together; larger values than the model's context count as that. Default: the
    /// model's context.
    pub max_context: Option<usize>,
    /// Whether the model thinks if the request does not say. Default: no.
    pub thinking: bool,
    /// Sampling if the request does not say. Default: greedy.
    pub params: SamplingParams,
    /// Whether `developer` messages are rendered as the format has them, rather than as system messages. Default: no.
    pub keep_developer: bool,
    /// Origin whose pages may send requests, or `*` for any. Default: only the server's own page.
    pub cors: Option<String>,
    /// Host names that requests may name if the server listens on a loopback address, in addition to `localhost` and
    /// loopback addresses; `*` is any. Other hosts get status 403. Default: none.
    pub allowed_hosts: Vec<String>,
    /// Longest silence within a request's body; then it gets status 408. Default 30 s.
    pub read_timeout: Duration,
    /// Longest time for a request's whole body; then it gets status 408. Default 5 min.
    pub body_timeout: Duration,
    /// Longest time in which a client neither sends the whole head of a request nor takes anything of an answer; then
    /// its connection ends. At least twice [`Self::keep_alive`]. Default 60 s.
    pub idle_timeout: Duration,
    /// Silence after which a comment is sent in a stream, so that the client does not take it for broken. Default 15 s.
    pub keep_alive: Duration,
    /// How long running answers may take after the signal to end. Default 10 s.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            max_sequences: 64,
            max_queue: 256,
            max_body: 8 << 20,
            max_choices: 16,
            max_tokens: None,
            max_context: None,
            thinking: false,
            params: SamplingParams::default(),
            keep_developer: false,
            cors: None,
            allowed_hosts: Vec::new(),
            read_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            grace: Duration::from_secs(10),
        }
    }
}
