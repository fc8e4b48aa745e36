//! A request of a mount: `admit`, the body, `handle`, and the answer on its way out.

use crate::answers::{self, send_whole};
use crate::bindings::syncline::host::executor::Snapshot;
use crate::bindings::syncline::host::types::{Header, RequestHead};
use crate::bindings::syncline::sync::http::{Admission, BodyIn, BodyOut, BodyPlan, Generated, Response, StreamStart, Work};
use crate::bindings::syncline::sync::mounts::UpgradeAnswer;
use crate::body::Body;
use crate::calls::NotDurable;
use crate::front::{Deployment, Front};
use crate::head::announced_bytes;
use crate::listening::Listening;
use crate::log::{Level, log, words};
use crate::mount::Mount;
use crate::ports::{Clock, Download, Exchange, Unread};

/// Why the logic's answer does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It is none that the contract allows here.
    #[error("the logic gave an answer that has no place here")]
    Misplaced,
    /// There is none that holds.
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
    /// It would be one stream more than there may be.
    #[error("there are as many streams as there may be")]
    Full,
}

/// An answer of a mount.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Header>,
    pub(crate) body: AnswerBody,
}

/// Its body.
pub(crate) enum AnswerBody {
    Whole(Vec<u8>),
    Object(Box<dyn Download>),
    Generated(Generated),
    Stream(Box<StreamStart>),
}

/// A request that is served. What it is subscribed to ends with it.
pub(crate) struct OpenRequest<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) mount: &'a Mount,
    pub(crate) head: RequestHead,
    pub(crate) listening: Listening,
}

impl OpenRequest<'_> {
    pub(crate) fn id(&self) -> u64 {
        self.listening.id()
    }

    fn wants_body(&self) -> bool {
        self.head.method != "HEAD"
    }
}

impl<C: Clock> Front<C> {
    /// Serves a request of a mount.
    pub(crate) async fn of_mount(&self, deployment: &Deployment, mount: &Mount, head: RequestHead, exchange: &mut impl Exchange) {
        let mut request = OpenRequest { deployment, mount, head, listening: Listening::new(self.new_id()) };
        if let Err(error) = self.ready(mount).await {
            log(Level::Error, Some(&mount.name), "the mount does not serve", error);
            let fallback = fallback(mount, NotDurable.into());
            return self.send(request, fallback, exchange).await;
        }
        match self.answered(&mut request, exchange).await {
            Ok(answered) => self.send(request, answered, exchange).await,
            Err(unread) => {
                let status = if unread == Unread::TooSlow { 408 } else { 400 };
                let (headers, body) = refusal(mount, status);
                send_whole(exchange, status, headers, body, true).await;
            }
        }
    }

    async fn answered(&self, request: &mut OpenRequest<'_>, exchange: &mut impl Exchange) -> Result<Answered, Unread> {
        let (mount, id, head) = (request.mount, request.id(), request.head.clone());
        let announced = announced_bytes(&head);
        let (context, plan, work) = match takes_directly(mount, &head, announced) {
            Some(bytes_max) => (None, BodyPlan::Inline(bytes_max), Work::Usual),
            None => match self.call(mount, |logic| logic.admit(&mount.name, id, &head)).await {
                Ok(called) => match called.answer {
                    Admission::Refuse(response) => return Ok(refused(mount, response)),
                    Admission::Accept(accept) => (Some(accept.context), accept.body, accept.work),
                },
                Err(error) => return Ok(fallback(mount, error.into())),
            },
        };
        let body = Body::new(exchange, &self.clock);
        let body = match plan {
            BodyPlan::Inline(bytes_max) => {
                let bytes_max = bytes_max.min(mount.plan.max_body_bytes).min(request.deployment.config.limits.max_body_bytes);
                body.read_inline(bytes_max, announced).await?
            }
            BodyPlan::Object(upload) => body.read_object(&*self.adapter, &mount.name, upload, announced).await?,
        };
        Ok(self.handled(request, context, body, work).await.unwrap_or_else(|error| {
            log(Level::Error, Some(&mount.name), "a request has no answer", error);
            fallback(mount, error)
        }))
    }

    async fn handled(
        &self,
        request: &mut OpenRequest<'_>,
        context: Option<Vec<u8>>,
        body: BodyIn,
        work: Work,
    ) -> Result<Answered, Unanswered> {
        let (mount, id) = (request.mount, request.id());
        let head = request.head.clone();
        let is_long = work == Work::Long;
        let called =
            self.call_within(mount, is_long, |logic| logic.handle(&mount.name, id, &head, context.as_deref(), &body, None)).await?;
        drop(body);
        request.listening.apply(called.ended.changes);
        let mut response = called.answer;
        loop {
            let Response { status, headers, body } = response;
            let body = match body {
                BodyOut::Parked(parked) => {
                    response = self.park(request, parked).await?;
                    continue;
                }
                BodyOut::Empty => AnswerBody::Whole(Vec::new()),
                BodyOut::Bytes(bytes) => AnswerBody::Whole(bytes),
                BodyOut::Generated(generated) => AnswerBody::Generated(generated),
                BodyOut::Stream(start) => AnswerBody::Stream(Box::new(start)),
                BodyOut::Object((key, range)) => match self.adapter.download(&mount.name, &key, range) {
                    Ok(Some(object)) => AnswerBody::Object(object),
                    Ok(None) => return Ok(Answered { status: 404, headers: Vec::new(), body: AnswerBody::Whole(Vec::new()) }),
                    Err(error) => {
                        log(Level::Error, Some(&mount.name), "an object could not be read", words(&error));
                        return Err(NotDurable.into());
                    }
                },
            };
            return Ok(Answered { status, headers, body });
        }
    }

    /// Sends an answer to its end.
    async fn send(&self, mut request: OpenRequest<'_>, answered: Answered, exchange: &mut impl Exchange) {
        let wants_body = request.wants_body();
        let Answered { status, headers, body } = answered;
        match body {
            AnswerBody::Whole(bytes) => send_whole(exchange, status, headers, bytes, wants_body).await,
            AnswerBody::Object(object) => self.send_object(request.mount, status, headers, &*object, wants_body, exchange).await,
            AnswerBody::Generated(_) if !wants_body => exchange.answer(answers::head(status, headers, None, false), Vec::new()).await,
            AnswerBody::Generated(generated) => self.send_generated(request.mount, status, headers, generated, exchange).await,
            AnswerBody::Stream(_) if !wants_body => exchange.answer(answers::head(status, headers, None, false), Vec::new()).await,
            AnswerBody::Stream(start) => {
                return self.stream(request, answers::head(status, headers, None, true), *start, exchange).await;
            }
        }
        self.forget(&mut request);
    }

    /// What a request was subscribed to ends.
    pub(crate) fn forget(&self, request: &mut OpenRequest<'_>) {
        if request.listening.is_shown() {
            let gone = self.adapter.gone(&request.mount.name, &[request.id()]);
            crate::front::only_logged(Some(&request.mount.name), "somebody who is gone is still shown for a while", gone);
        }
    }

    async fn send_object(
        &self,
        mount: &Mount,
        status: u16,
        headers: Vec<Header>,
        object: &dyn Download,
        wants_body: bool,
        exchange: &mut impl Exchange,
    ) {
        let length = object.length();
        let mut headers = headers;
        // It is counted here.
        headers.retain(|header| !header.name.eq_ignore_ascii_case("content-length"));
        let head = answers::head(status, headers, Some(length), wants_body);
        if !head.has_body || length == 0 {
            return exchange.answer(head, Vec::new()).await;
        }
        let broken = |error| log(Level::Error, Some(&mount.name), "an object could not be sent whole", words(&error));
        let first = match object.read() {
            Ok(first) => first.unwrap_or_default(),
            Err(error) => {
                broken(error);
                let (headers, body) = fallback_parts(mount, NotDurable.into());
                return send_whole(exchange, 503, headers, body, true).await;
            }
        };
        let mut left = length.saturating_sub(first.len() as u64);
        if left == 0 {
            return exchange.answer(head, first).await;
        }
        if exchange.begin(head, first).await.is_err() {
            return;
        }
        while left > 0 {
            match object.read() {
                Ok(Some(piece)) => {
                    left = left.saturating_sub(piece.len() as u64);
                    if exchange.write(piece).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    broken(error);
                    break;
                }
            }
        }
        // What was cut off the client must not take for whole.
        exchange.finish(left == 0).await;
    }

    async fn send_generated(&self, mount: &Mount, status: u16, headers: Vec<Header>, generated: Generated, exchange: &mut impl Exchange) {
        let Generated { cursor, view } = generated;
        let Some((first, mut next)) = self.piece(mount, &cursor, view.as_ref()).await else {
            let head = answers::head(status, headers, None, true);
            if exchange.begin(head, Vec::new()).await.is_ok() {
                exchange.finish(false).await;
            }
            return;
        };
        if next.is_none() {
            return send_whole(exchange, status, headers, first, true).await;
        }
        if exchange.begin(answers::head(status, headers, None, true), first).await.is_err() {
            return;
        }
        while let Some(cursor) = next {
            let Some((piece, following)) = self.piece(mount, &cursor, view.as_ref()).await else {
                return exchange.finish(false).await;
            };
            if exchange.write(piece).await.is_err() {
                return;
            }
            next = following;
        }
        exchange.finish(true).await;
    }

    /// A piece of a generated body; none where it is broken off.
    async fn piece(&self, mount: &Mount, cursor: &[u8], view: Option<&Snapshot>) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let called = self.call(mount, |logic| logic.generate(&mount.name, cursor, view)).await.ok()?;
        match called.answer {
            Ok(piece) => Some(piece),
            Err(problem) => {
                log(Level::Warn, Some(&mount.name), "a body was broken off", problem);
                None
            }
        }
    }
}

/// How long a body may be that comes without `admit`; none: that is asked.
fn takes_directly(mount: &Mount, head: &RequestHead, announced_bytes: Option<u64>) -> Option<u64> {
    let direct = mount.plan.direct.as_ref()?;
    let fits = announced_bytes.is_some_and(|bytes| bytes <= direct.body_bytes_max);
    (fits && head.method == "POST" && direct.paths.contains(&head.path)).then_some(direct.body_bytes_max)
}

/// A refusal of the logic.
fn refused(mount: &Mount, response: Response) -> Answered {
    let Response { status, headers, body } = response;
    match body {
        BodyOut::Empty => Answered { status, headers, body: AnswerBody::Whole(Vec::new()) },
        BodyOut::Bytes(bytes) => Answered { status, headers, body: AnswerBody::Whole(bytes) },
        _ => {
            log(Level::Error, Some(&mount.name), "a refusal has an empty body or bytes", "");
            fallback(mount, Unanswered::Misplaced)
        }
    }
}

/// The front's own answer where the logic gives none.
pub(crate) fn fallback(mount: &Mount, error: Unanswered) -> Answered {
    let status = match (error, &mount.plan.upgrades.full) {
        (Unanswered::Full, UpgradeAnswer::Status(status)) => *status,
        // A close says nothing to whoever speaks plain HTTP.
        (Unanswered::Full, UpgradeAnswer::Close(_)) | (Unanswered::NotDurable(_), _) => 503,
        (Unanswered::Misplaced, _) => 500,
    };
    let (headers, body) = fallback_parts(mount, error);
    Answered { status, headers, body: AnswerBody::Whole(body) }
}

fn fallback_parts(mount: &Mount, error: Unanswered) -> (Vec<Header>, Vec<u8>) {
    let Some(fallbacks) = &mount.plan.fallbacks else { return Default::default() };
    let fallback = match (error, &mount.plan.upgrades.full) {
        (Unanswered::Full, UpgradeAnswer::Status(_)) => return Default::default(),
        (Unanswered::Misplaced, _) => &fallbacks.failed,
        _ => &fallbacks.unavailable,
    };
    (fallback.headers.clone(), fallback.body.clone())
}

/// A refusal of the front's own. Where the mount's errors are JSON, it has its headers and names the status.
fn refusal(mount: &Mount, status: u16) -> (Vec<Header>, Vec<u8>) {
    let is_json = |header: &Header| header.name.eq_ignore_ascii_case("content-type") && header.value == b"application/json";
    let fallback = mount.plan.fallbacks.as_ref().map(|fallbacks| &fallbacks.failed);
    match fallback.filter(|fallback| fallback.headers.iter().any(is_json)) {
        None => Default::default(),
        Some(fallback) => {
            let error = if status == 408 { "request-timeout" } else { "bad-request" };
            (fallback.headers.clone(), serde_json::json!({"error": error}).to_string().into_bytes())
        }
    }
}
