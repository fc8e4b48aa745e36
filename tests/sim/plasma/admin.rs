//! The administrator: compacts the log, writes, forgets client groups, and looks at what there is to see.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use serde_json::{Value, json};
use syncline::runtime::queue::Frame;

use super::Habits;
use super::history::History;
use super::mutations::todo_defaults;
use super::rows::key;
use super::wire::head;
use crate::engine::model::{Answer, ClientModel, Dial, Line, Request};

/// The admin token of the fixture.
const TOKEN: &str = "Bearer admin-secret";

enum Asked {
    /// The counter that marks it.
    Write(String),
    /// A path.
    Other(&'static str),
}

impl Asked {
    fn name(&self) -> &str {
        match self {
            Self::Write(marker) => marker,
            Self::Other(path) => path,
        }
    }
}

/// See the module.
pub struct Administrator {
    habits: Habits,
    history: Arc<Mutex<History>>,
    asked: BTreeMap<u64, Asked>,
    tags: u64,
}

impl Administrator {
    /// One that has done nothing yet.
    pub fn new(habits: Habits, history: Arc<Mutex<History>>) -> Self {
        Self { habits, history, asked: BTreeMap::new(), tags: 0 }
    }

    fn ask(&mut self, asked: Asked, path: &str, body: Option<&Value>, line: &mut Line<'_>) {
        self.tags += 1;
        line.note(format!("asks {path}: {}", body.unwrap_or(&Value::Null)));
        self.asked.insert(self.tags, asked);
        let (method, body) = body.map_or(("GET", Vec::new()), |body| ("POST", body.to_string().into_bytes()));
        line.request(Request { tag: self.tags, method, head: head(path, None, TOKEN), body });
    }

    fn compact(&mut self, line: &mut Line<'_>) {
        let version = self.history.lock().version;
        let body = match line.random.random_range(0..4) {
            0 => json!({"keepVersions": 0}),
            1 => json!({"keepVersions": line.random.random_range(1..50)}),
            2 => json!({"upToVersion": line.random.random_range(0..=version)}),
            _ => json!({"keepVersions": line.random.random_range(0..10), "tombstonesOnly": true}),
        };
        self.ask(Asked::Other("/admin/compact"), "/admin/compact", Some(&body), line);
    }

    /// A write of the server's side: one version, or nothing.
    fn write(&mut self, line: &mut Line<'_>) {
        let marker = format!("write-{}", self.tags);
        let mut operations = vec![json!({"insert": {"table": "counters", "row": {"id": marker, "n": self.tags}}})];
        let todo = format!("t{}", line.random.random_range(0..8));
        match line.random.random_range(0..4) {
            0 => {
                let mut row = todo_defaults();
                row["id"] = todo.into();
                row["owner"] = "bob".into();
                row["title"] = marker.clone().into();
                row["shared"] = line.random.random::<bool>().into();
                operations.push(json!({"upsert": {"table": "todos", "row": row}}));
            }
            1 => operations.push(json!({"update": {"table": "todos", "pk": [todo], "set": {"rank": self.tags}}})),
            2 => operations.push(json!({"delete": {"table": "members", "pk": ["x", "carol"]}})),
            _ => operations.push(json!({"upsert": {"table": "members", "row": {"team": "x", "userId": "carol"}}})),
        }
        self.history.lock().writes.insert(key("counters", &[&marker]), operations.clone());
        self.ask(Asked::Write(key("counters", &[&marker])), "/admin/db", Some(&json!({"as": null, "ops": operations})), line);
    }

    fn forget(&mut self, line: &mut Line<'_>) {
        let group = {
            let mut history = self.history.lock();
            let known: Vec<String> = history.groups.iter().filter(|(_, group)| group.known).map(|(id, _)| id.clone()).collect();
            if known.is_empty() {
                return;
            }
            let group = known[line.random.random_range(0..known.len())].clone();
            if let Some(group) = history.groups.get_mut(&group) {
                group.forgotten = true;
            }
            group
        };
        self.ask(Asked::Other("/admin/forget"), "/admin/forget", Some(&json!({ "clientGroupID": group })), line);
    }
}

impl ClientModel for Administrator {
    fn connect(&mut self, _: &mut Line<'_>) -> Dial {
        Dial::Nothing
    }

    fn received(&mut self, _: &Frame, line: &mut Line<'_>) {
        line.violation("a frame without a connection".into());
    }

    fn answered(&mut self, tag: u64, answer: Option<Answer>, line: &mut Line<'_>) {
        let Some(asked) = self.asked.remove(&tag) else { return line.violation("an answer to a request that was not made".into()) };
        let Some(Answer { status, body }) = answer.filter(|answer| answer.status != 503) else { return };
        line.note(format!("{} is answered with {status}", asked.name()));
        let mut history = self.history.lock();
        match (asked, status) {
            (Asked::Write(marker), 200) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let version = body["version"].as_u64().unwrap_or(0);
                let rows = history.versions.get(&version);
                if rows.is_none_or(|rows| rows.get(&marker).is_none()) && !history.is_in_gap(version) {
                    line.violation(format!("{marker} is acknowledged as {body}, and is not there"));
                }
                history.written.insert(marker);
            }
            // Where a request may come twice, the other copy may yet be carried out.
            (Asked::Write(_), 422) if self.habits.doubled_requests => {}
            (Asked::Write(marker), 422) => drop(history.not_written.insert(marker)),
            (Asked::Other(_), 200) => {}
            (asked, status) => line.violation(format!("{} was answered with {status} {}", asked.name(), String::from_utf8_lossy(&body))),
        }
    }

    fn act(&mut self, line: &mut Line<'_>) {
        if line.calm || !self.asked.is_empty() {
            return;
        }
        match line.random.random_range(0..200) {
            0..4 if self.habits.compacts => self.compact(line),
            4..12 if self.habits.writes => self.write(line),
            12 if self.habits.forgets => self.forget(line),
            13..15 => {
                let path = ["/admin/stats", "/admin/metrics", "/admin/errors", "/health"][line.random.random_range(0..4)];
                self.ask(Asked::Other(path), path, None, line);
            }
            _ => {}
        }
    }

    fn acts_alone(&self) -> bool {
        true
    }

    fn disconnected(&mut self, _: Option<u16>, line: &mut Line<'_>) {
        line.violation("a connection that was not made is gone".into());
    }

    fn is_settled(&self) -> bool {
        self.asked.is_empty()
    }
}
