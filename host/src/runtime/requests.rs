//! Requests of a mount: from their head to an answer that may leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::Notify;

use super::bindings::guest::exports::syncline::sync::http;
use super::bindings::guest::exports::syncline::sync::mounts::UpgradeAnswer;
use super::bindings::guest::syncline::host::types::{Header, RequestHead};
use super::calls::{CallFailed, Completed};
use super::connection::Connection;
use super::instance::{Answer, Invocation};
use super::mount::MountCore;
use super::pieces::{Maker, Pieces, pieces};
use super::streams::{self, Keepalive};

/// An answer that may leave.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Header>,
    pub(crate) body: AnswerBody,
}

/// What follows the head.
pub(crate) enum AnswerBody {
    Whole(Bytes),
    Pieces(Pieces),
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
    /// This host does not send bodies of this kind.
    #[error("this host does not send bodies of this kind")]
    Unsupported,
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
            (Unanswered::Full, UpgradeAnswer::Close(_)) | (Unanswered::Failed(CallFailed::NotDurable), _) => {
                (503, fallbacks.map(|all| &all.unavailable))
            }
            (Unanswered::Failed(CallFailed::Trapped | CallFailed::TimedOut), _) => (500, fallbacks.map(|all| &all.failed)),
            (Unanswered::Unsupported, _) => {
                tracing::error!(mount = self.name, %error, "an answer was not sent");
                (501, None)
            }
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

    /// Answers the request; when this returns, the answer may leave. `cut` is told where the client does not take its end.
    pub(crate) async fn handle(
        mut self,
        head: Arc<RequestHead>,
        context: Vec<u8>,
        body: http::BodyIn,
        cut: Arc<Notify>,
    ) -> Result<Answered, Unanswered> {
        let invocation = Invocation::Handle { connection: self.id, head, context, body };
        let Completed { call, answer, bundles } = self.mount.run(&invocation, self.mount.call_deadline()).await?;
        let Answer::Response(http::Response { status, headers, body }) = answer else { return Err(CallFailed::Trapped.into()) };
        let body = match body {
            http::BodyOut::Stream(start) => {
                AnswerBody::Pieces(self.stream(Completed { call, answer: Answer::Done, bundles }, start, cut).await?)
            }
            body => {
                self.mount.finish_and_wait(call, bundles).await?;
                match body {
                    http::BodyOut::Empty => AnswerBody::Whole(Bytes::new()),
                    http::BodyOut::Bytes(bytes) => AnswerBody::Whole(bytes.into()),
                    _ => return Err(Unanswered::Unsupported),
                }
            }
        };
        Ok(Answered { status, headers, body })
    }

    /// Makes the request a connection that is served on its own from now on.
    async fn stream(&mut self, completed: Completed, start: http::StreamStart, cut: Arc<Notify>) -> Result<Pieces, Unanswered> {
        let mount = &self.mount;
        let connection = mount.request_connection(self.id);
        if mount.is_over_full() {
            mount.finish_and_wait(completed.call, completed.bundles).await?;
            return Err(Unanswered::Full);
        }
        if mount.stopping.load(Ordering::Relaxed) {
            return Err(CallFailed::NotDurable.into());
        }
        mount.begin_connection(&connection, completed.call, completed.bundles, start.start).await?;
        mount.metrics.connected(&mount.name);
        let (maker, pieces): (Maker, Pieces) = pieces(cut);
        self.handed_over = true;
        mount.runtime.spawn(streams::serve(connection, mount.clone(), maker, start.keepalive.map(Keepalive::new)));
        Ok(pieces)
    }
}
