//! Standard error of a component: messages of a panic. It goes on to that of the process, up to a limit per call.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use super::limits::STANDARD_ERROR_BYTES_MAX;

/// How much an instance may still write.
#[derive(Clone, Debug)]
pub(crate) struct StandardError(Arc<AtomicUsize>);

impl Default for StandardError {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(STANDARD_ERROR_BYTES_MAX)))
    }
}

impl StandardError {
    /// Another call begins.
    pub(crate) fn refill(&self) {
        self.0.store(STANDARD_ERROR_BYTES_MAX, Ordering::Relaxed);
    }

    /// How many of so many bytes may be written.
    fn take(&self, bytes: usize) -> usize {
        let left = self.0.load(Ordering::Relaxed);
        let taken = bytes.min(left);
        self.0.store(left - taken, Ordering::Relaxed);
        taken
    }
}

impl IsTerminal for StandardError {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for StandardError {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for StandardError {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = self.take(bytes.len());
        // What is beyond the limit counts as written: a component that panics needs no error on top.
        Poll::Ready(io::stderr().lock().write_all(&bytes[..taken]).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(io::stderr().lock().flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_nothing_is_written_until_the_next_call() {
        let stream = StandardError::default();
        assert_eq!(stream.take(STANDARD_ERROR_BYTES_MAX - 1), STANDARD_ERROR_BYTES_MAX - 1);
        assert_eq!(stream.take(10), 1);
        assert_eq!(stream.take(10), 0);
        stream.refill();
        assert_eq!(stream.take(10), 10);
    }
}
