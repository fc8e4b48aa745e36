//! Connections to the server: made when they are needed, and again, with pauses, where it is away.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, PoolError, QueueMode, RecyclingMethod, Runtime};
use rand::RngExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::ClientConfig;

use super::statement::{executor_error, is_io};
use super::{Connection, PostgresSettings};
use crate::executor::ExecutorError;

/// Of every four connections one is left to writers.
const READERS_OF_FOUR: usize = 3;
/// A connection that has not heard of the server for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What carries the messages of a connection.
pub(crate) type Line = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Pauses between attempts: each up to twice as long as the one before, and never quite the same, so that many who lost
/// the same server do not come back as one.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let longest_ms = 50_u64.saturating_mul(1 << self.attempts.min(6)).min(2_000);
        self.attempts += 1;
        Duration::from_millis(rand::rng().random_range(longest_ms / 2..=longest_ms))
    }
}

/// See the module.
pub(crate) struct Pool {
    pool: deadpool_postgres::Pool,
    readers: Arc<Semaphore>,
    wait_max: Duration,
}

impl Pool {
    /// A pool without a connection.
    pub(crate) fn new(settings: &PostgresSettings) -> Result<Self, ExecutorError> {
        let wait_max = Duration::from_millis(settings.begin_wait_ms_max);
        let connections_max = settings.connections_max.max(2);
        let tls = tls(settings);
        let manager = Manager::from_config(config(settings), tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(connections_max)
            // What was used last has the statements of now prepared.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(wait_max))
            .create_timeout(Some(wait_max))
            .recycle_timeout(Some(wait_max))
            .build()
            .map_err(|error| ExecutorError::Unavailable(error.to_string()))?;
        let readers = Arc::new(Semaphore::new((connections_max * READERS_OF_FOUR / 4).max(1)));
        Ok(Self { pool, readers, wait_max })
    }

    /// A connection at rest. Where the server is away it is tried again for a while.
    pub(crate) async fn get(&self) -> Result<Connection, ExecutorError> {
        let end = Instant::now() + self.wait_max;
        let mut backoff = Backoff::default();
        loop {
            let error = match self.pool.get().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let pause = backoff.next();
            if !may_pass(&error) || Instant::now() + pause >= end {
                return Err(refused(error));
            }
            sleep(pause).await;
        }
    }

    /// A connection for a reader: those for writers are never all taken by readers.
    pub(super) async fn get_for_reader(&self) -> Result<(Connection, OwnedSemaphorePermit), ExecutorError> {
        match timeout(self.wait_max, Arc::clone(&self.readers).acquire_owned()).await {
            Ok(Ok(permit)) => Ok((self.get().await?, permit)),
            _ => Err(ExecutorError::Unavailable(format!("no turn to read within {} ms", self.wait_max.as_millis()))),
        }
    }

    /// No more connections.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.readers.close();
    }
}

/// How long a transaction may be idle before the server ends it, in milliseconds: longer than one that is well ever is.
pub(super) fn idle_ms(settings: &PostgresSettings) -> u64 {
    settings.transaction_ms_max + settings.statement_ms_max + settings.begin_wait_ms_max
}

/// Where the server is, and what each connection is told when it is made. An idle transaction ends by itself where this
/// process hangs.
fn config(settings: &PostgresSettings) -> tokio_postgres::Config {
    let begin_wait_ms_max = settings.begin_wait_ms_max;
    let idle_ms = idle_ms(settings);
    let session = format!(
        "-c statement_timeout={begin_wait_ms_max} -c lock_timeout={begin_wait_ms_max} -c idle_in_transaction_session_timeout={idle_ms} \
         -c synchronous_commit=on -c default_transaction_read_only=off -c standard_conforming_strings=on"
    );
    let mut config = settings.address.config.clone();
    let options = match config.get_options() {
        Some(options) => format!("{options} {session}"),
        None => session,
    };
    config.options(options).application_name("syncline");
    config.tcp_user_timeout(SILENCE_MAX).keepalives_idle(SILENCE_MAX / 2).keepalives_interval(SILENCE_MAX / 10).keepalives_retries(5);
    config
}

fn tls(settings: &PostgresSettings) -> MakeRustlsConnect {
    MakeRustlsConnect::new(ClientConfig::clone(&settings.address.tls))
}

/// A connection of its own, outside of any pool, whose messages the caller reads.
pub(crate) async fn connect(settings: &PostgresSettings) -> Result<(Client, Line), ExecutorError> {
    let wait_max = Duration::from_millis(settings.begin_wait_ms_max);
    match timeout(wait_max, config(settings).connect(tls(settings))).await {
        Ok(connected) => connected.map_err(|error| refused(PoolError::Backend(error))),
        Err(_) => Err(ExecutorError::Unavailable("no connection to PostgreSQL in time".into())),
    }
}

/// Whether the server may take a connection soon.
fn may_pass(error: &PoolError) -> bool {
    let PoolError::Backend(error) = error else { return false };
    let starting = [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    error.code().map_or_else(|| is_io(error), |code| starting.contains(code))
}

fn refused(error: PoolError) -> ExecutorError {
    match error {
        PoolError::Timeout(_) => ExecutorError::Unavailable("no connection to PostgreSQL in time".into()),
        PoolError::Backend(error) => ExecutorError::Unavailable(match executor_error(error) {
            ExecutorError::Unavailable(message) | ExecutorError::InvalidStatement(message) | ExecutorError::Limit(message) => message,
            other => other.to_string(),
        }),
        other => ExecutorError::Unavailable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_two_seconds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= Duration::from_millis(50) && pauses[19] >= Duration::from_secs(1), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(2)));
    }
}
