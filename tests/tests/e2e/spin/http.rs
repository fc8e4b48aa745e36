//! Requests, answers and instances.

use http::Method;
use serde_json::{Value, json};
use syncline_tests::http::request;
use syncline_tests::stream::{Chunk, Stream};

use super::Probe;

#[tokio::test]
async fn a_head_comes_as_spin_makes_it() {
    let probe = Probe::start().await;
    let address = probe.spin.address();
    let sent =
        [("upgrade", "websocket"), ("connection", "upgrade"), ("keep-alive", "5"), ("x-own", "1"), ("x-own", "2"), ("te", "trailers")];
    let head = request(address, &Method::PUT, "/head/../a%2Fb?q=%20&x", &sent, "").await;
    assert_eq!(head.status, 404, "paths come as they were sent");
    let head = request(address, &Method::PUT, "/head?q=%20&x", &sent, "").await.json();
    assert_eq!((&head["path"], &head["authority"]), (&json!("/head?q=%20&x"), &json!(address.to_string())));
    let headers: Vec<(String, String)> = serde_json::from_value(head["headers"].clone()).expect("pairs");
    let all = |name: &str| headers.iter().filter(|header| header.0 == name).map(|header| header.1.as_str()).collect::<Vec<_>>();
    assert_eq!(all("x-own"), ["1", "2"]);
    for gone in ["host", "upgrade", "connection", "keep-alive"] {
        assert!(all(gone).is_empty(), "{gone} is in {headers:?}");
    }
    assert_eq!(all("spin-full-url"), [format!("http://{address}/head?q=%20&x")]);
    assert_eq!((all("spin-path-info"), all("spin-matched-route"), all("spin-base-path")), (vec!["/head"], vec!["/..."], vec!["/"]));
    assert!(all("spin-client-addr")[0].starts_with("127.0.0.1:"), "{headers:?}");
}

#[tokio::test]
async fn a_client_cannot_take_the_place_of_spins_headers() {
    let probe = Probe::start().await;
    let head = request(probe.spin.address(), &Method::GET, "/head", &[("spin-client-addr", "6.6.6.6:1")], "").await.json();
    let headers: Vec<(String, String)> = serde_json::from_value(head["headers"].clone()).expect("pairs");
    let last = headers.iter().rfind(|header| header.0 == "spin-client-addr").expect("Spin adds its own");
    assert!(last.1.starts_with("127.0.0.1:"), "Spin's own comes after the client's: {headers:?}");
}

#[tokio::test]
async fn a_trap_is_an_empty_500_or_ends_the_answer_early() {
    let probe = Probe::start().await;
    let address = probe.spin.address();
    let trapped = request(address, &Method::GET, "/trap", &[], "").await;
    assert_eq!((trapped.status, trapped.body.len()), (500, 0));
    let whole = request(address, &Method::GET, "/stream", &[], "").await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"first\nsecond\n"[..]));
    // To the client it looks as if that were all.
    let cut = request(address, &Method::GET, "/stream?trap", &[], "").await;
    assert_eq!((cut.status, &cut.body[..]), (200, &b"first\n"[..]));
    assert_eq!(request(address, &Method::GET, "/stream", &[], "").await.status, 200, "others go on");
}

#[tokio::test]
async fn instances_know_nothing_of_each_other_and_are_limited() {
    let probe = Probe::with(|settings| settings.instances_max = 2).await;
    let address = probe.spin.address();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = Stream::get_with(address, "/hold", &[]).await;
        assert_eq!(stream.status, 200);
        assert!(matches!(stream.next().await, Chunk::Text(_)), "it lives");
        held.push(stream);
    }
    let refused = request(address, &Method::GET, "/head", &[], "").await;
    assert_eq!((refused.status, refused.body.len()), (500, 0));
    held.pop();
    let freed = || async { (request(address, &Method::GET, "/head", &[], "").await.status == 200).then_some(()) };
    syncline_tests::eventually("the place is free again", freed).await;
}

#[tokio::test]
async fn health_is_answered_by_spin() {
    let probe = Probe::start().await;
    let health = request(probe.spin.address(), &Method::GET, "/.well-known/spin/health", &[], "").await;
    assert_eq!((health.status, &health.body[..]), (200, &b"OK"[..]));
    assert_eq!(probe.run(json!([])).await, Vec::<Value>::new());
}
