//! Where time and randomness come from: the system, or a simulation that gives both from one seed.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::TryRng;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use super::standard_error::StandardError;

/// Time and randomness of the run time and of the components in it. Timers are those of tokio: a simulation pauses
/// tokio's clock and lets this one follow it.
pub trait Environment: Debug + Send + Sync + 'static {
    /// The time since 1970.
    fn since_1970(&self) -> Duration;

    /// A clock that never goes back, from any start.
    fn monotonic(&self) -> Duration;

    /// Random bits that nobody can guess; where somebody may (a simulation), nothing is secret.
    fn random(&self) -> u64;

    /// The time since 1970 in milliseconds.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.since_1970().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The clocks and the randomness of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn since_1970(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// What a component gets of WASI: nothing but clocks, random numbers and standard error for messages of a panic, where
/// standard output goes as well.
pub(super) fn wasi_context(environment: &Arc<dyn Environment>, standard_error: &StandardError) -> WasiCtx {
    let source = || Source(environment.clone());
    WasiCtx::builder()
        .stderr(standard_error.clone())
        .stdout(standard_error.clone())
        .wall_clock(source())
        .monotonic_clock(source())
        .secure_random(source())
        .insecure_random(source())
        .insecure_random_seed(u128::from(environment.random()) << 64 | u128::from(environment.random()))
        .build()
}

/// An environment as WASI asks for it.
struct Source(Arc<dyn Environment>);

impl HostWallClock for Source {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0.since_1970()
    }
}

impl HostMonotonicClock for Source {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl TryRng for Source {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half of 64 random bits is as random as they are.
        Ok(u32::try_from(self.0.random() >> 32).unwrap_or_default())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
