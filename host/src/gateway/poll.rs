//! What nobody here caused: publications of others, another revision of the deployment, and whether it can be reached again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use syncline_spin_wire as wire;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::calls::Calls;
use super::feed::Feed;
use super::records;
use super::upstream::{Unanswered, Upstream};
use crate::runtime::{Answer, CallFailed, Invocation, MountCore, Remote, RemoteMount, Runtime, limits};
use crate::server::ServerHandle;

/// How long a poll may wait there.
const WAIT: Duration = Duration::from_millis(wire::POLL_WAIT_MS_MAX as u64);
/// The same where somebody wakes us, who might not: a look now and then.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// How often the deployment is told which connections are held: it keeps their presence for 90 s.
const TOLD_HELD: Duration = Duration::from_secs(25);
/// Time for an answer beyond what it may wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two polls that gave nothing, however soon they came back.
const POLLS_APART: Duration = Duration::from_millis(50);
/// The pause after a failure, which doubles, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Before the first connection after a while positions are asked for, rather than everything that was published meanwhile.
const OLD: Duration = Duration::from_secs(10);

/// What wakes a gateway that waits for publications.
#[derive(Default)]
pub(super) struct Wakes {
    /// There may be something new.
    wake: Notify,
    /// Redis tells of what is new.
    redis: AtomicBool,
    /// The deployment does, at our URL: so it has shown.
    callback: AtomicBool,
}

impl Wakes {
    /// There may be something new.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The deployment has called: from now on it need not be asked for long.
    pub(super) fn called(&self) {
        self.callback.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Redis tells of what is new from now on, or not any more.
    pub(super) fn set_redis(&self, tells: bool) {
        self.redis.store(tells, Ordering::Relaxed);
        self.wake();
    }
}

/// See the module.
pub(super) struct Poller {
    pub(super) upstream: Arc<Upstream>,
    pub(super) calls: Arc<Calls>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) wakes: Arc<Wakes>,
    /// Where the deployment wakes us.
    pub(super) callback: Option<String>,
    /// The listener of all mounts.
    pub(super) listen: String,
    pub(super) known: Mutex<KnownDeployment>,
    /// Somebody knocks.
    pub(super) knock: Notify,
    /// Held while the deployment is asked what it is.
    pub(super) describing: tokio::sync::Mutex<()>,
    /// The listener, once it is there.
    pub(super) server: OnceLock<ServerHandle>,
}

/// The deployment as it was described last.
#[derive(Default)]
pub(super) struct KnownDeployment {
    revision: String,
    /// By the name of the mount, with its protocol.
    feeds: HashMap<String, (String, Arc<Feed>)>,
}

/// Whoever makes the calls of one mount.
struct MountRemote {
    poller: Weak<Poller>,
    calls: Arc<Calls>,
    feed: Arc<Feed>,
}

#[async_trait]
impl Remote for MountRemote {
    async fn call(&self, mount: &Arc<MountCore>, invocation: &Invocation, deadline: Duration) -> Result<Answer, CallFailed> {
        let Some(asked) = records::invocation(invocation) else { return Ok(Answer::Done) };
        if let (Invocation::Upgrade { .. }, Some(poller)) = (invocation, self.poller.upgrade()) {
            poller.knocked().await;
        }
        let _under_way = self.feed.call();
        let reply = self.calls.make(mount, &self.feed, asked, deadline).await?;
        let answer = records::answer(invocation, reply)?;
        limits::of_answer(&answer).map_err(|error| {
            tracing::error!(mount = mount.name, %error, "an answer of the deployment is not taken");
            CallFailed::Trapped
        })?;
        Ok(answer)
    }
}

impl Poller {
    /// Asks the deployment what it is, and serves that from now on.
    pub(super) async fn describe(self: &Arc<Self>) -> Result<(), Unanswered> {
        let _turn = self.describing.lock().await;
        let hello = wire::Hello { gateway: self.runtime.process() };
        let described: Result<wire::Deployment, _> = self.upstream.ask(wire::MOUNTS, &hello, PATIENCE).await;
        self.upstream.reached(described.as_ref().map(|_| ()));
        let wire::Deployment { revision, sent_topic, mounts } = described?;
        let (mut feeds, mut described, mut newest) = (HashMap::new(), Vec::new(), Vec::new());
        {
            let known = self.known.lock();
            for mount in mounts {
                let wire::MountPlan { name, protocol, plan, position, .. } = mount;
                let same = known.feeds.get(&name).filter(|(before, _)| *before == protocol);
                let feed = same.map(|(_, feed)| feed.clone()).unwrap_or_default();
                let remote = Arc::new(MountRemote { poller: Arc::downgrade(self), calls: self.calls.clone(), feed: feed.clone() });
                feeds.insert(name.clone(), (protocol.clone(), feed.clone()));
                newest.push((name.clone(), feed, position));
                described.push(RemoteMount { name, protocol, listen: self.listen.clone(), plan: records::plan(plan), remote });
            }
        }
        self.runtime.exchange_remote(described);
        if let Some(server) = self.server.get() {
            server.renew_routes();
        }
        for (name, feed, position) in newest {
            if let Some(mount) = self.runtime.mount(&name) {
                feed.described(&mount, &sent_topic, position);
            }
        }
        let before = std::mem::replace(&mut *self.known.lock(), KnownDeployment { revision: revision.clone(), feeds });
        if before.revision != revision {
            let mounts: Vec<_> = self.runtime.mounts().iter().map(|mount| mount.name.clone()).collect();
            tracing::info!(mounts = mounts.join(", "), "the deployment's mounts");
        }
        self.upstream.heard();
        Ok(())
    }

    /// Somebody wants a connection.
    async fn knocked(self: &Arc<Self>) {
        if self.upstream.is_older_than(OLD) {
            // If that fails, so will the call.
            drop(self.describe().await);
        }
        self.knock.notify_one();
    }

    fn has_connections(&self) -> bool {
        self.runtime.mounts().iter().any(|mount| mount.connection_count() > 0)
    }

    /// Whether somebody tells when there is something new.
    fn is_told(&self) -> bool {
        self.wakes.callback.load(Ordering::Relaxed) || self.wakes.redis.load(Ordering::Relaxed)
    }

    /// Polls until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let (mut pause, mut told_held) = (PAUSE_MIN, Instant::now());
        loop {
            let was_away = self.upstream.problem().is_some() || self.known.lock().revision.is_empty();
            let done = match was_away {
                true => self.describe().await,
                false if !self.has_connections() => {
                    self.knock.notified().await;
                    continue;
                }
                false => self.poll(&mut told_held).await,
            };
            match done {
                Ok(()) => pause = PAUSE_MIN,
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Asks for what is new, and passes it on.
    async fn poll(self: &Arc<Self>, told_held: &mut Instant) -> Result<(), Unanswered> {
        let is_told = self.is_told();
        let tells_held = told_held.elapsed() >= TOLD_HELD;
        let begun = Instant::now();
        let wait = if is_told { Duration::ZERO } else { WAIT };
        let question = self.question(wait, tells_held);
        let polled: Result<wire::Polled, _> = self.upstream.ask(wire::POLL, &question, wait + PATIENCE).await;
        self.upstream.reached(polled.as_ref().map(|_| ()));
        let polled = polled?;
        self.upstream.heard();
        if tells_held {
            *told_held = begun;
        }
        let mut is_new = false;
        for wire::MountPublications { mount, published } in polled.mounts {
            let feed = self.known.lock().feeds.get(&mount).map(|(_, feed)| feed.clone());
            if let Some((mount, feed)) = self.runtime.mount(&mount).zip(feed) {
                is_new |= published.missed || !published.publications.is_empty();
                feed.take(&mount, published, Vec::new());
            }
        }
        if polled.revision != question.revision {
            return self.describe().await;
        }
        match (is_new, is_told) {
            // A stretch has an end: there may be more.
            (true, _) => {}
            // Nobody may have told of what does not come.
            (false, true) => drop(timeout(LOOK_AGAIN, self.wakes.wake.notified()).await),
            (false, false) => sleep(POLLS_APART.saturating_sub(begun.elapsed())).await,
        }
        Ok(())
    }

    fn question(&self, wait: Duration, tells_held: bool) -> wire::Poll {
        let known = self.known.lock();
        let position = |(mount, (_, feed)): (&String, &(String, Arc<Feed>))| wire::Known { mount: mount.clone(), position: feed.known() };
        let held = |mount: &Arc<MountCore>| wire::Held { mount: mount.name.clone(), connections: mount.held() };
        wire::Poll {
            gateway: self.runtime.process(),
            revision: known.revision.clone(),
            mounts: known.feeds.iter().map(position).collect(),
            held: if tells_held { self.runtime.mounts().iter().map(held).collect() } else { Vec::new() },
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(wire::POLL_WAIT_MS_MAX),
            callback: self.callback.clone(),
        }
    }
}
