//! Publications through PostgreSQL: LISTEN and NOTIFY on one channel for all servers that share a database and its prefix.
//!
//! * What waits leaves in one statement; the order of [`PubSub::publish`] is kept. A statement without an answer is sent again:
//!   packets have numbers, and whoever hears one twice drops it.
//! * What does not fit into a notification lies in a table, and so does what must be found later by those who do not listen
//!   right now: publications that close (a revoked user), which cannot be found again by reading.
//! * One connection listens and does nothing else. When it was lost and is back, or when a number is missing, receivers are
//!   told that publications may be missing ([`Receiver::missed`]).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use self::envelope::{NotUnderstood, Notice, PacketId, Sent, encode, read_notice, read_packet};
use self::heard::{Heard, Hearing};
use self::queue::{Batch, Outgoing};
use super::{PubSub, PubSubError, Publication, Receiver, probed};
use crate::executor::postgres::names::{lock_key, schema};
use crate::executor::postgres::pool::{Backoff, Line, Pool, connect};
use crate::executor::postgres::statement::executor_error;
use crate::executor::postgres::{PostgresSettings, make_schema};
use crate::executor::{DatabaseName, ExecutorError};
use crate::runtime::OWN_NAME;

mod envelope;
mod heard;
mod queue;

/// The name under which the table has a schema of its own.
const DATABASE: &str = "pubsub";
/// Connections beside the one that listens: one sends, one reads what is in the table.
const CONNECTIONS: usize = 2;
/// How often rows of the table are deleted that nobody needs any more.
const SWEEP: Duration = Duration::from_secs(60);
/// How long a row is there to be fetched by those who are told of it.
const STORED: &str = "5 minutes";
/// How long a row is there for those who did not listen.
const KEPT: &str = "1 hour";
/// Clocks and pauses of servers: what was sent so long before a break is looked at too.
const SLACK: Duration = Duration::from_secs(60);
/// How often a packet is asked for that cannot be read.
const FETCHES_MAX: u32 = 3;

/// See the module.
pub struct PostgresPubSub {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    settings: PostgresSettings,
    pool: Pool,
    /// The channel, and the schema of the table.
    schema: String,
    receivers: RwLock<BTreeMap<u64, Arc<dyn Receiver>>>,
    outgoing: Mutex<Outgoing>,
    /// Something waits to be sent.
    waits: Notify,
    /// Something was sent.
    left: Notify,
    /// Why nothing is heard right now.
    deaf: Mutex<Option<String>>,
}

/// A connection that listens.
struct Listening {
    /// It lives as long as this.
    _client: Client,
    line: Line,
    /// What came with the answer.
    early: Vec<String>,
}

impl PostgresPubSub {
    /// Connects and listens. Called within a tokio runtime with time enabled.
    pub async fn start(settings: PostgresSettings) -> Result<Self, PubSubError> {
        let settings = PostgresSettings { connections_max: CONNECTIONS, ..settings };
        let pool = Pool::new(&settings).map_err(unavailable)?;
        let name = DatabaseName { mount: OWN_NAME.into(), name: DATABASE.into() };
        let schema = schema(&settings.schema_prefix, &name);
        let key = lock_key(&schema, &name);
        make_schema(&pool, &schema, key).await.map_err(unavailable)?;
        let table = format!(
            "BEGIN; SELECT pg_advisory_xact_lock({key}); \
             CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.syncline_publications (id BYTEA PRIMARY KEY, \
             at TIMESTAMPTZ NOT NULL DEFAULT now(), kept BOOLEAN NOT NULL, payload BYTEA NOT NULL); COMMIT"
        );
        pool.get().await.map_err(unavailable)?.batch_execute(&table).await.map_err(|error| unavailable(executor_error(error)))?;
        let shared = Arc::new(Shared {
            settings,
            pool,
            schema,
            receivers: RwLock::default(),
            outgoing: Mutex::new(Outgoing::new(rand::random())),
            waits: Notify::new(),
            left: Notify::new(),
            deaf: Mutex::default(),
        });
        let listening = shared.listen().await.map_err(unavailable)?;
        let tasks = [tokio::spawn(hear(shared.clone(), listening)).abort_handle(), tokio::spawn(send(shared.clone())).abort_handle()];
        Ok(Self { shared, tasks })
    }
}

impl Drop for PostgresPubSub {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl PubSub for PostgresPubSub {
    fn attach(&self, process: u64, receiver: Arc<dyn Receiver>) {
        self.shared.receivers.write().insert(process, receiver);
    }

    fn detach(&self, process: u64) {
        self.shared.receivers.write().remove(&process);
    }

    fn publish(&self, process: u64, mount: &str, publication: &Publication) {
        self.shared.outgoing.lock().push(encode(process, mount, publication), publication.close.is_some());
        self.shared.waits.notify_one();
    }

    async fn ready(&self) -> Result<(), PubSubError> {
        if let Some(why) = self.shared.deaf.lock().clone() {
            return Err(PubSubError::Unavailable(why));
        }
        if self.shared.outgoing.lock().is_lossy() {
            return Err(PubSubError::Unavailable("more publications waited than may, and some were dropped".into()));
        }
        probed(self).await
    }

    async fn flush(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.shared.outgoing.lock().is_empty() {
                return;
            }
            left.await;
        }
    }
}

fn unavailable(error: ExecutorError) -> PubSubError {
    PubSubError::Unavailable(error.to_string())
}

impl Shared {
    fn for_each_receiver(&self, act: impl Fn(u64, &dyn Receiver)) {
        // Whoever receives may attach and detach.
        let receivers = self.receivers.read().clone();
        receivers.iter().for_each(|(process, receiver)| act(*process, &**receiver));
    }

    fn missed(&self) {
        self.for_each_receiver(|_, receiver| receiver.missed());
    }

    fn receive(&self, sent: Vec<Sent>) {
        for Sent { process, mount, publication } in sent {
            self.for_each_receiver(|other, receiver| {
                if other != process {
                    receiver.receive(&mount, publication.clone());
                }
            });
        }
    }

    /// A connection that listens from now on.
    async fn listen(&self) -> Result<Listening, ExecutorError> {
        let (client, mut line) = connect(&self.settings).await?;
        let mut early = Vec::new();
        let listen = format!("LISTEN {}", self.schema);
        let listened = {
            let mut asked = pin!(client.batch_execute(&listen));
            let answered = poll_fn(|context| {
                // What comes on the line is the answer too, so it is read first.
                while let Poll::Ready(message) = line.poll_message(context) {
                    match message {
                        Some(Ok(AsyncMessage::Notification(notification))) => early.push(notification.payload().to_owned()),
                        Some(Ok(_)) => {}
                        // The answer says why.
                        Some(Err(_)) | None => break,
                    }
                }
                asked.as_mut().poll(context)
            });
            timeout(Duration::from_millis(self.settings.begin_wait_ms_max), answered).await
        };
        match listened {
            Ok(Ok(())) => Ok(Listening { _client: client, line, early }),
            Ok(Err(error)) => Err(executor_error(error)),
            Err(_) => Err(ExecutorError::Unavailable("no answer of PostgreSQL in time".into())),
        }
    }

    /// Sends a batch; what has arrived before stays once.
    async fn send(&self, batch: &Batch) -> Result<(), ExecutorError> {
        let connection = self.pool.get().await?;
        let ids: Vec<Vec<u8>> = batch.stored.iter().map(|stored| stored.id.to_bytes()).collect();
        let (payloads, kept): (Vec<&[u8]>, Vec<bool>) = batch.stored.iter().map(|stored| (&*stored.bytes, stored.is_kept)).unzip();
        let sql = format!(
            "WITH stored AS (INSERT INTO {0}.syncline_publications (id, payload, kept) \
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::boolean[]) ON CONFLICT (id) DO NOTHING) \
             SELECT count(pg_notify('{0}', told.notice)) FROM (SELECT notice FROM unnest($4::text[]) WITH ORDINALITY AS all_of (notice, place) \
             ORDER BY place) AS told",
            self.schema
        );
        let statement = connection.prepare_cached(&sql).await.map_err(executor_error)?;
        connection.execute(&statement, &[&ids, &payloads, &kept, &batch.notices]).await.map_err(executor_error)?;
        Ok(())
    }

    /// Deletes rows that nobody needs any more.
    async fn sweep(&self) -> Result<(), ExecutorError> {
        let sql = format!(
            "DELETE FROM {}.syncline_publications WHERE at < now() - interval '{KEPT}' OR (NOT kept AND at < now() - interval '{STORED}')",
            self.schema
        );
        self.pool.get().await?.execute(&sql, &[]).await.map_err(executor_error)?;
        Ok(())
    }

    /// What a packet holds that lies in the table; none: it is not there.
    async fn fetch(&self, id: PacketId) -> Result<Option<Vec<Sent>>, ExecutorError> {
        let connection = self.pool.get().await?;
        let sql = format!("SELECT payload FROM {}.syncline_publications WHERE id = $1", self.schema);
        let statement = connection.prepare_cached(&sql).await.map_err(executor_error)?;
        let row = connection.query_opt(&statement, &[&id.to_bytes()]).await.map_err(executor_error)?;
        let Some(row) = row else { return Ok(None) };
        Ok(packet_of(row.try_get(0).map_err(executor_error)?).ok())
    }

    /// What was kept for those who did not listen for so long, oldest first.
    async fn kept(&self, silence: Duration) -> Result<Vec<(PacketId, Vec<Sent>)>, ExecutorError> {
        let sql = format!(
            "SELECT payload FROM {}.syncline_publications WHERE kept AND at > now() - make_interval(secs => $1) ORDER BY at, id",
            self.schema
        );
        let rows = self.pool.get().await?.query(&sql, &[&(silence + SLACK).as_secs_f64()]).await.map_err(executor_error)?;
        let mut packets = Vec::new();
        for row in rows {
            packets.extend(read_packet(row.try_get(0).map_err(executor_error)?));
        }
        Ok(packets)
    }

    /// A notification has come.
    async fn hear(&self, heard: &mut Heard, payload: &str) {
        let (id, here) = match read_notice(payload) {
            Ok(Notice::Packet(id, sent)) => (id, Some(sent)),
            Ok(Notice::Stored(id)) => (id, None),
            Err(error) => {
                tracing::warn!(channel = self.schema, %error, "publications of another version, or of nobody who speaks this, were passed over");
                return self.missed();
            }
        };
        let hearing = heard.hear(id);
        if hearing == Hearing::Again {
            return;
        }
        let sent = match here {
            Some(sent) => Some(sent),
            None => self.fetch_at_last(id).await,
        };
        let lost = sent.is_none() || hearing == Hearing::AfterGap;
        self.receive(sent.unwrap_or_default());
        if lost {
            tracing::warn!(channel = self.schema, "publications are missing; what rests on them is looked at again");
            self.missed();
        }
    }

    async fn fetch_at_last(&self, id: PacketId) -> Option<Vec<Sent>> {
        let mut backoff = Backoff::default();
        for _ in 0..FETCHES_MAX {
            match self.fetch(id).await {
                Ok(sent) => return sent,
                Err(error) => tracing::debug!(channel = self.schema, %error, "a publication cannot be read now"),
            }
            sleep(backoff.next()).await;
        }
        None
    }

    /// After a time without hearing anything: what was kept comes now, and receivers look for the rest.
    async fn catch_up(&self, heard: &mut Heard, silence: Duration) -> Result<(), ExecutorError> {
        heard.begin_anew();
        for (id, sent) in self.kept(silence).await? {
            if heard.find(id) {
                self.receive(sent);
            }
        }
        self.missed();
        Ok(())
    }
}

fn packet_of(bytes: &[u8]) -> Result<Vec<Sent>, NotUnderstood> {
    read_packet(bytes).map(|(_, sent)| sent)
}

/// Hears what others say, for ever.
async fn hear(shared: Arc<Shared>, first: Listening) {
    let (mut heard, mut backoff) = (Heard::default(), Backoff::default());
    let mut listening = Some(first);
    let mut last_heard = Instant::now();
    loop {
        if let Some(Listening { _client, mut line, early }) = listening.take() {
            for payload in early {
                shared.hear(&mut heard, &payload).await;
            }
            let why = loop {
                match poll_fn(|context| line.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => shared.hear(&mut heard, notification.payload()).await,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break executor_error(error).to_string(),
                    None => break "the connection has ended".to_owned(),
                }
                last_heard = Instant::now();
            };
            tracing::warn!(channel = shared.schema, why, "publications of other servers are not heard; listening again");
            *shared.deaf.lock() = Some(why);
        }
        let again = async {
            let listening = shared.listen().await?;
            shared.catch_up(&mut heard, last_heard.elapsed()).await.map(|()| listening)
        };
        match again.await {
            Ok(again) => {
                *shared.deaf.lock() = None;
                tracing::info!(channel = shared.schema, "publications of other servers are heard again");
                (listening, backoff) = (Some(again), Backoff::default());
            }
            Err(error) => {
                *shared.deaf.lock() = Some(error.to_string());
                sleep(backoff.next()).await;
            }
        }
    }
}

/// Sends what is published, for ever.
async fn send(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut swept = Instant::now();
    loop {
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            if let Err(error) = shared.sweep().await {
                tracing::debug!(channel = shared.schema, %error, "publications of the past could not be deleted");
            }
        }
        let batch = shared.outgoing.lock().batch();
        let Some(batch) = batch else {
            // Whether something waits or the time is over: it looks.
            let _ = timeout(SWEEP.saturating_sub(swept.elapsed()), shared.waits.notified()).await;
            continue;
        };
        match shared.send(&batch).await {
            Ok(()) => {
                shared.outgoing.lock().left();
                shared.left.notify_waiters();
                backoff = Backoff::default();
            }
            Err(error) => {
                tracing::warn!(channel = shared.schema, %error, "publications could not be sent and wait");
                sleep(backoff.next()).await;
            }
        }
    }
}
