//! Connections that cannot be held open for ever, and not in any number.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// How many connections may be open at once: far more than scrapers and probes need, far fewer than there are file descriptors.
pub(super) const CONNECTIONS: usize = 128;

/// The same where agents check in by themselves: one host may run hundreds, which can all come at once.
pub(super) const AGENT_CONNECTIONS: usize = 1024;

/// How long a connection may be silent, between requests as well. Longer than the usual scrape interval of up to a minute.
const IDLE: Duration = Duration::from_secs(75);

/// A listener whose connections are bounded in number and in silence.
pub(super) struct Bounded {
    listener: TcpListener,
    slots: Arc<Semaphore>,
}

impl Bounded {
    /// At most so many `connections` at once.
    pub(super) fn new(listener: TcpListener, connections: usize) -> Self {
        Self {
            listener,
            slots: Arc::new(Semaphore::new(connections)),
        }
    }
}

/// The other side's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

impl Listener for Bounded {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            // Axum's own accept waits out errors, such as that of having no file descriptor left.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // Beyond the limit a connection is closed at once, which tells its maker more than a wait does.
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                return (Connection::new(stream, slot), address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once its other side has been silent for too long.
pub(super) struct Connection<T> {
    stream: T,
    /// Fires when the silence has been too long; put off by every byte in either direction.
    silence: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl<T> Connection<T> {
    fn new(stream: T, slot: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: Box::pin(tokio::time::sleep(IDLE)),
            _slot: slot,
        }
    }

    /// Passes on what is ready; while nothing is, fails once the silence has been too long.
    fn watch<R>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if poll.is_ready() {
            self.silence.as_mut().reset(Instant::now() + IDLE);
            return poll;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, poll)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A flush that has nothing to do is no sign of life: it must not put the end of the silence off.
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if poll.is_ready() { poll } else { self.watch(cx, poll) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn connection(stream: tokio::io::DuplexStream) -> Connection<tokio::io::DuplexStream> {
        let slot = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        Connection::new(stream, slot)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_fails_and_one_that_speaks_does_not() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = connection(near).await;
        let started = Instant::now();
        for _ in 0..3 {
            tokio::time::advance(IDLE * 9 / 10).await;
            far.write_all(b"x").await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), b'x');
        }
        assert!(started.elapsed() > IDLE * 2);
        let spoke = Instant::now();
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((IDLE..IDLE + Duration::from_millis(10)).contains(&spoke.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_other_side_does_not_read_fails() {
        let (near, _far) = tokio::io::duplex(4);
        let mut near = connection(near).await;
        let error = near.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
