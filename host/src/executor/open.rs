//! What an open transaction keeps, whatever the backend: its time, and its savepoints.

use std::time::Duration;

use tokio::time::Instant;

use super::ExecutorError;

/// The time that a transaction may stay open.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTime {
    max: Duration,
    /// From here on nothing but rolling back works.
    end: Instant,
    /// When the clock was stopped; none: it runs.
    stopped_at: Option<Instant>,
}

impl OpenTime {
    /// It begins now.
    pub(super) fn new(max: Duration) -> Self {
        Self { max, end: Instant::now() + max, stopped_at: None }
    }

    /// What is left of it. While the clock is stopped it is all of it.
    pub(super) fn left(&self) -> Result<Duration, ExecutorError> {
        let Some(end) = self.end() else { return Ok(self.max) };
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(out_of_time()),
            left => Ok(left),
        }
    }

    /// When it ends; none while the clock is stopped.
    pub(super) fn end(&self) -> Option<Instant> {
        self.stopped_at.is_none().then_some(self.end)
    }

    /// From now on at least half of it is left: waiting for other processes does not count.
    pub(super) fn keep_half(&mut self) {
        self.end = self.end.max(Instant::now() + self.max / 2);
    }

    /// See [`super::Transaction::stop_clock`].
    pub(super) fn stop_clock(&mut self, stopped: bool) {
        match (stopped, self.stopped_at) {
            (true, None) => self.stopped_at = Some(Instant::now()),
            (false, Some(since)) => {
                self.end += since.elapsed();
                self.stopped_at = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// The time of a transaction is over.
pub(super) fn out_of_time() -> ExecutorError {
    ExecutorError::Limit("time of an open transaction".into())
}
