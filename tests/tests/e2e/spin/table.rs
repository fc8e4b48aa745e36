//! What works where: the table of docs/spin.md, by trying it.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use syncline::compose::{self, for_spin};
use syncline_tests::http::request;
use syncline_tests::plasma::{Events, Replica, admin, alice, bob, mutation, pull_body};
use syncline_tests::process::{Process, command};
use syncline_tests::secsync::Author;
use syncline_tests::sha256;
use syncline_tests::socket::Socket;
use syncline_tests::spin::{Kind, Spin, SpinSettings, chosen};

use crate::support::{ask, place, snapshot_saved};

const CONFIG: &str = include_str!("../../../conformance/spin-config.json");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spin.md");
const START: &str = "<!-- what works where: written by `make spin-docs` -->\n";
const END: &str = "<!-- end of what works where -->";

/// Tries something at an address; panics where it does not work.
type Probe = fn(SocketAddr) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! probes {
    ($($what:literal: $probe:ident),* $(,)?) => { [$(($what, (|address| Box::pin($probe(address))) as Probe)),*] };
}

/// What the table has, and how it is tried.
fn rows() -> [(&'static str, Probe); 13] {
    probes! {
        "plasma: push and pull": push_and_pull,
        "plasma: a pull that waits for something new": waiting_pull,
        "plasma: pokes by server-sent events": pokes,
        "plasma: changes as a stream": changes,
        "plasma: a live query by server-sent events": live_events,
        "plasma: live queries by WebSocket": live_socket,
        "plasma: queries": query,
        "plasma: the past": past,
        "plasma: blobs, in pieces too": blobs,
        "plasma: signed URLs of blobs": signed_urls,
        "plasma: the admin surface": administration,
        "work that is due, by a tick": tick,
        "secsync: documents": documents,
    }
}

fn todo(client: &str, id: u64) -> Value {
    mutation(client, id, "createTodo", json!({"id": format!("{client}-{id}"), "title": "x", "shared": true}))
}

async fn push_and_pull(address: SocketAddr) {
    alice(address).push("push", &[todo("push", 1)]).await;
    let mut replica = Replica::new();
    replica.apply(&bob(address).pull("pull", &Value::Null).await).expect("a good answer");
    assert_eq!(replica.rows["todos/push-1"]["title"], "x");
}

async fn waiting_pull(address: SocketAddr) {
    let before = bob(address).pull("waits", &Value::Null).await;
    let body = pull_body("waits", &before["cookie"]);
    let user = bob(address);
    let (answer, _) = tokio::join!(user.post("/pull?wait=20000", &body), async { alice(address).push("wait", &[todo("wait", 1)]).await });
    assert_ne!(answer.json()["cookie"], before["cookie"]);
}

async fn pokes(address: SocketAddr) {
    let mut events = bob(address).events("").await;
    alice(address).push("poke", &[todo("poke", 1)]).await;
    events.next_of("poke").await;
}

async fn changes(address: SocketAddr) {
    let mut events = bob(address).events("?clientGroupID=changes&mode=data&cookie=null").await;
    alice(address).push("change", &[todo("change", 1)]).await;
    events.next_of("patch").await;
}

async fn live_events(address: SocketAddr) {
    let target = format!("/sync/live?auth=tok-bob&q={}", URL_SAFE_NO_PAD.encode(json!({"query": {"from": "counters"}}).to_string()));
    let mut events = Events::open(address, &target, &[]).await;
    events.next_of("rows").await;
    alice(address).push("live", &[mutation("live", 1, "inc", json!({"id": "live", "by": 1}))]).await;
    events.next_of("diff").await;
}

async fn live_socket(address: SocketAddr) {
    let mut socket = Socket::connect(address, "/sync/ws?auth=tok-bob").await;
    socket.json_of("hello").await;
    socket.send(&json!({"type": "live.start", "id": "q", "query": {"from": "counters"}})).await;
    socket.json().await;
    socket.close().await;
}

async fn asked(address: SocketAddr, path: &str, more: Value) -> Value {
    let mut body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": {"from": "todos", "orderBy": [["id", "asc"]]}});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = bob(address).post(path, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn query(address: SocketAddr) {
    assert!(asked(address, "/query", json!({})).await["rows"].is_array());
}

async fn past(address: SocketAddr) {
    alice(address).push("past", &[todo("past", 1)]).await;
    let now = asked(address, "/query", json!({})).await;
    alice(address).push("past", &[todo("past", 2)]).await;
    assert_eq!(asked(address, "/snapshot", json!({"asOf": {"version": now["version"]}})).await["rows"], now["rows"]);
}

/// A blob, whose row is there too.
async fn blob(address: SocketAddr, client: &str) -> String {
    let bytes = client.repeat(40_000);
    let hash = sha256(bytes.as_bytes());
    let headers = [("authorization", "tok-alice"), ("content-type", "image/png")];
    let stored = request(address, &Method::PUT, &format!("/sync/blob/{hash}"), &headers, bytes).await;
    assert!(matches!(stored.status, 200 | 201), "{stored:?}");
    let args = json!({"id": client, "cover": {"hash": hash, "name": "cover.png"}});
    alice(address).push(client, &[mutation(client, 1, "saveDoc", args)]).await;
    hash
}

async fn blobs(address: SocketAddr) {
    let hash = blob(address, "blob").await;
    let headers = [("authorization", "tok-alice"), ("range", "bytes=100000-100003")];
    let piece = request(address, &Method::GET, &format!("/sync/blob/{hash}"), &headers, "").await;
    assert_eq!((piece.status, &*piece.body), (206, &b"blob"[..]));
}

async fn signed_urls(address: SocketAddr) {
    let hash = blob(address, "signed").await;
    let signed = alice(address).post(&format!("/blob/{hash}/download-url"), &json!({})).await.json();
    let url = signed["url"].as_str().expect("a URL").to_owned();
    let target = url.split_once("/sync/").map_or(url.clone(), |(_, below)| format!("/sync/{below}"));
    assert_eq!(request(address, &Method::GET, &target, &[], "").await.status, 200);
}

async fn administration(address: SocketAddr) {
    assert_eq!(admin(address).get("/admin/stats").await.status, 200);
}

async fn tick(address: SocketAddr) {
    let answer = request(address, &Method::POST, "/internal/tick", &[("authorization", "Bearer tick-token")], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn documents(address: SocketAddr) {
    let author = Author::new(1);
    let mut socket = Socket::connect(address, &place("table", "k")).await;
    socket.json_of("document").await;
    let snapshot = author.first_snapshot("table", b"first");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    let mut reader = Socket::connect(address, &place("table", "k")).await;
    reader.json_of("document").await;
    let update = author.update("table", &snapshot.id, 0, b"update");
    socket.send(&update).await;
    reader.json_of("update").await;
    for socket in [socket, reader] {
        socket.close().await;
    }
}

/// Whether a probe holds. What it says otherwise goes to standard error, as of any test.
async fn works(probe: Probe, address: SocketAddr) -> bool {
    tokio::spawn(probe(address)).await.is_ok()
}

/// A column: each row tried at a Spin, and where that fails through a gateway.
async fn column(kind: Kind, front: compose::Spin, change: impl FnOnce(&mut SpinSettings, &mut Value)) -> Vec<&'static str> {
    let folder = tempfile::tempdir().expect("folders can be made");
    let component = for_spin(None, front).expect("it can be composed");
    let (mut settings, mut config) = (SpinSettings::new(component, folder.path()), serde_json::from_str(CONFIG).expect("it is JSON"));
    change(&mut settings, &mut config);
    settings.variables.insert("config".into(), config.to_string());
    let spin = Spin::start(kind, settings).await.expect("it starts");
    let upstream = format!("http://{}", spin.address());
    let gateway = ["gateway", "--listen", "127.0.0.1:0", "--upstream", &upstream, "--secret", "gateway-secret"];
    let gateway = Process::spawn(command(&gateway)).await;
    let mut cells = Vec::new();
    for (_, probe) in rows() {
        cells.push(match works(probe, spin.address()).await {
            true => "yes",
            false if works(probe, gateway.address).await => "gateway",
            false => "no",
        });
    }
    drop(gateway);
    spin.stop().await;
    cells
}

/// The cells of a column as the page has them.
fn said(page: &str, column: usize) -> Vec<String> {
    let table = page.split_once(START).and_then(|(_, rest)| rest.split_once(END)).expect("the page has its marks").0;
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').nth(column + 2).unwrap_or_default().trim().to_owned()).collect()
}

/// The page with a column as it was found.
fn rewritten(page: &str, columns: &[(usize, Vec<&'static str>)]) -> String {
    let mut table = format!("| | {} |\n| --- | --- | --- | --- |\n", COLUMNS.join(" | "));
    for (number, (what, _)) in rows().iter().enumerate() {
        let cell = |column: usize| {
            let found = columns.iter().find(|(of, _)| *of == column).map(|(_, cells)| cells[number].to_owned());
            found.or_else(|| said(page, column).get(number).cloned()).unwrap_or_default()
        };
        table.push_str(&format!("| {what} | {} | {} | {} |\n", cell(0), cell(1), cell(2)));
    }
    let (before, rest) = page.split_once(START).expect("the page has its marks");
    let (_, after) = rest.split_once(END).expect("the page has its marks");
    format!("{before}{START}\n{table}\n{END}{after}")
}

/// `spin.toml`, `spin.portable.toml`, and the second with the limits of hosted services.
const COLUMNS: [&str; 3] = ["`spin.toml`", "`spin.portable.toml`", "hosted: PostgreSQL, streams of 25 s, values of 1 MB"];

/// With SYNCLINE_WRITE_DOCS=1 the page is written; else it must say what is so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_what_works_where() {
    let kind = chosen().unwrap_or(Kind::Fake);
    let mut columns = vec![(1, column(kind, compose::Spin::Portable, |_, _| ()).await)];
    if kind == Kind::Up && syncline_tests::spin::version() >= Some((4, 1)) {
        columns.push((0, column(kind, compose::Spin::Service, |_, _| ()).await));
    }
    if kind == Kind::Fake {
        let folder = tempfile::tempdir().expect("folders can be made");
        let database = syncline_tests::postgres::database_of_folder(folder.path()).await;
        let hosted = column(kind, compose::Spin::Portable, |settings, config| {
            settings.value_bytes_max = Some(1_000_000);
            config["executor"] = database.into();
            config["limits"] = json!({"stream_ms": 25_000});
        });
        columns.push((2, hosted.await));
    }
    let page = std::fs::read_to_string(PAGE).expect("the page is there");
    if std::env::var_os("SYNCLINE_WRITE_DOCS").is_some() {
        return std::fs::write(Path::new(PAGE), rewritten(&page, &columns)).expect("the page can be written");
    }
    for (column, found) in columns {
        assert_eq!(said(&page, column), found, "{}: `make spin-docs` writes what is so", COLUMNS[column]);
    }
}
