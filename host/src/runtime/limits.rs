//! What one call, one connection and one instance may take at most. A component that wants more fails that call, and
//! nothing else; the figures stand in docs/operations.md.

use std::time::Duration;

use super::bindings::guest::exports::syncline::sync::mounts::Plan;
use super::bindings::guest::exports::syncline::sync::{http, live, socket};
use super::bindings::guest::syncline::host::pubsub::Publication;
use super::bindings::guest::syncline::host::types::{Frame as WitFrame, Header};
use super::effect::Effect;
use super::instance::Answer;

/// Time for a call of the rare kind that must do its work as one (`start`, and requests that were accepted as `long`), for its
/// transactions, and for each of their statements.
pub const LONG_CALL: Duration = Duration::from_secs(60 * 60);
/// Bytes that a component may hand over at once, as arguments of one import or as the result of one export.
pub const TRANSFER_BYTES_MAX: usize = 128 << 20;
/// The same for an app.
pub const APP_TRANSFER_BYTES_MAX: usize = 16 << 20;
/// Idle instances of the app of one mount.
pub const IDLE_APPS_MAX: usize = 64;
/// What one call may let out: frames, publications, keys, jobs, tasks, cut-offs, together.
pub const EFFECTS_MAX: usize = 65_536;
/// Their bytes, a response's and a new attachment's included.
pub const EFFECT_BYTES_MAX: usize = 128 << 20;
/// The attachment of a connection.
pub const ATTACHMENT_BYTES_MAX: usize = 256 << 10;
/// Topics that one connection may listen to.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Names, groups and presences of the subscriptions of one connection.
pub const SUBSCRIPTION_BYTES_MAX: usize = 4 << 20;
/// Name, payload or cursor of a job.
pub const JOB_BYTES_MAX: usize = 1 << 20;
/// URL, headers and body of a post to a target outside.
pub const POST_BYTES_MAX: usize = 1 << 20;
/// Message, or fields, of one line in the log.
pub const LOG_BYTES_MAX: usize = 16 << 10;
/// Lines that one call may log.
pub const LOG_LINES_MAX: usize = 1000;
/// What one call may write to its standard error (messages of a panic).
pub const STANDARD_ERROR_BYTES_MAX: usize = 64 << 10;
/// Snapshots that one call may hold at the same time.
pub const SNAPSHOTS_MAX: usize = 4;
/// Handles that one instance may hold: transactions, snapshots, those of WASI.
pub const HANDLES_MAX: usize = 1000;
/// Keys or objects in one listing.
pub const LISTED_MAX: u32 = 10_000;
/// Idle instances of one mount together.
pub const IDLE_INSTANCES_BYTES_MAX: usize = 512 << 20;
/// Inputs handed over in one call: enough that a burst is cheap, few enough that a call stays short.
const INPUTS_PER_CALL_MAX: u32 = 16;
/// No length of time in a plan is longer, in milliseconds: a day.
const PLAN_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What is watched is not looked at more often, in milliseconds.
const WATCH_MS_MIN: u64 = 10;

/// What a call has let out so far.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pieces: usize,
    bytes: usize,
}

impl Taken {
    /// Counts more; an error where it is too much.
    pub(crate) fn add(&mut self, weight: Weight) -> wasmtime::Result<()> {
        self.pieces = self.pieces.saturating_add(weight.pieces);
        self.bytes = self.bytes.saturating_add(weight.bytes);
        if self.pieces > EFFECTS_MAX {
            return Err(wasmtime::Error::msg(format!("the call let out more than {EFFECTS_MAX} effects")));
        }
        if self.bytes > EFFECT_BYTES_MAX {
            return Err(wasmtime::Error::msg(format!("the call let out more than {EFFECT_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

/// How much something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) pieces: usize,
    pub(crate) bytes: usize,
}

impl Weight {
    fn one(bytes: usize) -> Self {
        Self { pieces: 1, bytes }
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, weight| Self {
            pieces: sum.pieces.saturating_add(weight.pieces),
            bytes: sum.bytes.saturating_add(weight.bytes),
        })
    }
}

/// What an effect weighs.
pub(crate) fn of_effect(effect: &Effect) -> Weight {
    Weight::one(match effect {
        Effect::Publish(publication) => of_publication(publication),
        Effect::Send { frame, .. } => frame.len(),
        Effect::Post(post) => post.bytes(),
        Effect::Deferred(work) => work.bytes(),
        // Made by the host, of what was weighed with the answer.
        Effect::Outcome { .. } | Effect::Permit(_) => 0,
    })
}

fn of_publication(publication: &Publication) -> usize {
    publication.topic.len() + publication.message.len() + publication.order.as_ref().map_or(0, |order| order.key.len())
}

/// What an answer weighs; an error where a part of it is too large by itself.
pub(crate) fn of_answer(answer: &Answer) -> wasmtime::Result<Weight> {
    Ok(match answer {
        Answer::Done | Answer::Start(Err(_)) => Weight::default(),
        Answer::Start(Ok(cursor)) | Answer::Cursor(cursor) => {
            Weight::one(at_most("cursor", JOB_BYTES_MAX, cursor.as_ref().map_or(0, Vec::len))?)
        }
        Answer::Task(result) => Weight::one(result.len()),
        Answer::Admission(http::Admission::Accept(accept)) => Weight::one(accept.context.len()),
        Answer::Admission(http::Admission::Refuse(response)) | Answer::Response(response, _) => of_response(response)?,
        Answer::Piece(Ok((piece, cursor))) => Weight::one(piece.len() + cursor.as_ref().map_or(0, Vec::len)),
        Answer::Piece(Err(problem)) => Weight::one(problem.len()),
        Answer::Upgrade(socket::UpgradeResult::Refuse(response)) => of_response(response)?,
        Answer::Upgrade(socket::UpgradeResult::Accept(accept)) => {
            [of_headers(&accept.headers), of_outcome(&accept.start)?].into_iter().sum()
        }
        Answer::Outcome(outcome) => of_outcome(outcome)?,
        Answer::Deliveries(deliveries) => of_deliveries(deliveries),
        Answer::Publications(publications) => publications.iter().map(|publication| Weight::one(of_publication(publication))).sum(),
    })
}

fn at_most(what: &str, bytes_max: usize, bytes: usize) -> wasmtime::Result<usize> {
    if bytes > bytes_max {
        return Err(wasmtime::Error::msg(format!("a {what} of {bytes} bytes, and {bytes_max} is the most")));
    }
    Ok(bytes)
}

fn of_outcome(outcome: &live::Outcome) -> wasmtime::Result<Weight> {
    let attachment = at_most("attachment", ATTACHMENT_BYTES_MAX, outcome.attachment.as_ref().map_or(0, Vec::len))?;
    let named = outcome.seen.iter().chain(&outcome.cursors).map(|(name, _)| Weight::one(name.len()));
    let tasks = outcome.tasks.iter().map(|work| Weight::one(work.len()));
    Ok(outcome.send.iter().map(of_frame).chain(named).chain(tasks).chain([Weight { pieces: 0, bytes: attachment }]).sum())
}

fn of_frame(frame: &WitFrame) -> Weight {
    Weight::one(match frame {
        WitFrame::Text(text) => text.len(),
        WitFrame::Binary(bytes) => bytes.len(),
    })
}

fn of_headers(headers: &[Header]) -> Weight {
    headers.iter().map(|header| Weight::one(header.name.len() + header.value.len())).sum()
}

fn of_response(response: &http::Response) -> wasmtime::Result<Weight> {
    let body = match &response.body {
        http::BodyOut::Empty => Weight::default(),
        http::BodyOut::Bytes(bytes) => Weight::one(bytes.len()),
        http::BodyOut::Object((key, _)) => Weight::one(key.len()),
        http::BodyOut::Stream(stream) => {
            let keepalive = Weight::one(stream.keepalive.as_ref().map_or(0, |(_, bytes)| bytes.len()));
            [of_outcome(&stream.start)?, keepalive].into_iter().sum()
        }
        http::BodyOut::Generated(generated) => Weight::one(generated.cursor.len()),
        http::BodyOut::Parked(parked) => {
            [Weight::one(parked.state.len())].into_iter().chain(parked.seen.iter().map(|(key, _)| Weight::one(key.len()))).sum()
        }
    };
    Ok([of_headers(&response.headers), body].into_iter().sum())
}

fn of_deliveries(deliveries: &socket::Deliveries) -> Weight {
    let part = |part: &socket::Part| Weight::one(if let socket::Part::Bytes(bytes) = part { bytes.len() } else { 0 });
    let frames = deliveries.frames.iter().flat_map(|template| template.parts.iter().map(part));
    let outcome = |outcome: &socket::GroupOutcome| match outcome {
        socket::GroupOutcome::Send(indexes) => Weight { pieces: indexes.len(), bytes: 0 },
        socket::GroupOutcome::Leave(Some((frame, _))) => of_frame(frame),
        _ => Weight::default(),
    };
    frames.chain(deliveries.outcomes.iter().map(outcome)).sum()
}

/// A plan whose lengths of time can be added to any clock.
pub(crate) fn within_limits(mut plan: Plan) -> Plan {
    for length_ms in [&mut plan.call_deadline_ms, &mut plan.upgrades.deadline_ms] {
        *length_ms = (*length_ms).min(PLAN_MS_MAX);
    }
    let app = plan.app_limits.as_mut().map(|limits| [&mut limits.task_ms, &mut limits.transaction_ms]);
    for length_ms in [&mut plan.ping_ms, &mut plan.idle_ms, &mut plan.drain_ms].into_iter().chain(app.into_iter().flatten()) {
        *length_ms = length_ms.map(|length_ms| length_ms.min(PLAN_MS_MAX));
    }
    plan.inputs_per_call = match plan.inputs_per_call {
        0 => INPUTS_PER_CALL_MAX,
        planned => planned.min(INPUTS_PER_CALL_MAX),
    };
    if let Some(watch) = &mut plan.watch {
        watch.interval_ms = watch.interval_ms.clamp(WATCH_MS_MIN, PLAN_MS_MAX);
    }
    plan
}

/// A text for the log, cut where it is too long.
pub(crate) fn loggable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= LOG_BYTES_MAX {
        return text.into();
    }
    let end = text.floor_char_boundary(LOG_BYTES_MAX);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_out_is_counted_by_pieces_and_by_bytes() {
        let mut taken = Taken::default();
        taken.add(Weight { pieces: EFFECTS_MAX, bytes: EFFECT_BYTES_MAX }).unwrap();
        assert!(taken.add(Weight::one(0)).unwrap_err().to_string().contains("effects"));
        let mut taken = Taken::default();
        taken.add(Weight::one(EFFECT_BYTES_MAX)).unwrap();
        assert!(taken.add(Weight::one(1)).unwrap_err().to_string().contains("bytes"));
        assert!(taken.add(Weight { pieces: usize::MAX, bytes: usize::MAX }).is_err());
    }

    #[test]
    fn a_delivery_that_names_one_frame_often_weighs_by_how_often() {
        let template =
            socket::Template { binary: true, parts: vec![socket::Part::Bytes(vec![0; 10])], cursor_after: None, alarm_after_ms: None };
        let outcomes = vec![socket::GroupOutcome::Send(vec![0; 100]), socket::GroupOutcome::Skip];
        let weight = of_deliveries(&socket::Deliveries { frames: vec![template], outcomes });
        assert_eq!(weight, Weight { pieces: 101, bytes: 10 });
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(loggable("short"), "short");
        let long = "ü".repeat(LOG_BYTES_MAX);
        let cut = loggable(&long);
        assert!(cut.len() < LOG_BYTES_MAX + 40 && cut.ends_with(" bytes more)"), "{}", cut.len());
    }
}
