//! What the end-to-end tests share: servers to start, clients to talk to them with, and events to wait for.
//!
//! Tests drive the shipped component in the real host: in this process ([`server::TestServer`]), or as the shipped
//! binary where signals, crashes or the command line matter ([`process::Process`]).

pub mod faulty_executor;
pub mod http;
pub mod plasma;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod s3;
pub mod secsync;
pub mod server;
pub mod socket;
pub mod spin;
pub mod stream;
pub mod tls;

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How much more than the least long runs do (`SYNCLINE_TEST_SCALE`, 1 by default).
pub fn scale() -> u32 {
    std::env::var("SYNCLINE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of bytes, in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Asks again and again, with a deadline, until there is an answer. For what tells nobody that it changed.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within the deadline");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
