//! Requests of a mount: from their head to an answer that may leave.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::bindings::guest::exports::syncline::sync::mounts::UpgradeAnswer;
use super::bindings::guest::exports::syncline::sync::{http, live};
use super::bindings::guest::syncline::host::types::{Header, RequestHead};
use super::calls::{CallFailed, Completed};
use super::connection::Connection;
use super::effect::Effect;
use super::gate::CallId;
use super::heavy::TooMany;
use super::imports::executor::HeldView;
use super::instance::{Answer, Invocation};
use super::limits::{LONG_CALL, loggable};
use super::mount::MountCore;
use super::pieces::{Maker, Pieces, pieces};
use super::streams::{self, Keepalive};
use crate::storage::StorageError;

/// No request is parked for longer, in milliseconds: a day.
const PARKED_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// An answer that may leave.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Header>,
    pub(crate) body: AnswerBody,
}

/// What follows the head.
pub(crate) enum AnswerBody {
    Whole(Bytes),
    /// Made while it is sent.
    Pieces {
        pieces: Pieces,
        /// In bytes, where it is known.
        length: Option<u64>,
    },
    /// Of an answer to HEAD: only its length is known.
    Unsent(u64),
}

/// Whoever waits for an answer.
pub(crate) struct Asker {
    /// Ends when the client is gone.
    pub(crate) gone: oneshot::Receiver<Infallible>,
    /// Told where the client does not take the end of its answer: its line is to be cut.
    pub(crate) cut: Arc<Notify>,
}

/// What the component said when it let a request in.
pub(crate) struct Admitted {
    /// Handed back to it; none where it was not asked.
    pub(crate) context: Option<Vec<u8>>,
    /// How much it will have to do.
    pub(crate) work: http::Work,
}

/// Why the component's answer does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    /// There is none.
    #[error(transparent)]
    Failed(#[from] CallFailed),
    /// It would be one connection more than the mount may have.
    #[error("the mount has as many connections as it may")]
    Full,
    /// Too many heavy requests wait already.
    #[error("too many heavy requests at once")]
    Busy,
    /// Nobody waits for it any more.
    #[error("the client is gone")]
    Gone,
}

/// A request that is served. What it is subscribed to ends with it.
pub(crate) struct OpenRequest {
    mount: Arc<MountCore>,
    id: u64,
    /// Its answer is a stream now, and ends by itself.
    handed_over: bool,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if !self.handed_over && self.mount.connections.read().contains_key(&self.id) {
            self.mount.forget(self.id);
        }
    }
}

impl MountCore {
    /// A refusal of the component.
    pub(crate) fn refusal(&self, response: http::Response) -> Answered {
        let http::Response { status, headers, body } = response;
        match body {
            http::BodyOut::Empty => Answered { status, headers, body: AnswerBody::Whole(Bytes::new()) },
            http::BodyOut::Bytes(bytes) => Answered { status, headers, body: AnswerBody::Whole(bytes.into()) },
            _ => {
                tracing::error!(mount = self.name, "a refusal has an empty body or bytes");
                self.fallback(CallFailed::Trapped.into())
            }
        }
    }

    /// The host's own answer where the component gives none.
    pub(crate) fn fallback(&self, error: Unanswered) -> Answered {
        let plan = self.plan();
        let fallbacks = plan.fallbacks.as_ref();
        let (status, fallback) = match (error, &plan.upgrades.full) {
            (Unanswered::Full, UpgradeAnswer::Status(status)) => (*status, None),
            // A close says nothing to whoever speaks plain HTTP.
            (Unanswered::Full, UpgradeAnswer::Close(_))
            | (Unanswered::Failed(CallFailed::NotDurable | CallFailed::Away) | Unanswered::Busy, _) => {
                (503, fallbacks.map(|all| &all.unavailable))
            }
            (Unanswered::Failed(CallFailed::Trapped | CallFailed::TimedOut), _) => (500, fallbacks.map(|all| &all.failed)),
            // Nobody reads it.
            (Unanswered::Gone, _) => (503, None),
        };
        let (headers, body) = fallback.map_or_else(Default::default, |fallback| (fallback.headers.clone(), fallback.body.clone()));
        Answered { status, headers, body: AnswerBody::Whole(body.into()) }
    }

    /// A request begins.
    pub(crate) fn open_request(self: &Arc<Self>) -> OpenRequest {
        OpenRequest { mount: self.clone(), id: self.new_id(), handed_over: false }
    }

    /// The connection that a request is, once it listens to something or its answer is a stream. Publications for it wait
    /// as long as the call runs.
    pub(crate) fn request_connection(self: &Arc<Self>, id: u64) -> Arc<Connection> {
        let mut connections = self.connections.write();
        let connection = connections.entry(id).or_insert_with(|| {
            let connection = Connection::new(id, self);
            connection.start_upgrade();
            connection
        });
        connection.clone()
    }
}

impl OpenRequest {
    /// Decides from the head alone.
    pub(crate) async fn admit(&self, head: Arc<RequestHead>) -> Result<http::Admission, CallFailed> {
        let mount = &self.mount;
        let completed = mount.run(&Invocation::Admit { connection: self.id, head }, mount.call_deadline()).await?;
        mount.finish_and_wait(completed.call, completed.bundles).await?;
        match completed.answer {
            Answer::Admission(admission) => Ok(admission),
            _ => Err(CallFailed::Trapped),
        }
    }

    /// Answers the request; when this returns, the answer may leave.
    pub(crate) async fn handle(
        mut self,
        head: Arc<RequestHead>,
        admitted: Admitted,
        body: http::BodyIn,
        client: &mut Asker,
    ) -> Result<Answered, Unanswered> {
        let Admitted { context, work } = admitted;
        let mount = self.mount.clone();
        // Held until the answer is there.
        let _turn = match work {
            http::Work::Heavy => Some(tokio::select! {
                biased;
                _ = &mut client.gone => return Err(Unanswered::Gone),
                turn = mount.heavy.turn() => turn.map_err(|TooMany| Unanswered::Busy)?,
            }),
            http::Work::Usual | http::Work::Long => None,
        };
        let deadline = if work == http::Work::Long { LONG_CALL } else { self.mount.call_deadline() };
        let is_head = head.method == "HEAD";
        let invocation = Invocation::Handle { connection: self.id, head, context, body, work };
        let mut completed = self.mount.run(&invocation, deadline).await?;
        loop {
            let Completed { call, answer, bundles } = completed;
            let Answer::Response(http::Response { status, mut headers, body }, view) = answer else {
                return Err(CallFailed::Trapped.into());
            };
            let body = match body {
                http::BodyOut::Parked(parked) => {
                    completed = self.park(call, bundles, parked, client).await?;
                    continue;
                }
                http::BodyOut::Stream(start) => {
                    AnswerBody::Pieces { pieces: self.stream(call, bundles, start, client).await?, length: None }
                }
                http::BodyOut::Empty => {
                    mount.finish_and_wait(call, bundles).await?;
                    AnswerBody::Whole(Bytes::new())
                }
                http::BodyOut::Bytes(bytes) => {
                    mount.finish_and_wait(call, bundles).await?;
                    AnswerBody::Whole(bytes.into())
                }
                http::BodyOut::Generated(generated) => {
                    mount.finish_and_wait(call, bundles).await?;
                    let (maker, pieces) = pieces(client.cut.clone());
                    self.mount.runtime.spawn(generate(self.mount.clone(), maker, generated.cursor, view));
                    AnswerBody::Pieces { pieces, length: None }
                }
                http::BodyOut::Object((key, range)) => {
                    mount.finish_and_wait(call, bundles).await?;
                    // The host knows it.
                    headers.retain(|header| header.name != "content-length");
                    match mount.object_body(&key, range, is_head, &client.cut).await {
                        Ok(body) => body,
                        Err(StorageError::NotFound) => {
                            return Ok(Answered { status: 404, headers: Vec::new(), body: AnswerBody::Whole(Bytes::new()) });
                        }
                        Err(error) => {
                            mount.object_failed(&key, &error);
                            return Err(CallFailed::NotDurable.into());
                        }
                    }
                }
            };
            return Ok(Answered { status, headers, body });
        }
    }

    /// Waits until something is published that the request listens to, or its time is up, and goes on.
    async fn park(
        &self,
        call: CallId,
        bundles: Vec<Vec<Effect>>,
        parked: http::Parked,
        client: &mut Asker,
    ) -> Result<Completed, Unanswered> {
        let mount = &self.mount;
        let connection = mount.request_connection(self.id);
        let http::Parked { state, timeout_ms, seen } = parked;
        connection.park();
        let waits = live::Outcome { seen, ..nothing() };
        mount.begin_connection(&connection, call, bundles, waits).await?;
        let time_is_up = tokio::time::sleep(Duration::from_millis(timeout_ms.min(PARKED_MS_MAX)));
        tokio::pin!(time_is_up);
        while !connection.has_outgoing() {
            // The process stops, or whoever published closes all who listen.
            if connection.is_closing() || mount.is_stopping() {
                return Err(CallFailed::NotDurable.into());
            }
            tokio::select! {
                biased;
                _ = &mut client.gone => return Err(Unanswered::Gone),
                () = &mut time_is_up => break,
                () = connection.changed() => {}
            }
        }
        connection.unpark();
        Ok(mount.run(&Invocation::Resume { connection: self.id, state }, mount.call_deadline()).await?)
    }

    /// Makes the request a connection that is served on its own from now on.
    async fn stream(
        &mut self,
        call: CallId,
        bundles: Vec<Vec<Effect>>,
        start: http::StreamStart,
        client: &Asker,
    ) -> Result<Pieces, Unanswered> {
        let mount = &self.mount;
        let connection = mount.request_connection(self.id);
        if mount.is_over_full() {
            mount.finish_and_wait(call, bundles).await?;
            return Err(Unanswered::Full);
        }
        if mount.is_stopping() {
            return Err(CallFailed::NotDurable.into());
        }
        mount.begin_connection(&connection, call, bundles, start.start).await?;
        mount.metrics.connected(&mount.name);
        let (maker, pieces) = pieces(client.cut.clone());
        self.handed_over = true;
        mount.runtime.spawn(streams::serve(connection, mount.clone(), maker, start.keepalive.map(Keepalive::new)));
        Ok(pieces)
    }
}

/// Makes a body piece by piece, as the client takes it.
async fn generate(mount: Arc<MountCore>, maker: Maker, cursor: Vec<u8>, view: HeldView) {
    let mut next = Some(cursor);
    while let Some(cursor) = next {
        let Some(room) = maker.room().await else { return };
        let Ok(completed) = mount.run(&Invocation::Generate { cursor, view: view.clone() }, mount.call_deadline()).await else { return };
        if mount.finish_and_wait(completed.call, completed.bundles).await.is_err() {
            return;
        }
        match completed.answer {
            Answer::Piece(Ok((piece, following))) => {
                room.fill(vec![mount.budget.hold(piece.into())]);
                next = following;
            }
            Answer::Piece(Err(problem)) => {
                return tracing::warn!(mount = mount.name, problem = %loggable(&problem), "a body was broken off");
            }
            _ => return,
        }
    }
    // It may hold back the log.
    drop(view);
    maker.end(None).await;
}

/// An outcome that does nothing.
fn nothing() -> live::Outcome {
    live::Outcome {
        send: Vec::new(),
        attachment: None,
        close: None,
        seen: Vec::new(),
        cursors: Vec::new(),
        alarm: live::Alarm::Keep,
        pace: false,
        tasks: Vec::new(),
        defer: None,
        quiet_ms: None,
    }
}
