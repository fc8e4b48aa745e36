use super::support::*;
use crate::bindings::syncline::host::pubsub::{Mode, Publication, Subscription};
use crate::bindings::syncline::sync::http::{BodyOut, Parked, Response};

/// Parks, listening to `t`.
fn parking(world: &World, id: u64, timeout_ms: u64, seen: &[(&str, u64)]) -> Response {
    world.subscribe(id, Subscription { presence: Some(Vec::new()), ..subscription("t", Mode::Deliver) });
    parked(timeout_ms, seen)
}

fn parked(timeout_ms: u64, seen: &[(&str, u64)]) -> Response {
    let seen = seen.iter().map(|(key, through)| ((*key).to_owned(), *through)).collect();
    answer(200, BodyOut::Parked(Parked { state: b"state".to_vec(), timeout_ms, seen }))
}

fn waited(world: &std::rc::Rc<World>) -> (u64, String) {
    let began_ms = world.now_ms.get();
    let client = get(world, "/sync");
    (world.now_ms.get() - began_ms, client.text())
}

#[test]
fn a_parked_request_goes_on_when_something_is_published_past_its_cut_offs() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| parking(world, id, 10_000, &[("k", 5)]));
    for (delay_ms, publication) in [
        (200, ordered("t", "covered", "k", 5)),
        (300, published("other", "not listened to")),
        (400, Publication { except: Some(1), ..published("t", "its own") }),
        (1000, ordered("t", "news", "k", 6)),
    ] {
        world.publish_after(delay_ms, publication);
    }
    let (took_ms, text) = waited(&world);
    assert_eq!(text, "state");
    assert!((1000..1300).contains(&took_ms), "{took_ms}");
    assert!(world.calls.borrow().contains(&"gone [1]".to_owned()), "its presence ends with it");
}

#[test]
fn a_parked_request_goes_on_when_its_time_is_up_and_at_once_where_it_has_none() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| parking(world, id, 700, &[]));
    let (took_ms, text) = waited(&world);
    assert_eq!((took_ms, text.as_str()), (700, "state"));
    world.script.borrow_mut().handle = Box::new(|_, _, _, _| parked(0, &[]));
    assert_eq!(waited(&world).0, 0);
}

#[test]
fn what_was_published_since_the_subscription_is_news_though_the_call_made_it() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| {
        let response = parking(world, id, 10_000, &[]);
        world.publish(published("t", "its own"));
        response
    });
    assert_eq!(waited(&world).0, 0);
}

#[test]
fn a_request_may_park_again_and_one_that_is_closed_has_no_answer() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| parking(world, id, 300, &[]));
    let mut resumed = 0;
    world.script.borrow_mut().resume = Box::new(move |_, _, _| {
        resumed += 1;
        if resumed < 3 { parked(300, &[]) } else { answer(200, BodyOut::Bytes(b"third".to_vec())) }
    });
    assert_eq!(waited(&world), (900, "third".into()));
    world.publish_after(100, Publication { close: Some(close(1000)), ..published("t", "") });
    assert_eq!(get(&world, "/sync").status(), 503);
}

#[test]
fn a_presence_is_renewed_as_long_as_it_waits() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| parking(world, id, 65_000, &[]));
    waited(&world);
    assert_eq!(world.calls.borrow().iter().filter(|call| *call == "renew [1]").count(), 2);
}

#[test]
fn where_publications_were_missed_it_looks_for_itself() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| parking(world, id, 10_000, &[]));
    world.after(100, |world| {
        world.kept.borrow_mut().missed = true;
        world.kept.borrow_mut().publish(published("t", "x"));
    });
    let (took_ms, text) = waited(&world);
    assert_eq!(text, "state");
    assert!(took_ms < 500);
}
