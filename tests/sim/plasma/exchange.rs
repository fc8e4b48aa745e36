//! What a client asks the server, and what it makes of the answers.

use rand::RngExt as _;
use serde_json::{Value, json};

use super::client::{Listening, PlasmaClient};
use super::history::reached;
use super::mutations::{Mutation, timestamp_ms};
use super::rows::Caller;
use super::wire;
use crate::engine::model::{Answer, Line, Request};

/// The statuses of a server that is away for now.
const UNAVAILABLE: u16 = 503;
/// The client's state is lost, in the native dialect.
const GONE: u16 = 410;
/// A part of a push was taken.
const TRUNCATED: u16 = 429;

/// A request under way.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A push of some mutations.
    Push {
        /// The tab that made it.
        tab: u64,
        /// Its group.
        group: String,
        /// Clients and numbers.
        mutations: Vec<(String, u64)>,
    },
    /// A pull.
    Pull {
        /// The tab that made it.
        tab: u64,
        /// Its group.
        group: String,
        /// The cookie that it asked with.
        cookie: Value,
        /// As whom it asked.
        caller: Caller,
        /// What it must reach.
        told: u64,
    },
    /// Something that must be refused, or asked for no rows.
    Probe {
        /// The status, and the error in the body.
        expected: (u16, Value),
    },
}

impl PlasmaClient {
    /// Pushes and pulls where that is due and none is under way.
    pub(super) fn ask_what_is_due(&mut self, line: &mut Line<'_>) {
        if !self.tab.pushing {
            self.push(line);
        }
        if self.listening == Listening::Changes {
            self.tab.pull_due = false;
        }
        if self.tab.pull_due && !self.tab.pulling {
            self.pull(line);
        }
    }

    fn request(&mut self, asked: Asked, path: &str, query: Option<String>, body: &Value, line: &mut Line<'_>) {
        self.tags += 1;
        self.asked.insert(self.tags, asked);
        let head = wire::head(path, query, &self.browser.lock().token());
        line.request(Request { tag: self.tags, method: "POST", head, body: body.to_string().into_bytes() });
    }

    /// Pushes everything that is not confirmed.
    fn push(&mut self, line: &mut Line<'_>) {
        let (group, mutations) = {
            let browser = self.browser.lock();
            let mut mutations = if self.recovers { browser.abandoned() } else { Vec::new() };
            if self.tab.push_due {
                mutations.extend(browser.pending_of(&self.tab.id));
            }
            (browser.group.clone(), mutations)
        };
        (self.recovers, self.tab.push_due) = (false, false);
        let mut mutations = mutations;
        if self.native && mutations.len() > self.habits.push_max {
            // What waits for no more than its confirmation stays behind, and the rest follows.
            let (own, acknowledged) = (self.tab.id.clone(), self.tab.acknowledged);
            mutations.retain(|mutation| mutation.client != own || mutation.id > acknowledged);
            self.tab.push_due = mutations.len() > self.habits.push_max;
            mutations.truncate(self.habits.push_max);
        }
        if mutations.is_empty() {
            self.tab.push_due = false;
            return;
        }
        let ids: Vec<(String, u64)> = mutations.iter().map(|mutation| (mutation.client.clone(), mutation.id)).collect();
        line.note(format!("pushes {} mutations for {group}: {}", ids.len(), ranges(&ids)));
        let body = wire::push(self.native, &group, &mutations);
        let asked = Asked::Push { tab: self.tabs, group, mutations: ids };
        if !line.calm && self.habits.forged_answers > 0.0 && line.random.random_bool(self.habits.forged_answers) {
            let results = mutations.iter().map(|mutation| json!({"clientID": mutation.client, "id": mutation.id, "status": "applied"}));
            let body = json!({"ok": true, "lastMutationIDChanges": {}, "cookie": 0, "results": results.collect::<Vec<_>>()});
            return self.hear_answer(asked, Some(Answer { status: 200, body: body.to_string().into_bytes() }), line);
        }
        self.tab.pushing = true;
        self.request(asked, "/push", None, &body, line);
    }

    fn pull(&mut self, line: &mut Line<'_>) {
        let (group, caller) = {
            let browser = self.browser.lock();
            (browser.group.clone(), browser.caller.clone())
        };
        let cookie = self.tab.replica.cookie.clone();
        line.note(format!("pulls for {group} with {cookie}"));
        (self.tab.pulling, self.tab.pull_due) = (true, false);
        let body = wire::pull(self.native, &group, &self.tab.id, &cookie);
        let asked = Asked::Pull { tab: self.tabs, group, cookie, caller, told: self.tab.told };
        let query = self.rows_max.map(|rows_max| format!("limit={rows_max}"));
        self.request(asked, "/pull", query, &body, line);
    }

    /// Something that is no part of an honest exchange.
    pub(super) fn probe(&mut self, line: &mut Line<'_>) {
        let intruder = format!("intruder-{}-{}", self.number, self.tags);
        self.history.lock().intruders.insert(intruder.clone());
        let (group, caller) = {
            let browser = self.browser.lock();
            (browser.group.clone(), browser.caller.clone())
        };
        let noop = |id: u64, random: &mut _| Mutation {
            client: intruder.clone(),
            id,
            name: "inc".into(),
            args: json!({"id": "intruder", "by": 1}),
            timestamp_ms: timestamp_ms(random),
            caller: caller.clone(),
        };
        let (first, third) = (noop(1, line.random), noop(3, line.random));
        let foreign = {
            let history = self.history.lock();
            let mut groups = history.groups.iter().filter(|(_, known)| known.known && known.user != caller.user);
            groups.next().map(|(group, _)| group.clone())
        };
        let (path, body, expected) = match (line.random.random_range(0..5), foreign) {
            (0, Some(foreign)) if !self.habits.forgets => ("/push", wire::push(self.native, &foreign, &[first]), (403, json!("forbidden"))),
            (1, Some(foreign)) if !self.habits.forgets => {
                ("/pull", wire::pull(self.native, &foreign, &intruder, &Value::Null), (403, json!("forbidden")))
            }
            (2, _) => {
                let mut body = wire::push(self.native, &group, &[first]);
                body["schemaVersion"] = "6".into();
                ("/push", body, if self.native { (409, json!("schema-mismatch")) } else { (200, json!("VersionNotSupported")) })
            }
            (3, _) if self.native => {
                let many: Vec<Mutation> = (0..=self.habits.push_max as u64).map(|index| noop(index + 1, line.random)).collect();
                ("/push", wire::push(true, &group, &many), (413, json!("too-many-mutations")))
            }
            _ => ("/push", wire::push(self.native, &group, &[first, third]), (400, json!("invalid-request"))),
        };
        line.note(format!("probes {path} and expects {expected:?}"));
        self.request(Asked::Probe { expected }, path, None, &body, line);
    }

    /// An answer has come, or will not come.
    pub(super) fn hear_answer(&mut self, asked: Asked, answer: Option<Answer>, line: &mut Line<'_>) {
        let answer = answer.filter(|answer| answer.status != UNAVAILABLE);
        let answer = answer.map(|Answer { status, body }| (status, serde_json::from_slice(&body).unwrap_or(Value::Null)));
        match asked {
            Asked::Push { tab, group, mutations } => {
                let is_mine = tab == self.tabs;
                if is_mine {
                    self.tab.pushing = false;
                }
                match answer {
                    None if is_mine => self.tab.push_due = true,
                    None => {}
                    Some((status, body)) => self.pushed(&group, &mutations, is_mine, (status, &body), line),
                }
            }
            Asked::Pull { tab, group, cookie, caller, told } => {
                let is_mine = tab == self.tabs;
                if is_mine {
                    self.tab.pulling = false;
                }
                match answer {
                    None if is_mine => self.tab.pull_due = true,
                    Some((status, body)) if is_mine => self.pulled(&group, &cookie, (&caller, told), (status, body), line),
                    _ => {}
                }
            }
            Asked::Probe { expected } => {
                if let Some((status, body)) = answer.filter(|(status, body)| (*status, &body["error"]) != (expected.0, &expected.1)) {
                    line.violation(format!("a probe was answered with {status} {body}, and not with {expected:?}"));
                }
            }
        }
    }

    fn pushed(&mut self, group: &str, mutations: &[(String, u64)], is_mine: bool, answer: (u16, &Value), line: &mut Line<'_>) {
        let (status, body) = answer;
        line.note(format!("push of {} is answered with {status}", ranges(mutations)));
        match status {
            GONE if self.native => return self.state_lost_of_tab(group, is_mine, line),
            200 if body["error"] == "ClientStateNotFound" => return self.state_lost_of_tab(group, is_mine, line),
            200 if body.get("error").is_none() => {
                if let Err(wrong) = self.history.lock().check_results(group, &body["results"], mutations) {
                    line.violation(wrong);
                }
                let told = body["results"].as_array().map_or(0, Vec::len);
                if told != mutations.len() {
                    line.violation(format!("{told} results for {} mutations", mutations.len()));
                }
                if is_mine {
                    let own = mutations.iter().filter(|(client, _)| *client == self.tab.id);
                    self.tab.acknowledged = own.map(|(_, id)| *id).fold(self.tab.acknowledged, u64::max);
                    // What is durable here, every later pull shows.
                    self.tab.told = self.tab.told.max(body["cookie"].as_u64().unwrap_or(u64::MAX));
                }
            }
            TRUNCATED if !self.native && body["error"] == "push-truncated" => self.tab.push_due |= is_mine,
            _ => line.violation(format!("a push was answered with {status} {body}")),
        }
        let mut history = self.history.lock();
        for (client, last) in body["lastMutationIDChanges"].as_object().into_iter().flatten() {
            let is_durable = |last| last == 0 || history.processed(client, last).is_some() || history.is_forgotten(group);
            if !last.as_u64().is_some_and(is_durable) {
                line.violation(format!("{client} is told that {last} is processed, and that is not durable"));
            }
        }
        if let Some(known) = history.groups.get_mut(group) {
            known.known = true;
        }
    }

    fn pulled(&mut self, group: &str, cookie: &Value, asked: (&Caller, u64), answer: (u16, Value), line: &mut Line<'_>) {
        let ((caller, told), (status, body)) = (asked, answer);
        if status == GONE && self.native || status == 200 && body["error"] == "ClientStateNotFound" {
            return self.state_lost_of_tab(group, true, line);
        }
        if status != 200 || body["ok"] != if self.native { json!(true) } else { Value::Null } {
            return line.violation(format!("a pull was answered with {status} {body}"));
        }
        if *cookie != self.tab.replica.cookie {
            return line.note("forgets an answer to an older cookie".into());
        }
        if let Some(known) = self.history.lock().groups.get_mut(group) {
            known.known = true;
        }
        let body = match wire::in_words_of_replicache(body, self.native) {
            Ok(body) => body,
            Err(wrong) => return line.violation(wrong),
        };
        let has_more = self.take_in(group, caller, body, line);
        if has_more == Some(false) && self.tab.version() < told {
            line.violation(format!("a pull ends at version {}, and {told} was told of before it began", self.tab.version()));
        }
        // Replicache does not look at this: it waits for the poke that follows.
        self.tab.pull_due |= has_more == Some(true) && self.native;
    }

    /// Data mode: a page comes by itself.
    pub(super) fn changed(&mut self, changes: &Value, line: &mut Line<'_>) {
        if self.connected_tab != self.tabs {
            return line.note("hears of changes for the tab before".into());
        }
        if changes["baseCookie"] != self.tab.replica.cookie {
            return line.violation(format!("changes from {}, and the cookie is {}", changes["baseCookie"], self.tab.replica.cookie));
        }
        let (group, caller) = {
            let browser = self.browser.lock();
            (browser.group.clone(), browser.caller.clone())
        };
        let mut answer = changes["pullResponse"].clone();
        // It does not say. Who has the newest version there is has all of it.
        answer["hasMore"] = (answer["cookie"].as_u64() != Some(self.history.lock().version)).into();
        self.take_in(&group, &caller, answer, line);
    }

    /// Applies an answer, and holds the replica against what was durable; whether more follows.
    fn take_in(&mut self, group: &str, caller: &Caller, mut answer: Value, line: &mut Line<'_>) -> Option<bool> {
        self.omit_a_row(&mut answer, line);
        let before = self.tab.replica.cookie.clone();
        let pulled = match self.tab.replica.apply(&answer) {
            Ok(pulled) => pulled,
            Err(wrong) => {
                line.violation(wrong);
                return None;
            }
        };
        let (cookie, put, deleted) = (&self.tab.replica.cookie, pulled.put.len(), pulled.deleted.len());
        let (cleared, more) = (if pulled.cleared { "clears, " } else { "" }, if pulled.has_more { ", more" } else { "" });
        line.note(format!("{cleared}puts {put} and deletes {deleted} rows: {cookie}{more}"));
        self.tab.caught_up = !pulled.has_more;
        let mut history = self.history.lock();
        if let Err(wrong) = history.check_replica(group, caller, (&self.tab.replica, &answer["lastMutationIDChanges"]), !pulled.has_more) {
            line.violation(format!("after {before} → {cookie}: {wrong}"));
        }
        if pulled.cleared && !before.is_null() && history.cause_of_reset(group, &before).is_none() {
            line.violation(format!("a reset of {before} without a cause: {} is the least that is kept", history.min_version));
        }
        if answer.get("reset").is_some_and(|reset| *reset != json!(pulled.cleared && !before.is_null())) {
            line.violation(format!("it clears: {}, and says reset: {}", pulled.cleared, answer["reset"]));
        }
        if before.is_null() && !pulled.cleared {
            line.violation("a first load without clear".into());
        }
        if line.calm {
            history.ends.insert(self.number, (caller.clone(), self.tab.replica.rows.clone(), !pulled.has_more));
        }
        drop(history);
        self.browser.lock().confirm(&self.tab.replica.last_mutation_ids);
        Some(pulled.has_more)
    }

    /// A deliberate breach.
    fn omit_a_row(&mut self, answer: &mut Value, line: &mut Line<'_>) {
        let Some(patch) = answer["patch"].as_array_mut().filter(|patch| patch.len() > 1) else { return };
        if !line.calm && self.habits.omitted_rows > 0.0 && line.random.random_bool(self.habits.omitted_rows) {
            patch.pop();
        }
    }

    fn state_lost_of_tab(&mut self, group: &str, is_mine: bool, line: &mut Line<'_>) {
        if is_mine {
            self.state_lost(group, line);
        }
    }

    /// The server does not know the group any more.
    pub(super) fn state_lost(&mut self, group: &str, line: &mut Line<'_>) {
        let cookie = &self.tab.replica.cookie;
        line.note(format!("is not known any more, with {cookie} ({:?})", reached(cookie)));
        if !self.history.lock().is_forgotten(group) {
            line.violation(format!("the state of {group} is lost, and nobody asked that it be forgotten"));
        }
        self.begin_anew(line);
    }
}

/// Numbers of mutations in a few words.
fn ranges(ids: &[(String, u64)]) -> String {
    let mut ranges: Vec<(&str, u64, u64)> = Vec::new();
    for (client, id) in ids {
        match ranges.last_mut() {
            Some((last, _, to)) if *last == client => *to = *id,
            _ => ranges.push((client, *id, *id)),
        }
    }
    ranges.iter().map(|(client, from, to)| format!("{client}#{from}..{to}")).collect::<Vec<_>>().join(" ")
}
