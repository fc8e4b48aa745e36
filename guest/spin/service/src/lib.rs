//! The front adapter as `wasi:http/handler@0.3.0`: one instance serves several requests side by side, so nothing here waits by
//! blocking, and each answer is made by a task of its own. What is decided is in `syncline_spin_front`.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

mod exchange;
mod waiting;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use spin_sdk::wasip3::clocks::monotonic_clock;
use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::types::{ErrorCode, Request, Response};
use spin_sdk::wasip3::random::random::get_random_u64;
use spin_sdk::wasip3::spawn;
use syncline_spin_front::imports::{ImportedAdapter, ImportedLogic, config};
use syncline_spin_front::{Clock, Front};

const NANOSECONDS_PER_MS: u64 = 1_000_000;

thread_local! {
    /// Lives as long as the instance.
    static FRONT: RefCell<Option<Rc<Front<WasiClock>>>> = const { RefCell::new(None) };
}

struct Service;

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
        monotonic_clock::wait_for(delay_ms.saturating_mul(NANOSECONDS_PER_MS)).await;
    }
}

/// The front of this instance; another one where the configuration is another by now.
fn front() -> Rc<Front<WasiClock>> {
    let config = config();
    FRONT.with_borrow_mut(|kept| match kept {
        Some(front) if front.is_configured_by(&config) => front.clone(),
        _ => {
            let front = Rc::new(Front::new(WasiClock, Box::new(ImportedLogic), Box::new(ImportedAdapter), config));
            *kept = Some(front.clone());
            front
        }
    })
}

impl Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let incoming = exchange::incoming(&request);
        let (mut exchange, answer) = exchange::Exchanged::new(request);
        spawn(async move { front().serve(incoming, &mut exchange).await });
        answer.await.ok_or_else(|| ErrorCode::InternalError(Some("there is no answer".into())))
    }
}

spin_sdk::wasip3::http::service::export!(Service);
