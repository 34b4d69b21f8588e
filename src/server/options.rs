//! What a server is told when it starts.

use std::time::Duration;

use crate::generation::SamplingParams;

/// Options of a [`Server`](super::Server).
#[derive(Debug, Clone, PartialEq)]
pub struct ServerOptions {
    /// Whoever asks must know it (`Authorization: Bearer …`), but for `/`, `/health` and `/metrics`. Default: nobody is
    /// asked.
    pub api_key: Option<String>,
    /// The engine's bound on sequences that run at once. Default 64, the engine's.
    pub max_sequences: usize,
    /// Most answers that wait while others run; beyond that a request gets 429. Default 256.
    pub max_queue: usize,
    /// Most bytes of a request's body; beyond that it gets 413. Default 8 MiB.
    pub max_body: usize,
    /// Most answers of one request: `n` times its prompts. Default 16.
    pub max_choices: usize,
    /// Tokens of an answer where the request names no number. Default: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Most tokens of prompt and answer together, if less than the model's. Default: the model's.
    pub max_context: Option<usize>,
    /// Whether the model thinks where the request does not say. Default: no.
    pub thinking: bool,
    /// Sampling where the request does not say. Default: greedy.
    pub params: SamplingParams,
    /// Render `developer` messages as the format has them, not as system messages. Default: no.
    pub keep_developer: bool,
    /// The one origin whose pages may ask, or `*`. Default: none but the server's own.
    pub cors: Option<String>,
    /// Longest silence within a request's body. Default 30 s.
    pub read_timeout: Duration,
    /// Longest time that a request's body may take in all. Default 5 min.
    pub body_timeout: Duration,
    /// Longest time in which a client neither brings the whole head of a request nor takes anything of an answer; then
    /// its connection ends. At least twice [`Self::keep_alive`] counts. Default 60 s.
    pub idle_timeout: Duration,
    /// Silence after which a stream gets a comment, so that nobody takes it for dead. Default 15 s.
    pub keep_alive: Duration,
    /// How long running answers may go on after the signal to end. Default 10 s.
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
            read_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            grace: Duration::from_secs(10),
        }
    }
}
