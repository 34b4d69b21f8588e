//! An engine on a thread of its own.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::engine::Engine;
use super::error::{GenerationError, Result};
use super::options::Stats;
use super::request::{Event, Request, RequestId};
use super::token_model::TokenModel;
use super::tokenizer::Tokenizer;

/// Takes the events of one request, on the engine's thread. Returns `false` if they are of no use any more, which
/// ends the request.
pub type Sink = Box<dyn FnMut(Result<Event>) -> bool + Send>;

/// How busy a [`Service`] is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Requests submitted and not ended: those that run and those that wait.
    pub requests: usize,
    /// Those of them that ran in the latest step.
    pub running: usize,
    /// The engine's counters.
    pub stats: Stats,
}

/// An [`Engine`] on a thread of its own, which takes requests from any thread and batches those that overlap.
///
/// Clones speak to the same engine. When the last one is dropped, the requests in flight are carried out and the
/// thread ends.
#[derive(Debug, Clone)]
pub struct Service {
    commands: Sender<(Request, Sink)>,
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
        let load = Arc::new(Mutex::new(Load::default()));
        let (max_context, vocab_size) = (engine.model().max_context(), engine.model().vocab_size());
        let tokenizer = engine.tokenizer().cloned();
        let worker = Worker { engine, received, sinks: HashMap::new(), load: Arc::clone(&load) };
        let thread = thread::Builder::new().name("engine".to_string());
        thread.spawn(move || worker.run()).map_err(GenerationError::Thread)?;
        Ok(Self { commands, load, max_context, vocab_size, tokenizer })
    }

    /// Hands a request over; `sink` takes its events, also the error of a request that is refused.
    ///
    /// # Errors
    /// [`GenerationError::Stopped`] if the engine's thread is gone.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<()> {
        lock(&self.load).requests += 1;
        self.commands.send((request, sink)).map_err(|_| {
            lock(&self.load).requests -= 1;
            GenerationError::Stopped
        })
    }

    /// Hands a request over; its events come through the channel. Dropping the receiver ends the request.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn stream(&self, request: Request) -> Result<Receiver<Result<Event>>> {
        let (events, received) = mpsc::channel();
        self.submit(request, Box::new(move |event| events.send(event).is_ok()))?;
        Ok(received)
    }

    /// How busy the engine is.
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

/// What the thread owns.
struct Worker<M: TokenModel> {
    engine: Engine<M>,
    received: Receiver<(Request, Sink)>,
    sinks: HashMap<RequestId, Sink>,
    load: Arc<Mutex<Load>>,
}

impl<M: TokenModel> Worker<M> {
    fn run(mut self) {
        while self.receive() {
            match self.engine.step() {
                Ok(events) => events.into_iter().for_each(|(request, event)| self.tell(request, event)),
                Err(error) => self.fail_all(&error.to_string()),
            }
            let mut load = lock(&self.load);
            load.running = self.engine.running();
            load.stats = *self.engine.stats();
        }
    }

    /// Takes what was submitted, waiting if there is nothing else to do; `false` if nothing can come any more.
    fn receive(&mut self) -> bool {
        if self.engine.is_idle() {
            match self.received.recv() {
                Ok(command) => self.add(command),
                Err(_) => return false,
            }
        }
        loop {
            match self.received.try_recv() {
                Ok(command) => self.add(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !self.engine.is_idle(),
            }
        }
    }

    fn add(&mut self, (request, mut sink): (Request, Sink)) {
        match self.engine.add(request) {
            Ok(id) => drop(self.sinks.insert(id, sink)),
            Err(error) => {
                lock(&self.load).requests -= 1;
                sink(Err(error));
            }
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
        for (request, mut sink) in self.sinks.drain() {
            self.engine.forget(request);
            lock(&self.load).requests -= 1;
            sink(Err(GenerationError::Step(reason.to_string())));
        }
    }
}

/// The load, also if a thread panicked while it held the lock: it is only counters.
fn lock(load: &Mutex<Load>) -> std::sync::MutexGuard<'_, Load> {
    load.lock().unwrap_or_else(PoisonError::into_inner)
}
