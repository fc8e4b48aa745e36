//! The records of the contract, as the run time has them and as they travel.

use bytes::Bytes;
use syncline_spin_wire as wire;

use crate::pubsub::{Class, Order, Publication};
use crate::runtime::bindings::guest::exports::syncline::sync::{http, live, socket};
use crate::runtime::bindings::guest::syncline::host::{pubsub, types};
use crate::runtime::plans;
use crate::runtime::queue::{Close, Frame};
use crate::runtime::{Answer, CallFailed, Invocation};

/// What is asked upstream; none: nothing is to be done there.
pub(super) fn invocation(invocation: &Invocation) -> Option<wire::Invocation> {
    Some(match invocation {
        Invocation::Upgrade { connection, head } => wire::Invocation::Upgrade { connection: *connection, head: request_head(head) },
        Invocation::Receive { connection, inputs } => {
            wire::Invocation::Receive { connection: connection_of(connection), inputs: inputs.iter().map(input).collect() }
        }
        Invocation::Task { connection, work } => {
            wire::Invocation::Task { connection: connection_of(connection), work: work.clone().into() }
        }
        Invocation::Closed { connection, code } => wire::Invocation::Closed { connection: connection_of(connection), code: *code },
        Invocation::Deliver { publication, groups } => wire::Invocation::Deliver {
            publication: to_wire(publication.clone()),
            groups: groups.iter().map(|group| wire::Group { name: group.name.clone(), cursor: group.cursor }).collect(),
        },
        Invocation::Refill { topic, key, after } => wire::Invocation::Refill { topic: topic.clone(), key: key.clone(), after: *after },
        _ => return None,
    })
}

/// What the logic answered to a call. An answer of another kind than the call's is none.
pub(super) fn answer(to: &Invocation, reply: wire::Reply) -> Result<Answer, CallFailed> {
    Ok(match (to, reply) {
        (Invocation::Upgrade { .. }, wire::Reply::Upgrade(result)) => Answer::Upgrade(upgrade_result(result)),
        (Invocation::Receive { .. }, wire::Reply::Outcome(outcome)) => Answer::Outcome(outcome_of(outcome)),
        (Invocation::Task { .. }, wire::Reply::Task(result)) => Answer::Task(result.into()),
        (Invocation::Closed { .. }, wire::Reply::Done) => Answer::Done,
        (Invocation::Deliver { .. }, wire::Reply::Deliveries(deliveries)) => Answer::Deliveries(deliveries_of(deliveries)),
        (Invocation::Refill { .. }, wire::Reply::Publications(publications)) => {
            Answer::Publications(publications.into_iter().map(|publication| self::publication(publication).into()).collect())
        }
        (_, wire::Reply::Failed(wire::CallFailure::TimedOut)) => return Err(CallFailed::TimedOut),
        (_, wire::Reply::Failed(wire::CallFailure::NotDurable | wire::CallFailure::NoMount)) => return Err(CallFailed::NotDurable),
        _ => return Err(CallFailed::Trapped),
    })
}

/// A publication as the fan-out takes it.
pub(super) fn publication(publication: wire::Publication) -> Publication {
    Publication {
        topic: publication.topic,
        message: Bytes::from(publication.message.0),
        order: publication.order.map(|order| Order { key: order.key, after: order.after, sequence: order.sequence }),
        class: match publication.class {
            wire::Class::MustDeliver => Class::MustDeliver,
            wire::Class::Droppable => Class::Droppable,
            wire::Class::Latest(key) => Class::Latest(key),
        },
        except: publication.except,
        close: publication.close.map(|close| Close { code: close.code, reason: close.reason }),
    }
}

fn to_wire(publication: pubsub::Publication) -> wire::Publication {
    wire::Publication {
        topic: publication.topic,
        message: publication.message.into(),
        order: publication.order.map(|order| wire::Order { key: order.key, after: order.after, sequence: order.sequence }),
        class: match publication.class {
            pubsub::Class::MustDeliver => wire::Class::MustDeliver,
            pubsub::Class::Droppable => wire::Class::Droppable,
            pubsub::Class::Latest(key) => wire::Class::Latest(key),
        },
        except: publication.except,
        close: publication.close.map(|close| wire::Close { code: close.code, reason: close.reason }),
    }
}

/// A subscription as the run time takes it. What others see of it is kept upstream.
pub(super) fn subscription(subscription: wire::Subscription) -> pubsub::Subscription {
    pubsub::Subscription {
        topic: subscription.topic,
        mode: match subscription.mode {
            wire::Mode::ForwardText => pubsub::Mode::ForwardText,
            wire::Mode::ForwardBinary => pubsub::Mode::ForwardBinary,
            wire::Mode::Deliver => pubsub::Mode::Deliver,
            wire::Mode::DeliverByCursor => pubsub::Mode::DeliverByCursor,
        },
        group: subscription.group,
        cursor: subscription.cursor,
        presence: None,
    }
}

/// Which connection a `pubsub.send` is for, and its frame; none where the message is none.
pub(super) fn sent(message: &Bytes) -> Option<(u64, Frame)> {
    let (connection, rest) = message.split_first_chunk::<8>()?;
    let frame = message.slice(9.min(message.len())..);
    Some((
        u64::from_le_bytes(*connection),
        match rest.first()? {
            0 => Frame::Text(std::str::from_utf8(&frame).is_ok().then_some(frame)?),
            1 => Frame::Binary(frame),
            _ => return None,
        },
    ))
}

fn request_head(head: &types::RequestHead) -> wire::RequestHead {
    let is_meant = |header: &&types::Header| !header.name.eq_ignore_ascii_case(wire::GATEWAY_HEADER);
    let header = |header: &types::Header| wire::Header { name: header.name.clone(), value: header.value.clone().into() };
    wire::RequestHead {
        method: head.method.clone(),
        path: head.path.clone(),
        query: head.query.clone(),
        headers: head.headers.iter().filter(is_meant).map(header).collect(),
        remote_address: head.remote_address.clone(),
        secure: head.secure,
    }
}

fn failure(failure: live::Failure) -> wire::Failure {
    match failure {
        live::Failure::Trapped => wire::Failure::Trapped,
        live::Failure::TimedOut => wire::Failure::TimedOut,
    }
}

fn connection_of(connection: &live::Connection) -> wire::Connection {
    wire::Connection {
        id: connection.id,
        attachment: connection.attachment.clone().into(),
        cursors: connection.cursors.clone(),
        failure: connection.failure.map(failure),
    }
}

fn input(input: &socket::Input) -> wire::Input {
    match input {
        socket::Input::Frame(types::Frame::Text(text)) => wire::Input::Frame(wire::Frame::Text(text.clone())),
        socket::Input::Frame(types::Frame::Binary(bytes)) => wire::Input::Frame(wire::Frame::Binary(bytes.clone().into())),
        socket::Input::Wake => wire::Input::Wake,
        socket::Input::Drained => wire::Input::Drained,
        socket::Input::TaskDone(result) => wire::Input::TaskDone(result.clone().into()),
        socket::Input::TaskFailed(failed) => {
            wire::Input::TaskFailed(wire::TaskFailure { work: failed.work.clone().into(), failure: failure(failed.failure) })
        }
    }
}

fn frame(frame: wire::Frame) -> types::Frame {
    match frame {
        wire::Frame::Text(text) => types::Frame::Text(text),
        wire::Frame::Binary(bytes) => types::Frame::Binary(bytes.into()),
    }
}

fn close(close: wire::Close) -> types::Close {
    types::Close { code: close.code, reason: close.reason }
}

fn headers(headers: Vec<wire::Header>) -> Vec<types::Header> {
    headers.into_iter().map(|header| types::Header { name: header.name, value: header.value.into() }).collect()
}

fn outcome_of(outcome: wire::Outcome) -> live::Outcome {
    live::Outcome {
        send: outcome.send.into_iter().map(frame).collect(),
        attachment: outcome.attachment.map(Vec::from),
        close: outcome.close.map(close),
        seen: outcome.seen,
        cursors: outcome.cursors,
        alarm: match outcome.alarm {
            wire::Alarm::Keep => live::Alarm::Keep,
            wire::Alarm::Stop => live::Alarm::Stop,
            wire::Alarm::AfterMs(delay_ms) => live::Alarm::AfterMs(delay_ms),
        },
        pace: outcome.pace,
        tasks: outcome.tasks.into_iter().map(Vec::from).collect(),
        defer: outcome.defer,
        quiet_ms: outcome.quiet_ms,
    }
}

fn upgrade_result(result: wire::UpgradeResult) -> socket::UpgradeResult {
    match result {
        wire::UpgradeResult::Accept(accept) => socket::UpgradeResult::Accept(socket::Accept {
            subprotocol: accept.subprotocol,
            headers: headers(accept.headers),
            start: outcome_of(accept.start),
        }),
        wire::UpgradeResult::Refuse(response) => socket::UpgradeResult::Refuse(http::Response {
            status: response.status,
            headers: headers(response.headers),
            body: match response.body {
                wire::ResponseBody::Empty => http::BodyOut::Empty,
                wire::ResponseBody::Bytes(bytes) => http::BodyOut::Bytes(bytes.into()),
            },
        }),
    }
}

fn deliveries_of(deliveries: wire::Deliveries) -> socket::Deliveries {
    let part = |part| match part {
        wire::Part::Bytes(bytes) => socket::Part::Bytes(bytes.into()),
        wire::Part::CursorDecimal => socket::Part::CursorDecimal,
        wire::Part::CursorVarint => socket::Part::CursorVarint,
    };
    let template = |template: wire::Template| socket::Template {
        binary: template.binary,
        parts: template.parts.into_iter().map(part).collect(),
        cursor_after: template.cursor_after,
        alarm_after_ms: template.alarm_after_ms,
    };
    let outcome = |outcome| match outcome {
        wire::GroupOutcome::Skip => socket::GroupOutcome::Skip,
        wire::GroupOutcome::Send(indexes) => socket::GroupOutcome::Send(indexes),
        wire::GroupOutcome::Advance(cursor) => socket::GroupOutcome::Advance(cursor),
        wire::GroupOutcome::Leave(last) => socket::GroupOutcome::Leave(last.map(|(last, end)| (frame(last), close(end)))),
    };
    socket::Deliveries {
        frames: deliveries.frames.into_iter().map(template).collect(),
        outcomes: deliveries.outcomes.into_iter().map(outcome).collect(),
    }
}

/// A plan with what sockets need, and nothing else.
pub(super) fn plan(plan: wire::SocketPlan) -> plans::Plan {
    let route = |route: wire::Route| plans::Route {
        path: route.path,
        prefix: route.prefix,
        kind: match route.kind {
            wire::RouteKind::Http => plans::RouteKind::Http,
            wire::RouteKind::Socket => plans::RouteKind::Socket,
            wire::RouteKind::Both => plans::RouteKind::Both,
        },
    };
    let upgrade_answer = |answer| match answer {
        wire::UpgradeAnswer::Status(status) => plans::UpgradeAnswer::Status(status),
        wire::UpgradeAnswer::Close(frames, end) => plans::UpgradeAnswer::Close((frames.into_iter().map(frame).collect(), close(end))),
    };
    plans::Plan {
        routes: plan.routes.into_iter().map(route).collect(),
        documents: Vec::new(),
        folders: Vec::new(),
        post_targets: Vec::new(),
        max_body_bytes: 0,
        max_frame_bytes: plan.max_frame_bytes,
        max_frame_bytes_before_auth: plan.max_frame_bytes_before_auth,
        ping_ms: plan.ping_ms,
        idle_ms: plan.idle_ms,
        queue_bytes: plan.queue_bytes,
        max_tasks: plan.max_tasks,
        inputs_per_call: plan.inputs_per_call,
        call_deadline_ms: plan.call_deadline_ms,
        drain_ms: plan.drain_ms,
        upgrades: plans::Upgrades {
            max_connections: plan.upgrades.max_connections,
            deadline_ms: plan.upgrades.deadline_ms,
            full: upgrade_answer(plan.upgrades.full),
            failed: upgrade_answer(plan.upgrades.failed),
            timed_out: upgrade_answer(plan.upgrades.timed_out),
        },
        closes: plans::Closes {
            slow: close(plan.closes.slow),
            idle: close(plan.closes.idle),
            too_large: close(plan.closes.too_large),
            failed: close(plan.closes.failed),
            shutdown: close(plan.closes.shutdown),
        },
        fallbacks: None,
        concurrency: plans::Concurrency::Shared,
        app_limits: plan.task_ms.map(|task_ms| plans::AppLimits { transaction_ms: None, task_ms: Some(task_ms), memory_bytes: None }),
        direct: None,
        object_cache_bytes: 0,
        auto_replies: plan.auto_replies,
        // Publications come in one row without gaps, so nothing is missing that could be looked for.
        watch: None,
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_send_is_a_connection_a_kind_and_a_frame() {
        let message = |kind: u8, frame: &[u8]| Bytes::from([&7_u64.to_le_bytes()[..], &[kind], frame].concat());
        assert_eq!(sent(&message(0, b"abc")), Some((7, Frame::Text(Bytes::from_static(b"abc")))));
        assert_eq!(sent(&message(1, b"\xff")), Some((7, Frame::Binary(Bytes::from_static(b"\xff")))));
        assert_eq!(sent(&message(1, b"")), Some((7, Frame::Binary(Bytes::new()))));
        for wrong in [message(0, b"\xff"), message(2, b""), Bytes::from_static(b"1234567"), Bytes::from_static(b"12345678")] {
            assert_eq!(sent(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_of_another_kind_is_a_failed_call() {
        let call = Invocation::Refill { topic: String::new(), key: String::new(), after: 0 };
        assert!(matches!(answer(&call, wire::Reply::Publications(Vec::new())), Ok(Answer::Publications(none)) if none.is_empty()));
        let failed = |reply| answer(&call, reply).map(drop).unwrap_err();
        assert_eq!(failed(wire::Reply::Done), CallFailed::Trapped);
        assert_eq!(failed(wire::Reply::Busy), CallFailed::Trapped);
        for (given, expected) in [
            (wire::CallFailure::Failed, CallFailed::Trapped),
            (wire::CallFailure::TimedOut, CallFailed::TimedOut),
            (wire::CallFailure::NotDurable, CallFailed::NotDurable),
            (wire::CallFailure::NoMount, CallFailed::NotDurable),
        ] {
            assert_eq!(failed(wire::Reply::Failed(given)), expected);
        }
    }
}
