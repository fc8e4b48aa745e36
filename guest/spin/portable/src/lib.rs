//! The front adapter as `wasi:http/incoming-handler@0.2.0`: a fresh instance for every request. Nothing else runs in it, so whatever
//! must be waited for is waited for by polling that alone. What is decided is in `syncline_spin_front`.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

mod exchange;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use syncline_spin_front::imports::{ImportedAdapter, ImportedLogic, config};
use syncline_spin_front::{Clock, Front};
use wasi::clocks::monotonic_clock;
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wasi::random::random::get_random_u64;

use exchange::Request;

const NANOSECONDS_PER_MS: u64 = 1_000_000;

struct Portable;

struct WasiClock;

impl Clock for WasiClock {
    fn now_ms(&self) -> u64 {
        monotonic_clock::now() / NANOSECONDS_PER_MS
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        get_random_u64()
    }

    async fn sleep(&self, delay_ms: u64) {
        monotonic_clock::subscribe_duration(delay_ms.saturating_mul(NANOSECONDS_PER_MS)).block();
    }
}

impl Guest for Portable {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let front = Front::new(WasiClock, Box::new(ImportedLogic), Box::new(ImportedAdapter), config());
        let incoming = exchange::incoming(&request);
        run(front.serve(incoming, &mut Request::new(request, response)));
    }
}

/// Runs what never waits but by blocking.
fn run(future: impl Future<Output = ()>) {
    let ready = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(ready, Poll::Ready(()), "nothing here waits for anything that another task does");
}

wasi::http::proxy::export!(Portable with_types_in wasi);
