//! One who keeps live queries and asks for the past. Each frame is held against the rows of its version at once, and what is
//! there in the end against those of the newest.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline::runtime::queue::Frame;
use syncline_tests::plasma::Mirror;

use super::browser::token;
use super::client::CODES;
use super::history::History;
use super::rows::{Caller, Rows};
use super::wire::{SCHEMA_VERSION, head};
use crate::engine::model::{Answer, ClientModel, Dial, Line, Request};

/// A query that the oracle can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// All rows of a table, by its primary key.
    All(&'static str),
    /// The first todos by their rank.
    Top,
}

/// The queries that there are.
const WATCHED: [Watched; 4] = [Watched::All("todos"), Watched::All("boards"), Watched::All("members"), Watched::Top];
/// Rows of [`Watched::Top`].
const TOP: usize = 3;

impl Watched {
    fn table(self) -> &'static str {
        match self {
            Self::All(table) => table,
            Self::Top => "todos",
        }
    }

    fn key(self) -> &'static [&'static str] {
        if self.table() == "members" { &["team", "userId"] } else { &["id"] }
    }

    /// Its name on a connection.
    fn id(self) -> String {
        format!("{self:?}")
    }

    fn query(self) -> Value {
        match self {
            Self::All(table) => json!({"from": table}),
            Self::Top => json!({"from": "todos", "orderBy": [["rank", "desc"]], "limit": TOP}),
        }
    }

    /// What it gives for a caller.
    pub fn rows(self, rows: &Rows, caller: &Caller) -> Vec<Value> {
        let prefix = format!("{}/", self.table());
        let visible = rows.visible(caller).into_iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, row)| row.clone());
        let mut found: Vec<Value> = visible.collect();
        let text = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
        found.sort_by_cached_key(|row| self.key().iter().map(|column| text(row, column)).collect::<Vec<_>>());
        if self == Self::Top {
            found.sort_by_key(|row| std::cmp::Reverse(row["rank"].as_i64()));
            found.truncate(TOP);
        }
        found
    }
}

/// A snapshot that was asked for.
struct Asked {
    watched: Watched,
    version: u64,
}

/// See the module.
pub struct Watcher {
    number: usize,
    caller: Caller,
    history: Arc<Mutex<History>>,
    mirrors: BTreeMap<Watched, Mirror>,
    greeted: bool,
    asked: BTreeMap<u64, Asked>,
    tags: u64,
}

impl Watcher {
    /// One that has never been connected.
    pub fn new(number: usize, caller: Caller, history: Arc<Mutex<History>>) -> Self {
        Self { number, caller, history, mirrors: BTreeMap::new(), greeted: false, asked: BTreeMap::new(), tags: 0 }
    }

    fn start(&mut self, watched: Watched, line: &mut Line<'_>) {
        self.forget(watched);
        self.mirrors.insert(watched, Mirror::new(watched.key()));
        line.note(format!("watches {watched:?}"));
        line.send_text(json!({"type": "live.start", "id": watched.id(), "query": watched.query()}).to_string());
    }

    /// What is known of a query is worth nothing any more.
    fn forget(&mut self, watched: Watched) {
        self.mirrors.remove(&watched);
        self.history.lock().watched.remove(&(self.number, watched));
    }

    fn hears(&mut self, message: &Value, line: &mut Line<'_>) {
        match message["type"].as_str() {
            Some("hello") => {
                self.greeted = true;
                let some: Vec<Watched> = WATCHED.into_iter().filter(|_| line.random.random_bool(0.6)).collect();
                some.into_iter().for_each(|watched| self.start(watched, line));
            }
            Some("poke" | "live.stopped" | "pong") => {}
            Some("live.rows" | "live.diff") => self.takes(message, line),
            _ => line.violation(format!("a frame that says nothing known: {message}")),
        }
    }

    fn takes(&mut self, message: &Value, line: &mut Line<'_>) {
        let found = self.mirrors.iter_mut().find(|(watched, _)| message["id"] == watched.id());
        // What was on its way when it was stopped, or started anew, is nobody's.
        let Some((watched, mirror)) = found.filter(|(_, mirror)| mirror.version.is_some() || message["type"] == "live.rows") else {
            return;
        };
        if let Err(broken) = mirror.apply(message) {
            return line.violation(format!("{watched:?}: {broken:#}"));
        }
        let mut history = self.history.lock();
        let version = mirror.version.unwrap_or(0);
        line.note(format!("has {watched:?} at version {version}: {} rows", mirror.rows.len()));
        if version > history.version {
            line.violation(format!("{watched:?} is of version {version}, and {} is the newest that is durable", history.version));
        }
        if let Some(rows) = history.versions.get(&version) {
            let expected = watched.rows(rows, &self.caller);
            if mirror.rows != expected {
                line.violation(format!("{watched:?} at version {version} is {}, and ought to be {}", json!(mirror.rows), json!(expected)));
            }
        }
        history.watched.insert((self.number, *watched), (self.caller.clone(), mirror.rows.clone()));
    }

    /// Asks for rows as they were.
    fn look_back(&mut self, line: &mut Line<'_>) {
        let (min_version, newest) = {
            let history = self.history.lock();
            (history.min_version, history.version)
        };
        let version = line.random.random_range(min_version.saturating_sub(3)..=newest);
        let watched = WATCHED[line.random.random_range(0..WATCHED.len())];
        line.note(format!("looks back at {watched:?} of version {version}"));
        self.tags += 1;
        self.asked.insert(self.tags, Asked { watched, version });
        let body = json!({"protocolVersion": 1, "schemaVersion": SCHEMA_VERSION, "asOf": {"version": version}, "query": watched.query()});
        let head = head("/snapshot", None, &token(&self.caller));
        line.request(Request { tag: self.tags, method: "POST", head, body: body.to_string().into_bytes() });
    }
}

impl ClientModel for Watcher {
    fn connect(&mut self, line: &mut Line<'_>) -> Dial {
        self.greeted = false;
        line.note(format!("connects as {:?}", self.caller));
        Dial::Socket(head("/ws", None, &token(&self.caller)))
    }

    fn received(&mut self, frame: &Frame, line: &mut Line<'_>) {
        match frame {
            Frame::Text(text) => match serde_json::from_slice::<Value>(text) {
                Ok(message) => self.hears(&message, line),
                Err(error) => line.violation(format!("a frame that is not JSON: {error}")),
            },
            Frame::Binary(_) => line.violation("a binary frame".into()),
        }
    }

    fn answered(&mut self, tag: u64, answer: Option<Answer>, line: &mut Line<'_>) {
        let Some(Asked { watched, version }) = self.asked.remove(&tag) else {
            return line.violation("an answer to a request that was not made".into());
        };
        let Some(Answer { status, body }) = answer.filter(|answer| answer.status != 503) else { return };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let history = self.history.lock();
        match status {
            200 => {
                let expected = history.versions.get(&version).map(|rows| json!(watched.rows(rows, &self.caller)));
                if let Some(expected) = expected.filter(|expected| body["rows"] != *expected) {
                    line.violation(format!("{watched:?} of version {version} was {expected}, and is told as {}", body["rows"]));
                }
            }
            410 if version < history.min_version => {}
            _ => line.violation(format!("a snapshot of version {version} was answered with {status} {body}")),
        }
    }

    fn act(&mut self, line: &mut Line<'_>) {
        if line.calm {
            // Everything is watched in the end.
            let missing = WATCHED.into_iter().find(|watched| !self.mirrors.contains_key(watched));
            if let Some(watched) = missing.filter(|_| self.greeted) {
                self.start(watched, line);
            }
            return;
        }
        match line.random.random_range(0..40) {
            0 if self.greeted => line.leave(),
            1..4 if self.asked.is_empty() => self.look_back(line),
            4..8 if self.greeted => self.start(WATCHED[line.random.random_range(0..WATCHED.len())], line),
            8..10 if self.greeted => {
                let watched = WATCHED[line.random.random_range(0..WATCHED.len())];
                self.forget(watched);
                line.send_text(json!({"type": "live.stop", "id": watched.id()}).to_string());
            }
            10..13 if self.greeted => line.send_text(json!({"type": "ping"}).to_string()),
            _ => {}
        }
    }

    fn disconnected(&mut self, code: Option<u16>, line: &mut Line<'_>) {
        self.greeted = false;
        WATCHED.into_iter().for_each(|watched| self.forget(watched));
        if let Some(code) = code.filter(|code| !CODES.contains(code)) {
            line.violation(format!("closed or refused with {code}"));
        }
    }

    fn is_settled(&self) -> bool {
        let has_all = WATCHED.iter().all(|watched| self.mirrors.get(watched).is_some_and(|mirror| mirror.version.is_some()));
        self.greeted && has_all && self.asked.is_empty()
    }
}

/// What is watched in the end is what is there.
pub fn check(history: &History, watchers: usize) -> Vec<String> {
    let Some(rows) = history.versions.get(&history.version) else { return vec!["there are no rows".into()] };
    let mut wrong = Vec::new();
    for ((number, watched), (caller, found)) in &history.watched {
        let expected = watched.rows(rows, caller);
        if *found != expected {
            wrong.push(format!("watcher {number} has {} of {watched:?} in the end, and ought to have {}", json!(found), json!(expected)));
        }
    }
    if history.watched.len() != watchers * WATCHED.len() {
        wrong.push(format!("{} of {} live queries came to an end", history.watched.len(), watchers * WATCHED.len()));
    }
    wrong
}

/// Some watchers; who they are is drawn.
pub fn drawn(users: &[&'static str], history: &Arc<Mutex<History>>, random: &mut StdRng) -> Vec<Watcher> {
    let count = random.random_range(0..3);
    let watcher = |number| {
        let caller = Caller { user: users[random.random_range(0..users.len())], is_admin: random.random_bool(0.1) };
        Watcher::new(number, caller, history.clone())
    };
    (0..count).map(watcher).collect()
}
