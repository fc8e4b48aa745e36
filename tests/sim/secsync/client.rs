//! A secsync client: it keeps a replica and its unanswered frames, and tells the history all that it hears.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline::runtime::in_process::ConnectRequest;
use syncline::runtime::queue::Frame;
use syncline_tests::secsync::{Author, base64url};

use super::MOUNT;
use super::history::{Heard, History, Kind, State, signature};
use super::replica::Replica;
use crate::engine::model::{ClientModel, Dial, Line};

/// Clocks so far ahead are never the next.
const CLOCK_AHEAD: u64 = 1_000;
/// Unanswered frames.
const OUTSTANDING_MAX: usize = 40;
/// Bytes of a body that is too large for a row.
const LARGE_BYTES: usize = 200 << 10;
/// What is below is the status of a refusal.
const CLOSE_CODE_MIN: u16 = 1000;
/// Close codes that the server may use towards clients that do nothing wrong: stopping, and try again.
const CODES: [u16; 2] = [1001, 1013];

/// What the clients of a run do.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Refusals behind a refusal may stay unsaid.
    pub quiet: bool,
    /// Documents.
    pub documents: u64,
    /// Updates sent at once.
    pub pipelined_max: u64,
    /// Acts of a client before it is content.
    pub acts_max: u64,
    /// Some bodies are large.
    pub large: bool,
    /// Two clients sign with one key.
    pub shared_author: bool,
    /// Share of acts that are snapshots.
    pub snapshots: f64,
}

/// A frame that waits for its answer.
#[derive(Clone, Debug)]
struct Outstanding {
    frame: Value,
    kind: Kind,
    valid: bool,
    /// Sent only because it is always answered: whatever came before it and was not answered never will be.
    barrier: bool,
}

/// See the module.
pub struct SecsyncClient {
    number: usize,
    document: String,
    author: Author,
    key: String,
    habits: Habits,
    history: Arc<Mutex<History>>,
    replica: Option<Replica>,
    /// The connection, from when it is asked for.
    connection: Option<usize>,
    /// `document` has come.
    opened: bool,
    /// The request named a known snapshot.
    asked_delta: bool,
    outstanding: VecDeque<Outstanding>,
    /// Updates that an earlier connection left without an answer.
    left_over: Vec<Outstanding>,
    acts: u64,
    ephemeral_count: u64,
    /// An update was refused, and none was saved since: the next refusal may stay unsaid.
    refused: bool,
    /// The next write is a snapshot: the server asks for one.
    snapshot_due: bool,
    /// An update was saved after faults were over.
    wrote_in_calm: bool,
    calm: bool,
}

impl SecsyncClient {
    /// A client that has never been connected.
    pub fn new(document: String, author: u8, habits: Habits, history: Arc<Mutex<History>>) -> Self {
        let number = {
            let mut history = history.lock();
            history.clients += 1;
            history.clients - 1
        };
        let author = Author::new(author);
        let key = author.public_key();
        Self {
            number,
            document,
            author,
            key,
            habits,
            history,
            replica: None,
            connection: None,
            opened: false,
            asked_delta: false,
            outstanding: VecDeque::new(),
            left_over: Vec::new(),
            acts: 0,
            ephemeral_count: 0,
            refused: false,
            snapshot_due: false,
            wrote_in_calm: false,
            calm: false,
        }
    }

    fn connection(&self) -> usize {
        self.connection.unwrap_or(usize::MAX)
    }

    // Sending.

    fn send(&mut self, frame: Value, kind: Kind, valid: bool, line: &mut Line<'_>) {
        self.history.lock().sent(self.connection(), &frame, kind.clone(), valid);
        line.note(format!("sends {}{}", short(&kind), if valid { "" } else { ", not valid" }));
        line.send_text(frame.to_string());
        if !matches!(kind, Kind::Ephemeral(_)) {
            self.outstanding.push_back(Outstanding { frame, kind, valid, barrier: false });
        }
    }

    fn content(&self, random: &mut StdRng) -> Vec<u8> {
        let mut content = random.random::<[u8; 12]>().to_vec();
        if self.habits.large && random.random_bool(0.05) {
            content.resize(LARGE_BYTES, 7);
        }
        content
    }

    fn snapshot_waits(&self) -> bool {
        self.outstanding.iter().any(|waiting| matches!(waiting.kind, Kind::Snapshot { .. }))
    }

    /// The clock of the next update: behind what is saved and what is under way.
    fn next_clock(&self, replica: &Replica) -> u64 {
        let sent = self.outstanding.iter().filter(|waiting| waiting.valid).filter_map(|waiting| match &waiting.kind {
            Kind::Update { snapshot, clock, .. } if *snapshot == replica.snapshot.id => Some(clock + 1),
            _ => None,
        });
        sent.max().unwrap_or(0).max(replica.next_clock(&self.key))
    }

    fn send_updates(&mut self, count: u64, line: &mut Line<'_>) {
        for _ in 0..count {
            let Some(replica) = &self.replica else { return };
            let (id, clock) = (replica.snapshot.id.clone(), self.next_clock(replica));
            let update = self.author.update(&self.document, &id, clock, &self.content(line.random));
            self.send(update, Kind::Update { snapshot: id, author: self.key.clone(), clock }, true, line);
        }
        if self.refused {
            self.ask_for_an_answer(line);
        }
    }

    fn send_snapshot(&mut self, line: &mut Line<'_>) {
        let id = base64url(line.random.random::<[u8; 24]>());
        let content = self.content(line.random);
        let parent_clocks = self.replica.as_ref().map(Replica::clocks).unwrap_or_default();
        let snapshot = match &self.replica {
            None => self.author.first_snapshot_named(id.clone(), &self.document, &content),
            Some(replica) => self.author.snapshot_named_on(id.clone(), &replica.snapshot, &parent_clocks, &content),
        };
        self.snapshot_due = false;
        self.send(snapshot.frame, Kind::Snapshot { id, parent_clocks }, true, line);
    }

    fn send_ephemeral(&mut self, line: &mut Line<'_>) {
        self.ephemeral_count += 1;
        let content = [self.ephemeral_count.to_be_bytes(), line.random.random()].concat();
        let message = self.author.ephemeral(&self.document, &content);
        self.send(message, Kind::Ephemeral(self.ephemeral_count), true, line);
    }

    /// Something that the server must refuse.
    fn send_invalid(&mut self, line: &mut Line<'_>) {
        let Some(replica) = &self.replica else { return };
        let id = replica.snapshot.id.clone();
        let (next, content) = (replica.next_clock(&self.key), self.content(line.random));
        // Where refusals may stay unsaid, a clock that others use would leave open what an answer is about.
        let taken = if self.habits.quiet { next + CLOCK_AHEAD } else { next };
        let kind = |clock| Kind::Update { snapshot: id.clone(), author: self.key.clone(), clock };
        match line.random.random_range(0..4) {
            0 => {
                let mut update = self.author.update(&self.document, &id, taken, &content);
                update["signature"] = base64url(line.random.random::<[[u8; 32]; 2]>().concat()).into();
                self.send(update, kind(taken), false, line);
            }
            1 => {
                let update = self.author.update("another", &id, taken, &content);
                self.send(update, kind(taken), false, line);
            }
            2 => {
                let update = self.author.update(&self.document, &id, next + CLOCK_AHEAD, &content);
                self.send(update, kind(next + CLOCK_AHEAD), false, line);
            }
            _ => line.send_text("no frame".into()),
        }
        self.ask_for_an_answer(line);
    }

    /// Where refusals may stay unsaid: sends a snapshot that is always refused, and always answered.
    fn ask_for_an_answer(&mut self, line: &mut Line<'_>) {
        if !self.habits.quiet || self.outstanding.is_empty() || self.outstanding.iter().any(|waiting| waiting.barrier) {
            return;
        }
        let id = base64url(line.random.random::<[u8; 24]>());
        let mut snapshot = self.author.first_snapshot_named(id.clone(), "another", b"barrier");
        snapshot.frame["signature"] = base64url(line.random.random::<[[u8; 32]; 2]>().concat()).into();
        self.send(snapshot.frame, Kind::Snapshot { id, parent_clocks: Default::default() }, false, line);
        if let Some(barrier) = self.outstanding.back_mut() {
            barrier.barrier = true;
        }
    }

    // Hearing.

    fn heard(&mut self, what: Heard) {
        self.history.lock().heard(self.connection(), what);
    }

    /// The frame that an answer is about. What waited before it was refused without a word.
    fn answered(&mut self, is_it: impl Fn(&Outstanding) -> bool, line: &mut Line<'_>) -> Option<Outstanding> {
        while let Some(waiting) = self.outstanding.pop_front() {
            if is_it(&waiting) {
                return Some(waiting);
            }
            if !self.habits.quiet || !matches!(waiting.kind, Kind::Update { .. }) {
                line.violation(format!("no answer to {}", short(&waiting.kind)));
            }
            self.heard(Heard::Refused(signature(&waiting.frame)));
        }
        line.violation("an answer to nothing".into());
        None
    }

    fn update_answered(&mut self, message: &Value, saved: bool, line: &mut Line<'_>) {
        let (id, number) = (message["snapshotId"].clone(), message["clock"].clone());
        let is_it = |waiting: &Outstanding| match &waiting.kind {
            Kind::Update { snapshot, clock, .. } => id == snapshot.as_str() && number == *clock,
            _ => false,
        };
        let Some(waiting) = self.answered(is_it, line) else { return };
        let Kind::Update { snapshot, author, clock } = waiting.kind else { return };
        let signature = signature(&waiting.frame);
        if !saved {
            self.heard(Heard::Refused(signature));
            self.snapshot_due |= message["requiresNewSnapshot"] == true;
            // Those behind it will be refused too, perhaps without a word.
            self.refused = true;
            self.ask_for_an_answer(line);
            return;
        }
        if !waiting.valid {
            line.violation(format!("saved what is not valid: {}", waiting.frame));
        }
        self.heard(Heard::Saved(signature.clone()));
        self.refused = false;
        self.wrote_in_calm |= self.calm;
        if let Some(replica) = self.replica.as_mut().filter(|replica| replica.snapshot.id == snapshot)
            && let Err(wrong) = replica.insert(author, clock, signature)
        {
            line.violation(wrong);
        }
    }

    fn snapshot_saved(&mut self, message: &Value, line: &mut Line<'_>) {
        let id = message["snapshotId"].clone();
        let is_it = |waiting: &Outstanding| matches!(&waiting.kind, Kind::Snapshot { id: own, .. } if id == own.as_str());
        let Some(waiting) = self.answered(is_it, line) else { return };
        if !waiting.valid {
            line.violation("saved a snapshot that is not valid".into());
        }
        self.heard(Heard::Saved(signature(&waiting.frame)));
        self.replica = Some(Replica::new(waiting.frame));
    }

    fn snapshot_failed(&mut self, message: &Value, line: &mut Line<'_>) {
        let is_it = |waiting: &Outstanding| matches!(waiting.kind, Kind::Snapshot { .. });
        let Some(waiting) = self.answered(is_it, line) else { return };
        self.heard(Heard::Refused(signature(&waiting.frame)));
        // Who loses a race has seen the winner: nothing in the refusal is new.
        if let Some(snapshot) = message.get("snapshot") {
            let known = self.replica.as_ref().map(|replica| signature(&replica.snapshot.frame));
            if known != Some(signature(snapshot)) {
                line.violation("a refusal quotes a snapshot that was not broadcast before".into());
            }
        }
        for update in message["updates"].as_array().into_iter().flatten() {
            if !self.replica.as_ref().is_some_and(|replica| replica.holds(update)) {
                line.violation(format!("a refusal quotes an update that was not broadcast before: {}", update["publicData"]));
            }
        }
    }

    fn broadcast_snapshot(&mut self, frame: &Value, line: &mut Line<'_>) {
        let child = match &self.replica {
            Some(replica) => replica.check_child(frame),
            None => Ok(()),
        };
        self.heard(Heard::Broadcast(signature(frame)));
        self.replica = Some(Replica::new(frame.clone()));
        if let Err(wrong) = child {
            line.violation(wrong);
        }
    }

    fn broadcast_update(&mut self, update: &Value, line: &mut Line<'_>) {
        self.heard(Heard::Broadcast(signature(update)));
        let applied = match &mut self.replica {
            Some(replica) => replica.apply(update, &self.key),
            None => Err("an update before any snapshot".into()),
        };
        if let Err(wrong) = applied {
            line.violation(wrong);
        }
    }

    fn open(&mut self, message: &Value, line: &mut Line<'_>) {
        let chain = message["snapshotProofChain"].as_array().cloned().unwrap_or_default();
        let known = self.replica.take().filter(|_| self.asked_delta);
        let mut replica = match (message.get("snapshot"), known) {
            (None, known) => known,
            (Some(snapshot), Some(known)) if signature(snapshot) == signature(&known.snapshot.frame) => Some(known),
            (Some(snapshot), known) => {
                if let Some(known) = known
                    && let Err(wrong) = known.check_chain(&chain, snapshot)
                {
                    line.violation(wrong);
                }
                Some(Replica::new(snapshot.clone()))
            }
        };
        let history = self.history.clone();
        let quoted = message["updates"].as_array().into_iter().flatten();
        for frame in quoted.clone().chain(message.get("snapshot")) {
            if let Some(wrong) = history.lock().passed_on(self.connection(), frame) {
                line.violation(wrong);
            }
        }
        for update in quoted {
            let applied = match &mut replica {
                Some(replica) => replica.apply(update, ""),
                None => Err("updates without a snapshot".into()),
            };
            if let Err(wrong) = applied {
                line.violation(format!("in the document: {wrong}"));
            }
        }
        self.replica = replica;
        self.opened = true;
        history.lock().connections[self.connection()].opened = Some(self.state());
        self.resend(line);
    }

    /// Sends again what was not answered before, or forgets it.
    fn resend(&mut self, line: &mut Line<'_>) {
        let left_over = std::mem::take(&mut self.left_over);
        let Some(replica) = &self.replica else { return };
        let active = replica.snapshot.id.clone();
        let is_missing = |waiting: &Outstanding| {
            matches!(&waiting.kind, Kind::Update { snapshot, .. } if *snapshot == active) && !replica.holds(&waiting.frame)
        };
        let missing: Vec<Outstanding> = left_over.into_iter().filter(|waiting| waiting.valid && is_missing(waiting)).collect();
        if line.random.random_bool(0.6) {
            for Outstanding { frame, kind, valid, .. } in missing {
                self.send(frame, kind, valid, line);
            }
        }
    }

    fn state(&self) -> State {
        self.replica.as_ref().map(Replica::state).unwrap_or_default()
    }
}

impl ClientModel for SecsyncClient {
    fn connect(&mut self, line: &mut Line<'_>) -> Dial {
        self.connection = Some(self.history.lock().connect(self.number, &self.document));
        (self.opened, self.refused) = (false, false);
        let mut query = String::from("sessionKey=k");
        // A reload of the page forgets everything.
        self.asked_delta = self.replica.is_some() && line.random.random_bool(0.7);
        match self.replica.as_ref().filter(|_| self.asked_delta) {
            Some(replica) => {
                let mode = if line.random.random_bool(0.8) { "delta" } else { "complete" };
                let clocks = percent_encode(&json!(replica.clocks()).to_string());
                query += &format!("&mode={mode}&knownSnapshotId={}&knownSnapshotUpdateClocks={clocks}", replica.snapshot.id);
                line.note(format!("connects with {mode} (connection {})", self.connection()));
            }
            None => {
                query += "&mode=complete";
                self.replica = None;
                line.note(format!("connects anew (connection {})", self.connection()));
            }
        }
        let path = format!("/{MOUNT}/{}", self.document);
        Dial::Socket(ConnectRequest { path, query: Some(query), remote_address: "192.0.2.1".into(), ..ConnectRequest::default() })
    }

    fn received(&mut self, frame: &Frame, line: &mut Line<'_>) {
        let Frame::Text(text) = frame else { return line.violation("a binary frame".into()) };
        let Ok(message) = serde_json::from_slice::<Value>(text) else { return line.violation("a frame that is no JSON".into()) };
        self.calm = line.calm;
        let kind = message["type"].as_str().unwrap_or_default().to_owned();
        line.note(format!("hears {kind} {}", told(&message)));
        if !self.opened && kind != "document" {
            return line.violation(format!("{kind} before document"));
        }
        let passed_on = match kind.as_str() {
            "snapshot" => Some(&message["snapshot"]),
            "update" => Some(&message),
            _ => None,
        };
        if let Some(frame) = passed_on
            && let Some(wrong) = self.history.lock().passed_on(self.connection(), frame)
        {
            line.violation(wrong);
        }
        match kind.as_str() {
            "document" if self.opened => line.violation("a second document".into()),
            "document" => self.open(&message, line),
            "snapshot" => self.broadcast_snapshot(&message["snapshot"], line),
            "update" => self.broadcast_update(&message, line),
            "update-saved" => self.update_answered(&message, true, line),
            "update-save-failed" => self.update_answered(&message, false, line),
            "snapshot-saved" => self.snapshot_saved(&message, line),
            "snapshot-save-failed" => self.snapshot_failed(&message, line),
            "ephemeral-message" => {
                if let Some(wrong) = self.history.lock().ephemeral(self.connection(), &message) {
                    line.violation(wrong);
                }
            }
            _ => line.violation(format!("{message}")),
        }
        if self.opened {
            let state = self.state();
            self.history.lock().connections[self.connection()].last = Some(state);
        }
    }

    fn act(&mut self, line: &mut Line<'_>) {
        self.calm = line.calm;
        if !self.opened || self.snapshot_waits() {
            return;
        }
        if line.calm {
            if self.outstanding.is_empty() && !self.wrote_in_calm {
                if self.replica.is_none() || self.snapshot_due { self.send_snapshot(line) } else { self.send_updates(1, line) }
            }
            return;
        }
        if self.acts >= self.habits.acts_max || self.outstanding.len() >= OUTSTANDING_MAX {
            return;
        }
        self.acts += 1;
        if self.replica.is_none() || self.snapshot_due || line.random.random_bool(self.habits.snapshots) {
            return self.send_snapshot(line);
        }
        match line.random.random_range(0..100) {
            0..70 => {
                let count = line.random.random_range(1..=self.habits.pipelined_max);
                self.send_updates(count, line);
            }
            70..85 => self.send_ephemeral(line),
            85..95 => self.send_invalid(line),
            95..98 => line.leave(),
            _ => {}
        }
    }

    fn disconnected(&mut self, code: Option<u16>, line: &mut Line<'_>) {
        if let Some(code) = code.filter(|code| *code >= CLOSE_CODE_MIN && !CODES.contains(code)) {
            line.violation(format!("closed with {code}"));
        }
        self.left_over.extend(self.outstanding.drain(..));
        if let Some(connection) = self.connection.take() {
            self.history.lock().connections[connection].last = None;
        }
        self.opened = false;
    }

    fn is_settled(&self) -> bool {
        self.opened && self.outstanding.is_empty() && self.wrote_in_calm
    }
}

fn short(kind: &Kind) -> String {
    match kind {
        Kind::Snapshot { id, .. } => format!("snapshot {}", first(id)),
        Kind::Update { snapshot, clock, author } => format!("update {clock} of {} on {}", first(author), first(snapshot)),
        Kind::Ephemeral(number) => format!("ephemeral message {number}"),
    }
}

fn first(text: &str) -> &str {
    text.get(..6).unwrap_or(text)
}

/// What a message says, for the trace.
fn told(message: &Value) -> String {
    let updates = message["updates"].as_array().map_or(String::new(), |updates| format!("with {} updates ", updates.len()));
    let snapshot = match message["snapshot"]["publicData"]["snapshotId"].as_str().or(message["snapshotId"].as_str()) {
        Some(id) => format!("on {} ", first(id)),
        None => String::new(),
    };
    let data = &message["publicData"];
    let author = data["pubKey"].as_str().map_or(String::new(), |key| format!("of {} ", first(key)));
    let clock = message["clock"].as_u64().or(data["clock"].as_u64()).map_or(String::new(), |clock| format!("{clock} "));
    format!("{clock}{author}{snapshot}{updates}{}", first(&signature(message)))
}

/// Escapes everything but letters and digits.
fn percent_encode(text: &str) -> String {
    let escaped = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escaped).collect()
}
