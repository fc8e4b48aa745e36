//! The cases of reads that are no pulls: queries, live queries, the past, blobs.

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value as Json, json};
use syncline_tests::sha256;

use super::settings::{files_peer, launch, peer};
use super::targets;
use super::workers::{Asker, FanOut, Mutations, Pusher, TOKEN, fill};
use crate::context::{Context, round};
use crate::http::{Events, Http, post, put};
use crate::load::{Contestant, Loaded, Worker};
use crate::report::{Case, Entry};
use crate::server::{Rows, Server};

/// Connections that ask.
const ASKERS: usize = 8;
/// Rows of a server that is asked, and rows that a query gives.
const ROWS: (u64, u64) = (10_000, 20);
/// Subscribers of live queries.
const SUBSCRIBERS: usize = 500;
/// How many versions back the past is looked at; the last is asked for by `--large`.
const BACK: [u64; 4] = [100, 1_000, 10_000, 100_000];
/// Rows of a server whose past is looked at.
const PAST_ROWS: u64 = 1_000;
/// Bytes of a blob, and connections that carry such.
const BLOB: (usize, usize) = (1 << 20, 4);

/// Runs all cases that are asked for.
pub async fn run(context: &mut Context) {
    context.attempt(targets::LIVE, live).await;
    context.attempt(targets::QUERIES, queries).await;
    context.attempt(targets::PAST, past).await;
    context.attempt(targets::DOWNLOADS, downloads).await;
    context.attempt(targets::UPLOADS, uploads).await;
}

/// Which queries subscribers have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subscribed {
    /// All the same.
    Equal,
    /// Everybody another one, with the same result.
    Different,
}

/// One client that pushes and subscribers whose result changes: an operation is done when the last one has it.
struct LiveFanOut {
    pusher: Pusher,
    subscribers: Vec<Events>,
}

impl LiveFanOut {
    async fn new(server: &Server, subscribed: Subscribed) -> anyhow::Result<Self> {
        fill(server, ROWS.0).await?;
        let mut subscribers = Vec::with_capacity(SUBSCRIBERS);
        for number in 0..SUBSCRIBERS {
            let bound = if subscribed == Subscribed::Different { 1_000 + number } else { 1_000 };
            let is_row = json!({"op": "=", "left": {"col": "id"}, "right": {"val": "row-0"}});
            let is_below = json!({"op": "<", "left": {"col": "rank"}, "right": {"val": bound}});
            let query = json!({"query": {"from": "todos", "select": ["id", "title"], "where": {"and": [is_row, is_below]}}});
            let path = format!("/sync/live?q={}", BASE64_URL_SAFE_NO_PAD.encode(query.to_string()));
            subscribers.push(Events::connect_until(server.address, &path, TOKEN, b"event: rows").await?);
        }
        Ok(Self { pusher: Pusher::new(server, Mutations::Change(1), 1).await?, subscribers })
    }
}

#[async_trait(?Send)]
impl Worker for LiveFanOut {
    async fn step(&mut self) -> anyhow::Result<()> {
        let version = self.pusher.push().await?;
        for subscriber in &mut self.subscribers {
            subscriber.event(b"event: diff\ndata: {\"version\":", version).await?;
        }
        Ok(())
    }
}

/// Equal and different live queries, beside pokes to as many, which carry no result.
async fn live(context: &mut Context) -> anyhow::Result<()> {
    let (disk, weight) = (context.disk(), u32::try_from(SUBSCRIBERS)?);
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for (name, subscribed) in [("equal queries", Subscribed::Equal), ("different queries", Subscribed::Different)] {
        let server = Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?;
        let load = LiveFanOut::new(&server, subscribed).await?;
        contestants.push(Box::new(Loaded::new(&server, vec![load]).weighing(weight).named(name)));
    }
    let server = Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?;
    fill(&server, ROWS.0).await?;
    let load = FanOut::new(&server, SUBSCRIBERS).await?;
    contestants.push(Box::new(Loaded::new(&server, vec![load]).weighing(weight).named("pokes")));
    let operation = "a changed result, delivered; times are from the push until the last subscriber has it";
    let case = context.compare(targets::LIVE, operation, contestants).await?;
    context.add(case);
    Ok(())
}

/// Clients that ask the same again and again.
async fn askers(server: &Server, path: &str, body: &Json) -> anyhow::Result<Vec<Asker>> {
    let request = post(path, TOKEN, &body.to_string());
    let mut askers = Vec::with_capacity(ASKERS);
    for _ in 0..ASKERS {
        askers.push(Asker::new(Http::connect(server.address).await?, request.clone(), br#""rows":[{"#));
    }
    Ok(askers)
}

/// Some of the rows, by a condition and in an order, which the peer has in plain SQL.
fn query() -> Json {
    let is_open = json!({"op": "=", "left": {"col": "done"}, "right": {"val": false}});
    let starts = json!({"op": "startsWith", "left": {"col": "title"}, "right": {"val": "a title"}});
    json!({"from": "todos", "select": ["id", "title"], "where": {"and": [is_open, starts]}, "orderBy": [["id", "asc"]], "limit": ROWS.1})
}

async fn queries(context: &mut Context) -> anyhow::Result<()> {
    let disk = context.disk();
    let body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query()});
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in [Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?, peer(disk).await?] {
        fill(&server, ROWS.0).await?;
        contestants.push(Box::new(Loaded::new(&server, askers(&server, "/sync/query", &body).await?)));
    }
    let case = context.compare(targets::QUERIES, "a query whose answer has twenty rows", contestants).await?;
    context.add(case);
    Ok(())
}

/// The same query about the present and about ever older versions, while the log grows.
async fn past(context: &mut Context) -> anyhow::Result<()> {
    let disk = context.disk();
    let server = Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?;
    let mut pusher = Pusher::new(&server, Mutations::Change(PAST_ROWS), 100).await?;
    pusher.fill(0, PAST_ROWS).await?;
    let sizes = &BACK[..if context.large { BACK.len() } else { BACK.len() - 1 }];
    let (mut pushed, mut current, mut entries) = (0, 0, Vec::new());
    for back in sizes.iter().map(|size| if context.quick { size / 10 } else { *size }) {
        while pushed < back {
            current = pusher.push().await?;
            pushed += 100;
        }
        let mut asked = vec![(format!("{back} versions back"), json!({"version": current - back}))];
        if entries.is_empty() {
            asked.insert(0, ("the newest version".to_owned(), json!({"version": current})));
        }
        for (name, as_of) in asked {
            let body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query(), "asOf": as_of});
            let (mut load, mut samples) = (Loaded::new(&server, askers(&server, "/sync/snapshot", &body).await?), Vec::new());
            round(&mut load, context.window / 2).await?;
            for _ in 0..context.rounds {
                samples.push(round(&mut load, context.window).await?);
            }
            entries.push(Entry::new(&name, samples));
        }
    }
    let operation = format!("twenty of {PAST_ROWS} rows as they were");
    context.add(Case::new(targets::PAST, &operation, entries));
    Ok(())
}

/// A content that nobody else has.
fn content(number: u64) -> Vec<u8> {
    let mut content = vec![b'x'; BLOB.0];
    content[..8].copy_from_slice(&number.to_be_bytes());
    content
}

fn path_of(content: &[u8]) -> String {
    let hash = sha256(content);
    format!("/sync/blob/{hash}")
}

/// Downloads the same blob again and again.
struct Downloader {
    http: Http,
    request: Vec<u8>,
}

#[async_trait(?Send)]
impl Worker for Downloader {
    async fn step(&mut self) -> anyhow::Result<()> {
        let bytes = self.http.exchange(&self.request, <[u8]>::len).await?;
        ensure!(bytes == BLOB.0, "{bytes} bytes");
        Ok(())
    }
}

async fn downloads(context: &mut Context) -> anyhow::Result<()> {
    let disk = context.disk();
    let (content, mut contestants) = (content(0), Vec::<Box<dyn Contestant>>::new());
    let path = path_of(&content);
    for server in [Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?, files_peer(disk).await?] {
        Http::connect(server.address).await?.exchange(&put(&path, TOKEN, &content), |_| ()).await?;
        if server.name == "syncline" {
            let hash = path.rsplit('/').next().context("a hash")?;
            Pusher::new(&server, Mutations::Create, 1).await?.refer_to(hash).await?;
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n").into_bytes();
        let mut downloaders = Vec::new();
        for _ in 0..BLOB.1 {
            downloaders.push(Downloader { http: Http::connect(server.address).await?, request: request.clone() });
        }
        contestants.push(Box::new(Loaded::new(&server, downloaders)));
    }
    let case = context.compare(targets::DOWNLOADS, "a download of 1 MiB: the rate is MiB a second", contestants).await?;
    context.add(case);
    Ok(())
}

/// Uploads ever new blobs.
struct Uploader {
    http: Http,
    next: u64,
}

#[async_trait(?Send)]
impl Worker for Uploader {
    async fn step(&mut self) -> anyhow::Result<()> {
        let content = content(self.next);
        self.next += 1;
        self.http.exchange(&put(&path_of(&content), TOKEN, &content), |_| ()).await
    }
}

async fn uploads(context: &mut Context) -> anyhow::Result<()> {
    let disk = context.disk();
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in [Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?, files_peer(disk).await?] {
        let mut uploaders = Vec::new();
        for number in 0..BLOB.1 as u64 {
            uploaders.push(Uploader { http: Http::connect(server.address).await?, next: (number + 1) << 32 });
        }
        contestants.push(Box::new(Loaded::new(&server, uploaders)));
    }
    let operation = "an upload of 1 MiB, hashed and synced to the disk: the rate is MiB a second";
    let case = context.compare(targets::UPLOADS, operation, contestants).await?;
    context.add(case);
    Ok(())
}
