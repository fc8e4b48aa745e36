//! The settings and the plan.

use serde_json::Value;

use crate::bindings::exports::syncline::sync::mounts::{
    AppLimits, Closes, Concurrency, Document, Fallback, Fallbacks, Plan, Route, RouteKind, UpgradeAnswer, Upgrades,
};
use crate::bindings::syncline::host::types::{Close, Frame};

fn close(code: u16) -> Close {
    Close { code, reason: String::new() }
}

/// The plan of settings; each of the host's own closes has a code of its own.
pub fn plan(settings: &str) -> Result<Plan, Vec<String>> {
    let settings: Value = serde_json::from_str(settings).map_err(|error| vec![error.to_string()])?;
    let number = |name: &str, default: u64| settings[name].as_u64().unwrap_or(default);
    let path = settings["path"].as_str().unwrap_or("/faulty").to_owned();
    let goodbye = |text: &str, code| UpgradeAnswer::Close((vec![Frame::Text(text.into())], close(code)));
    let fallback = |text: &str| Fallback { headers: Vec::new(), body: text.as_bytes().to_vec() };
    let list = |name: &str| settings[name].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let document = |document: &Value| {
        let refresh_ms = document["refresh_ms"].as_u64().unwrap_or(0);
        Document { name: text(&document["name"]), url: text(&document["url"]), refresh_ms }
    };
    let call_deadline_ms = number("call_deadline_ms", 5000);
    Ok(Plan {
        routes: vec![Route { path, prefix: true, kind: RouteKind::Both }],
        documents: list("documents").map(document).collect(),
        folders: Vec::new(),
        post_targets: list("targets").map(text).collect(),
        max_body_bytes: 1 << 20,
        max_frame_bytes: 1 << 20,
        max_frame_bytes_before_auth: number("max_frame_bytes_before_auth", 1 << 20),
        ping_ms: None,
        idle_ms: None,
        queue_bytes: number("queue_bytes", 1 << 20),
        max_tasks: u32::try_from(number("max_tasks", 8)).unwrap_or(u32::MAX),
        inputs_per_call: u32::try_from(number("inputs_per_call", 0)).unwrap_or(u32::MAX),
        call_deadline_ms,
        drain_ms: Some(1000),
        upgrades: Upgrades {
            max_connections: settings["max_connections"].as_u64().and_then(|count| u32::try_from(count).ok()),
            deadline_ms: call_deadline_ms,
            full: UpgradeAnswer::Status(503),
            failed: goodbye("upgrade failed", 4013),
            timed_out: goodbye("upgrade timed out", 4014),
        },
        closes: Closes { slow: close(4008), idle: close(4009), too_large: close(4010), failed: close(4011), shutdown: close(4012) },
        fallbacks: Some(Fallbacks { failed: fallback("failed"), unavailable: fallback("unavailable") }),
        concurrency: Concurrency::Shared,
        app_limits: Some(AppLimits {
            transaction_ms: settings["transaction_ms"].as_u64(),
            task_ms: settings["task_ms"].as_u64(),
            memory_bytes: None,
        }),
        direct: None,
        object_cache_bytes: number("object_cache_bytes", 0),
        auto_replies: vec![("ping".into(), "pong".into())],
        watch: None,
        warnings: Vec::new(),
    })
}
