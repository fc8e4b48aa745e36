//! Plain requests, which are passed on.

use bytes::Bytes;
use http::Method;
use syncline_tests::http::{request, try_request};
use syncline_tests::stream::{Chunk, Stream};

use crate::double::{Double, SECRET};
use crate::{Front, settings};

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_pass_with_their_heads() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let headers = [
        ("x-mine", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-syncline-gateway", "guess"),
        ("forwarded", "for=6.6.6.6"),
        ("te", "trailers"),
    ];
    let answer = request(gateway.address, &Method::PUT, "/some/page%2F?a=%20b", &headers, "a body").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"page"[..]));
    assert_eq!((answer.header("x-page"), answer.header("keep-alive")), ("yes", ""));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    let seen = double.seen().pop().unwrap();
    assert_eq!((seen.line.as_str(), seen.body_bytes), ("PUT /some/page%2F?a=%20b", 6));
    assert_eq!(seen.header("x-mine"), "1");
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-syncline-gateway"), SECRET);
    assert_eq!(seen.header("host"), gateway.address.to_string());
    assert_eq!(seen.header("content-length"), "6");
    for gone in ["x-hop", "forwarded", "te", "connection"] {
        assert_eq!(seen.header(gone), "", "{gone}");
    }
    let head = request(gateway.address, &Method::HEAD, "/page", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(request(gateway.address, &Method::GET, "/missing", &[], "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_as_they_come() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let large = Bytes::from(vec![7; 9_000_000]);
    let answer = request(gateway.address, &Method::POST, "/mirror", &[], large.clone()).await;
    assert_eq!(answer.body, large);
    let mut events = Stream::get(gateway.address, "/events").await;
    assert_eq!(events.status, 200);
    for number in 0..3 {
        double.next_event();
        assert_eq!(events.next().await, Chunk::Text(format!("data: {number}\n\n")));
    }
    assert!(try_request(gateway.address, &Method::GET, "/cut", &[], Bytes::new()).await.is_err(), "what is not whole does not look so");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_end_in_order_when_the_gateway_stops() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let mut events = Stream::get(gateway.address, "/events").await;
    double.next_event();
    assert_eq!(events.next().await, Chunk::Text("data: 0\n\n".into()));
    let (end, ()) = tokio::join!(events.next(), gateway.stop());
    assert_eq!(end, Chunk::End);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_gone_is_told_of_in_plain_words() {
    let double = Double::start().await;
    let gateway = Front::start(&double).await;
    let _stopped = double.stop().await;
    let answer = request(gateway.address, &Method::GET, "/page", &[], "").await;
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    assert!(answer.body.starts_with(b"The server behind this gateway"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_answers_for_itself_and_keeps_what_is_between_it_and_the_deployment() {
    let double = Double::start().await;
    let mut settings = settings(&double);
    settings.server.admin_token = Some("admin".into());
    let gateway = Front::with(settings).await.unwrap();
    let status = async |path: &str| request(gateway.address, &Method::GET, path, &[], "").await.status;
    assert_eq!((status("/healthz").await, status("/readyz").await, status("/metrics").await), (200, 200, 401));
    let own = [("authorization", &*format!("Bearer {SECRET}"))];
    for path in ["/.syncline/gateway/calls", "/.syncline/gateway/mounts", "/.syncline/woken", "/.syncline/other"] {
        assert_eq!(request(gateway.address, &Method::POST, path, &own, "").await.status, 404, "{path}");
    }
    assert!(double.seen().is_empty());
    let metrics = request(gateway.address, &Method::GET, "/metrics", &[("authorization", "Bearer admin")], "").await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("syncline_connections{mount=\"echo\"} 0"));
}
