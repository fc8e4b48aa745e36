//! What the double says of itself.

use syncline_spin_wire as wire;

/// The topic of what goes to one connection.
pub const SENT_TOPIC: &str = "\u{0}sent";
/// How a connection is closed whose call failed.
pub const FAILED: u16 = 4500;
/// How a connection is closed that does not read.
pub const SLOW: u16 = 4001;
/// How a connection is closed whose frame is too large.
pub const TOO_LARGE: u16 = 4009;
/// How a connection is closed when the gateway stops.
pub const SHUTDOWN: u16 = 4012;
/// The largest frame.
pub const FRAME_BYTES_MAX: u64 = 3 << 20;

/// One mount at `/echo`.
pub fn deployment() -> wire::Deployment {
    wire::Deployment {
        revision: "first".into(),
        sent_topic: SENT_TOPIC.into(),
        mounts: vec![wire::MountPlan {
            name: "echo".into(),
            protocol: "echo".into(),
            path: "/echo".into(),
            plan: plan("/echo"),
            position: 0,
        }],
    }
}

/// A plan of sockets at a path.
pub fn plan(path: &str) -> wire::SocketPlan {
    let close = |code, reason: &str| wire::Close { code, reason: reason.into() };
    wire::SocketPlan {
        routes: vec![wire::Route { path: path.into(), prefix: true, kind: wire::RouteKind::Both }],
        max_frame_bytes: FRAME_BYTES_MAX,
        max_frame_bytes_before_auth: FRAME_BYTES_MAX,
        ping_ms: None,
        idle_ms: None,
        queue_bytes: 1 << 20,
        max_tasks: 2,
        inputs_per_call: 0,
        call_deadline_ms: 5_000,
        task_ms: None,
        drain_ms: Some(2_000),
        upgrades: wire::Upgrades {
            max_connections: Some(1_000),
            deadline_ms: 5_000,
            full: wire::UpgradeAnswer::Status(503),
            failed: wire::UpgradeAnswer::Status(500),
            timed_out: wire::UpgradeAnswer::Status(504),
        },
        closes: wire::Closes {
            slow: close(SLOW, "too slow"),
            idle: close(4002, "idle"),
            too_large: close(TOO_LARGE, "too large"),
            failed: close(FAILED, "failed"),
            shutdown: close(SHUTDOWN, "shutdown"),
        },
        auto_replies: vec![("ping".into(), "pong".into())],
        watch: None,
    }
}
