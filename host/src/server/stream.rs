//! The byte stream of a client: keeps its place among the connections, and ends a write that does not get on.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::limiter::{AddressPermit, ConnectionPermit};

/// What a connection holds for as long as its stream is open, WebSocket or not.
pub(crate) struct Permits {
    pub(crate) _connection: ConnectionPermit,
    pub(crate) _address: Option<AddressPermit>,
}

/// A stream whose client must read: a write without any progress for too long is an error.
pub(crate) struct ClientStream<S> {
    stream: S,
    _permits: Permits,
    stall_timeout: Duration,
    /// The end of patience, while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(stream: S, permits: Permits, stall_timeout: Duration) -> Self {
        Self { stream, _permits: permits, stall_timeout, stalled: None }
    }

    fn watched<T>(&mut self, context: &mut Context<'_>, polled: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let timeout = self.stall_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(context).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watched(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::server::limiter::Limiter;
    use crate::server::limits::Limits;

    #[tokio::test]
    async fn a_write_ends_that_nobody_reads_and_one_that_gets_on_does_not() {
        let limiter = Limiter::new(Limits::default(), Vec::new(), 1);
        let permits = |address| Permits { _connection: limiter.open().unwrap(), _address: limiter.enter(address).unwrap() };
        let (near, mut far) = tokio::io::duplex(16);
        let mut stream = ClientStream::new(near, permits(IpAddr::V4(Ipv4Addr::LOCALHOST)), Duration::from_millis(300));
        assert!(limiter.open().is_err(), "its place is taken");
        let reading = tokio::spawn(async move {
            for _ in 0..100 {
                far.read_u8().await.unwrap();
                tokio::task::yield_now().await;
            }
            far
        });
        stream.write_all(&[7; 100]).await.unwrap();
        let _far = reading.await.unwrap();
        assert_eq!(stream.write_all(&[7; 36]).await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        drop(stream);
        assert!(limiter.open().is_ok(), "its place is free again");
    }
}
