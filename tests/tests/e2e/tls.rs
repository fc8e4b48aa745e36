//! TLS: what goes through it, what does not, and certificates that change.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;
use syncline::server::limits::Limits;
use syncline_tests::DEADLINE;
use syncline_tests::process::{Process, command};
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::Socket;
use syncline_tests::tls::{Certificate, TlsClient};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::*;

/// A server whose main listener has this certificate, in this folder.
async fn server(folder: &TempDir, certificate: &Certificate) -> TestServer {
    let files = certificate.write_into(folder.path());
    TestServer::with(Setup { tls: BTreeMap::from([("127.0.0.1:0".into(), files)]), ..Setup::default() }).await
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("folders can be made")
}

/// Sends bytes on a plain connection; what comes back until the server closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(bytes).await.expect("bytes can be sent");
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server closes within the deadline");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_documents_go_through_tls() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    let server = server(&folder, &certificate).await;
    assert!(server.server().handle().listeners()[0].url.starts_with("https://127.0.0.1:"));
    let client = TlsClient::trusting(&certificate);
    assert!(client.get(server.address, "/healthz").await.expect("an answer").starts_with("HTTP/1.1 200"));

    let (author, place) = (Author::new(1), place("d", "k"));
    let mut writer = client.socket(server.address, &place).await.expect("the upgrade is accepted");
    let mut reader = client.socket(server.address, &place).await.expect("the upgrade is accepted");
    writer.json_of("document").await;
    reader.json_of("document").await;
    let snapshot = author.first_snapshot("d", &[b'x'; 1 << 20]);
    writer.send(&snapshot.frame).await;
    assert_eq!(writer.json().await, snapshot_saved(&snapshot));
    assert_eq!(reader.json().await, relayed_snapshot(&snapshot));
    for clock in 0..20 {
        let update = author.update("d", &snapshot.id, clock, b"one");
        writer.send(&update).await;
        assert_eq!(writer.json().await, update_saved(&snapshot.id, clock));
        assert_eq!(reader.json().await, relayed("update", &update));
    }
    writer.close().await;
    reader.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_tls_are_spoken_and_http_1_1_only() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    let server = server(&folder, &certificate).await;
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let client = TlsClient::with(&certificate, &[version], &[b"h2", b"http/1.1"]);
        let stream = client.connect(server.address).await.expect("the handshake works");
        let (_, session) = stream.get_ref();
        assert_eq!(session.protocol_version(), Some(spoken));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let only_h2 = TlsClient::with(&certificate, &[&TLS13], &[b"h2"]);
    assert!(only_h2.connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_trusts_another_certificate_does_not_connect() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    let server = server(&folder, &certificate).await;
    let stranger = TlsClient::trusting(&Certificate::new("localhost"));
    assert!(stranger.get(server.address, "/healthz").await.is_err());
    assert!(TlsClient::trusting(&certificate).get(server.address, "/healthz").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_tls_ends_and_others_go_on() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    let server = server(&folder, &certificate).await;
    let client = TlsClient::trusting(&certificate);
    let mut open = client.socket(server.address, &place("d", "k")).await.expect("the upgrade is accepted");
    open.json_of("document").await;
    let hello_of_16_mib = [&[0x16, 3, 1, 0xff, 0xff][..], &[1, 0xff, 0xff, 0xff], &[0; 70_000]].concat();
    let wrongs: [&[u8]; 6] = [
        b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n",
        b"\0",
        &[0xff; 4096],
        // An alert, application data and an empty handshake before any hello.
        &[0x15, 3, 3, 0, 2, 2, 40],
        &[0x16, 3, 1, 0, 0],
        &hello_of_16_mib,
    ];
    for wrong in wrongs {
        if wrong.len() > 4 {
            let answer = raw(server.address, wrong).await;
            assert!(!answer.starts_with(b"HTTP"), "plain text was answered: {:?}", String::from_utf8_lossy(&answer));
        } else {
            drop(TcpStream::connect(server.address).await.expect("the server listens").write_all(wrong).await);
        }
        assert!(client.get(server.address, "/healthz").await.expect("an answer").starts_with("HTTP/1.1 200"));
    }
    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    open.send(&snapshot.frame).await;
    assert_eq!(open.json().await, snapshot_saved(&snapshot));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_stop_half_way_stop_nobody_else() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    let server = server(&folder, &certificate).await;
    let mut half_open = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        if number % 2 == 0 {
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.expect("the start of a hello can be sent");
        }
        half_open.push(stream);
    }
    let client = TlsClient::trusting(&certificate);
    for _ in 0..10 {
        assert!(client.get(server.address, "/healthz").await.expect("an answer").starts_with("HTTP/1.1 200"));
    }
    // A stop does not wait for them.
    tokio::time::timeout(DEADLINE / 4, server.stop()).await.expect("the server stops at once");
    drop(half_open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_count_from_their_accept_on_with_their_handshake() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    let files = certificate.write_into(folder.path());
    let tls = BTreeMap::from([("127.0.0.1:0".into(), files)]);
    let limits = Limits { connections_per_address: Some(3), ..Limits::default() };
    let server = TestServer::with(Setup { tls, limits, ..Setup::default() }).await;
    let client = TlsClient::trusting(&certificate);
    let mut open = client.socket(server.address, &place("d", "k")).await.expect("the upgrade is accepted");
    open.json_of("document").await;
    // One says nothing, one stops in the middle of its hello: both have their place.
    let silent = TcpStream::connect(server.address).await.expect("the server listens");
    let mut half_way = TcpStream::connect(server.address).await.expect("the server listens");
    half_way.write_all(&[0x16, 3, 1, 2, 0, 1]).await.expect("the start of a hello can be sent");
    assert!(raw(server.address, b"").await.is_empty(), "a farewell would take a handshake");
    assert!(client.get(server.address, "/healthz").await.is_err(), "its places are taken");
    drop((silent, half_way));
    let served = async { while client.get(server.address, "/healthz").await.is_err() {} };
    tokio::time::timeout(DEADLINE, served).await.expect("places are free again with the connections that held them");
    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    open.send(&snapshot.frame).await;
    assert_eq!(open.json().await, snapshot_saved(&snapshot));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_exchanged_while_the_server_runs() {
    let (folder, first, second) = (folder(), Certificate::new("localhost"), Certificate::new("localhost"));
    let server = server(&folder, &first).await;
    let (knows_first, knows_second) = (TlsClient::trusting(&first), TlsClient::trusting(&second));
    let mut open = knows_first.socket(server.address, &place("d", "k")).await.expect("the upgrade is accepted");
    open.json_of("document").await;

    // Half of an exchange is none: the certificate of before stays.
    let files = second.write_into(folder.path());
    first.write(&folder.path().join("other.pem"), &files.key);
    let error = server.server().handle().reload_certificates().expect_err("the key is of another certificate").to_string();
    assert!(error.contains("key.pem") && error.contains("fullchain.pem"), "{error}");
    assert!(knows_first.get(server.address, "/healthz").await.is_ok());

    second.write_into(folder.path());
    server.server().handle().reload_certificates().expect("both files are there");
    assert!(knows_second.get(server.address, "/healthz").await.is_ok());
    assert!(TlsClient::trusting(&first).get(server.address, "/healthz").await.is_err());

    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    open.send(&snapshot.frame).await;
    assert_eq!(open.json().await, snapshot_saved(&snapshot));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_has_a_certificate_of_its_own_or_none() {
    let (folder, other_folder) = (folder(), self::folder());
    let (certificate, other) = (Certificate::new("localhost"), Certificate::new("localhost"));
    let at = |name: &str, listen: &str| {
        let mut mount = secsync_mount(name, json!({}));
        mount.listen = listen.into();
        mount
    };
    let tls = [("127.0.0.1:0", certificate.write_into(folder.path())), ("localhost:0", other.write_into(other_folder.path()))];
    let setup = Setup {
        mounts: vec![at("secsync", "127.0.0.1:0"), at("own", "localhost:0"), at("plain", "[::ffff:127.0.0.1]:0")],
        tls: tls.map(|(listen, files)| (listen.to_owned(), files)).into(),
        ..Setup::default()
    };
    let server = TestServer::with(setup).await;
    let [main, own, plain] = server.addresses()[..] else { panic!("three listeners") };
    let schemes: Vec<_> = server.server().handle().listeners().iter().map(|listener| listener.url.starts_with("https://")).collect();
    assert_eq!(schemes, [true, true, false]);
    assert!(TlsClient::trusting(&certificate).socket(main, &place("d", "k")).await.is_ok());
    assert!(TlsClient::trusting(&other).socket(own, "/own/d?sessionKey=k").await.is_ok());
    assert!(TlsClient::trusting(&certificate).socket(own, "/own/d?sessionKey=k").await.is_err());
    let mut socket = Socket::connect(plain, "/plain/d?sessionKey=k").await;
    socket.json_of("document").await;
}

/// What `check-config` and `serve` say of a configuration; they say the same.
async fn refused(folder: &TempDir) -> String {
    let file = folder.path().join("syncline.toml");
    let text = "listen = \"127.0.0.1:0\"\n[tls]\ncertificate = \"fullchain.pem\"\nkey = \"key.pem\"\n[[mount]]\nprotocol = \"secsync\"\n";
    std::fs::write(&file, text).expect("files can be written");
    let mut said = Vec::new();
    for name in ["check-config", "serve"] {
        let mut command = command(&[name, "--config"]);
        command.arg(&file).arg("--data").arg(folder.path().join("data"));
        let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("it ends within the deadline").expect("it can be run");
        assert!(!output.status.success(), "{name} takes it");
        said.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert_eq!(said[0], said[1]);
    assert!(!folder.path().join("data").exists(), "something was made before the certificate was looked at");
    said.remove(0)
}

/// The refusal has these words, and nothing of the key.
async fn refused_with(folder: &TempDir, key: &str, words: &[&str]) {
    let said = refused(folder).await;
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
    for secret in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!said.contains(secret), "a key was shown: {said}");
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_by_name() {
    let (certificate, other) = (Certificate::new("localhost"), Certificate::new("localhost"));
    let (folder, key) = (folder(), certificate.key_pem());
    refused_with(&folder, &key, &["fullchain.pem", "No such file"]).await;
    let files = certificate.write_into(folder.path());
    std::fs::remove_file(&files.key).expect("it was there");
    refused_with(&folder, &key, &["key.pem", "No such file"]).await;
    std::fs::write(&files.key, "no PEM at all").expect("files can be written");
    refused_with(&folder, &key, &["key.pem", "no private key"]).await;
    let damaged = certificate.key_pem().replace("-----END", "!-----END");
    std::fs::write(&files.key, damaged).expect("files can be written");
    refused_with(&folder, &key, &["key.pem", "no private key"]).await;
    std::fs::write(&files.key, other.key_pem()).expect("files can be written");
    refused_with(&folder, &key, &["key.pem", "fullchain.pem", "not the key of"]).await;
    std::fs::write(&files.key, certificate.key_pem()).expect("files can be written");
    std::fs::write(&files.certificate, certificate.key_pem()).expect("files can be written");
    refused_with(&folder, &key, &["fullchain.pem", "no certificate"]).await;
    Certificate::valid("localhost", 2020, 2021).write_into(folder.path());
    refused_with(&folder, &key, &["fullchain.pem", "expired at 2021-01-01"]).await;
    Certificate::valid("localhost", 4000, 4001).write_into(folder.path());
    refused_with(&folder, &key, &["fullchain.pem", "not valid before 4000-01-01"]).await;
}

#[tokio::test]
async fn the_binary_serves_tls_and_says_so() {
    let (folder, certificate) = (folder(), Certificate::new("localhost"));
    certificate.write_into(folder.path());
    let file = folder.path().join("syncline.toml");
    // Files are looked for beside the configuration.
    std::fs::write(&file, "[tls]\ncertificate = \"fullchain.pem\"\nkey = \"key.pem\"\n").expect("files can be written");
    let file = file.to_str().expect("paths are text");
    let process = Process::start(&folder.path().join("data"), &["serve", "--config", file]).await;
    assert!(process.secure);
    let answer = TlsClient::trusting(&certificate).get(process.address, "/healthz").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test]
async fn a_reload_of_the_binary_reads_certificates_anew() {
    let (folder, first, second, third) =
        (folder(), Certificate::new("localhost"), Certificate::new("localhost"), Certificate::new("localhost"));
    first.write_into(folder.path());
    let file = folder.path().join("syncline.toml");
    let text = "[tls]\ncertificate = \"fullchain.pem\"\nkey = \"key.pem\"\n[[mount]]\nprotocol = \"secsync\"\n";
    std::fs::write(&file, text).expect("files can be written");
    let (config, data) = (file.to_str().expect("paths are text"), folder.path().join("data"));
    let process = Process::start(&data, &["serve", "--config", config]).await;
    let mut open = TlsClient::trusting(&first).socket(process.address, &place("d", "k")).await.expect("the upgrade is accepted");
    open.json_of("document").await;

    second.write_into(folder.path());
    process.signal("HUP").await;
    let knows_second = TlsClient::trusting(&second);
    let exchanged = async { while knows_second.get(process.address, "/healthz").await.is_err() {} };
    tokio::time::timeout(DEADLINE, exchanged).await.expect("the new certificate comes within the deadline");
    assert!(TlsClient::trusting(&first).get(process.address, "/healthz").await.is_err());

    // Half of an exchange is none, and whoever asked learns why.
    let files = third.write_into(folder.path());
    std::fs::write(&files.key, second.key_pem()).expect("files can be written");
    let reload = || async {
        let mut reload = command(&["reload", "--config", config, "--data"]);
        let output = reload.arg(&data).output().await.expect("it can be run");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (reloaded, said) = reload().await;
    assert!(!reloaded && said.contains("key.pem") && said.contains("fullchain.pem"), "{said}");
    assert!(knows_second.get(process.address, "/healthz").await.is_ok());
    third.write_into(folder.path());
    assert!(reload().await.0);
    assert!(TlsClient::trusting(&third).get(process.address, "/healthz").await.is_ok());

    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    open.send(&snapshot.frame).await;
    assert_eq!(open.json().await, snapshot_saved(&snapshot));
    open.close().await;
    assert_eq!(process.terminate().await, 0);
}
