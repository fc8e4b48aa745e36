//! The server around the protocols: what it says of itself, HTTP, handshakes, slow and silent clients, the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncline_tests::scale;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::{Received, Socket};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::raw::{self, CLOSE, FIN, PING, PONG, RawConnection, UPGRADE_HEADERS, get};
use crate::support::*;

/// The value of a metric whose line begins with a text; 0 where there is none.
async fn metric(address: SocketAddr, beginning: &str) -> u64 {
    let metrics = get(address, "/metrics").await.body;
    let line = metrics.lines().find(|line| line.starts_with(beginning));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn the_process_says_that_it_lives_and_is_ready() {
    let server = TestServer::start().await;
    for (target, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let response = get(server.address, target).await;
        assert_eq!((response.status, response.headers["content-type"].as_str()), (200, "application/json"));
        assert_eq!(serde_json::from_str::<Value>(&response.body).expect("JSON"), json!({"status": status}));
        let mut connection = RawConnection::connect(server.address).await;
        assert_eq!(connection.request("HEAD", target, &[]).await.status, 200);
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(connection.request(method, target, &[]).await.status, 405);
        }
    }
}

#[tokio::test]
async fn metrics_are_open_without_a_token_and_closed_with_one() {
    let server = TestServer::start().await;
    let open = get(server.address, "/metrics").await;
    assert_eq!(open.status, 200);
    assert!(open.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    let server = TestServer::with(Setup { admin_token: Some("the token".into()), ..Setup::default() }).await;
    let mut connection = RawConnection::connect(server.address).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer another")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer the token ")],
        &[("authorization", "Bearer the toke")],
        &[("authorization", "Basic the token")],
        &[("authorization", "the token")],
    ] {
        let response = connection.request("GET", "/metrics", headers).await;
        // Spaces around a header's value are not part of it.
        let trimmed = headers.first().is_some_and(|(_, value)| value.trim() == "Bearer the token");
        assert_eq!(response.status, if trimmed { 200 } else { 401 }, "{headers:?}");
    }
    assert_eq!(connection.request("GET", "/metrics?token=the+token", &[]).await.status, 401);
    assert_eq!(connection.request("GET", "/metrics", &[("authorization", "Bearer the token")]).await.status, 200);
    assert_eq!(connection.request("GET", "/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn labels_of_metrics_are_bounded_whatever_clients_send() {
    let server = TestServer::start().await;
    for number in 0..20_u16 {
        let place = format!("/secsync/secret-document-{number}?sessionKey=secret-key-{number}");
        let mut connection = RawConnection::websocket(server.address, &place).await;
        connection.message().await.expect("a document");
        connection.send(&raw::frame(FIN | CLOSE, &(3000 + number).to_be_bytes())).await;
        assert_eq!(connection.closed().await, 3000 + number);
        get(server.address, &format!("/unknown-{number}")).await;
        get(server.address, &format!("/secsync/secret-{number}")).await;
        RawConnection::connect(server.address).await.request(&format!("METHOD{number}"), "/secsync/x", &[]).await;
    }
    eventually("the end of all connections", || async {
        (metric(server.address, r#"syncline_closes_total{code="other""#).await == 20).then_some(())
    })
    .await;
    let metrics = get(server.address, "/metrics").await.body;
    for word in ["secret", "unknown", "METHOD", "\"3000\""] {
        assert!(!metrics.contains(word), "{word} in {metrics}");
    }
    let label = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\""))?.1;
        Some(rest.split('"').next()?.to_owned())
    };
    // The mount, and the host's own data.
    for (name, at_most) in [("mount", 2), ("code", 17), ("export", 14), ("result", 6), ("status", 5), ("direction", 2)] {
        let values: BTreeSet<_> = metrics.lines().filter_map(|line| label(line, name)).collect();
        assert!(values.len() <= at_most, "{name}: {values:?}");
    }
    assert_eq!(metric(server.address, "syncline_connections{").await, 0);
    assert_eq!(metric(server.address, "syncline_connections_total{").await, 20);
    assert_eq!(metric(server.address, r#"syncline_http_requests_total{mount="secsync",status="4xx"}"#).await, 40);
}

#[tokio::test]
async fn one_http_connection_carries_many_requests() {
    let server = TestServer::start().await;
    let mut connection = RawConnection::connect(server.address).await;
    for _ in 0..3 {
        assert_eq!(connection.request("GET", "/healthz", &[]).await.status, 200);
        assert_eq!(connection.request("GET", "/nowhere", &[]).await.status, 404);
        assert_eq!(connection.request("GET", "/secsync/doc", &[]).await.status, 404);
        assert_eq!(connection.request("OPTIONS", "/secsync/doc", &[]).await.status, 204);
    }
    // Requests may come ahead of their answers, and the last may become a WebSocket.
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(connection.response(false).await.status, 200);
    assert_eq!(connection.response(false).await.status, 404);
    connection.upgrade(&place("doc", "k")).await;
    assert!(connection.message().await.expect("a document").text().starts_with(r#"{"type":"document""#));
    let mut last = RawConnection::connect(server.address).await;
    let response = last.request("GET", "/healthz", &[("connection", "close")]).await;
    assert_eq!(response.status, 200);
    assert_eq!(last.frame().await, None, "closed as asked");
}

#[tokio::test]
async fn a_request_body_is_read_or_refused_and_the_connection_is_not_confused() {
    let server = TestServer::start().await;
    let mut connection = RawConnection::connect(server.address).await;
    connection.send(b"POST /secsync/doc HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!(connection.response(false).await.status, 404);
    for nonsense in [&b"NONSENSE\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n"] {
        let mut connection = RawConnection::connect(server.address).await;
        connection.send(nonsense).await;
        assert_eq!(connection.response(false).await.status, 400);
    }
    assert_eq!(get(server.address, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = TestServer::start().await;
    let long = "x".repeat(400 << 10);
    for head in
        [format!("GET /healthz HTTP/1.1\r\nhost: t\r\nx-header: {long}\r\n\r\n"), format!("GET /{long} HTTP/1.1\r\nhost: t\r\n\r\n")]
    {
        let mut connection = RawConnection::connect(server.address).await;
        // The server may have closed before it was sent whole, and the answer may be lost by that.
        connection.try_send(head.as_bytes()).await;
        let answer = connection.everything().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer}");
    }
    assert_eq!(get(server.address, "/healthz").await.status, 200);
}

#[tokio::test]
async fn paths_beside_the_mounts_are_not_found() {
    let server = TestServer::start().await;
    for target in
        ["/", "/secsyncx/doc", "/secsync-policy/doc", "/SECSYNC/doc", "/x/secsync/doc", "/healthz/x", "/metrics/", "/%2Fsecsync/doc"]
    {
        assert_eq!(get(server.address, target).await.status, 404, "{target}");
        let response =
            RawConnection::connect(server.address).await.request("GET", &format!("{target}?sessionKey=k"), UPGRADE_HEADERS).await;
        assert_eq!(response.status, 404, "{target}");
    }
}

#[tokio::test]
async fn a_handshake_that_lacks_something_gets_the_status_of_the_rule() {
    let server = TestServer::start().await;
    let without = |name: &str| -> Vec<_> { UPGRADE_HEADERS.iter().copied().filter(|(header, _)| *header != name).collect() };
    let with = |name: &'static str, value: &'static str| -> Vec<_> { without(name).into_iter().chain([(name, value)]).collect() };
    let mut connection = RawConnection::connect(server.address).await;
    let target = place("doc", "k");
    for (method, headers, status) in [
        ("GET", without("sec-websocket-key"), 400),
        ("GET", without("sec-websocket-version"), 426),
        ("GET", with("sec-websocket-version", "8"), 426),
        ("GET", with("sec-websocket-version", "14"), 426),
        ("POST", UPGRADE_HEADERS.to_vec(), 405),
        // Without these it is a plain request.
        ("GET", without("upgrade"), 404),
        ("GET", without("connection"), 404),
        ("GET", with("upgrade", "h2c"), 404),
    ] {
        let response = connection.request(method, &target, &headers).await;
        assert_eq!(response.status, status, "{method} {headers:?}");
        if status == 426 {
            assert_eq!(response.headers["sec-websocket-version"], "13");
        }
    }
    for headers in [with("connection", "keep-alive, Upgrade"), with("upgrade", "WebSocket")] {
        let mut connection = RawConnection::connect(server.address).await;
        let response = connection.request("GET", &target, &headers).await;
        assert_eq!((response.status, response.headers["sec-websocket-accept"].as_str()), (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!response.headers.contains_key("sec-websocket-extensions"));
    }
    // A subprotocol or an extension that nobody knows is not taken, and is no error.
    let mut offered = UPGRADE_HEADERS.to_vec();
    offered.extend([("sec-websocket-protocol", "a, b"), ("sec-websocket-extensions", "permessage-deflate"), ("origin", "null")]);
    let response = RawConnection::connect(server.address).await.request("GET", &target, &offered).await;
    assert_eq!(response.status, 101);
    assert!(!response.headers.contains_key("sec-websocket-protocol"));
    assert!(!response.headers.contains_key("sec-websocket-extensions"));
}

#[tokio::test]
async fn a_mount_on_a_listener_of_its_own_is_there_and_nowhere_else() {
    let mut apart = secsync_mount("apart", json!({}));
    apart.listen = "127.0.0.2:0".into();
    let server = TestServer::with(Setup { mounts: vec![secsync_mount("main", json!({})), apart], ..Setup::default() }).await;
    let addresses = server.addresses();
    assert_eq!((addresses.len(), addresses[0]), (2, server.address));
    for (address, here, elsewhere) in [(addresses[0], "/main", "/apart"), (addresses[1], "/apart", "/main")] {
        let mut socket = Socket::connect(address, &format!("{here}/doc?sessionKey=k")).await;
        socket.json_of("document").await;
        assert!(Socket::try_connect(address, &format!("{elsewhere}/doc?sessionKey=k")).await.is_err());
    }
    for target in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(addresses[0], target).await.status, 200);
        assert_eq!(get(addresses[1], target).await.status, 404, "{target} is for whoever runs the server");
    }
}

#[tokio::test]
async fn mounts_that_collide_do_not_start() {
    let same_path = vec![secsync_mount("one", json!({"path": "/x"})), secsync_mount("two", json!({"path": "/x/"}))];
    let same_name = vec![secsync_mount("one", json!({"path": "/x"})), secsync_mount("one", json!({"path": "/y"}))];
    for (mounts, words) in [(same_path, ["one", "two", "/x"]), (same_name, ["one", "name", "two mounts"])] {
        let refused = TestServer::try_with(Setup { mounts, ..Setup::default() }).await.err().expect("they collide");
        let message = format!("{refused:#}");
        for word in words {
            assert!(message.contains(word), "{word:?} in {message:?}");
        }
    }
}

/// Writes large updates until a reader that does not read is given up; how many it took.
async fn write_until_somebody_is_slow(server: &TestServer, socket: &mut Socket, author: &Author, snapshot_id: &str) -> u64 {
    let content = vec![5; 150 << 10];
    for clock in 0..400 {
        save(socket, &author.update("doc", snapshot_id, clock, &content)).await;
        if metric(server.address, "syncline_slow_readers_total{").await > 0 {
            return clock + 1;
        }
    }
    panic!("a reader that does not read was never given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_reader_is_closed_with_1013_and_misses_nothing_before_that() {
    let server = TestServer::with_settings(json!({"max_backlog_bytes": 500_000})).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut slow = RawConnection::connect_narrow(server.address).await;
    slow.upgrade(&place("doc", "k")).await;
    slow.message().await.expect("a document");
    let reading = tokio::spawn({
        let mut socket = join(&server, "doc").await;
        nothing_waits(&mut socket).await;
        async move {
            let mut count = 0;
            while let Received::Json(update) = socket.receive().await {
                assert_eq!(update["publicData"]["clock"], count);
                count += 1;
            }
            count
        }
    });
    let written = write_until_somebody_is_slow(&server, &mut writer, &author, &snapshot.id).await;
    let mut next = 0;
    let code = loop {
        let message = slow.message().await.expect("a close frame comes before the end");
        if message.first == FIN | CLOSE {
            break message.close_code();
        }
        assert!(message.text().contains(&format!(r#""clock":{next},"#)), "no update is skipped");
        next += 1;
    };
    assert_eq!(code, 1013);
    assert!(next < written, "it had not read everything");
    // The delta of its next connection has the rest.
    let delta = load(&server, &place_after("doc", "delta", &snapshot.id, &json!({}))).await;
    assert_eq!(delta["updates"].as_array().map(Vec::len), usize::try_from(written).ok());
    save(&mut writer, &author.update("doc", &snapshot.id, written, b"x")).await;
    server.stop().await;
    assert_eq!(reading.await.expect("the reader goes on"), written + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_just_joined_and_reads_is_not_slow_however_much_is_written_at_once() {
    let server = TestServer::with_settings(json!({"max_backlog_bytes": 1_000_000})).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut joined = join(&server, "doc").await;
    let reading = tokio::spawn(async move {
        for clock in 0..20 {
            assert_eq!(joined.json_of("update").await["publicData"]["clock"], clock);
        }
    });
    let content = vec![5; 100 << 10];
    for clock in 0..20 {
        save(&mut writer, &author.update("doc", &snapshot.id, clock, &content)).await;
    }
    reading.await.expect("it gets all of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_that_never_reads_is_dropped_without_harm_to_the_others() {
    let server = TestServer::with_settings(json!({"max_backlog_bytes": 300_000})).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut never = RawConnection::connect_narrow(server.address).await;
    never.upgrade(&place("doc", "k")).await;
    let written = write_until_somebody_is_slow(&server, &mut writer, &author, &snapshot.id).await;
    eventually("the end of the slow connection", || async {
        (metric(server.address, r#"syncline_closes_total{code="1013""#).await == 1).then_some(())
    })
    .await;
    assert_eq!(metric(server.address, "syncline_connections{").await, 1);
    save(&mut writer, &author.update("doc", &snapshot.id, written, b"x")).await;
    drop(never);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ephemeral_messages_are_left_out_for_a_slow_reader_before_it_is_closed() {
    let server = TestServer::with_settings(json!({"max_backlog_bytes": 500_000})).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut slow = RawConnection::connect_narrow(server.address).await;
    slow.upgrade(&place("doc", "k")).await;
    let content = vec![5; 150 << 10];
    for _ in 0..100 {
        writer.send(&author.ephemeral("doc", &content)).await;
    }
    let update = author.update("doc", &snapshot.id, 0, b"must come");
    save(&mut writer, &update).await;
    assert_eq!(metric(server.address, "syncline_slow_readers_total{").await, 0);
    slow.message().await.expect("a document");
    let mut ephemeral_messages = 0;
    loop {
        let message = slow.message().await.expect("an update");
        if message.text().contains("must come") || message.text().contains(r#""type":"update""#) {
            break;
        }
        ephemeral_messages += 1;
    }
    assert!(ephemeral_messages < 100, "{ephemeral_messages} fit into the buffers between");
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_dropped() {
    let server = TestServer::with_settings(json!({"ping_interval_ms": 100})).await;
    let mut deaf = RawConnection::websocket(server.address, &place("doc", "k")).await;
    let mut alive = RawConnection::websocket(server.address, &place("doc", "k")).await;
    let started = Instant::now();
    let answering = tokio::spawn(async move {
        let mut answered = 0;
        while answered < 12 {
            let frame = alive.frame().await.expect("it is not dropped");
            if frame.first == FIN | PING {
                alive.send(&raw::frame(FIN | PONG, &frame.payload)).await;
                answered += 1;
            }
        }
    });
    let mut pings = 0;
    // The end comes without a close frame: whoever is silent would not answer one.
    while let Some(frame) = deaf.frame().await {
        pings += u32::from(frame.first == FIN | PING);
        assert_ne!(frame.first, FIN | CLOSE);
    }
    assert_eq!(pings, 2, "two may stay unanswered");
    assert!(started.elapsed() >= Duration::from_millis(200));
    answering.await.expect("whoever answers stays");
}

#[tokio::test]
async fn a_client_that_sends_is_alive_without_pongs_and_pings_can_be_switched_off() {
    let server = TestServer::with_settings(json!({"ping_interval_ms": 100})).await;
    let mut busy = RawConnection::websocket(server.address, &place("doc", "k")).await;
    for _ in 0..10 {
        while busy.frame().await.expect("it is not dropped").first != FIN | PING {}
        busy.send(&raw::frame(FIN | raw::TEXT, br#"{"publicData":{"refSnapshotId":"x","clock":5}}"#)).await;
    }
    let silent = TestServer::with_settings(json!({"ping_interval_ms": 0})).await;
    let mut quiet = RawConnection::websocket(silent.address, &place("doc", "k")).await;
    quiet.message().await.expect("a document");
    assert!(tokio::time::timeout(Duration::from_millis(300), quiet.frame()).await.is_err(), "neither a ping nor the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_the_end_what_was_received_is_acknowledged_and_then_sockets_close_with_1001() {
    for round in 0..3 * scale() {
        let server = TestServer::start().await;
        let author = Author::new(1);
        let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
        let mut idle = join(&server, "other").await;
        let mut plain = RawConnection::connect(server.address).await;
        assert_eq!(plain.request("GET", "/healthz", &[]).await.status, 200);
        for clock in 0..300 {
            socket.send(&author.update("doc", &snapshot.id, clock, b"x")).await;
        }
        // Part of them is saved, part is under way.
        for clock in 0..u64::from(round * 40 + 10) {
            assert_eq!(socket.json().await, update_saved(&snapshot.id, clock));
        }
        let stopping = tokio::spawn(server.stop());
        let mut acknowledged = u64::from(round * 40 + 10);
        let code = loop {
            match socket.receive().await {
                Received::Json(message) => assert_eq!(message, update_saved(&snapshot.id, acknowledged)),
                Received::Close(code) => break code,
                other => panic!("{other:?}"),
            }
            acknowledged += 1;
        };
        assert_eq!(code, 1001);
        assert_eq!(socket.receive().await, Received::End);
        assert_eq!(idle.closed().await, 1001);
        assert_eq!(idle.receive().await, Received::End);
        let folder = stopping.await.expect("it stops");
        assert_eq!(plain.frame().await, None, "plain connections end too");
        let server = TestServer::with(Setup { folder: Some(folder), ..Setup::default() }).await;
        let stored = load(&server, &place("doc", "k")).await;
        assert_eq!(
            stored["updates"].as_array().map(Vec::len),
            usize::try_from(acknowledged).ok(),
            "acknowledged is saved, and saved is acknowledged"
        );
    }
}

#[tokio::test]
async fn after_the_end_nobody_is_served() {
    let server = TestServer::start().await;
    let address = server.address;
    let mut open = RawConnection::connect(address).await;
    assert_eq!(open.request("GET", "/readyz", &[]).await.status, 200);
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert_eq!(open.frame().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_idle_sockets_stay_and_work() {
    let server = TestServer::start().await;
    let count = 500;
    let mut sockets = Vec::new();
    for first in (0..count).step_by(50) {
        let mut opening = JoinSet::new();
        for number in first..first + 50 {
            let (address, place) = (server.address, place(&format!("doc-{}", number % 50), "k"));
            opening.spawn(async move {
                let mut socket = Socket::connect(address, &place).await;
                socket.json_of("document").await;
                (number, socket)
            });
        }
        sockets.extend(opening.join_all().await);
    }
    assert_eq!(metric(server.address, "syncline_connections{").await, count);
    // One of each document writes, the other nine get it.
    sockets.sort_by_key(|(number, _)| *number);
    let author = Author::new(1);
    let mut snapshots = Vec::new();
    for (number, socket) in &mut sockets[..50] {
        let snapshot = author.first_snapshot(&format!("doc-{number}"), b"x");
        assert_eq!(ask(socket, &snapshot.frame).await, snapshot_saved(&snapshot));
        snapshots.push(snapshot);
    }
    for (number, socket) in &mut sockets[50..] {
        let snapshot = &snapshots[usize::try_from(*number % 50).expect("small")];
        assert_eq!(socket.json().await, relayed_snapshot(snapshot));
    }
    for (_, socket) in &mut sockets {
        nothing_waits(socket).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_without_a_word_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut witness, snapshot) = with_snapshot(&server, "doc", &author).await;
    for clock in 0..20 {
        let mut gone = join(&server, "doc").await;
        gone.send_message(Message::text(author.update("doc", &snapshot.id, clock, b"last words").to_string())).await;
        drop(gone);
        // What it sent before is saved, and the others get it.
        assert_eq!(witness.json_of("update").await["publicData"]["clock"], clock);
    }
    eventually("the end of all others", || async { (metric(server.address, "syncline_connections{").await == 1).then_some(()) }).await;
}
