//! Calls: their order, their batches, and what travels with them.

use futures_util::future::join_all;
use syncline_tests::eventually;
use syncline_tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::double::{Double, plan};
use crate::{Front, settings};

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_answered_in_order_and_the_attachment_travels_along() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut clients = join_all((0..5).map(|_| gateway.connect())).await;
    for client in &mut clients {
        for _ in 0..200 {
            client.say("count").await;
        }
    }
    for client in &mut clients {
        for expected in 1..=200 {
            assert_eq!(client.hear().await, expected.to_string());
        }
    }
    let most = double.world().made.iter().map(|made| made.inputs).max();
    assert!(most > Some(1), "inputs that waited went together");
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_plan_says_so_each_input_has_a_call_of_its_own() {
    let double = Double::start().await;
    double.world().deployment.mounts[0].plan.inputs_per_call = 1;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    client.say("wait").await;
    for _ in 0..20 {
        client.say("count").await;
    }
    double.let_go(1);
    assert_eq!(client.hear().await, "wait!");
    for expected in 2..=21 {
        assert_eq!(client.hear().await, expected.to_string());
    }
    assert_eq!(double.world().made.iter().map(|made| made.inputs).max(), Some(1));
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_requests_go_together() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut clients = join_all((0..40).map(|_| gateway.connect())).await;
    double.world().batches.clear();
    let (slow, quick) = clients.split_at_mut(8);
    for client in &mut *slow {
        client.say("wait").await;
    }
    eventually("the slow calls", async || (double.world().batches.len() == 8).then_some(())).await;
    for client in &mut *quick {
        client.say("count").await;
    }
    gateway.calls_under_way(40).await;
    assert_eq!(double.world().batches.len(), 8, "no more requests at once");
    double.let_go(8);
    for client in slow {
        assert_eq!(client.hear().await, "wait!");
    }
    for client in quick {
        assert_eq!(client.hear().await, "1");
    }
    let batches = double.world().batches.clone();
    assert!(batches.len() < 8 + 32 && batches.iter().sum::<usize>() == 40, "{batches:?}");
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_the_logics_to_decide() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    match Socket::try_connect(gateway.address, "/echo/below?refuse").await {
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 403);
            assert_eq!(response.headers()["x-why"], "because");
        }
        other => panic!("a refusal was expected: {:?}", other.err()),
    }
    assert!(matches!(Socket::try_connect(gateway.address, "/elsewhere").await, Err(Error::Http(response)) if response.status() == 404));
    let mut client = gateway.connect().await;
    assert_eq!(client.ask("ping").await, "pong");
    client.say("close").await;
    assert_eq!(client.socket.closed().await, 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_alarms_and_what_is_put_off_come_back() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    client.say("work dishes").await;
    assert_eq!(client.hear().await, "done!");
    client.say("alarm 10").await;
    assert_eq!(client.hear().await, "awake!");
    client.say("later").await;
    client.say("count").await;
    assert_eq!((client.hear().await, client.hear().await), ("later!".into(), "7".into()));
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_told_of_once() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let client = gateway.connect().await;
    let id = client.id;
    client.socket.close().await;
    let closed = async || {
        let world = double.world();
        let closed: Vec<_> = world.made.iter().filter(|made| made.what == "closed").map(|made| made.connection).collect();
        (!closed.is_empty()).then_some(closed)
    };
    assert_eq!(eventually("the call of `closed`", closed).await, [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_pass_and_too_large_ones_close() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    let large = "l".repeat(usize::try_from(plan::FRAME_BYTES_MAX).unwrap());
    assert_eq!(client.ask(&large).await.len(), large.len() + 1);
    client.socket.send_message(Message::binary(large.clone().into_bytes())).await;
    assert_eq!(client.hear().await, format!("binary-{}!", large.len()));
    assert_eq!(client.ask("big 20000000").await.len(), 20_000_000);
    let mut others = join_all((0..12).map(|_| gateway.connect())).await;
    join_all(others.iter_mut().map(|other| async { assert_eq!(other.ask(&large).await.len(), large.len() + 1) })).await;
    client.socket.send_message(Message::text(format!("{large}l"))).await;
    assert_eq!(client.socket.closed().await, plan::TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_client_is_what_trusted_proxies_say_and_the_secret_stays_inside() {
    let double = Double::start().await;
    let mut settings = settings(&double);
    settings.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let gateway = Front::with(settings).await.unwrap();
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let mut request =
        tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!("ws://{}/echo", gateway.address)).unwrap();
    request.headers_mut().insert("x-forwarded-for", "9.9.9.9".parse().unwrap());
    request.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    request.headers_mut().insert("x-syncline-gateway", "guess".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let hello = futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap().into_text().unwrap();
    assert!(hello.ends_with("from 9.9.9.9 true"), "{hello}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_answers_and_says_goodbye() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    client.say("wait").await;
    gateway.calls_under_way(1).await;
    let stopping = tokio::spawn(gateway.stop());
    double.let_go(1);
    assert_eq!(client.hear().await, "wait!");
    assert_eq!(client.socket.receive().await, Received::Close(plan::SHUTDOWN));
    // Its answer to the close: then the gateway need not wait for it.
    assert_eq!(client.socket.receive().await, Received::End);
    stopping.await.unwrap();
    assert!(double.world().made.iter().any(|made| made.what == "closed"), "the logic was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_revision_brings_other_routes_while_sockets_stay() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    assert_eq!(client.ask("count").await, "1");
    {
        let mut world = double.world();
        world.deployment.revision = "second".into();
        let mut more = world.deployment.mounts[0].clone();
        (more.name, more.plan) = ("more".into(), plan::plan("/more"));
        world.deployment.mounts[0].plan = plan::plan("/moved");
        world.deployment.mounts.push(more);
    }
    // It wakes whoever polls.
    double.publish("nothing", "new");
    let moved = async || Socket::try_connect(gateway.address, "/moved").await.ok();
    eventually("a route at another place", moved).await;
    assert!(Socket::try_connect(gateway.address, "/more").await.is_ok());
    assert!(Socket::try_connect(gateway.address, "/echo").await.is_err(), "the old place is gone");
    assert_eq!(client.ask("count").await, "2");
    {
        let mut world = double.world();
        world.deployment.revision = "third".into();
        world.deployment.mounts.remove(0);
    }
    double.publish("nothing", "new");
    assert_eq!(client.socket.receive().await, Received::Close(plan::SHUTDOWN), "its mount is gone");
}
