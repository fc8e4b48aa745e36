//! What spares a gateway its long polls: a callback, or Redis.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use syncline_tests::DEADLINE;
use syncline_tests::http::request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::double::{Double, SECRET};
use crate::{Client, Front, settings};

/// A port that is free, most likely for a while.
async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_wakes_its_gateway() {
    let double = Double::start().await;
    let address = free_port().await;
    let mut settings = settings(&double);
    settings.callback = Some(format!("http://{address}"));
    settings.server.listen = address.to_string();
    let gateway = Front::with(settings).await.unwrap();
    let mut client = gateway.connect().await;
    assert_eq!(client.ask("join town").await, "joined town");
    // Since it was woken nothing waits there.
    polls_without_waiting(&double, &mut client, || {}).await;
    let woken = async |secret: &str| {
        let headers = [("authorization", &*format!("Bearer {secret}"))];
        request(address, &Method::POST, "/.syncline/woken", &headers, "").await.status
    };
    assert_eq!((woken(SECRET).await, woken("guess").await, woken("").await), (204, 401, 401));
    assert_eq!(request(address, &Method::POST, "/.syncline/woken", &[], "").await.status, 401);
    assert_eq!(request(address, &Method::GET, "/.syncline/woken", &[], "").await.status, 405);
}

/// Publishes until the gateway polls without waiting; whoever listens hears everything.
async fn polls_without_waiting(double: &Double, listener: &mut Client, wake: impl Fn()) {
    let publishing = async {
        for number in 0.. {
            double.publish("town", &number.to_string());
            wake();
            assert_eq!(listener.hear().await, number.to_string());
            if double.world().polls.iter().any(|poll| poll.wait_ms == 0) {
                break;
            }
        }
    };
    timeout(DEADLINE, publishing).await.expect("a poll that does not wait");
}

/// As much of Redis as a subscriber needs.
async fn redis(published: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let published = published.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                loop {
                    tokio::select! {
                        read = stream.read(&mut buffer) => {
                            let Ok(read @ 1..) = read else { return };
                            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                            // One answer for each command; a subscription is told of.
                            for command in text.split('*').skip(1) {
                                let answer = if command.to_uppercase().contains("PSUBSCRIBE") {
                                    "*3\r\n$10\r\npsubscribe\r\n$10\r\nsyncline:*\r\n:1\r\n"
                                } else if command.contains("\r\n") && command.starts_with(|first: char| first.is_ascii_digit()) {
                                    "+OK\r\n"
                                } else {
                                    ""
                                };
                                stream.write_all(answer.as_bytes()).await.unwrap();
                            }
                        }
                        () = published.notified() => {
                            let message = "*4\r\n$8\r\npmessage\r\n$10\r\nsyncline:*\r\n$13\r\nsyncline:echo\r\n$1\r\n1\r\n";
                            stream.write_all(message.as_bytes()).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_wakes_a_gateway_and_without_it_the_deployment_is_polled() {
    let double = Double::start().await;
    let published = Arc::new(Notify::new());
    let mut with = settings(&double);
    with.redis = Some(format!("redis://{}", redis(published.clone()).await));
    let gateway = Front::with(with).await.unwrap();
    let mut client = gateway.connect().await;
    assert_eq!(client.ask("join town").await, "joined town");
    // As soon as it is told of publications it does not wait there; the poll that began before that still does.
    polls_without_waiting(&double, &mut client, || published.notify_one()).await;
    for number in 0..5 {
        double.world().publish("town", &number.to_string());
        published.notify_one();
        assert_eq!(client.hear().await, number.to_string());
    }
    let mut without = settings(&double);
    without.redis = Some(format!("redis://{}", free_port().await));
    let gateway = Front::with(without).await.unwrap();
    let mut client = gateway.connect().await;
    assert_eq!(client.ask("join town").await, "joined town");
    double.publish("town", "all the same");
    assert_eq!(client.hear().await, "all the same");
}
