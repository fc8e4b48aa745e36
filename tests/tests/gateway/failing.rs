//! What goes wrong between gateway and deployment, and what clients notice of it.

use syncline::gateway::{GatewayError, Secret};
use syncline_tests::eventually;
use syncline_tests::process::{Process, command};
use syncline_tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::Error;

use crate::double::{Double, Fault, SECRET, plan};
use crate::{Client, Front, settings};

/// What was made on a connection besides its upgrade.
fn made(double: &Double, connection: u64) -> Vec<(String, bool)> {
    let world = double.world();
    let of = world.made.iter().filter(|made| made.connection == connection && made.what != "upgrade");
    of.map(|made| (made.what.clone(), made.failed_before)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_is_lost_is_made_once() {
    for fault in [Fault::AnswerLost, Fault::AnswerCut] {
        let double = Double::start().await;
        let gateway = Front::start(&double).await;
        let mut client = gateway.connect().await;
        double.faults(&[fault, fault]);
        assert_eq!(client.ask("say town hello").await, "said hello");
        assert_eq!(client.ask("count").await, "2");
        assert_eq!(made(&double, client.id), [("say town hello".into(), false), ("count".into(), false)]);
        let world = double.world();
        assert_eq!((world.row.len(), world.retries), (1, 2));
        drop(world);
        double.is_content();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_whose_answer_is_lost_is_made_once() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    double.faults(&[Fault::AnswerLost]);
    let client = gateway.connect().await;
    let world = double.world();
    let upgrades: Vec<_> = world.made.iter().filter(|made| made.what == "upgrade").map(|made| made.connection).collect();
    assert_eq!(upgrades, [client.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_not_have_been_made_is_made_and_told_so() {
    for fault in [Fault::Broken, Fault::Fell, Fault::Unavailable] {
        let double = Double::start().await;
        let gateway = Front::start(&double).await;
        let mut client = gateway.connect().await;
        double.faults(&[fault]);
        assert_eq!(client.ask("count").await, "1");
        assert_eq!(made(&double, client.id), [("count".into(), true)], "{fault:?}");
        double.is_content();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_ends_its_connection_and_no_other() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut bad = gateway.connect().await;
    let mut slow = futures_util::future::join_all((0..8).map(|_| gateway.connect())).await;
    let mut good = futures_util::future::join_all((0..6).map(|_| gateway.connect())).await;
    for client in &mut slow {
        client.say("wait").await;
    }
    eventually("the slow calls", async || (made_waits(&double) == 8).then_some(())).await;
    // All of these go in the next request.
    for client in &mut good[..3] {
        client.say("count").await;
    }
    gateway.calls_under_way(11).await;
    bad.say("trap").await;
    gateway.calls_under_way(12).await;
    for client in &mut good[3..] {
        client.say("count").await;
    }
    gateway.calls_under_way(15).await;
    double.let_go(8);
    for client in &mut good {
        assert_eq!(client.hear().await, "1");
        let counts: Vec<_> = made(&double, client.id);
        assert_eq!(counts, [("count".to_owned(), false)], "the trap is none of its concern");
        assert_eq!(client.ask("count").await, "2");
    }
    assert_eq!(bad.socket.closed().await, plan::FAILED);
    let traps = made(&double, bad.id);
    assert!((2..=4).contains(&traps.iter().filter(|(what, _)| what == "trap").count()), "{traps:?}");
    double.is_content();
}

/// Calls that wait for the test.
fn made_waits(double: &Double) -> usize {
    double.world().batches.iter().skip(15).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_closes_as_the_plan_says() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    client.say("fail").await;
    assert_eq!(client.socket.closed().await, plan::FAILED);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_outlive_a_restart_of_the_deployment_and_new_ones_are_turned_away_meanwhile() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    let mut listener = gateway.connect().await;
    assert_eq!(listener.ask("join town").await, "joined town");
    assert_eq!(client.ask("count").await, "1");
    let stopped = double.stop().await;
    client.say("say town later").await;
    let turned_away = async || match Socket::try_connect(gateway.address, "/echo").await {
        Err(Error::Http(response)) => (response.status() == 503).then_some(()),
        _ => None,
    };
    eventually("503", turned_away).await;
    let ready = async || Some(syncline_tests::http::request(gateway.address, &http::Method::GET, "/readyz", &[], "").await.status);
    assert_eq!(eventually("an answer", ready).await, 503);
    let double = stopped.start().await;
    assert_eq!(client.hear().await, "said later");
    assert_eq!(listener.hear().await, "later");
    assert_eq!(client.ask("count").await, "3");
    eventually("an upgrade that is taken", async || Socket::try_connect(gateway.address, "/echo").await.ok()).await;
    assert_eq!(ready().await, Some(200));
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_away_at_the_start_is_waited_for() {
    let double = Double::start().await;
    let settings = settings(&double);
    let stopped = double.stop().await;
    let gateway = Front::with(settings).await.unwrap();
    assert!(matches!(Socket::try_connect(gateway.address, "/echo").await, Err(Error::Http(response)) if response.status() == 503));
    let _double = stopped.start().await;
    eventually("an upgrade that is taken", async || Socket::try_connect(gateway.address, "/echo").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_stops_the_start() {
    let double = Double::start().await;
    let mut other = settings(&double);
    other.secret = Secret::new("an0ther");
    match Front::with(other).await {
        Err(error @ GatewayError::Refused { .. }) => {
            let text = error.to_string();
            assert!(text.contains("secret") && !text.contains("an0ther"), "{text}");
        }
        other => panic!("{:?}", other.err()),
    }
    for (key, change) in
        [("upstream", ["upstream", "ftp://x"]), ("secret", ["secret", ""]), ("callback", ["callback", "x"]), ("redis", ["redis", "x"])]
    {
        let mut wrong = settings(&double);
        match change {
            ["upstream", url] => wrong.upstream = url.into(),
            ["secret", secret] => wrong.secret = Secret::new(secret),
            ["callback", url] => wrong.callback = Some(url.into()),
            [_, url] => wrong.redis = Some(url.into()),
        }
        let error = Front::with(wrong).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(&format!("{key}: ")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_finds_what_its_dead_connection_sent() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    client.say("wait").await;
    gateway.calls_under_way(1).await;
    client.say("say town late").await;
    let gone = client.id;
    client.socket.close().await;
    let again = tokio::spawn(Client::connect(gateway.address));
    eventually("the client's return, while its dead connection is at work", async || (gateway.held() == 2).then_some(())).await;
    double.let_go(1);
    let again = again.await.unwrap();
    let made = double.world().made.clone();
    let place = |connection: u64, what: &str| made.iter().position(|made| made.connection == connection && made.what == what);
    let (said, upgraded) = (place(gone, "say town late"), place(again.id, "upgrade"));
    assert!(said.is_some() && said < upgraded, "{made:?}");
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_costs_connections_and_nothing_else() {
    let double = Double::start().await;
    let gateway = |double: &Double| {
        let mut command = command(&["gateway", "--upstream", &double.url(), "--listen", "127.0.0.1:0"]);
        command.env("SYNCLINE_GATEWAY_SECRET", SECRET);
        command
    };
    let (first, second) = (Process::spawn(gateway(&double)).await, Process::spawn(gateway(&double)).await);
    let mut lost = Client::connect(first.address).await;
    let mut kept = Client::connect(second.address).await;
    assert_eq!(kept.ask("join town").await, "joined town");
    assert_eq!(lost.ask("say town before").await, "said before");
    assert_eq!(kept.hear().await, "before");
    first.kill().await;
    assert_eq!(lost.socket.receive().await, Received::End);
    let mut again = Client::connect(second.address).await;
    assert_eq!(again.ask("say town after").await, "said after");
    assert_eq!(kept.hear().await, "after");
    assert_eq!(double.world().row.len(), 2);
    assert_eq!(second.status("/healthz").await, 200);
    assert_eq!(second.terminate().await, 0);
    assert!(matches!(kept.socket.receive().await, Received::Close(plan::SHUTDOWN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_still_being_made_is_waited_for() {
    let double = Double::start().await;
    double.world().deployment.mounts[0].plan.call_deadline_ms = 100;
    let gateway = Front::start(&double).await;
    let mut client = gateway.connect().await;
    client.say("wait").await;
    // The gateway loses its patience and sends it again, and the deployment says that it is busy with it.
    eventually("a retry", async || (double.world().retries > 0).then_some(())).await;
    double.let_go(1);
    assert_eq!(client.hear().await, "wait!");
    assert_eq!(made(&double, client.id), [("wait".into(), false)]);
    double.is_content();
}
