//! Clients of a mount: upgrades, requests, connections that go away, and who is closed where too much waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::bindings::guest::exports::syncline::sync::mounts::UpgradeAnswer;
use super::bindings::guest::exports::syncline::sync::{http, live, socket};
use super::bindings::guest::syncline::host::types::{Header, RequestHead};
use super::budget::{Budget, IMPATIENCE, TIGHT_PATIENCE};
use super::calls::CallFailed;
use super::connection::{Connection, split};
use super::effect::Effect;
use super::gate::CallId;
use super::instance::{Answer, Invocation};
use super::mount::MountCore;

/// How often it is looked at who holds most, while too much waits.
const BUDGET_PAUSE: Duration = Duration::from_millis(100);
/// Whoever holds less is not closed for it.
const FAT_BYTES_MIN: usize = 16 << 10;
/// The status of an upgrade that nobody can decide upon now.
const AWAY: u16 = 503;
/// How long what a client sent before it went away may still take.
const AFTERLIFE: Duration = Duration::from_secs(30);
/// How long an upgrade waits for that.
const LEAVING_PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of an upgrade.
pub(crate) enum Upgraded {
    /// The connection lives; `closing`: only to be told why not.
    Accepted { connection: Arc<Connection>, subprotocol: Option<String>, headers: Vec<Header>, closing: bool },
    /// It stays HTTP.
    Refused(Box<http::Response>),
    /// The host answers by itself.
    Host(UpgradeAnswer),
}

impl MountCore {
    /// A client wants a connection.
    pub(crate) async fn upgrade(self: &Arc<Self>, head: Arc<RequestHead>) -> Upgraded {
        let plan = self.plan();
        let upgrades = &plan.upgrades;
        if self.is_stopping() {
            return Upgraded::Host(upgrades.failed.clone());
        }
        let connection = self.request_connection(self.new_id());
        if self.is_over_full() {
            self.forget(connection.id);
            return Upgraded::Host(upgrades.full.clone());
        }
        connection.made_at(&head.path);
        let patience = LEAVING_PATIENCE.min(Duration::from_millis(upgrades.deadline_ms));
        self.leaving.wait(&head.path, patience).await;
        let invocation = Invocation::Upgrade { connection: connection.id, head };
        let answered = self.run(&invocation, Duration::from_millis(upgrades.deadline_ms)).await;
        let completed = match answered {
            Ok(completed) => completed,
            Err(error) => {
                self.forget(connection.id);
                return Upgraded::Host(match error {
                    CallFailed::TimedOut => upgrades.timed_out.clone(),
                    CallFailed::Away => UpgradeAnswer::Status(AWAY),
                    CallFailed::Trapped | CallFailed::NotDurable => upgrades.failed.clone(),
                });
            }
        };
        match completed.answer {
            Answer::Upgrade(socket::UpgradeResult::Accept(accept)) => {
                let closing = accept.start.close.is_some();
                if self.begin_connection(&connection, completed.call, completed.bundles, accept.start).await.is_err() {
                    self.forget(connection.id);
                    return Upgraded::Host(upgrades.failed.clone());
                }
                Upgraded::Accepted { connection, subprotocol: accept.subprotocol, headers: accept.headers, closing }
            }
            Answer::Upgrade(socket::UpgradeResult::Refuse(response)) => {
                let released = self.finish_and_wait(completed.call, completed.bundles).await;
                self.forget(connection.id);
                if released.is_ok() { Upgraded::Refused(Box::new(response)) } else { Upgraded::Host(upgrades.failed.clone()) }
            }
            _ => Upgraded::Host(upgrades.failed.clone()),
        }
    }

    /// Whether there are more connections than there may be.
    pub(super) fn is_over_full(&self) -> bool {
        let limit = self.plan().upgrades.max_connections.and_then(|limit| usize::try_from(limit).ok());
        limit.is_some_and(|limit| self.connection_count() > limit)
    }

    /// The first call of a connection is over: returns when what it sends may leave.
    pub(super) async fn begin_connection(
        &self,
        connection: &Arc<Connection>,
        call: CallId,
        mut bundles: Vec<Vec<Effect>>,
        mut start: live::Outcome,
    ) -> Result<(), CallFailed> {
        let number = connection.running_call();
        connection.end_upgrade(start.attachment.take());
        let (released, after) = split(start, &self.budget);
        let (permit, permitted) = oneshot::channel();
        let outcome = Effect::Outcome { connection: connection.clone(), call: number, released, after };
        bundles.push(vec![outcome, Effect::Permit(permit)]);
        self.finish(call, bundles);
        permitted.await.map_err(|_| CallFailed::NotDurable)
    }

    /// A number for a connection or request.
    pub(crate) fn new_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The socket of a connection is gone. What it sent is still handled; then the component is told.
    pub(crate) fn disconnected(self: &Arc<Self>, connection: Arc<Connection>, code: u16) {
        connection.disconnected();
        self.end_subscriptions(connection.id, None);
        self.metrics.disconnected(&self.name, code);
        let mount = self.clone();
        // Whoever comes back at once is to find it here.
        let leaves = connection.path().filter(|_| connection.is_at_work()).map(|path| self.leaving.begin(path, connection.id));
        self.runtime.spawn(async move {
            let deadline = Instant::now() + AFTERLIFE;
            while connection.is_at_work() && Instant::now() < deadline {
                // Woken by every release; the pause only bounds how often a busy connection is looked at.
                let _ = tokio::time::timeout(Duration::from_millis(100), connection.progress()).await;
            }
            drop(leaves);
            let closed = Invocation::Closed { connection: connection.as_called(&mount), code };
            if let Ok(completed) = mount.run(&closed, mount.call_deadline()).await {
                let _ = mount.finish_and_wait(completed.call, completed.bundles).await;
            }
            mount.forget(connection.id);
        });
    }

    /// A connection is no more.
    pub(super) fn forget(&self, connection: u64) {
        self.end_subscriptions(connection, None);
        self.connections.write().remove(&connection);
        self.gate.lock().close_lane(connection);
    }

    /// Closes the connection that holds most, as a slow reader: where the budget is used up, or if nothing else helped.
    fn close_fattest(&self, anyway: bool) {
        let connections: Vec<_> = self.connections.read().values().cloned().collect();
        let (closing, open): (Vec<_>, Vec<_>) = connections.iter().partition(|connection| connection.is_closing());
        // What those that are being closed hold is as good as given back.
        let leaving: usize = closing.iter().map(|connection| connection.socket_bytes()).sum();
        if !anyway && self.budget.used().saturating_sub(leaving) <= self.budget.limit() {
            return;
        }
        let fattest = open.into_iter().map(|connection| (connection.waiting_bytes(), connection)).max_by_key(|(bytes, _)| *bytes);
        if let Some((bytes, fattest)) = fattest.filter(|(bytes, _)| *bytes >= FAT_BYTES_MIN) {
            tracing::warn!(mount = self.name, bytes, used = self.budget.used(), "too much waits: whoever holds most is closed");
            fattest.close_now(self.closes().slow.clone());
            self.metrics.slow_reader(&self.name);
        }
    }
}

/// Closes whoever holds most where more waits than may, or where what waits does not go away.
pub(super) async fn keep_budget(mount: Weak<MountCore>, budget: Arc<Budget>) {
    let mut in_vain: Option<Instant> = None;
    loop {
        budget.tight().await;
        let since = Instant::now();
        while budget.is_tight() {
            let Some(mount) = mount.upgrade() else { return };
            if since.elapsed() >= TIGHT_PATIENCE {
                in_vain = Some(Instant::now());
            }
            mount.close_fattest(in_vain.is_some_and(|then| then.elapsed() < IMPATIENCE));
            drop(mount);
            // The pause only bounds how often the connections are looked at.
            let _ = tokio::time::timeout(BUDGET_PAUSE, budget.roomy()).await;
        }
    }
}
