//! Waiting for one of two things, and for one value from another task.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use spin_sdk::wasip3::clocks::monotonic_clock;

use crate::NANOSECONDS_PER_MS;

/// What a future gives; none where it takes too long: then it is dropped.
pub(crate) async fn within<T>(patience_ms: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(monotonic_clock::wait_for(patience_ms.saturating_mul(NANOSECONDS_PER_MS)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// A value on its way to the task that waits for it.
pub(crate) fn hand_over<T>() -> (Giver<T>, Taker<T>) {
    let shared = Rc::new(RefCell::new(Shared { value: None, waker: None, is_over: false }));
    (Giver(shared.clone()), Taker(shared))
}

struct Shared<T> {
    value: Option<T>,
    waker: Option<Waker>,
    is_over: bool,
}

/// Gives the value, or none when it is dropped.
pub(crate) struct Giver<T>(Rc<RefCell<Shared<T>>>);

/// Takes the value.
pub(crate) struct Taker<T>(Rc<RefCell<Shared<T>>>);

impl<T> Giver<T> {
    pub(crate) fn give(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let waker = {
            let mut shared = self.0.borrow_mut();
            shared.is_over = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Taker<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut shared = self.0.borrow_mut();
        if shared.value.is_some() || shared.is_over {
            return Poll::Ready(shared.value.take());
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
