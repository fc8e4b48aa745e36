//! Fermyon Spin for tests: a small host that serves one component as `spin up` does, with the same traps, and the real one
//! where it is installed.
//!
//! What [`FakeSpin`] promises is what Spin does from 2.7 to 4.1 with a component that exports `wasi:http/incoming-handler@0.2`:
//! a fresh instance for each request; the synchronous interfaces of `fermyon:spin@2.0.0`; outbound HTTP. Where Spin is lenient or
//! surprising, so is this, and the tests `spin` of `e2e` hold both to it. Absent: TLS, routes, other triggers.

mod bindings;
mod composed;
mod config;
mod host;
mod instance;
mod key_value;
mod outbound;
mod postgres;
mod redis;
mod serve;
mod sqlite;
mod up;
mod variables;

use std::net::SocketAddr;

pub use composed::composed;
pub use config::config;
pub use host::{FakeSpin, SpinSettings};
pub use up::{SpinUp, version};

/// The file of a component that does what its requests say, with everything that Spin offers (`tests/components/spin-probe`).
pub const PROBE: &str = env!("SYNCLINE_SPIN_PROBE");

/// Which Spin serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The fake.
    Fake,
    /// `spin up`.
    Up,
}

/// Whether servers of the tests run under Spin (`SYNCLINE_TEST_HOST`), and under which.
pub fn chosen() -> Option<Kind> {
    match std::env::var("SYNCLINE_TEST_HOST").ok()?.as_str() {
        "spin" => Some(Kind::Fake),
        "spin-up" => Some(Kind::Up),
        other => panic!("SYNCLINE_TEST_HOST is {other:?}: it may be spin or spin-up"),
    }
}

/// A running Spin of either kind. Killed when dropped.
pub enum Spin {
    /// The fake.
    Fake(FakeSpin),
    /// `spin up`.
    Up(Box<SpinUp>),
}

impl Spin {
    /// Starts one of a kind.
    ///
    /// # Errors
    /// Why it does not serve.
    pub async fn start(kind: Kind, settings: SpinSettings) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Fake => Self::Fake(FakeSpin::start(settings).await?),
            Kind::Up => Self::Up(Box::new(SpinUp::start(&settings).await?)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Fake(fake) => fake.address,
            Self::Up(up) => up.address,
        }
    }

    /// Ends it; when this returns nothing of it uses its folder any more.
    pub async fn stop(self) {
        match self {
            Self::Fake(fake) => fake.stop().await,
            Self::Up(up) => up.stop().await,
        }
    }
}
