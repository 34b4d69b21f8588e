//! Connections that end where nothing happens on them.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

/// Takes connections and gives each a time limit.
///
/// The time runs while no handler is at work: from the beginning, the end of its work, or the last bytes that the client
/// took. So it ends a head that does not come, however slowly it comes, a connection that is kept for nothing, and a stream that nobody
/// reads; not an answer that is long in coming, nor a stream, into which something is written now and then.
#[derive(Debug)]
pub struct Connections {
    pub listener: TcpListener,
    pub idle_timeout: Duration,
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // A token is sent as it comes, not when a packet is full.
        let _ = stream.set_nodelay(true);
        let deadline = Box::pin(sleep(self.idle_timeout));
        (Connection { stream, at_work: AtWork::default(), ended: 0, limit: self.idle_timeout, deadline }, address)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Which handlers are at work for a connection.
#[derive(Debug, Clone, Default)]
pub struct AtWork(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// The connection, which waits for a handler's end: its time begins then.
    waiting: AtomicWaker,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Worker(AtWork);

impl AtWork {
    pub fn begin(&self) -> Worker {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        Worker(self.clone())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::AcqRel);
        self.0.0.waiting.wake();
    }
}

impl Connected<IncomingStream<'_, Connections>> for AtWork {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.io().at_work.clone()
    }
}

/// A connection with a time limit.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    at_work: AtWork,
    /// How many handlers had ended when the time began.
    ended: usize,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    /// What a poll comes to that has nothing yet.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Counts { begun, ended, waiting } = &*self.at_work.0;
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
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.pending(context),
            read => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
