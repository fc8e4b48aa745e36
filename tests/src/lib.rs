//! What the end-to-end tests share: servers to start, clients to talk to them with, and events to wait for.
//!
//! Tests drive the shipped component in the real host: in this process ([`server::TestServer`]), or as the shipped
//! binary where signals, crashes or the command line matter ([`process::Process`]).

pub mod faulty_executor;
pub mod process;
pub mod secsync;
pub mod server;
pub mod socket;
pub mod tls;

use std::time::Duration;

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How much more than the least long runs do (`SYNCLINE_TEST_SCALE`, 1 by default).
pub fn scale() -> u32 {
    std::env::var("SYNCLINE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}
