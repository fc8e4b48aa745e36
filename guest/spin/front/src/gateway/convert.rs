//! The records of the contract to and from those of the wire.

use syncline_spin_wire as wire;

use crate::bindings::syncline::host::pubsub::{Class, Mode, Order, Publication, Subscription};
use crate::bindings::syncline::host::types::{Close, Frame, Header, RequestHead};
use crate::bindings::syncline::spin::adapter::Change;
use crate::bindings::syncline::sync::http::{BodyOut, Response};
use crate::bindings::syncline::sync::live::{Alarm, Connection, Failure, Outcome};
use crate::bindings::syncline::sync::mounts::{Plan, RouteKind, UpgradeAnswer};
use crate::bindings::syncline::sync::socket::{Deliveries, Group, GroupOutcome, Input, Part, TaskFailure, Template, UpgradeResult};

/// What sockets need of a plan.
pub(super) fn plan(plan: &Plan) -> wire::SocketPlan {
    let routes = plan.routes.iter().map(|route| wire::Route {
        path: route.path.clone(),
        prefix: route.prefix,
        kind: match route.kind {
            RouteKind::Http => wire::RouteKind::Http,
            RouteKind::Socket => wire::RouteKind::Socket,
            RouteKind::Both => wire::RouteKind::Both,
        },
    });
    let closes = &plan.closes;
    wire::SocketPlan {
        routes: routes.collect(),
        max_frame_bytes: plan.max_frame_bytes,
        max_frame_bytes_before_auth: plan.max_frame_bytes_before_auth,
        ping_ms: plan.ping_ms,
        idle_ms: plan.idle_ms,
        queue_bytes: plan.queue_bytes,
        max_tasks: plan.max_tasks,
        inputs_per_call: plan.inputs_per_call,
        call_deadline_ms: plan.call_deadline_ms,
        task_ms: plan.app_limits.as_ref().and_then(|limits| limits.task_ms),
        drain_ms: plan.drain_ms,
        upgrades: wire::Upgrades {
            max_connections: plan.upgrades.max_connections,
            deadline_ms: plan.upgrades.deadline_ms,
            full: upgrade_answer(&plan.upgrades.full),
            failed: upgrade_answer(&plan.upgrades.failed),
            timed_out: upgrade_answer(&plan.upgrades.timed_out),
        },
        closes: wire::Closes {
            slow: close_out(closes.slow.clone()),
            idle: close_out(closes.idle.clone()),
            too_large: close_out(closes.too_large.clone()),
            failed: close_out(closes.failed.clone()),
            shutdown: close_out(closes.shutdown.clone()),
        },
        auto_replies: plan.auto_replies.clone(),
        watch: plan.watch.as_ref().map(|watch| wire::Watch {
            topics: watch.topics.clone(),
            key: watch.key.clone(),
            interval_ms: watch.interval_ms,
        }),
    }
}

fn upgrade_answer(answer: &UpgradeAnswer) -> wire::UpgradeAnswer {
    match answer.clone() {
        UpgradeAnswer::Status(status) => wire::UpgradeAnswer::Status(status),
        UpgradeAnswer::Close((frames, close)) => wire::UpgradeAnswer::Close(frames.into_iter().map(frame_out).collect(), close_out(close)),
    }
}

fn frame_out(frame: Frame) -> wire::Frame {
    match frame {
        Frame::Text(text) => wire::Frame::Text(text),
        Frame::Binary(bytes) => wire::Frame::Binary(bytes.into()),
    }
}

fn frame_in(frame: wire::Frame) -> Frame {
    match frame {
        wire::Frame::Text(text) => Frame::Text(text),
        wire::Frame::Binary(bytes) => Frame::Binary(bytes.into()),
    }
}

fn close_out(Close { code, reason }: Close) -> wire::Close {
    wire::Close { code, reason }
}

fn close_in(wire::Close { code, reason }: wire::Close) -> Close {
    Close { code, reason }
}

fn header_out(Header { name, value }: Header) -> wire::Header {
    wire::Header { name, value: value.into() }
}

/// The request of an upgrade.
pub(super) fn request_head(head: wire::RequestHead) -> RequestHead {
    let wire::RequestHead { method, path, query, headers, remote_address, secure } = head;
    let headers = headers.into_iter().map(|wire::Header { name, value }| Header { name, value: value.into() }).collect();
    RequestHead { method, path, query, headers, remote_address, secure }
}

/// The answer to an upgrade; none where it is not one that the contract allows.
pub(super) fn upgrade_result(result: UpgradeResult) -> Option<wire::UpgradeResult> {
    Some(match result {
        UpgradeResult::Accept(accept) => wire::UpgradeResult::Accept(Box::new(wire::Accept {
            subprotocol: accept.subprotocol,
            headers: accept.headers.into_iter().map(header_out).collect(),
            start: outcome(accept.start),
        })),
        UpgradeResult::Refuse(Response { status, headers, body }) => wire::UpgradeResult::Refuse(wire::Response {
            status,
            headers: headers.into_iter().map(header_out).collect(),
            body: match body {
                BodyOut::Empty => wire::ResponseBody::Empty,
                BodyOut::Bytes(bytes) => wire::ResponseBody::Bytes(bytes.into()),
                _ => return None,
            },
        }),
    })
}

fn failure(failure: wire::Failure) -> Failure {
    match failure {
        wire::Failure::Trapped => Failure::Trapped,
        wire::Failure::TimedOut => Failure::TimedOut,
    }
}

/// A connection as a call gets it.
pub(super) fn connection(connection: wire::Connection) -> Connection {
    let wire::Connection { id, attachment, cursors, failure: failed } = connection;
    Connection { id, attachment: attachment.into(), cursors, failure: failed.map(failure) }
}

/// Something that happened.
pub(super) fn input(input: wire::Input) -> Input {
    match input {
        wire::Input::Frame(frame) => Input::Frame(frame_in(frame)),
        wire::Input::Wake => Input::Wake,
        wire::Input::Drained => Input::Drained,
        wire::Input::TaskDone(result) => Input::TaskDone(result.into()),
        wire::Input::TaskFailed(wire::TaskFailure { work, failure: failed }) => {
            Input::TaskFailed(TaskFailure { work: work.into(), failure: failure(failed) })
        }
    }
}

/// What is to happen.
pub(super) fn outcome(outcome: Outcome) -> wire::Outcome {
    let Outcome { send, attachment, close, seen, cursors, alarm, pace, tasks, defer, quiet_ms } = outcome;
    wire::Outcome {
        send: send.into_iter().map(frame_out).collect(),
        attachment: attachment.map(Into::into),
        close: close.map(close_out),
        seen,
        cursors,
        alarm: match alarm {
            Alarm::Keep => wire::Alarm::Keep,
            Alarm::Stop => wire::Alarm::Stop,
            Alarm::AfterMs(delay_ms) => wire::Alarm::AfterMs(delay_ms),
        },
        pace,
        tasks: tasks.into_iter().map(Into::into).collect(),
        defer,
        quiet_ms,
    }
}

/// A publication for the logic.
pub(super) fn publication_in(publication: wire::Publication) -> Publication {
    let wire::Publication { topic, message, order, class, except, close } = publication;
    Publication {
        topic,
        message: message.into(),
        order: order.map(|wire::Order { key, after, sequence }| Order { key, after, sequence }),
        class: match class {
            wire::Class::MustDeliver => Class::MustDeliver,
            wire::Class::Droppable => Class::Droppable,
            wire::Class::Latest(key) => Class::Latest(key),
        },
        except,
        close: close.map(close_in),
    }
}

/// A publication for a gateway.
pub(super) fn publication_out(publication: Publication) -> wire::Publication {
    let Publication { topic, message, order, class, except, close } = publication;
    wire::Publication {
        topic,
        message: message.into(),
        order: order.map(|Order { key, after, sequence }| wire::Order { key, after, sequence }),
        class: match class {
            Class::MustDeliver => wire::Class::MustDeliver,
            Class::Droppable => wire::Class::Droppable,
            Class::Latest(key) => wire::Class::Latest(key),
        },
        except,
        close: close.map(close_out),
    }
}

/// Subscribers that get the same.
pub(super) fn group(wire::Group { name, cursor }: wire::Group) -> Group {
    Group { name, cursor }
}

/// What a publication becomes.
pub(super) fn deliveries(Deliveries { frames, outcomes }: Deliveries) -> wire::Deliveries {
    wire::Deliveries { frames: frames.into_iter().map(template).collect(), outcomes: outcomes.into_iter().map(group_outcome).collect() }
}

fn template(Template { binary, parts, cursor_after, alarm_after_ms }: Template) -> wire::Template {
    let part = |part| match part {
        Part::Bytes(bytes) => wire::Part::Bytes(bytes.into()),
        Part::CursorDecimal => wire::Part::CursorDecimal,
        Part::CursorVarint => wire::Part::CursorVarint,
    };
    wire::Template { binary, parts: parts.into_iter().map(part).collect(), cursor_after, alarm_after_ms }
}

fn group_outcome(outcome: GroupOutcome) -> wire::GroupOutcome {
    match outcome {
        GroupOutcome::Skip => wire::GroupOutcome::Skip,
        GroupOutcome::Send(indexes) => wire::GroupOutcome::Send(indexes),
        GroupOutcome::Advance(cursor) => wire::GroupOutcome::Advance(cursor),
        GroupOutcome::Leave(last) => wire::GroupOutcome::Leave(last.map(|(frame, close)| (frame_out(frame), close_out(close)))),
    }
}

/// What changed for a connection.
pub(super) fn change(change: Change) -> wire::Change {
    match change {
        Change::Subscribed((connection, subscription, position)) => {
            wire::Change::Subscribed { connection, subscription: subscription_out(subscription), position }
        }
        Change::Unsubscribed((connection, topic)) => wire::Change::Unsubscribed { connection, topic },
    }
}

fn subscription_out(Subscription { topic, mode, group, cursor, presence }: Subscription) -> wire::Subscription {
    let mode = match mode {
        Mode::ForwardText => wire::Mode::ForwardText,
        Mode::ForwardBinary => wire::Mode::ForwardBinary,
        Mode::Deliver => wire::Mode::Deliver,
        Mode::DeliverByCursor => wire::Mode::DeliverByCursor,
    };
    wire::Subscription { topic, mode, group, cursor, presence: presence.map(Into::into) }
}
