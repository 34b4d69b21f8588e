//! An engine on its own thread.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::caught::caught;
use super::engine::Engine;
use super::error::{GenerationError, Result};
use super::options::Stats;
use super::request::{Event, Request, RequestId};
use super::token_model::{Pages, TokenModel};
use super::tokenizer::Tokenizer;
use crate::model::Model;

/// Takes the events of one request, on the engine's thread. Returns `false` if they are of no use any more, which
/// ends the request.
pub type Sink = Box<dyn FnMut(Result<Event>) -> bool + Send>;

/// How busy a [`Service`] is, after its engine's latest step or command.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Requests submitted and not ended: those that run and those that wait.
    pub requests: usize,
    /// Those of them that have a place in the cache.
    pub running: usize,
    /// The cache's pages of 64 tokens; `None` if the model does not count them.
    pub pages: Option<Pages>,
    /// Tokens of ended requests that are kept for requests that begin alike.
    pub prefix_tokens: usize,
    /// The version of the weights: 0, or what the latest [`Service::swap_weights`] named.
    pub weights_version: u64,
    /// The engine's counters.
    pub stats: Stats,
}

impl Load {
    /// Requests that wait for a place in the cache, or for the weights to be swapped.
    pub fn waiting(&self) -> usize {
        self.requests.saturating_sub(self.running)
    }
}

/// A command to the engine's thread; they are carried out in order.
enum Command {
    Run(Box<Request>, Sink),
    FlushPrefixes(Sender<usize>),
    SwapWeights(Swap),
}

/// New weights for the engine.
struct Swap {
    weights: Arc<Model>,
    version: u64,
    done: Sender<Result<()>>,
}

/// An [`Engine`] on its own thread, which takes requests from any thread and batches those that overlap.
///
/// Clones share the engine. When the last one is dropped, the requests in flight are carried out and the
/// thread ends. If the engine or a sink panics, every request ends with [`GenerationError::Panicked`], and later ones
/// with [`GenerationError::Stopped`].
#[derive(Debug, Clone)]
pub struct Service {
    commands: Sender<Command>,
    load: Arc<Mutex<Load>>,
    max_context: usize,
    vocab_size: usize,
    tokenizer: Option<Tokenizer>,
}

impl Service {
    /// Starts the engine's thread.
    ///
    /// # Errors
    /// [`GenerationError::Thread`] if the system gives no thread.
    pub fn start<M: TokenModel + 'static>(engine: Engine<M>) -> Result<Self>
    where
        M::Sequence: 'static,
    {
        let (commands, received) = mpsc::channel();
        let load = Arc::new(Mutex::new(Load { pages: engine.model().pages(), ..Load::default() }));
        let (max_context, vocab_size) = (engine.model().max_context(), engine.model().vocab_size());
        let tokenizer = engine.tokenizer().cloned();
        let worker = Worker { engine, received, sinks: HashMap::new(), swap: None, load: Arc::clone(&load) };
        let thread = thread::Builder::new().name("engine".to_string());
        thread.spawn(move || worker.run()).map_err(GenerationError::Thread)?;
        Ok(Self { commands, load, max_context, vocab_size, tokenizer })
    }

    /// Submits a request; `sink` takes its events, also the error of a request that is refused.
    ///
    /// # Errors
    /// [`GenerationError::Stopped`] if the engine's thread has ended.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<()> {
        lock(&self.load).requests += 1;
        self.commands.send(Command::Run(Box::new(request), sink)).map_err(|_| {
            lock(&self.load).requests -= 1;
            GenerationError::Stopped
        })
    }

    /// Submits a request; its events come through the channel. Dropping the receiver ends the request.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn stream(&self, request: Request) -> Result<Receiver<Result<Event>>> {
        let (events, received) = mpsc::channel();
        self.submit(request, Box::new(move |event| events.send(event).is_ok()))?;
        Ok(received)
    }

    /// Replaces the model's weights by those of a model with the same config, dtype and device; returns when that is
    /// done. `version` names the new weights in [`Load`] and in records.
    ///
    /// Requests submitted before finish first, on the old weights; those submitted after wait, and run on the new ones.
    /// So every answer comes from one set of weights. To swap at once, cancel the requests that run. Prefixes are
    /// flushed. A sink must not call this: it runs on the thread that has to answer.
    ///
    /// # Errors
    /// [`GenerationError::Swap`] if the model refuses the weights, [`GenerationError::Stopped`] if the engine's thread is
    /// gone.
    pub fn swap_weights(&self, weights: Arc<Model>, version: u64) -> Result<()> {
        self.ask(|done| Command::SwapWeights(Swap { weights, version, done }))?
    }

    /// Frees the kept tokens of ended requests and returns how many there were; see [`Engine::flush_prefixes`]. A sink
    /// must not call this.
    ///
    /// # Errors
    /// [`GenerationError::Stopped`] if the engine's thread has ended.
    pub fn flush_prefixes(&self) -> Result<usize> {
        self.ask(Command::FlushPrefixes)
    }

    /// Sends a command and waits for its answer.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        let (done, answer) = mpsc::channel();
        self.commands.send(command(done)).map_err(|_| GenerationError::Stopped)?;
        answer.recv().map_err(|_| GenerationError::Stopped)
    }

    /// How busy the engine is. Never waits for a step.
    pub fn load(&self) -> Load {
        *lock(&self.load)
    }

    /// Most tokens of prompt and answer together.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// The model's number of logits.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The engine's tokenizer, if it has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }
}

/// The state of the thread.
struct Worker<M: TokenModel> {
    engine: Engine<M>,
    received: Receiver<Command>,
    sinks: HashMap<RequestId, Sink>,
    /// Waits for the requests before it; meanwhile no command is taken.
    swap: Option<Swap>,
    load: Arc<Mutex<Load>>,
}

impl<M: TokenModel> Worker<M> {
    fn run(mut self) {
        if let Err(panic) = caught(|| self.serve()) {
            self.swap = None;
            for (_, sink) in self.sinks.drain() {
                end(&self.load, sink, GenerationError::Panicked(panic.clone()));
            }
            // The engine's state is unknown. Other commands get their answer by the end of the channel in them.
            while let Ok(command) = self.received.recv() {
                if let Command::Run(_, sink) = command {
                    end(&self.load, sink, GenerationError::Stopped);
                }
            }
        }
    }

    fn serve(&mut self) {
        while self.receive() {
            // The load first: who hears of a request's end finds it counted.
            match self.engine.step() {
                Ok(events) => {
                    self.update_load();
                    events.into_iter().for_each(|(request, event)| self.tell(request, event));
                }
                Err(error) => self.fail_all(&error.to_string()),
            }
        }
    }

    fn update_load(&self) {
        let mut load = lock(&self.load);
        load.running = self.engine.running();
        load.pages = self.engine.model().pages();
        load.prefix_tokens = self.engine.prefix_tokens();
        load.weights_version = self.engine.weights_version();
        load.stats = *self.engine.stats();
    }

    /// Takes commands, waiting if there is nothing else to do; `false` if nothing can come any more.
    fn receive(&mut self) -> bool {
        loop {
            let idle = self.engine.is_idle();
            if self.swap.is_some() && !idle {
                return true;
            }
            if let Some(Swap { weights, version, done }) = self.swap.take() {
                let swapped = self.engine.swap_weights(weights, version);
                self.update_load();
                // The swap holds if the caller no longer waits.
                let _ = done.send(swapped);
            }
            let command = if idle {
                self.received.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.received.try_recv()
            };
            match command {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !idle,
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Run(request, sink) => match self.engine.add(*request) {
                Ok(id) => drop(self.sinks.insert(id, sink)),
                Err(error) => end(&self.load, sink, error),
            },
            Command::FlushPrefixes(done) => {
                let tokens = self.engine.flush_prefixes();
                self.update_load();
                let _ = done.send(tokens);
            }
            Command::SwapWeights(swap) => self.swap = Some(swap),
        }
    }

    fn tell(&mut self, request: RequestId, event: Result<Event>) {
        if matches!(event, Ok(Event::Token(_))) {
            if let Some(sink) = self.sinks.get_mut(&request)
                && !sink(event)
            {
                self.engine.cancel(request);
            }
        } else if let Some(mut sink) = self.sinks.remove(&request) {
            lock(&self.load).requests -= 1;
            sink(event);
        }
    }

    /// A step failed, and trying again would fail again: every request ends.
    fn fail_all(&mut self, reason: &str) {
        self.sinks.keys().for_each(|&request| self.engine.forget(request));
        self.update_load();
        for (_, sink) in self.sinks.drain() {
            end(&self.load, sink, GenerationError::Step(reason.to_string()));
        }
    }
}

/// Ends a request with an error.
fn end(load: &Mutex<Load>, mut sink: Sink, error: GenerationError) {
    lock(load).requests -= 1;
    // A sink that panics must not keep the others from their end.
    let _ = caught(|| sink(Err(error)));
}

/// The load, also if a thread panicked while it held the lock: it is only counters.
fn lock(load: &Mutex<Load>) -> std::sync::MutexGuard<'_, Load> {
    load.lock().unwrap_or_else(PoisonError::into_inner)
}
