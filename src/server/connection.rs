//! Connections: HTTP/1 and nothing else, ended where nothing happens on them.
//!
//! A connection has a time limit, which runs while no handler works: from the beginning, the end of a handler's work, or
//! the last bytes that the client took. So it ends a head that does not come, however slowly it comes, a connection that
//! is kept for nothing, and a stream that nobody reads; not an answer that takes its time, nor a stream, into which
//! something is written now and then.
//!
//! A client that ends its side after a whole request ("half-close") still gets its answer. When the server closes,
//! connections that are not owed an answer end at once, also with half a request on them.

use std::convert::Infallible;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::serve::Listener;
use axum::{Extension, Router};
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep};

use super::state::Phase;

/// Takes connections until the server closes, and returns when the last of them has ended.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    idle_timeout: Duration,
    mut phase: watch::Receiver<Phase>,
) {
    // Each connection holds a sender: the receiver hears of the last one's end.
    let (open, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let (stream, _) = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        let (router, phase, open) = (router.clone(), phase.clone(), open.clone());
        tokio::spawn(async move {
            connection(stream, router, idle_timeout, phase).await;
            drop(open);
        });
    }
    drop((listener, open));
    ended.recv().await;
}

/// Answers the requests of one connection.
async fn connection(stream: TcpStream, router: Router, limit: Duration, mut phase: watch::Receiver<Phase>) {
    // A token is sent as it comes, not when a packet is full.
    let _ = stream.set_nodelay(true);
    let deadline = Box::pin(sleep(limit));
    let (read, write) = stream.into_split();
    let at_work = AtWork(Arc::new(Counts::new(read)));
    let io = Connection { write, at_work: at_work.clone(), ended: 0, limit, deadline, blocked: false };
    let service = TowerToHyperService::new(router.layer(Extension(at_work.clone())));
    let mut served = pin!(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(io), service));
    tokio::select! {
        biased;
        // A connection that breaks off is the client's affair.
        _ = served.as_mut() => return,
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => {}
    }
    at_work.close();
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// Which requests of a connection are at work.
#[derive(Debug, Clone)]
pub struct AtWork(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    read: OwnedReadHalf,
    /// Requests whose head was read.
    begun: AtomicUsize,
    /// Those whose handler has ended.
    ended: AtomicUsize,
    /// Those whose answer was handed over whole.
    answered: AtomicUsize,
    /// Whether the server closes.
    closing: AtomicBool,
    /// The connection, which waits for one of these to change.
    waiting: AtomicWaker,
}

impl Counts {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            read,
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            waiting: AtomicWaker::new(),
        }
    }
}

impl AtWork {
    /// A request has come. Returns a guard of its handler and one of its answer.
    pub fn begin(&self) -> (Worker, Answer) {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        (Worker(self.clone()), Answer(self.clone()))
    }

    /// Waits until the client has ended its side, after its request was read whole. It may wait for the answer, or have
    /// left: only something written to it tells. While another request waits behind this one, this is not seen.
    pub async fn half_closed(&self) {
        if self.0.read.as_ref().peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
            std::future::pending().await
        }
    }

    fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.waiting.wake();
    }

    /// Whether nothing more is to be read, as the server closes and owes no answer here.
    fn is_over(&self) -> bool {
        let Counts { begun, answered, closing, .. } = &*self.0;
        closing.load(Ordering::Acquire) && answered.load(Ordering::Acquire) == begun.load(Ordering::Acquire)
    }
}

/// Who sent a request, as far as that is known: with [`Server::router`](super::Server::router) alone it is not.
#[derive(Debug, Clone)]
pub struct Client(Option<AtWork>);

impl Client {
    /// The client of a request.
    pub fn of(request: &Request) -> Self {
        Self(request.extensions().get().cloned())
    }

    /// As [`AtWork::half_closed`].
    pub async fn half_closed(&self) {
        match &self.0 {
            Some(at_work) => at_work.half_closed().await,
            None => std::future::pending().await,
        }
    }
}

/// A handler at work, until this is dropped.
#[derive(Debug)]
pub struct Worker(AtWork);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::AcqRel);
        self.0.0.waiting.wake();
    }
}

/// An answer that is owed, until this is dropped.
#[derive(Debug)]
pub struct Answer(AtWork);

impl Answer {
    /// Hands the answer over with its body.
    pub fn with(self, inner: Body) -> Body {
        Body::new(Owed { inner, _answer: self })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.0.answered.fetch_add(1, Ordering::AcqRel);
        self.0.0.waiting.wake();
    }
}

/// A body with the guard of its answer.
struct Owed {
    inner: Body,
    _answer: Answer,
}

impl hyper::body::Body for Owed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection with a time limit.
#[derive(Debug)]
struct Connection {
    write: OwnedWriteHalf,
    at_work: AtWork,
    /// How many handlers had ended when the time began.
    ended: usize,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    /// The client takes no more bytes just now.
    blocked: bool,
}

impl Connection {
    /// What a poll comes to that has nothing yet.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Counts { begun, ended, waiting, .. } = &*self.at_work.0;
        waiting.register(context.waker());
        let (ended, begun) = (ended.load(Ordering::Acquire), begun.load(Ordering::Acquire));
        if ended != begun {
            return Poll::Pending;
        }
        if ended != self.ended {
            self.ended = ended;
            self.restart();
        }
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nothing happened on the connection"))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn restart(&mut self) {
        // A limit beyond the clock's end is none.
        if let Some(deadline) = Instant::now().checked_add(self.limit) {
            self.deadline.as_mut().reset(deadline);
        }
    }

    /// Begins the time anew if something was written.
    fn written(&mut self, context: &mut Context<'_>, polled: Poll<Result<usize>>) -> Poll<Result<usize>> {
        self.blocked = polled.is_pending();
        match polled {
            Poll::Pending => self.pending(context),
            Poll::Ready(written) => {
                self.restart();
                Poll::Ready(written)
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        // Registered before it is looked, so that no change is missed.
        self.at_work.0.waiting.register(context.waker());
        if self.at_work.is_over() && !self.blocked {
            return Poll::Ready(Ok(()));
        }
        loop {
            let stream: &TcpStream = self.at_work.0.read.as_ref();
            match stream.poll_read_ready(context) {
                Poll::Pending => return self.pending(context),
                Poll::Ready(ready) => ready?,
            }
            match stream.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut self.write).poll_write(context, bytes);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut self.write).poll_write_vectored(context, bytes);
        self.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
