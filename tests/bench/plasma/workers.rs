//! Clients of the load: what each does over and over.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use serde_json::{Value as Json, json};

use crate::http::{Events, Http, holds, number_after, post};
use crate::load::Worker;
use crate::server::Server;

/// The user of all clients but the readers of pokes.
pub const TOKEN: &str = "tok-alice";
/// Characters of a row's title: a row is some 200 bytes of JSON.
pub const TITLE: &str = "a title of a hundred characters, which is what people write in such fields when they take some time for";
/// Rows of one mutation while a server is filled: half a page, so that pages are not cut by the size of versions.
const ROWS_PER_MUTATION: u64 = 500;
/// Mutations of a push while a server is filled; with that many rows it stays below the limit of a body.
const MUTATIONS_PER_PUSH: u64 = 10;

/// A name that nobody else uses.
fn fresh(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench-{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a push does to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutations {
    /// Each makes a row.
    Create,
    /// The same by a mutator of the app.
    CreateByApp,
    /// Each changes one of so many rows, which must be there.
    Change(u64),
}

/// Pushes so many mutations and waits until they are acknowledged.
pub struct Pusher {
    http: Http,
    group: String,
    client: String,
    mutation_id: u64,
    mutations: Mutations,
    each: u64,
}

impl Pusher {
    /// A client of a group of its own.
    pub async fn new(server: &Server, mutations: Mutations, each: u64) -> anyhow::Result<Self> {
        let http = Http::connect(server.address).await?;
        Ok(Self { http, group: fresh("group"), client: fresh("client"), mutation_id: 0, mutations, each })
    }

    /// So many of them, each making one row, or so many rows, a push.
    pub async fn many(server: &Server, connections: usize, each: u64) -> anyhow::Result<Vec<Self>> {
        Self::many_that(Mutations::Create, server, connections, each).await
    }

    /// The same with other mutations.
    pub async fn many_that(mutations: Mutations, server: &Server, connections: usize, each: u64) -> anyhow::Result<Vec<Self>> {
        let mut pushers = Vec::with_capacity(connections);
        for _ in 0..connections {
            pushers.push(Self::new(server, mutations, each).await?);
        }
        Ok(pushers)
    }

    fn mutation(&self, id: u64) -> (&'static str, String) {
        match self.mutations {
            Mutations::CreateByApp => ("own", format!(r#"{{"id":"{}-{id}","owner":"alice"}}"#, self.client)),
            Mutations::Create => ("createTodo", format!(r#"{{"id":"{}-{id}","title":"{TITLE}"}}"#, self.client)),
            // A title that was there already would change nothing.
            Mutations::Change(rows) => ("setTitle", format!(r#"{{"id":"row-{}","title":"{TITLE} {} {id}"}}"#, id % rows, self.client)),
        }
    }

    /// Pushes; the version that came of it.
    pub async fn push(&mut self) -> anyhow::Result<u64> {
        let mutations: Vec<String> = (self.mutation_id + 1..=self.mutation_id + self.each)
            .map(|id| {
                let (name, args) = self.mutation(id);
                format!(r#"{{"id":{id},"clientID":"{}","name":"{name}","args":{args},"timestamp":1.5}}"#, self.client)
            })
            .collect();
        self.mutation_id += self.each;
        self.send(&mutations.join(",")).await
    }

    async fn send(&mut self, mutations: &str) -> anyhow::Result<u64> {
        let body = format!(
            r#"{{"pushVersion":1,"schemaVersion":"7","profileID":"p","clientGroupID":"{}","mutations":[{mutations}]}}"#,
            self.group
        );
        let look = |reply: &[u8]| {
            let version = number_after(reply, br#""cookie":"#).filter(|_| !holds(reply, br#""status":"error""#));
            version.with_context(|| String::from_utf8_lossy(&reply[..reply.len().min(300)]).into_owned())
        };
        self.http.exchange(&post("/sync/push", TOKEN, &body), look).await?
    }

    /// Makes a row that refers to a blob.
    pub async fn refer_to(&mut self, hash: &str) -> anyhow::Result<u64> {
        self.mutation_id += 1;
        let (id, client) = (self.mutation_id, &self.client);
        let args = format!(r#"{{"id":"{client}","cover":{{"hash":"{hash}"}}}}"#);
        self.send(&format!(r#"{{"id":{id},"clientID":"{client}","name":"saveDoc","args":{args},"timestamp":1.5}}"#)).await
    }

    /// Makes the rows `row-FROM` to `row-TO`, many at a time.
    pub async fn fill(&mut self, from: u64, to: u64) -> anyhow::Result<()> {
        let mut next = from;
        while next < to {
            let mut mutations = Vec::new();
            while next < to && (mutations.len() as u64) < MUTATIONS_PER_PUSH {
                let end = to.min(next + ROWS_PER_MUTATION);
                let items: Vec<Json> = (next..end).map(|row| json!({ "id": format!("row-{row}"), "title": TITLE })).collect();
                self.mutation_id += 1;
                let args = json!({ "items": items });
                let mutation =
                    json!({ "id": self.mutation_id, "clientID": self.client, "name": "createMany", "args": args, "timestamp": 1.5 });
                mutations.push(mutation.to_string());
                next = end;
            }
            self.send(&mutations.join(",")).await?;
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Worker for Pusher {
    async fn step(&mut self) -> anyhow::Result<()> {
        self.push().await.map(|_| ())
    }
}

/// Makes the first rows of a server.
pub async fn fill(server: &Server, rows: u64) -> anyhow::Result<()> {
    Pusher::new(server, Mutations::Create, 1).await?.fill(0, rows).await
}

fn pull_request(group: &str, cookie: &Json) -> Vec<u8> {
    let body = json!({ "pullVersion": 1, "schemaVersion": "7", "profileID": "p", "clientGroupID": group, "cookie": cookie });
    post("/sync/pull", TOKEN, &body.to_string())
}

/// What a page of a load says of the next one.
struct Page {
    cookie: Json,
    has_more: bool,
    row_count: usize,
}

fn page(reply: &[u8]) -> anyhow::Result<Page> {
    // The patch, which is nearly all of it, is only counted.
    let (start, end) = (position(reply, br#""patch":["#)?, position_last(reply, b"]")?);
    let outer = [&reply[..start], br#""patch":["#, &reply[end..]].concat();
    let outer: Json = serde_json::from_slice(&outer).with_context(|| String::from_utf8_lossy(&outer).into_owned())?;
    let row_count = reply[start..end].windows(10).filter(|window| window == br#""op":"put""#).count();
    Ok(Page { cookie: outer["cookie"].clone(), has_more: outer["hasMore"] == true, row_count })
}

fn position(text: &[u8], part: &[u8]) -> anyhow::Result<usize> {
    text.windows(part.len()).position(|window| window == part).context("a reply of another form")
}

fn position_last(text: &[u8], part: &[u8]) -> anyhow::Result<usize> {
    text.windows(part.len()).rposition(|window| window == part).context("a reply of another form")
}

/// Loads everything that there is, page by page, as a client that has nothing.
pub struct Loader {
    http: Http,
    group: String,
    first: Vec<u8>,
    row_count: usize,
}

impl Loader {
    /// A client of a group of its own. Its loads must give so many rows.
    pub async fn new(server: &Server, row_count: usize) -> anyhow::Result<Self> {
        let group = fresh("group");
        let first = pull_request(&group, &Json::Null);
        Ok(Self { http: Http::connect(server.address).await?, group, first, row_count })
    }

    /// The cookie after the last page.
    async fn load(&mut self) -> anyhow::Result<Json> {
        let mut page = self.http.exchange(&self.first, page).await??;
        let mut row_count = page.row_count;
        while page.has_more {
            page = self.http.exchange(&pull_request(&self.group, &page.cookie), self::page).await??;
            row_count += page.row_count;
        }
        ensure!(row_count >= self.row_count, "{row_count} rows of {}", self.row_count);
        Ok(page.cookie)
    }
}

#[async_trait(?Send)]
impl Worker for Loader {
    async fn step(&mut self) -> anyhow::Result<()> {
        self.load().await.map(|_| ())
    }
}

/// Asks the same again and again, and expects something in the answer.
pub struct Asker {
    http: Http,
    request: Vec<u8>,
    expected: &'static [u8],
}

impl Asker {
    /// On a connection.
    pub fn new(http: Http, request: Vec<u8>, expected: &'static [u8]) -> Self {
        Self { http, request, expected }
    }
}

/// Pulls with the same cookie.
pub struct Puller;

impl Puller {
    /// So many clients that have everything.
    pub async fn idle(server: &Server, connections: usize) -> anyhow::Result<Vec<Asker>> {
        Self::many(server, connections, 0, br#""patch":[]"#).await
    }

    /// So many clients that miss the last so many versions.
    pub async fn behind(server: &Server, connections: usize, versions: u64) -> anyhow::Result<Vec<Asker>> {
        Self::many(server, connections, versions, br#""op":"put""#).await
    }

    async fn many(server: &Server, connections: usize, behind: u64, expected: &'static [u8]) -> anyhow::Result<Vec<Asker>> {
        let mut pullers = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut loader = Loader::new(server, 0).await?;
            let current = loader.load().await?;
            let current = current.as_u64().or_else(|| current["v"].as_u64()).context("a cookie")?;
            let request = pull_request(&loader.group, &json!(current - behind));
            pullers.push(Asker::new(loader.http, request, expected));
        }
        Ok(pullers)
    }
}

#[async_trait(?Send)]
impl Worker for Asker {
    async fn step(&mut self) -> anyhow::Result<()> {
        let expected = self.expected;
        let fits = self.http.exchange(&self.request, |reply| holds(reply, expected)).await?;
        ensure!(fits, "another answer than expected");
        Ok(())
    }
}

/// One client that pushes and listeners that are poked: an operation is done when the last listener knows.
pub struct FanOut {
    pusher: Pusher,
    readers: Vec<Events>,
}

impl FanOut {
    /// With so many listeners.
    pub async fn new(server: &Server, readers: usize) -> anyhow::Result<Self> {
        let mut listening = Vec::with_capacity(readers);
        for number in 0..readers {
            // A user may have a hundred connections.
            let token = ["tok-alice", "tok-bob", "tok-carol", "tok-root"][number % 4];
            let path = format!("/sync/poke?clientGroupID={}", fresh("listener"));
            listening.push(Events::connect(server.address, &path, token).await?);
        }
        Ok(Self { pusher: Pusher::new(server, Mutations::Create, 1).await?, readers: listening })
    }
}

#[async_trait(?Send)]
impl Worker for FanOut {
    async fn step(&mut self) -> anyhow::Result<()> {
        let version = self.pusher.push().await?;
        for reader in &mut self.readers {
            reader.poke(version).await?;
        }
        Ok(())
    }
}
