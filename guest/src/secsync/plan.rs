//! What the host must know of a mount before it listens (docs/protocols/secsync.md, sections 2.5, 7 and 10).

use super::server_messages::{GOING_AWAY, INTERNAL, NO_CODE, POLICY_VIOLATION, TOO_BIG, TRY_AGAIN_LATER};
use super::settings::Settings;
use crate::contract::exports::syncline::sync::mounts::{Closes, Concurrency, Route, RouteKind, UpgradeAnswer, Upgrades};
use crate::imports::Close;
use crate::registry::Plan;

/// A close of a code. [`NO_CODE`] is a close frame without one.
pub fn close(code: u16) -> Close {
    let reason = match code {
        GOING_AWAY => "going away",
        POLICY_VIOLATION => "too many bad frames",
        TOO_BIG => "message too big",
        INTERNAL => "internal error",
        TRY_AGAIN_LATER => "try again later",
        NO_CODE => "",
        _ => "",
    };
    Close { code, reason: reason.into() }
}

/// The plan of settings.
pub fn plan(settings: &Settings) -> Plan {
    let try_again = || UpgradeAnswer::Close((Vec::new(), close(TRY_AGAIN_LATER)));
    let route = Route { path: settings.path.clone(), prefix: true, kind: RouteKind::Both };
    Plan {
        routes: if settings.enabled { vec![route] } else { Vec::new() },
        documents: Vec::new(),
        folders: Vec::new(),
        post_targets: Vec::new(),
        max_body_bytes: 1024,
        max_frame_bytes: settings.max_message_bytes,
        max_frame_bytes_before_auth: settings.max_message_bytes,
        ping_ms: Some(settings.ping_interval_ms).filter(|interval| *interval > 0),
        idle_ms: None,
        queue_bytes: settings.max_backlog_bytes,
        max_tasks: 1,
        // An update that was saved is told of before a snapshot that came after it.
        inputs_per_call: 1,
        call_deadline_ms: 5000,
        upgrades: Upgrades { max_connections: None, deadline_ms: 5000, full: try_again(), failed: try_again(), timed_out: try_again() },
        closes: Closes {
            slow: close(TRY_AGAIN_LATER),
            idle: close(GOING_AWAY),
            too_large: close(TOO_BIG),
            failed: close(TRY_AGAIN_LATER),
            shutdown: close(GOING_AWAY),
        },
        drain_ms: Some(settings.shutdown_drain_ms),
        fallbacks: None,
        app_limits: None,
        concurrency: Concurrency::Shared,
        direct: None,
        object_cache_bytes: 0,
        auto_replies: Vec::new(),
        watch: None,
        warnings: settings.warnings.clone(),
    }
}
