//! How many connections and failed logins there may be, of all and of one address.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use syncline::server::limits::Limits;
use syncline_tests::server::{Setup, TestServer, secsync_mount};

use super::{Honest, raw_member, turned_away};
use crate::raw::{RawConnection, Response, UPGRADE_HEADERS, get};
use crate::support::*;

async fn server(limits: Limits) -> TestServer {
    TestServer::with(Setup { limits, ..Setup::default() }).await
}

/// An address of this machine that is not the usual one.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

#[tokio::test]
async fn beyond_the_connections_of_the_process_newcomers_get_503_and_the_others_go_on() {
    let server = server(Limits { connections: 10, ..Limits::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut crowd = Vec::new();
    for _ in 0..9 {
        crowd.push(raw_member(server.address, "doc").await);
    }
    for _ in 0..100 {
        let mut refused = RawConnection::connect(server.address).await;
        refused.try_send(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await;
        // Some are told, in a crowd the rest is closed without a word.
        let answer = refused.everything().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
        honest.is_served().await;
    }
    // A place that becomes free is a place, also of a socket that was closed by the host.
    drop(crowd.pop());
    let answered = eventually("a free place", || async {
        let mut connection = RawConnection::connect(server.address).await;
        connection.try_send(b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
        let answer = connection.everything().await;
        answer.starts_with("HTTP/1.1 200 ").then_some(answer)
    })
    .await;
    assert!(answered.contains(r#"syncline_turned_away_total{reason="full"}"#));
    honest.lost_nothing().await;
}

#[tokio::test]
async fn beyond_its_own_connections_an_address_gets_429_and_another_does_not() {
    let server = server(Limits { connections_per_address: Some(5), ..Limits::default() }).await;
    let mut crowd = Vec::new();
    for _ in 0..5 {
        crowd.push(RawConnection::connect_from(ELSEWHERE, server.address).await);
    }
    let mut honest = Honest::join(server.address).await;
    let mut refused = RawConnection::connect_from(ELSEWHERE, server.address).await;
    assert_eq!(refused.response(false).await.status, 429);
    assert_eq!(turned_away(server.address, "address").await, 1);
    honest.is_served().await;
    drop(crowd.pop());
    eventually("a free place", || async {
        let mut connection = RawConnection::connect_from(ELSEWHERE, server.address).await;
        connection.try_send(b"GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
        connection.everything().await.starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
    honest.lost_nothing().await;
}

fn guarded() -> Vec<syncline::runtime::MountSettings> {
    let policy = json!([{"session_keys": ["k"], "documents": ["*"], "actions": ["read", "write-snapshot", "write-update"]}]);
    vec![secsync_mount("secsync", json!({"access": "policy", "policy": policy}))]
}

/// An upgrade with a wrong key that may say in its own words that it is refused.
async fn login(from: Ipv4Addr, address: SocketAddr, session_key: &str, forwarded_for: Option<&str>) -> Response {
    let mut headers = UPGRADE_HEADERS.to_vec();
    headers.extend(forwarded_for.map(|client| ("x-forwarded-for", client)));
    RawConnection::connect_from(from, address).await.request("GET", &place("honest", session_key), &headers).await
}

#[tokio::test]
async fn after_too_many_failed_logins_an_address_is_not_let_in_with_any_key_and_others_are() {
    let limits = Limits { failed_logins_per_address: Some(10), failed_login_window_seconds: 3600, ..Limits::default() };
    let server = TestServer::with(Setup { limits, mounts: guarded(), admin_token: Some("secret".into()), ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    for attempt in 0..9 {
        assert_eq!(login(ELSEWHERE, server.address, &format!("guess-{attempt}"), None).await.status, 101, "refused in band");
    }
    // The operators' own endpoint counts too.
    let mut connection = RawConnection::connect_from(ELSEWHERE, server.address).await;
    assert_eq!(connection.request("GET", "/metrics", &[("authorization", "Bearer guess")]).await.status, 401);
    for key in ["guess", "k"] {
        let refused = login(ELSEWHERE, server.address, key, None).await;
        assert_eq!(refused.status, 429);
        let retry_after: u64 = refused.headers["retry-after"].parse().expect("seconds");
        assert!((1..=3600).contains(&retry_after));
    }
    assert_eq!(connection.request("GET", "/metrics", &[("authorization", "Bearer secret")]).await.status, 429);
    assert_eq!(connection.request("GET", "/healthz", &[]).await.status, 200, "whoever watches the process is answered");
    assert_eq!(connection.request("GET", "/readyz", &[]).await.status, 200);
    let metrics = RawConnection::connect(server.address).await.request("GET", "/metrics", &[("authorization", "bearer secret")]).await;
    assert!(metrics.body.contains(r#"syncline_turned_away_total{reason="failed_logins"} 3"#));
    honest.lost_nothing().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_is_counted_by_itself() {
    let limits = Limits {
        connections_per_address: Some(3),
        failed_logins_per_address: Some(2),
        failed_login_window_seconds: 3600,
        ..Limits::default()
    };
    let trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = TestServer::with(Setup { limits, mounts: guarded(), trusted_proxies, ..Setup::default() }).await;
    let proxy = Ipv4Addr::LOCALHOST;
    // More connections than an address may have, for clients of which each has few.
    let mut sockets = Vec::new();
    for client in 0..9 {
        let address = format!("6.6.6.6, 198.51.100.{}", client % 3);
        let mut headers = UPGRADE_HEADERS.to_vec();
        headers.push(("x-forwarded-for", &address));
        let mut connection = RawConnection::connect(server.address).await;
        assert_eq!(connection.request("GET", &place("honest", "k"), &headers).await.status, 101);
        sockets.push(connection);
    }
    assert_eq!(login(proxy, server.address, "k", Some("198.51.100.1")).await.status, 429);
    assert_eq!(login(proxy, server.address, "k", Some("198.51.100.7")).await.status, 101);
    // One guesses, and only that one is shut out, whatever it claims to stand for.
    for _ in 0..2 {
        assert_eq!(login(proxy, server.address, "guess", Some("203.0.113.5")).await.status, 101);
    }
    for claim in ["203.0.113.5", "9.9.9.9, 203.0.113.5"] {
        assert_eq!(login(proxy, server.address, "k", Some(claim)).await.status, 429);
    }
    assert_eq!(login(proxy, server.address, "k", Some("203.0.113.6")).await.status, 101);
    // Nobody but the proxy is believed.
    for _ in 0..2 {
        assert_eq!(login(ELSEWHERE, server.address, "guess", Some("203.0.113.9")).await.status, 101);
    }
    assert_eq!(login(ELSEWHERE, server.address, "k", Some("203.0.113.10")).await.status, 429);
    assert_eq!(get(server.address, "/healthz").await.status, 200);
}
