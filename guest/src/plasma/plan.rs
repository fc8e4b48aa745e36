//! What the host must know of a mount before it listens (docs/protocols/plasma.md, sections 2, 5 and 8).

use super::errors::error_body;
use super::realtime::topics::{ORDER_KEY, watched};
use super::settings::Settings;
use crate::contract::exports::syncline::sync::mounts::{
    AppLimits, Closes, Concurrency, Direct, Fallback, Fallbacks, Route, RouteKind, UpgradeAnswer, Upgrades, Watch,
};
use crate::http::header;
use crate::imports::Close;
use crate::registry::Plan;

/// Bytes of publications that may wait for a reader.
const QUEUE_BYTES: u64 = 1 << 20;
/// Longest push or pull that is read before anybody looks who sends it.
const DIRECT_BYTES_MAX: u64 = 64 << 10;
/// Time for a call.
const CALL_DEADLINE_MS: u64 = 5000;

/// Close codes (section 8.3).
pub mod code {
    /// The server stops.
    pub const GOING_AWAY: u16 = 1001;
    /// A call failed: come back.
    pub const INTERNAL: u16 = 1011;
    /// The server has restarted with something else.
    pub const RESTART: u16 = 1012;
    /// Not JSON, binary, no `type`.
    pub const BAD_MESSAGE: u16 = 4400;
    /// The credentials have ended.
    pub const UNAUTHORIZED: u16 = 4401;
    /// Nothing came from the client.
    pub const IDLE: u16 = 4408;
    /// A frame was too large.
    pub const TOO_LARGE: u16 = 4413;
    /// The client does not keep up.
    pub const TOO_SLOW: u16 = 4429;
}

/// A close of a code.
pub fn close(code: u16) -> Close {
    let reason = match code {
        code::GOING_AWAY => "server stops",
        code::RESTART => "server restarts",
        code::BAD_MESSAGE => "bad message",
        code::UNAUTHORIZED => "credentials expired",
        code::IDLE => "idle",
        code::TOO_LARGE => "frame too large",
        code::TOO_SLOW => "too slow",
        _ => "internal error",
    };
    Close { code, reason: reason.into() }
}

/// The plan of settings.
pub fn plan(settings: &Settings) -> Plan {
    let status = UpgradeAnswer::Status;
    let fallback = |kind: &str, retry: bool| {
        let mut headers = vec![header("content-type", "application/json"), header("cache-control", "no-store")];
        headers.extend(settings.cors.blind_headers());
        if retry {
            headers.push(header("retry-after", "1"));
        }
        Fallback { headers, body: error_body(kind, serde_json::Value::Null).to_string().into_bytes() }
    };
    let webhooks = [&settings.on_pushed.webhook, &settings.on_error.webhook];
    let mut post_targets: Vec<String> = webhooks.into_iter().flatten().cloned().collect();
    post_targets.dedup();
    let ping_ms = settings.poke.as_ref().map(|poke| poke.ping_interval_ms);
    Plan {
        routes: vec![Route { path: settings.base_path.clone(), prefix: true, kind: RouteKind::Both }],
        documents: settings.auth.documents(),
        folders: Vec::new(),
        post_targets,
        max_body_bytes: settings.body_bytes_max,
        max_frame_bytes: settings.payload_bytes_max,
        // The upgrade itself says who the client is.
        max_frame_bytes_before_auth: settings.payload_bytes_max,
        ping_ms,
        idle_ms: ping_ms.map(|ping_ms| ping_ms.saturating_mul(3)),
        queue_bytes: QUEUE_BYTES,
        max_tasks: 1,
        inputs_per_call: 0,
        call_deadline_ms: CALL_DEADLINE_MS,
        upgrades: Upgrades {
            max_connections: None,
            deadline_ms: CALL_DEADLINE_MS,
            full: status(503),
            failed: status(500),
            timed_out: status(503),
        },
        closes: Closes {
            slow: close(code::TOO_SLOW),
            idle: close(code::IDLE),
            too_large: close(code::TOO_LARGE),
            failed: close(code::INTERNAL),
            shutdown: close(code::GOING_AWAY),
        },
        drain_ms: None,
        fallbacks: Some(Fallbacks { failed: fallback("internal", false), unavailable: fallback("unavailable", true) }),
        concurrency: Concurrency::Shared,
        app_limits: Some(AppLimits {
            transaction_ms: Some(settings.mutator_timeout_ms),
            task_ms: None,
            memory_bytes: Some(settings.app_memory_bytes),
        }),
        direct: direct(settings),
        object_cache_bytes: settings.blobs.as_ref().map_or(0, |blobs| blobs.cache_bytes_max),
        auto_replies: Vec::new(),
        watch: watch(settings),
        warnings: settings.warnings.clone(),
    }
}

/// Every version pokes, also one that nobody announced.
fn watch(settings: &Settings) -> Option<Watch> {
    let topics = watched(settings);
    (!topics.is_empty()).then(|| Watch { topics, key: ORDER_KEY.into(), interval_ms: settings.sequencer.poll_ms })
}

/// Pushes and pulls are many and mostly short. An app that says who calls has a call of its own: what it writes is done before
/// the request is.
fn direct(settings: &Settings) -> Option<Direct> {
    let path = |name: &str| format!("{}/{name}", settings.base_path.trim_end_matches('/'));
    (!settings.auth.is_app()).then(|| Direct { paths: vec![path("push"), path("pull")], body_bytes_max: DIRECT_BYTES_MAX })
}
