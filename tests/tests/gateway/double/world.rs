//! The logic of the double: a protocol of plain words, with everything that a deployment keeps.
//!
//! Words of a client, one frame each: `count` answers how many came (kept in the attachment), `join T` listens to a topic,
//! `follow T` does so and has the logic make the frames, `leave T`, `say T X` publishes and answers `said X`, `latest`,
//! `peek T` joins with an answer that brings no publications, `to ID X` sends to one connection, `big N` answers so many bytes, `wait` and `join-wait T` answer when the test lets them,
//! `work X` does it as a task, `alarm MS`, `later` puts itself off once, `trap`, `fail`, `close`.

use std::collections::{HashMap, HashSet, VecDeque};

use syncline_spin_wire as wire;

use super::plan;

/// What the next request for calls meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The calls are made, and no answer is sent.
    AnswerLost,
    /// The calls are made, and half of the answer is sent.
    AnswerCut,
    /// Nothing is done, and the line breaks.
    Broken,
    /// 500.
    Fell,
    /// 503.
    Unavailable,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Whose.
    pub connection: u64,
    /// What, in a word.
    pub what: String,
    /// Inputs that came together.
    pub inputs: usize,
    /// Whether the call said that it had just failed.
    pub failed_before: bool,
}

/// Everything that the deployment keeps, and what was seen.
pub struct World {
    /// What it says of itself.
    pub deployment: wire::Deployment,
    /// The row of publications; the first is at position 1.
    pub row: Vec<wire::Publication>,
    /// Positions up to here are gone.
    pub forgotten: u64,
    /// Answers by call, without publications, and how far they need them.
    remembered: HashMap<u128, (wire::Reply, Vec<wire::Change>, u64)>,
    /// Calls that are being made.
    running: HashSet<u128>,
    /// Connections whose calls are being made: two at once would be wrong.
    lanes: HashSet<u64>,
    /// What went wrong between gateway and deployment.
    pub complaints: Vec<String>,
    /// What was made, in order.
    pub made: Vec<Made>,
    /// The number of calls in each request.
    pub batches: Vec<usize>,
    /// Calls that were sent again.
    pub retries: usize,
    /// Polls, as they came.
    pub polls: Vec<wire::Poll>,
    /// For the next requests.
    pub faults: VecDeque<Fault>,
    /// Where gateways are woken.
    pub callbacks: HashSet<String>,
}

/// How a call goes on.
pub enum Step {
    /// Its answer.
    Answered(Box<wire::CallAnswer>),
    /// When the test lets it.
    Waits,
    /// The whole request ends.
    Trapped,
}

impl Default for World {
    fn default() -> Self {
        Self {
            deployment: plan::deployment(),
            row: Vec::new(),
            forgotten: 0,
            remembered: HashMap::new(),
            running: HashSet::new(),
            lanes: HashSet::new(),
            complaints: Vec::new(),
            made: Vec::new(),
            batches: Vec::new(),
            retries: 0,
            polls: Vec::new(),
            faults: VecDeque::new(),
            callbacks: HashSet::new(),
        }
    }
}

impl World {
    /// The newest position.
    pub fn newest(&self) -> u64 {
        self.row.len() as u64
    }

    /// What was published after a position.
    pub fn published(&self, after: u64) -> wire::Published {
        let publications = (1..).zip(&self.row).filter(|(position, _)| *position > after.max(self.forgotten));
        wire::Published {
            publications: publications.map(|(position, publication)| (position, publication.clone())).collect(),
            next: self.newest().max(after),
            missed: after < self.forgotten,
        }
    }

    /// Publishes from outside any call.
    pub fn publish(&mut self, topic: &str, message: &str) {
        self.row.push(publication(topic, message.as_bytes()));
    }

    /// A call begins; `woken`: it waited, and goes on. `after`: what the batch has brought already.
    pub fn call(&mut self, call: &wire::SocketCall, woken: bool, after: u64) -> Step {
        if !woken {
            self.retries += usize::from(call.retry);
            if let Some((reply, changes, through)) = self.remembered.get(&call.id).cloned() {
                if !call.retry {
                    self.complaints.push(format!("call {} came twice", call.id));
                }
                let mut published = self.published(after);
                published.publications.retain(|(position, _)| *position <= through);
                published.next = published.next.min(through.max(after));
                return answered(call, reply, changes, published);
            }
            if self.running.contains(&call.id) {
                let nothing = wire::Published { next: after, ..wire::Published::default() };
                return answered(call, wire::Reply::Busy, Vec::new(), nothing);
            }
        }
        let Some(connection) = connection_of(&call.invocation) else {
            let reply = self.deliver(&call.invocation);
            return answered(call, reply, Vec::new(), self.published(after));
        };
        let words = words_of(&call.invocation);
        if !woken && !matches!(call.invocation, wire::Invocation::Task { .. }) && !self.lanes.insert(connection) {
            self.complaints.push(format!("two calls of connection {connection} at once"));
        }
        if words.iter().any(|word| word == "trap") {
            self.made(call, connection, "trap");
            self.lanes.remove(&connection);
            return Step::Trapped;
        }
        if !woken && words.iter().any(|word| word == "wait" || word.starts_with("join-wait")) {
            self.running.insert(call.id);
            return Step::Waits;
        }
        // A subscription that waited began when the call did.
        let (reply, changes) = self.reply(call, connection, &words, after);
        self.lanes.remove(&connection);
        self.running.remove(&call.id);
        let nothing = wire::Published { next: after, ..wire::Published::default() };
        let published = if words.iter().any(|word| word.starts_with("peek")) { nothing } else { self.published(after) };
        self.remembered.insert(call.id, (reply.clone(), changes.clone(), self.newest()));
        answered(call, reply, changes, published)
    }

    fn made(&mut self, call: &wire::SocketCall, connection: u64, what: &str) {
        let (inputs, failure) = match &call.invocation {
            wire::Invocation::Receive { inputs, connection } => (inputs.len(), connection.failure.is_some()),
            _ => (0, false),
        };
        self.made.push(Made { connection, what: what.into(), inputs, failed_before: failure || call.retry });
    }

    fn reply(&mut self, call: &wire::SocketCall, connection: u64, words: &[String], began: u64) -> (wire::Reply, Vec<wire::Change>) {
        let mut changes = Vec::new();
        let reply = match &call.invocation {
            wire::Invocation::Upgrade { head, .. } => {
                self.made(call, connection, "upgrade");
                wire::Reply::Upgrade(upgrade(connection, head))
            }
            wire::Invocation::Receive { connection: live, .. } => {
                let mut outcome = nothing();
                let mut count = live.attachment.first_chunk().map_or(0, |count| u64::from_le_bytes(*count));
                for (index, word) in words.iter().enumerate() {
                    self.made(call, connection, word);
                    count += 1;
                    if word == "later" && live.attachment.last() != Some(&1) {
                        outcome.attachment = Some([&count.to_le_bytes()[..], &[1]].concat().into());
                        outcome.defer = Some((index as u32, 20));
                        return (wire::Reply::Outcome(outcome), changes);
                    }
                    if word == "fail" {
                        return (wire::Reply::Failed(wire::CallFailure::Failed), changes);
                    }
                    self.word(word, count, connection, began, &mut outcome, &mut changes);
                }
                outcome.attachment = Some(count.to_le_bytes().to_vec().into());
                wire::Reply::Outcome(outcome)
            }
            wire::Invocation::Task { work, .. } => {
                self.made(call, connection, "task");
                wire::Reply::Task([b"done ", &work[..]].concat().into())
            }
            _ => {
                self.made(call, connection, "closed");
                wire::Reply::Done
            }
        };
        (reply, changes)
    }

    fn word(&mut self, word: &str, count: u64, connection: u64, began: u64, outcome: &mut wire::Outcome, changes: &mut Vec<wire::Change>) {
        let mut parts = word.splitn(3, ' ');
        let (verb, first, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut say = |text: String| outcome.send.push(wire::Frame::Text(text));
        match verb {
            "count" => say(count.to_string()),
            "join" | "follow" | "join-wait" | "peek" => {
                let mode = if verb == "follow" { wire::Mode::Deliver } else { wire::Mode::ForwardText };
                let subscription = wire::Subscription {
                    topic: first.into(),
                    mode,
                    group: "g".into(),
                    cursor: None,
                    presence: Some(b"me".to_vec().into()),
                };
                let position = if verb == "join-wait" { began } else { self.newest() };
                changes.push(wire::Change::Subscribed { connection, subscription, position });
                say(format!("joined {first}"));
            }
            "leave" => {
                changes.push(wire::Change::Unsubscribed { connection, topic: first.into() });
                say(format!("left {first}"));
            }
            "say" => {
                self.publish(first, rest);
                say(format!("said {rest}"));
            }
            "whisper" => {
                self.row.push(wire::Publication { except: Some(connection), ..publication(first, rest.as_bytes()) });
                say(format!("whispered {rest}"));
            }
            "to" => {
                let to: u64 = first.parse().unwrap_or_default();
                let message = [&to.to_le_bytes()[..], &[0], rest.as_bytes()].concat();
                self.row.push(publication(plan::SENT_TOPIC, &message));
                say("sent".into());
            }
            "big" => say("x".repeat(first.parse().unwrap_or_default())),
            "length" => say(word.len().to_string()),
            "work" => outcome.tasks.push(first.as_bytes().to_vec().into()),
            "alarm" => outcome.alarm = wire::Alarm::AfterMs(first.parse().unwrap_or_default()),
            "close" => outcome.close = Some(wire::Close { code: 4000, reason: "as you wish".into() }),
            other => say(format!("{other}!")),
        }
    }

    fn deliver(&mut self, invocation: &wire::Invocation) -> wire::Reply {
        match invocation {
            wire::Invocation::Deliver { publication, groups } => {
                let parts = vec![wire::Part::Bytes([b"delivered ", &publication.message[..]].concat().into())];
                let frame = wire::Template { binary: false, parts, cursor_after: None, alarm_after_ms: None };
                let outcomes = groups.iter().map(|_| wire::GroupOutcome::Send(vec![0])).collect();
                wire::Reply::Deliveries(wire::Deliveries { frames: vec![frame], outcomes })
            }
            _ => wire::Reply::Publications(Vec::new()),
        }
    }
}

fn answered(call: &wire::SocketCall, reply: wire::Reply, changes: Vec<wire::Change>, published: wire::Published) -> Step {
    Step::Answered(Box::new(wire::CallAnswer { id: call.id, reply, changes, published, through: None }))
}

fn publication(topic: &str, message: &[u8]) -> wire::Publication {
    wire::Publication {
        topic: topic.into(),
        message: message.to_vec().into(),
        order: None,
        class: wire::Class::MustDeliver,
        except: None,
        close: None,
    }
}

fn upgrade(connection: u64, head: &wire::RequestHead) -> wire::UpgradeResult {
    match head.query.as_deref() {
        Some("refuse") => wire::UpgradeResult::Refuse(wire::Response {
            status: 403,
            headers: vec![wire::Header { name: "x-why".into(), value: b"because".to_vec().into() }],
            body: wire::ResponseBody::Bytes(b"no".to_vec().into()),
        }),
        _ => {
            let seen = head.headers.iter().any(|header| header.name == wire::GATEWAY_HEADER);
            let hello = format!("hello {connection} from {} {}{}", head.remote_address, head.secure, if seen { " secret!" } else { "" });
            let start = wire::Outcome { send: vec![wire::Frame::Text(hello)], ..nothing() };
            wire::UpgradeResult::Accept(Box::new(wire::Accept { subprotocol: None, headers: Vec::new(), start }))
        }
    }
}

fn nothing() -> wire::Outcome {
    wire::Outcome {
        send: Vec::new(),
        attachment: None,
        close: None,
        seen: Vec::new(),
        cursors: Vec::new(),
        alarm: wire::Alarm::Keep,
        pace: false,
        tasks: Vec::new(),
        defer: None,
        quiet_ms: None,
    }
}

fn connection_of(invocation: &wire::Invocation) -> Option<u64> {
    match invocation {
        wire::Invocation::Upgrade { connection, .. } => Some(*connection),
        wire::Invocation::Receive { connection, .. }
        | wire::Invocation::Task { connection, .. }
        | wire::Invocation::Closed { connection, .. } => Some(connection.id),
        wire::Invocation::Deliver { .. } | wire::Invocation::Refill { .. } => None,
    }
}

fn words_of(invocation: &wire::Invocation) -> Vec<String> {
    let wire::Invocation::Receive { inputs, .. } = invocation else { return Vec::new() };
    let word = |input: &wire::Input| match input {
        wire::Input::Frame(wire::Frame::Text(text)) => text.clone(),
        wire::Input::Frame(wire::Frame::Binary(bytes)) => format!("binary-{}", bytes.len()),
        wire::Input::Wake => "awake".into(),
        wire::Input::Drained => "drained".into(),
        wire::Input::TaskDone(result) => String::from_utf8_lossy(result).into_owned(),
        wire::Input::TaskFailed(_) => "task-failed".into(),
    };
    inputs.iter().map(word).collect()
}
