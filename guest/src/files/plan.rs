//! What the host must know of a mount before it listens.

use super::settings::Settings;
use crate::contract::exports::syncline::sync::mounts::{Closes, Concurrency, Folder, Route, RouteKind, UpgradeAnswer, Upgrades};
use crate::imports::Close;
use crate::registry::Plan;

/// The keys of files begin so.
pub const PREFIX: &str = "files/";
/// Time for a call.
const CALL_DEADLINE_MS: u64 = 5000;

/// The plan of settings. There are no sockets: what is said of them is never used.
pub fn plan(settings: &Settings) -> Plan {
    let close = || Close { code: 1001, reason: String::new() };
    Plan {
        routes: vec![Route { path: settings.path.clone(), prefix: true, kind: RouteKind::Http }],
        documents: Vec::new(),
        folders: vec![Folder { prefix: PREFIX.into(), path: settings.folder.clone() }],
        post_targets: Vec::new(),
        max_body_bytes: 0,
        max_frame_bytes: 1024,
        max_frame_bytes_before_auth: 1024,
        ping_ms: None,
        idle_ms: None,
        queue_bytes: 1 << 20,
        max_tasks: 1,
        inputs_per_call: 0,
        call_deadline_ms: CALL_DEADLINE_MS,
        drain_ms: None,
        upgrades: Upgrades {
            max_connections: None,
            deadline_ms: CALL_DEADLINE_MS,
            full: UpgradeAnswer::Status(503),
            failed: UpgradeAnswer::Status(500),
            timed_out: UpgradeAnswer::Status(503),
        },
        closes: Closes { slow: close(), idle: close(), too_large: close(), failed: close(), shutdown: close() },
        fallbacks: None,
        concurrency: Concurrency::Shared,
        app_limits: None,
        direct: None,
        object_cache_bytes: 0,
        auto_replies: Vec::new(),
        watch: None,
        warnings: Vec::new(),
    }
}
