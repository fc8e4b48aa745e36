//! Publications: to whom, in which order, and each once.

use syncline_tests::eventually;
use syncline_tests::socket::Received;

use crate::Front;
use crate::double::{Double, plan};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_publishes_comes_before_its_own_frames_and_to_the_others_once() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let (mut first, mut second, mut made) = (gateway.connect().await, gateway.connect().await, gateway.connect().await);
    assert_eq!(first.ask("join town").await, "joined town");
    assert_eq!(second.ask("join town").await, "joined town");
    assert_eq!(made.ask("follow town").await, "joined town");
    for number in 0..20 {
        assert_eq!(first.ask(&format!("say town {number}")).await, number.to_string());
        assert_eq!(first.hear().await, format!("said {number}"));
        assert_eq!(second.hear().await, number.to_string());
        assert_eq!(made.hear().await, format!("delivered {number}"));
    }
    assert_eq!(first.ask("whisper town hush").await, "whispered hush");
    assert_eq!((second.hear().await, made.hear().await), ("hush".into(), "delivered hush".into()));
    assert_eq!(second.ask("leave town").await, "left town");
    assert_eq!(first.ask("say town bye").await, "bye");
    second.hears_nothing().await;
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_a_deployment() {
    let double = Double::start().await;
    let (one, other) = (Front::start(&double).await, Front::start(&double).await);
    let (mut here, mut there) = (one.connect().await, other.connect().await);
    assert_ne!(here.id, there.id);
    assert_eq!(there.ask("join town").await, "joined town");
    for number in 0..20 {
        assert_eq!(here.ask(&format!("say town {number}")).await, format!("said {number}"));
        assert_eq!(there.hear().await, number.to_string());
    }
    assert_eq!(here.ask(&format!("to {} psst", there.id)).await, "sent");
    assert_eq!(there.hear().await, "psst");
    assert_eq!(there.ask(&format!("to {} back", here.id)).await, "sent");
    assert_eq!(here.hear().await, "back");
    there.hears_nothing().await;
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_at_its_position_however_late_its_answer_comes() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let (mut late, mut early) = (gateway.connect().await, gateway.connect().await);
    assert_eq!(early.ask("say town before").await, "said before");
    assert_eq!(early.ask("join town").await, "joined town");
    late.say("join-wait town").await;
    gateway.calls_under_way(1).await;
    for number in 0..3 {
        assert_eq!(early.ask(&format!("say town {number}")).await, number.to_string());
        assert_eq!(early.hear().await, format!("said {number}"));
    }
    double.publish("town", "from elsewhere");
    assert_eq!(early.hear().await, "from elsewhere");
    double.let_go(1);
    // On the subscription that the call made: after its frames.
    assert_eq!(late.hear().await, "joined town");
    for expected in ["0", "1", "2", "from elsewhere"] {
        assert_eq!(late.hear().await, expected);
    }
    late.hears_nothing().await;
    early.hears_nothing().await;
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_begins_further_on_hears_nothing_from_before() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let (mut early, mut late) = (gateway.connect().await, gateway.connect().await);
    assert_eq!(early.ask("join town").await, "joined town");
    // Published, and nobody is told of it yet.
    (0..3).for_each(|number| double.world().publish("town", &number.to_string()));
    assert_eq!(late.ask("peek town").await, "joined town");
    double.publish("town", "for both");
    for expected in ["0", "1", "2", "for both"] {
        assert_eq!(early.hear().await, expected);
    }
    assert_eq!(late.hear().await, "for both");
    assert_eq!(late.ask("say town more").await, "more");
    double.is_content();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_listens_is_closed_where_publications_were_missed() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let (mut listener, mut other) = (gateway.connect().await, gateway.connect().await);
    assert_eq!(listener.ask("join town").await, "joined town");
    {
        let mut world = double.world();
        for number in 0..10 {
            world.publish("town", &number.to_string());
        }
        world.forgotten = 5;
    }
    double.publish("town", "last");
    assert_eq!(listener.socket.closed().await, plan::FAILED);
    assert_eq!(other.ask("count").await, "1");
    assert_eq!(other.ask("join town").await, "joined town");
    double.publish("town", "again");
    assert_eq!(other.hear().await, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_connections_does_not_poll_and_hears_nothing_old_later() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    assert_eq!(double.world().polls.len(), 0);
    {
        let mut world = double.world();
        (0..10).for_each(|number| world.publish("town", &number.to_string()));
        world.forgotten = 10;
    }
    let mut client = gateway.connect().await;
    assert_eq!(client.ask("join town").await, "joined town");
    double.publish("town", "new");
    assert_eq!(client.hear().await, "new");
    client.socket.close().await;
    let forgotten = async || (gateway.metric("syncline_connections{").await == 0.0).then_some(());
    eventually("the end of the connection", forgotten).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_closed_and_holds_up_nobody() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let (mut slow, mut quick) = (gateway.connect().await, gateway.connect().await);
    assert_eq!(slow.ask("join town").await, "joined town");
    assert_eq!(quick.ask("join town").await, "joined town");
    let large = "l".repeat(400_000);
    for _ in 0..40 {
        assert_eq!(quick.ask(&format!("say town {large}")).await.len(), large.len());
        assert_eq!(quick.hear().await.len(), large.len() + "said ".len());
    }
    let code = loop {
        match slow.socket.receive().await {
            Received::Close(code) => break code,
            Received::End => panic!("it ended without a word"),
            _ => {}
        }
    };
    assert_eq!(code, plan::SLOW);
}
