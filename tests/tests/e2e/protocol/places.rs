//! Document ids, plain HTTP, mounts beside each other, restarts.

use serde_json::json;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::Socket;

use crate::raw::RawConnection;
use crate::support::*;

#[tokio::test]
async fn a_document_id_is_everything_behind_the_mount_percent_decoded() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    for (path, id) in [
        ("a", "a"),
        ("a/b", "a/b"),
        ("a%2Fc", "a/c"),
        ("a/", "a/"),
        ("/a", "/a"),
        ("a//b", "a//b"),
        ("with%20space", "with space"),
        ("a+b", "a+b"),
        ("%C3%A4%E2%82%AC%F0%9F%98%80", "ä€😀"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%FF", "%FF"),
        ("%E4", "%E4"),
        ("%2525", "%25"),
        ("a%3Fb%23c%26d", "a?b#c&d"),
        ("..%2Fb", "../b"),
        ("A", "A"),
        ("it's;a=doc,(id)!*~@:$", "it's;a=doc,(id)!*~@:$"),
        ("%22quoted%22%5C", "\"quoted\"\\"),
        ("%0A%7F", "\n\u{7f}"),
        ("secsync/secsync", "secsync/secsync"),
    ] {
        println!("{id:?}");
        let (mut socket, _) = open(&server, &place(path, "k")).await;
        assert_eq!(ask(&mut socket, &author.first_snapshot("another", b"x").frame).await, bare_failure());
        let snapshot = author.first_snapshot(id, b"x");
        assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
        let mut other = join(&server, path).await;
        let update = author.update(id, &snapshot.id, 0, b"u");
        save(&mut socket, &update).await;
        assert_eq!(other.json().await, relayed("update", &update));
    }
    // Another spelling of the same id, and of the mount.
    for path in ["/secsync/a%2Fb", "/secsync/%61/b", "/%73ecsync/a/b"] {
        assert_eq!(load(&server, &format!("{path}?sessionKey=k")).await["snapshot"]["publicData"]["docId"], "a/b");
    }
}

#[tokio::test]
async fn a_document_below_another_is_not_part_of_it() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut parent, _) = with_snapshot(&server, "a", &author).await;
    let (mut child, snapshot) = with_snapshot(&server, "a/b", &author).await;
    save(&mut child, &author.update("a/b", &snapshot.id, 0, b"x")).await;
    nothing_waits(&mut parent).await;
    assert_eq!(load(&server, &place("a", "k")).await["updates"], json!([]));
}

#[tokio::test]
async fn plain_http_on_the_mount_is_not_found_for_pages_of_any_origin() {
    let server = TestServer::start().await;
    let mut connection = RawConnection::connect(server.address).await;
    for (method, target) in [
        ("GET", "/secsync"),
        ("GET", "/secsync/doc?sessionKey=k"),
        ("POST", "/secsync/doc"),
        ("HEAD", "/secsync/"),
        ("DELETE", "/secsync/x"),
    ] {
        let response = connection.request(method, target, &[("origin", "https://app.test")]).await;
        assert_eq!(response.status, 404, "{method} {target}");
        assert_eq!(response.headers["access-control-allow-origin"], "*");
        assert_eq!(response.headers["access-control-allow-credentials"], "true");
    }
    let asked = [("origin", "https://app.test"), ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-a,x-b")];
    let preflight = connection.request("OPTIONS", "/secsync/doc", &asked).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.headers["access-control-allow-origin"], "*");
    assert_eq!(preflight.headers["access-control-allow-credentials"], "true");
    assert_eq!(preflight.headers["access-control-allow-headers"], "x-a,x-b");
    assert!(preflight.headers["access-control-allow-methods"].contains("PUT"));
}

#[tokio::test]
async fn two_mounts_do_not_see_each_others_documents() {
    let mounts =
        vec![secsync_mount("one", json!({})), secsync_mount("two", json!({})), secsync_mount("deep", json!({"path": "/one/deep"}))];
    let server = TestServer::with(Setup { mounts, ..Setup::default() }).await;
    let author = Author::new(1);
    let snapshot = author.first_snapshot("doc", b"x");
    let mut sockets = Vec::new();
    for mount in ["/one", "/two", "/one/deep"] {
        let (mut socket, document) = open(&server, &format!("{mount}/doc?sessionKey=k")).await;
        assert_eq!(document, json!({"type": "document", "updates": [], "snapshotProofChain": []}), "{mount}");
        // The same ids may be used in each.
        assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
        sockets.push(socket);
    }
    save(&mut sockets[0], &author.update("doc", &snapshot.id, 0, b"x")).await;
    sockets[0].send(&author.ephemeral("doc", b"x")).await;
    nothing_waits(&mut sockets[0]).await;
    for socket in &mut sockets[1..] {
        nothing_waits(socket).await;
    }
    for (mount, updates) in [("/one", 1), ("/two", 0), ("/one/deep", 0)] {
        let document = load(&server, &format!("{mount}/doc?sessionKey=k")).await;
        assert_eq!(document["updates"].as_array().map(Vec::len), Some(updates), "{mount}");
    }
}

#[tokio::test]
async fn a_mount_may_be_the_root_and_a_disabled_one_is_not_there() {
    let mounts = vec![secsync_mount("root", json!({"path": ""})), secsync_mount("off", json!({"enabled": false, "path": "/off"}))];
    let server = TestServer::with(Setup { mounts, ..Setup::default() }).await;
    let author = Author::new(1);
    for (path, id) in [("/doc", "doc"), ("/off/doc", "off/doc"), ("//x", "/x")] {
        let (mut socket, _) = open(&server, &format!("{path}?sessionKey=k")).await;
        let snapshot = author.first_snapshot(id, b"x");
        assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    }
    let mut socket = Socket::connect(server.address, "/?sessionKey=k").await;
    assert_eq!(socket.json().await, json!({"type": "document-error"}));
    let only = vec![secsync_mount("off", json!({"enabled": false, "path": "/off"}))];
    let server = TestServer::with(Setup { mounts: only, ..Setup::default() }).await;
    assert!(Socket::try_connect(server.address, "/off/doc?sessionKey=k").await.is_err());
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let (a, b) = (Author::new(1), Author::new(2));
    let server = TestServer::start().await;
    let (mut socket, first) = with_snapshot(&server, "doc", &a).await;
    save(&mut socket, &a.update("doc", &first.id, 0, b"x")).await;
    let second = save_on(&mut socket, &b, &first, &[(&a, 0)]).await;
    for clock in 0..5 {
        save(&mut socket, &b.update("doc", &second.id, clock, b"y")).await;
    }
    open(&server, &place("empty", "k")).await.0.close().await;
    let places = [
        place("doc", "k"),
        place_after("doc", "delta", &second.id, &clocks(&[(&b, 2)])),
        place_after("doc", "delta", &first.id, &json!({})),
        place("empty", "k"),
    ];
    let mut before = Vec::new();
    for place in &places {
        before.push(load(&server, place).await);
    }
    let folder = server.stop().await;
    assert_eq!(socket.closed().await, 1001);

    let server = TestServer::with(Setup { folder: Some(folder), ..Setup::default() }).await;
    for (place, before) in places.iter().zip(before) {
        assert_eq!(load(&server, place).await, before);
    }
    let (mut socket, _) = open(&server, &place_after("doc", "delta", &second.id, &clocks(&[(&b, 4)]))).await;
    let mut other = join(&server, "doc").await;
    let update = b.update("doc", &second.id, 5, b"after");
    save(&mut socket, &update).await;
    assert_eq!(other.json().await, relayed("update", &update));
    save(&mut socket, &b.update("doc", &second.id, 4, b"y")).await;
    let third = save_on(&mut socket, &a, &second, &[(&b, 5)]).await;
    assert_eq!(other.json().await, relayed_snapshot(&third));
}
