//! Turns of requests of which nobody knows how much they ask for: so few run at once that the usual ones go on beside them.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(10);
/// Requests that wait for each that may run.
const WAITING_PER_TURN: usize = 16;

/// The heavy requests of one mount.
pub(crate) struct HeavyCalls {
    running: Semaphore,
    /// Of those that run and those that wait.
    places: Semaphore,
}

/// Whoever asks now should come again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _running: SemaphorePermit<'a>,
    _place: SemaphorePermit<'a>,
}

impl HeavyCalls {
    /// Lets so many run at once.
    pub(crate) fn new(running_max: usize) -> Self {
        let running_max = running_max.max(1);
        Self { running: Semaphore::new(running_max), places: Semaphore::new(running_max * (1 + WAITING_PER_TURN)) }
    }

    /// Waits for a turn, first come, first served.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, TooMany> {
        let place = self.places.try_acquire().map_err(|_| TooMany)?;
        match tokio::time::timeout(WAIT, self.running.acquire()).await {
            Ok(Ok(running)) => Ok(Turn { _running: running, _place: place }),
            _ => Err(TooMany),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_too_many_waiting_or_waits_too_long_is_sent_away() {
        let heavy = HeavyCalls::new(1);
        let running = heavy.turn().await.unwrap();
        let waiting = futures_util::future::join_all((0..WAITING_PER_TURN).map(|_| heavy.turn()));
        let one_more = async {
            tokio::task::yield_now().await;
            heavy.turn().await
        };
        let (waited, one_more) = tokio::join!(waiting, tokio::time::timeout(Duration::from_millis(1), one_more));
        assert_eq!(one_more.expect("it is told at once").unwrap_err(), TooMany);
        assert!(waited.iter().all(Result::is_err), "they waited as long as they may");
        drop(running);
        assert!(heavy.turn().await.is_ok());
    }
}
