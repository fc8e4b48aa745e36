use std::rc::Rc;

use syncline_spin_wire as wire;
use wire::{CallFailure, Invocation, Reply, SocketCall};

use super::support::*;
use crate::bindings::syncline::host::pubsub::Mode;
use crate::bindings::syncline::sync::live::Failure;

fn asked(world: &Rc<World>, path: &str, body: Vec<u8>) -> Client {
    let client = Client { body: [Ok(body)].into(), ..Client::default() };
    served(world, incoming("POST", path, &[("authorization", "Bearer g")]), client)
}

/// The bytes of an answer; texts of clients are lossy.
fn bytes(world: &Rc<World>, path: &str, body: Vec<u8>) -> Vec<u8> {
    let front = front(world, CONFIG);
    let client = Client { body: [Ok(body)].into(), ..Client::default() };
    let client = served_by(&front, world, incoming("POST", path, &[("authorization", "Bearer g")]), client);
    assert_eq!(client.status(), 200, "{}", client.text());
    client.raw
}

fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
    wire::encode(value, wire::REQUEST_BYTES_MAX).unwrap()
}

fn answers(world: &Rc<World>, calls: Vec<SocketCall>) -> Vec<wire::CallAnswer> {
    let mut pieces = wire::Pieces::default();
    pieces.push(&bytes(world, wire::CALLS, encoded(&wire::Calls { gateway: 1, calls })));
    let mut answers = Vec::new();
    while let Some(answer) = pieces.next(wire::ANSWER_BYTES_MAX).unwrap() {
        answers.push(answer);
    }
    pieces.end().unwrap();
    answers
}

fn receive(id: u128, retry: bool) -> SocketCall {
    let connection = wire::Connection { id: 9, attachment: Vec::new().into(), cursors: Vec::new(), failure: None };
    SocketCall {
        id,
        mount: MOUNT.into(),
        known: 0,
        retry,
        ended: false,
        invocation: Invocation::Receive { connection, inputs: vec![wire::Input::Wake] },
    }
}

fn receives(world: &World) -> usize {
    world.calls.borrow().iter().filter(|call| call.starts_with("receive")).count()
}

#[test]
fn only_who_has_the_secret_is_a_gateway() {
    let world = World::new();
    let status =
        |headers: &[(&str, &str)], method: &str, path: &str| served(&world, incoming(method, path, headers), Client::default()).status();
    assert_eq!(status(&[], "POST", wire::MOUNTS), 401);
    assert_eq!(status(&[("authorization", "Bearer x")], "POST", wire::MOUNTS), 401);
    assert_eq!(status(&[("authorization", "Bearer g")], "GET", wire::MOUNTS), 405);
    assert_eq!(status(&[("authorization", "Bearer g")], "POST", "/.syncline/gateway/other"), 404);
    assert_eq!(asked(&world, wire::MOUNTS, b"nonsense".to_vec()).status(), 400);
    let front = front(&world, "{}");
    assert_eq!(served_by(&front, &world, incoming("POST", wire::MOUNTS, &[]), Client::default()).status(), 404);
}

#[test]
fn a_gateway_is_told_of_mounts_and_what_was_published() {
    let world = World::new();
    world.kept.borrow_mut().publish(published("t", "old"));
    let deployment: wire::Deployment =
        wire::decode(&bytes(&world, wire::MOUNTS, encoded(&wire::Hello { gateway: 1 })), wire::ANSWER_BYTES_MAX).unwrap();
    let mount = &deployment.mounts[0];
    assert_eq!((mount.name.as_str(), mount.path.as_str(), mount.position, deployment.sent_topic.as_str()), (MOUNT, "/sync", 1, "sent"));
    world.publish_after(1000, published("t", "new"));
    let poll = wire::Poll {
        gateway: 1,
        revision: deployment.revision.clone(),
        mounts: vec![wire::Known { mount: MOUNT.into(), position: 1 }],
        held: vec![wire::Held { mount: MOUNT.into(), connections: vec![9] }],
        wait_ms: 20_000,
        callback: None,
    };
    let began_ms = world.now_ms.get();
    let polled: wire::Polled = wire::decode(&bytes(&world, wire::POLL, encoded(&poll)), wire::ANSWER_BYTES_MAX).unwrap();
    assert_eq!(polled.mounts[0].published.publications[0].1.message.0, b"new");
    assert!((1000..1200).contains(&(world.now_ms.get() - began_ms)));
    assert!(world.calls.borrow().contains(&"renew [9]".to_owned()));
    let old = wire::Poll { revision: "old".into(), mounts: vec![wire::Known { mount: MOUNT.into(), position: 2 }], ..poll };
    let polled: wire::Polled = wire::decode(&bytes(&world, wire::POLL, encoded(&old)), wire::ANSWER_BYTES_MAX).unwrap();
    assert_eq!((polled.revision, polled.mounts.len()), (deployment.revision, 0), "at once, for it does not know what serves");
}

#[test]
fn an_answer_brings_the_publications_of_its_call_and_none_twice() {
    let world = World::new();
    world.script.borrow_mut().receive = Box::new(|world, connection, _| {
        world.subscribe(connection.id, subscription("t", Mode::ForwardText));
        world.publish(published("t", "p"));
        outcome("sent")
    });
    let answers = answers(&world, vec![receive(1, false), receive(2, false)]);
    let positions: Vec<Vec<u64>> =
        answers.iter().map(|answer| answer.published.publications.iter().map(|(position, _)| *position).collect()).collect();
    assert_eq!(positions, [[1], [2]]);
    assert!(matches!(&answers[0].changes[..], [wire::Change::Subscribed { connection: 9, position: 0, .. }]));
    assert!(matches!(&answers[1].reply, Reply::Outcome(outcome) if outcome.send == [wire::Frame::Text("sent".into())]));
}

#[test]
fn a_call_whose_answer_was_lost_is_not_made_twice() {
    let world = World::new();
    let first = answers(&world, vec![receive(7, false)]).remove(0);
    let again = answers(&world, vec![receive(7, true)]).remove(0);
    assert_eq!((first.reply, receives(&world)), (again.reply, 1));
}

#[test]
fn a_call_that_trapped_is_made_once_more_with_that_failure_and_not_again() {
    let world = World::new();
    world.kept.borrow_mut().places.insert(("gateway/00000000000000000000000000000007".into(), "first".into()), world.now_ms.get() + 5000);
    assert_eq!(answers(&world, vec![receive(7, true)])[0].reply, Reply::Busy, "it may still run");
    world.kept.borrow_mut().places.clear();
    world.script.borrow_mut().receive = Box::new(|_, connection, _| {
        assert_eq!(connection.failure, Some(Failure::Trapped));
        outcome("again")
    });
    assert!(matches!(answers(&world, vec![receive(7, true)])[0].reply, Reply::Outcome(_)));
    // As if that had trapped too.
    world.kept.borrow_mut().places.clear();
    world.kept.borrow_mut().answers.retain(|key, _| key.ends_with("/again"));
    assert_eq!(answers(&world, vec![receive(7, true)])[0].reply, Reply::Failed(CallFailure::Failed));
    assert_eq!(receives(&world), 1);
}

#[test]
fn calls_that_cannot_be_made_fail_alone() {
    let world = World::new();
    let upgrade = |mount: &str| {
        let head = wire::RequestHead {
            method: "GET".into(),
            path: "/sync/socket".into(),
            query: None,
            headers: Vec::new(),
            remote_address: "1.1.1.1".into(),
            secure: true,
        };
        SocketCall {
            id: 1,
            mount: mount.into(),
            known: 0,
            retry: false,
            ended: false,
            invocation: Invocation::Upgrade { connection: 9, head },
        }
    };
    let answers = answers(&world, vec![upgrade("none"), upgrade(MOUNT)]);
    assert_eq!(answers[0].reply, Reply::Failed(CallFailure::NoMount));
    let Reply::Upgrade(wire::UpgradeResult::Refuse(refusal)) = &answers[1].reply else { panic!("{:?}", answers[1].reply) };
    assert_eq!((refusal.status, &refusal.body), (403, &wire::ResponseBody::Bytes(b"no".to_vec().into())));
}
