//! Jobs, posts, documents, starts, places, answers and the guard.

use super::*;
use crate::bindings::exports::syncline::host::effects::OutboundPost;
use crate::bindings::exports::syncline::host::types::Header;
use crate::bindings::exports::syncline::spin::adapter::{self, Start};

const TARGET: &str = "https://hooks.example/a";

fn in_call<T>(back: &Back, run: impl FnOnce() -> T) -> T {
    back.begin("m", false);
    let value = run();
    back.end(false).unwrap();
    value
}

#[test]
fn a_job_fires_when_it_is_due_and_is_leased_to_one() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    let now_ms = world.now_ms.get();
    in_call(&back, || {
        back.schedule("later", now_ms + 1000, b"x");
        back.schedule("cancelled", now_ms, b"");
        back.cancel("cancelled");
    });
    assert_eq!((back.due_jobs(10).unwrap(), back.next_due().unwrap()), (vec![], Some(now_ms + 1000)));
    world.pass_ms(1000);
    let jobs = other.due_jobs(10).unwrap();
    assert_eq!((jobs.len(), jobs[0].name.as_str(), jobs[0].payload.as_slice()), (1, "later", b"x".as_slice()));
    assert_eq!(back.due_jobs(10).unwrap(), []);
    other.job_done(&jobs[0], Some(b"half")).unwrap();
    let jobs = back.due_jobs(10).unwrap();
    assert_eq!(jobs[0].cursor.as_deref(), Some(b"half".as_slice()));
    back.job_failed(&jobs[0]).unwrap();
    assert_eq!(back.due_jobs(10).unwrap(), []);
    world.pass_ms(30_000);
    let jobs = back.due_jobs(10).unwrap();
    assert_eq!(jobs[0].cursor.as_deref(), Some(b"half".as_slice()));
    // Put down anew while it ran: that schedule stays.
    in_call(&back, || back.schedule("later", now_ms, b"y"));
    back.job_done(&jobs[0], None).unwrap();
    let jobs = back.due_jobs(10).unwrap();
    assert_eq!((jobs.len(), jobs[0].payload.as_slice()), (1, b"y".as_slice()));
    back.job_done(&jobs[0], None).unwrap();
    assert_eq!(back.next_due().unwrap(), None);
}

#[test]
fn what_is_due_for_a_mount_that_is_gone_wakes_nobody() {
    let world = World::new();
    let back = world.instance();
    in_call(&back, || back.schedule("a", world.now_ms.get(), b""));
    assert_eq!(back.next_due().unwrap(), Some(world.now_ms.get()));
    let other = world.instance();
    other.mounts.borrow_mut().clear();
    assert_eq!(other.next_due().unwrap(), None);
    other.know(doubles::mount("elsewhere"));
    assert_eq!(other.next_due().unwrap(), None);
}

#[test]
fn a_job_of_a_request_that_trapped_comes_again() {
    let world = World::new();
    let back = world.instance();
    in_call(&back, || back.schedule("a", 0, b""));
    assert_eq!(back.due_jobs(10).unwrap().len(), 1);
    drop(back);
    world.pass_ms(60_000);
    assert_eq!(world.instance().due_jobs(10).unwrap().len(), 1);
}

#[test]
fn jobs_of_mounts_that_are_not_known_wait() {
    let world = World::new();
    let back = world.instance();
    back.begin("stranger", false);
    back.schedule("a", 0, b"");
    back.end(false).unwrap();
    assert_eq!(back.due_jobs(10).unwrap(), []);
    back.know(doubles::mount("stranger"));
    assert_eq!(back.due_jobs(0).unwrap(), []);
    assert_eq!(back.due_jobs(10).unwrap().len(), 1);
}

fn post(body: &str) -> OutboundPost {
    let headers = vec![Header { name: "content-type".into(), value: b"text/plain".to_vec() }];
    OutboundPost { url: TARGET.into(), headers, body: body.as_bytes().to_vec() }
}

#[test]
fn a_post_is_sent_with_its_transaction_until_it_arrives() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.post(post("rolled back"));
    back.drop_transaction(handle);
    let handle = back.begin_transaction("main").unwrap();
    back.post(post("committed"));
    back.commit(handle).unwrap();
    back.post(post("dropped with the call"));
    back.end(true).unwrap();
    world.reply(500, &[], b"");
    let failed = back.deliver_posts(10).unwrap();
    assert_eq!((failed.len(), failed[0].attempts, failed[0].given_up, failed[0].error.as_str()), (1, 1, false, "answered 500"));
    assert_eq!(back.deliver_posts(10).unwrap(), [], "not before its time");
    world.pass_ms(1_000);
    world.replies.borrow_mut().push_back(Err("unreachable".into()));
    assert_eq!(back.deliver_posts(10).unwrap(), [], "only the first failure is told");
    world.pass_ms(2_000);
    world.reply(204, &[], b"");
    assert_eq!(back.deliver_posts(10).unwrap(), []);
    assert_eq!(back.next_due().unwrap(), None);
    let requests = world.requests.borrow();
    let sent =
        |name: &str| requests.iter().map(|request| request.headers.iter().find(|(known, _)| known == name).cloned()).collect::<Vec<_>>();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.body == b"committed" && request.url == TARGET && request.method == "POST"));
    let ids = sent("x-syncline-post-id");
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]));
    assert_eq!(sent("content-type")[0].as_ref().unwrap().1, b"text/plain");
}

#[test]
fn a_post_is_given_up_and_one_to_another_target_is_dropped() {
    let world = World::new();
    let back = world.instance();
    in_call(&back, || {
        back.post(OutboundPost { url: "https://elsewhere.example/?secret".into(), ..post("") });
        back.post(post("old"));
    });
    assert!(world.lines.borrow()[0].contains("elsewhere.example") && !world.lines.borrow()[0].contains("secret"));
    world.pass_ms(25 * 60 * 60 * 1000);
    let failed = back.deliver_posts(10).unwrap();
    assert_eq!((failed.len(), failed[0].given_up), (1, true));
    in_call(&back, || back.post(post("not allowed any more")));
    back.know(adapter::Mount { post_targets: Vec::new(), ..doubles::mount("m") });
    let requests = world.requests.borrow().len();
    assert!(back.deliver_posts(10).unwrap()[0].given_up);
    assert_eq!((world.requests.borrow().len(), back.next_due().unwrap()), (requests, None));
}

fn with_document(back: &Back, url: &str, refresh_ms: u64) {
    let document = adapter::Document { name: "keys".into(), url: url.into(), refresh_ms };
    back.know(adapter::Mount { documents: vec![document], ..doubles::mount("m") });
}

#[test]
fn documents_are_fetched_kept_and_fetched_again_in_time() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    with_document(&back, "https://id.example/keys", 60_000);
    with_document(&other, "https://id.example/keys", 60_000);
    world.reply(200, &[("etag", "\"1\"")], b"one");
    let (first, documents) = back.documents("m").unwrap();
    assert_eq!(documents, [("keys".to_owned(), b"one".to_vec())]);
    assert_eq!(other.documents("m").unwrap(), (first, documents));
    assert_eq!(world.requests.borrow().len(), 1);
    world.pass_ms(60_000);
    world.reply(304, &[], b"");
    assert_eq!(other.documents("m").unwrap().0, first);
    assert!(world.requests.borrow()[1].headers.contains(&("if-none-match".into(), b"\"1\"".to_vec())));
    world.pass_ms(60_000);
    assert_eq!(back.documents("m").unwrap().1[0].1, b"one", "what cannot be fetched stays");
    world.pass_ms(30_000);
    world.reply(200, &[], b"two");
    let (second, documents) = back.documents("m").unwrap();
    assert!(second > first);
    assert_eq!(documents[0].1, b"two");
    with_document(&back, "https://id.example/others", 0);
    world.reply(200, &[], b"three");
    let (third, documents) = back.documents("m").unwrap();
    assert!(third > second);
    assert_eq!(documents[0].1, b"three");
    assert_eq!(back.documents("none").unwrap(), (0, vec![]));
}

#[test]
fn a_document_that_is_asked_for_is_fetched_within_limits() {
    let world = World::new();
    let back = world.instance();
    with_document(&back, "https://id.example/keys", 0);
    world.reply(200, &[], b"one");
    back.documents("m").unwrap();
    back.begin("m", false);
    assert_eq!(back.refresh_asked("keys"), Some(b"one".to_vec()));
    assert_eq!(back.refresh_asked("none"), None);
    assert!(!back.end(false).unwrap().refreshed);
    world.pass_ms(10_000);
    world.reply(200, &[], b"two");
    back.begin("m", false);
    assert_eq!(back.refresh_asked("keys"), Some(b"two".to_vec()));
    assert!(back.end(false).unwrap().refreshed);
    assert_eq!(world.requests.borrow().len(), 2);
}

#[test]
fn a_mount_is_started_once_for_each_revision() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    let claim = |back: &Back, revision: &str| back.claim_start("m", revision).unwrap();
    assert_eq!(claim(&back, "r1"), Start::Step(None));
    assert_eq!(claim(&other, "r1"), Start::Busy);
    back.started("m", "r1", Some(b"half")).unwrap();
    assert_eq!(claim(&other, "r1"), Start::Busy);
    world.pass_ms(30_000);
    assert_eq!(claim(&other, "r1"), Start::Step(Some(b"half".to_vec())));
    other.start_failed("m");
    assert_eq!(claim(&back, "r1"), Start::Step(Some(b"half".to_vec())));
    back.started("m", "r1", None).unwrap();
    assert_eq!((claim(&back, "r1"), claim(&other, "r1")), (Start::Done, Start::Done));
    assert_eq!(claim(&back, "r2"), Start::Step(None));
    assert_eq!(claim(&other, "r1"), Start::Busy);
    back.started("m", "r2", None).unwrap();
    assert_eq!((claim(&other, "r2"), back.claim_start("n", "r1").unwrap()), (Start::Done, Start::Step(None)));
}

#[test]
fn places_are_counted_across_instances() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    let hold = |back: &Back, holder: &str| back.hold("streams", holder, 2, 1000).unwrap();
    assert!(hold(&back, "a") && hold(&other, "b") && !hold(&other, "c"));
    assert!(hold(&back, "a"), "it prolongs");
    back.release_place("streams", "a").unwrap();
    assert!(hold(&other, "c") && !hold(&back, "a"));
    assert!(back.hold("others", "a", 1, 1000).unwrap());
    assert!(!back.hold("none", "a", 0, 1000).unwrap());
    world.pass_ms(1000);
    assert!(hold(&back, "a"));
}

#[test]
fn answers_are_remembered_for_a_while() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    assert_eq!(back.recall("id\0").unwrap(), None);
    back.remember("id\0", b"answer").unwrap();
    assert_eq!(other.recall("id\0").unwrap(), Some(b"answer".to_vec()));
    world.pass_ms(120_000);
    assert_eq!(other.recall("id\0").unwrap(), None);
}

#[test]
fn gateways_that_hold_a_place_are_woken_by_what_is_published() {
    let world = World::new();
    let back = world.instance_with(|settings| settings.gateway_secret = Some("hush".into()));
    let publish = || {
        back.begin("m", false);
        back.publish(publication("t", "x"));
        back.end(false).unwrap();
    };
    publish();
    assert_eq!(world.requests.borrow().len(), 0);
    assert!(back.hold("woken", "http://one/woken", 64, 60_000).unwrap() && back.hold("woken", "http://two/woken", 64, 60_000).unwrap());
    world.reply(204, &[], b"");
    world.reply(401, &[], b"");
    publish();
    let said: Vec<_> = world.requests.borrow().iter().map(|request| (request.url.clone(), request.headers.clone())).collect();
    let secret = vec![("authorization".to_owned(), b"Bearer hush".to_vec())];
    assert_eq!(said, [("http://one/woken".to_owned(), secret.clone()), ("http://two/woken".to_owned(), secret)]);
    world.reply(204, &[], b"");
    publish();
    assert_eq!(world.requests.borrow().len(), 3, "the second one has lost its place");
    world.pass_ms(60_000);
    publish();
    assert_eq!(world.requests.borrow().len(), 3);
}

#[test]
fn settings_that_cannot_be_right_are_told_from_what_is_away() {
    let world = World::new();
    let back = Back::new(world.ports());
    let with = |database| adapter::Settings { database, ..doubles::settings() };
    assert!(matches!(back.open(with(adapter::Database::Postgres("mysql://a".into()))), Err(adapter::Error::Invalid(_))));
    assert!(matches!(back.open(with(adapter::Database::Postgres("postgres://a".into()))), Err(adapter::Error::Unavailable(_))));
    assert!(matches!(back.open(with(adapter::Database::Sqlite("other".into()))), Err(adapter::Error::Unavailable(_))));
    back.open(doubles::settings()).unwrap();
    back.open(doubles::settings()).unwrap();
    let newer = world.other_connection();
    newer.execute_batch("UPDATE syncline_spin_version SET number = 99").unwrap();
    let refused = Back::new(world.ports()).open(doubles::settings());
    assert!(matches!(refused, Err(adapter::Error::Unavailable(what)) if what.contains("version 99")));
}
