//! Sends what an outbox holds, until nothing is left. Targets do not wait for each other: of each some posts are under way.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::retry::due_again;
use super::rows::{Due, Post, Table, content_row, due_rows, waiting_row};
use super::{Outbox, Place};
use crate::executor::{ExecutorError, Statement};
use crate::runtime::bindings::guest::exports::syncline::sync::timer::FailedPost;
use crate::runtime::instance::Invocation;
use crate::runtime::mount::MountCore;

/// Posts of one outbox to one target that are under way at once.
const PER_TARGET_MAX: usize = 4;
/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long another process, or the next one after a crash, leaves alone what this one is sending: longer than an attempt, and
/// than writing down what came of it.
const LEASE_MS: u64 = 15_000;
/// When an outbox is looked at again that could not be read or written.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The header that is the same in every attempt of a post.
const POST_ID: HeaderName = HeaderName::from_static("x-syncline-post-id");

/// What is under way from one outbox.
#[derive(Default)]
struct Flights {
    /// Each gives its id when it is over and written down.
    attempts: JoinSet<String>,
    /// Id and target of each.
    targets: HashMap<String, String>,
}

/// What a look at an outbox says.
enum Look {
    /// Nothing is there, and nothing under way.
    Empty,
    /// Something is due after so long, or is under way.
    Later(Option<Duration>),
}

/// Delivers the posts of a place. Ends when none is left; whoever brings new ones starts it anew.
pub(super) async fn run(mount: Weak<MountCore>, place: Place, woken: Arc<Notify>, after_start: bool) {
    let mut flights = Flights::default();
    let mut first = after_start;
    loop {
        let pause = {
            let Some(mount) = mount.upgrade().filter(|mount| !mount.is_stopping()) else { return };
            mount.posts_seen(&place);
            match look(&mount, &place, &mut flights, std::mem::take(&mut first)).await {
                Ok(Look::Empty) if mount.posts_ended(&place) => return,
                Ok(Look::Empty) => continue,
                Ok(Look::Later(pause)) => pause,
                Err(error) => {
                    tracing::warn!(mount = mount.name, ?place, %error, "posts cannot be read or written now");
                    Some(LOOK_AGAIN)
                }
            }
        };
        let timer = tokio::time::sleep(pause.unwrap_or(LOOK_AGAIN));
        tokio::select! {
            biased;
            ended = flights.attempts.join_next(), if !flights.attempts.is_empty() => {
                match ended {
                    Some(Ok(id)) => drop(flights.targets.remove(&id)),
                    // It panicked, or the process ends: what it was is found again by looking.
                    _ => flights.targets.clear(),
                }
            }
            () = woken.notified() => {}
            () = timer => {}
        }
    }
}

/// Starts what is due and has room.
async fn look(mount: &Arc<MountCore>, place: &Place, flights: &mut Flights, after_start: bool) -> Result<Look, ExecutorError> {
    let plan = mount.plan();
    if plan.post_targets.is_empty() {
        return Ok(Look::Empty);
    }
    let turn = mount.outbox.opening.acquire().await.map_err(|_| ExecutorError::Unavailable("the host is stopping".into()))?;
    let database = mount.outbox_database(place).await?;
    let info = database.info();
    let table = Table { info: &info, mount: &mount.name };
    let read = |statement: Statement| {
        let database = &database;
        async move { database.snapshot().await?.query(&statement, None).await }
    };
    let counted = match read(table.waiting()).await {
        // Noted down, but the transaction that would have made the table never was.
        Err(ExecutorError::InvalidStatement(_)) => {
            write(mount, place, &table.create()).await?;
            read(table.waiting()).await
        }
        counted => counted,
    };
    let (count, _) = waiting_row(&counted?);
    mount.posts_waiting(place, count);
    if count == 0 && flights.targets.is_empty() {
        if let (Place::Of(name), true) = (place, after_start) {
            mount.outbox.forget(&mount.name, name).await?;
        }
        return Ok(Look::Empty);
    }
    let now_ms = mount.environment.now_ms();
    for target in &plan.post_targets {
        let under_way = flights.targets.values().filter(|other| *other == target).count();
        let due = due_rows(read(table.due(target, now_ms, PER_TARGET_MAX + under_way)).await?);
        let fresh = due.into_iter().filter(|due| !flights.targets.contains_key(&due.id));
        for due in fresh.take(PER_TARGET_MAX.saturating_sub(under_way)).collect::<Vec<_>>() {
            let Some(post) = content_row(&due.id, read(table.content(&due.id)).await?) else { continue };
            flights.targets.insert(due.id.clone(), target.clone());
            flights.attempts.spawn(deliver(Arc::downgrade(mount), mount.outbox.clone(), place.clone(), due, post));
        }
    }
    drop(turn);
    let (_, due_next_ms) = waiting_row(&read(table.due_next(now_ms)).await?);
    if due_next_ms.is_none() && flights.targets.is_empty() {
        let removed = write(mount, place, &[table.delete_others(&plan.post_targets)]).await?;
        // None, where another process has sent them meanwhile.
        if removed > 0 {
            tracing::warn!(mount = mount.name, removed, "posts to targets that the plan does not allow any more were dropped");
        }
        return Ok(Look::Later(Some(Duration::ZERO)));
    }
    Ok(Look::Later(due_next_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)))))
}

/// Sends a post once and writes down what came of it; its id.
async fn deliver(mount: Weak<MountCore>, outbox: Arc<Outbox>, place: Place, due: Due, post: Post) -> String {
    let Ok(turn) = outbox.sending.acquire().await else { return due.id };
    // Where others read the same rows, whoever puts one off first has it.
    if outbox.executor.is_shared() {
        let Some(mount) = mount.upgrade() else { return due.id };
        match claim(&mount, &place, &due).await {
            Ok(true) => {}
            Ok(false) => return due.id,
            Err(error) => {
                tracing::warn!(mount = mount.name, post = due.id, %error, "a post cannot be taken on now");
                drop(mount);
                tokio::time::sleep(LOOK_AGAIN).await;
                return due.id;
            }
        }
    }
    let result = attempt(&outbox, &post).await;
    drop(turn);
    let Some(mount) = mount.upgrade() else { return due.id };
    match settle(&mount, &place, &due, &result).await {
        Ok(fate) => tell(&mount, &due, post, fate, result).await,
        Err(error) => {
            tracing::warn!(mount = mount.name, post = due.id, %error, "what came of a post could not be written down: it is sent again");
            drop(mount);
            // The row is due as before.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    due.id
}

/// Tells the logic of a failure that it has not heard of: the first one, and the last.
async fn tell(mount: &Arc<MountCore>, due: &Due, post: Post, fate: Fate, result: Result<(), String>) {
    let Err(error) = result else { return };
    let (attempts, given_up) = (due.attempts.saturating_add(1), fate == Fate::GivenUp);
    if attempts > 1 && !given_up {
        return;
    }
    let post = FailedPost { url: post.url, body: post.body, attempts, given_up, error };
    let invocation = Invocation::PostFailed { connection: mount.new_id(), post };
    // A call that fails is in the log.
    if let Ok(completed) = mount.run(&invocation, mount.call_deadline()).await
        && let Err(error) = mount.finish_and_wait(completed.call, completed.bundles).await
    {
        tracing::warn!(mount = mount.name, post = due.id, %error, "what the failure of a post led to was lost");
    }
}

/// Takes a post on, for as long as an attempt takes; whether nobody else has.
async fn claim(mount: &MountCore, place: &Place, due: &Due) -> Result<bool, ExecutorError> {
    let info = mount.outbox_database(place).await?.info();
    let claim = Table { info: &info, mount: &mount.name }.claim(due, mount.environment.now_ms() + LEASE_MS);
    Ok(write(mount, place, &[claim]).await? > 0)
}

/// Sends a post once.
async fn attempt(outbox: &Outbox, post: &Post) -> Result<(), String> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.headers_mut() = post.headers();
    request.headers_mut().insert(POST_ID, HeaderValue::try_from(&post.id).map_err(|error| error.to_string())?);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = post.url.parse().map_err(|_| "the URL is not valid".to_owned())?;
    *request.body_mut() = Full::new(post.body.clone().into());
    let reply = outbox.http.send(request, ATTEMPT, None).await.map_err(|error| error.to_string())?;
    if reply.status.is_success() { Ok(()) } else { Err(format!("answered {}", reply.status.as_u16())) }
}

/// What becomes of a post after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    TriedAgain,
    GivenUp,
}

/// Writes down what came of an attempt.
async fn settle(mount: &MountCore, place: &Place, due: &Due, result: &Result<(), String>) -> Result<Fate, ExecutorError> {
    let attempts = due.attempts.saturating_add(1);
    let now_ms = mount.environment.now_ms();
    let again = match result {
        Ok(()) => None,
        Err(_) => due_again(attempts, due.created_ms, now_ms, mount.environment.random()),
    };
    let fate = match (result, again) {
        (Ok(()), _) => {
            mount.metrics.post(&mount.name, "sent");
            Fate::Sent
        }
        (Err(error), Some(_)) => {
            mount.metrics.post(&mount.name, "retried");
            tracing::info!(mount = mount.name, post = due.id, attempts, error, "a post failed and is tried again later");
            Fate::TriedAgain
        }
        (Err(error), None) => {
            mount.metrics.post(&mount.name, "failed");
            tracing::error!(mount = mount.name, post = due.id, attempts, error, "a post failed and is given up");
            Fate::GivenUp
        }
    };
    let info = mount.outbox_database(place).await?.info();
    let table = Table { info: &info, mount: &mount.name };
    let change = again.map_or_else(|| table.delete(&due.id), |due_ms| table.postpone(&due.id, attempts, due_ms));
    write(mount, place, &[change]).await?;
    Ok(fate)
}

/// Runs statements in one transaction and gives the changes of the last. Returns when it is settled, since a look sees
/// what is durable. If it is lost a post is sent once more.
async fn write(mount: &MountCore, place: &Place, statements: &[Statement]) -> Result<u64, ExecutorError> {
    let results = match place {
        Place::Own => mount.outbox.own().await?.database.write(statements).await?,
        Place::Of(name) => {
            let mut transaction = mount.database(name).await?.begin().await?;
            let results = transaction.execute_batch(statements).await?;
            let mut ended_in = 0;
            transaction.commit(&mut |group| ended_in = group).await?;
            mount.wait_until_settled(&[(name.clone(), ended_in)]).await;
            results
        }
    };
    Ok(results.last().map_or(0, |result| result.changed))
}

impl MountCore {
    /// Whoever delivers looks now: what came before is seen.
    fn posts_seen(&self, place: &Place) {
        if let Some(running) = self.posts.state.lock().running.get_mut(place) {
            running.dirty = false;
        }
    }

    /// Whoever delivers has found nothing: whether it may end, since nothing came meanwhile.
    fn posts_ended(&self, place: &Place) -> bool {
        let mut state = self.posts.state.lock();
        if state.running.get(place).is_some_and(|running| running.dirty) {
            return false;
        }
        state.running.remove(place);
        true
    }
}
