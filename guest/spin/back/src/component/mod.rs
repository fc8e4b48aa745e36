//! The component: the exports of the world over one [`Back`], and Spin's interfaces as its ports. Nothing is decided here.

mod adapter;
mod exports;
mod http;
mod spin;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::back::Back;
use crate::ports::{Clock, Log, Ports};

thread_local! {
    /// An instance has one thread.
    static BACK: Back = Back::new(ports());
}

/// What is exported.
struct Component;

/// The one adapter of this instance.
fn back<T>(run: impl FnOnce(&Back) -> T) -> T {
    BACK.with(run)
}

fn ports() -> Ports {
    Ports {
        sqlite: Box::new(spin::Sqlite),
        postgres: Box::new(spin::Postgres),
        key_value: Box::new(spin::KeyValues),
        redis: Box::new(spin::RedisServers),
        http: Box::new(http::Outgoing),
        clock: Box::new(SystemClock),
        log: Box::new(StandardError),
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970.
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep_ms(&self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn random(&self) -> u64 {
        wasi::random::random::get_random_u64()
    }
}

struct StandardError;

impl Log for StandardError {
    fn line(&self, line: &str) {
        eprintln!("{line}");
    }
}

#[expect(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]
mod entry {
    use super::Component;

    crate::bindings::export!(Component with_types_in crate::bindings);
}
