//! Everything that clients sent and were told, for the oracle.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Names a snapshot, update or ephemeral message: its signature.
pub type Signature = String;

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A snapshot.
    Snapshot {
        /// Its id.
        id: String,
        /// What its author had applied of the parent.
        parent_clocks: BTreeMap<String, u64>,
    },
    /// An update.
    Update {
        /// The snapshot that it refers to.
        snapshot: String,
        /// The author.
        author: String,
        /// Its number.
        clock: u64,
    },
    /// An ephemeral message: its place among those of its connection.
    Ephemeral(u64),
}

/// A frame that a client sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it is.
    pub kind: Kind,
    /// Its document.
    pub document: String,
    /// Whether any server may take it.
    pub valid: bool,
    /// The connections that it was sent on.
    pub connections: BTreeSet<usize>,
    /// The ciphertext that belongs to the signature.
    pub ciphertext: String,
}

/// Something that a connection was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What somebody else saved.
    Broadcast(Signature),
    /// What it sent is saved.
    Saved(Signature),
    /// What it sent is refused.
    Refused(Signature),
}

/// A document as a client has it: the active snapshot and the updates on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The signature of the active snapshot; none before the first.
    pub snapshot: Option<Signature>,
    /// Signatures of the updates.
    pub updates: BTreeSet<Signature>,
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client.
    pub client: usize,
    /// The document.
    pub document: String,
    /// What the client had once it had taken `document` in; none if that never came.
    pub opened: Option<State>,
    /// What followed.
    pub heard: Vec<Heard>,
    /// What the client has at the end, if the connection lives then.
    pub last: Option<State>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    /// Clients so far.
    pub clients: usize,
    /// By signature.
    pub sent: BTreeMap<Signature, Sent>,
    /// In the order in which they were asked for.
    pub connections: Vec<Connection>,
    /// Ephemeral messages: sending and hearing connection, and the last that was heard.
    ephemeral: BTreeMap<(usize, usize), u64>,
}

/// The signature of a frame.
pub fn signature(frame: &Value) -> Signature {
    frame["signature"].as_str().unwrap_or_default().to_owned()
}

impl History {
    /// A connection is asked for.
    pub fn connect(&mut self, client: usize, document: &str) -> usize {
        self.connections.push(Connection { client, document: document.to_owned(), opened: None, heard: Vec::new(), last: None });
        self.connections.len() - 1
    }

    /// A frame is sent.
    pub fn sent(&mut self, connection: usize, frame: &Value, kind: Kind, valid: bool) {
        let document = self.connections[connection].document.clone();
        let ciphertext = frame["ciphertext"].as_str().unwrap_or_default().to_owned();
        let sent = Sent { kind, document, valid, connections: BTreeSet::new(), ciphertext };
        self.sent.entry(signature(frame)).or_insert(sent).connections.insert(connection);
    }

    /// A connection is told something.
    pub fn heard(&mut self, connection: usize, what: Heard) {
        self.connections[connection].heard.push(what);
    }

    /// What is wrong with a frame that the server passes on, whatever the order.
    pub fn passed_on(&self, connection: usize, frame: &Value) -> Option<String> {
        let Some(sent) = self.sent.get(&signature(frame)) else { return Some(format!("nobody sent {frame}")) };
        let document = &self.connections[connection].document;
        if !sent.valid {
            Some(format!("passed on what is not valid: {frame}"))
        } else if sent.document != *document {
            Some(format!("a frame of document {} in document {document}", sent.document))
        } else if frame["ciphertext"].as_str() != Some(&sent.ciphertext) {
            Some("the ciphertext is another than was sent".into())
        } else {
            None
        }
    }

    /// What is wrong with an ephemeral message that a connection got.
    pub fn ephemeral(&mut self, connection: usize, frame: &Value) -> Option<String> {
        if let Some(wrong) = self.passed_on(connection, frame) {
            return Some(wrong);
        }
        let sent = &self.sent[&signature(frame)];
        let (Kind::Ephemeral(number), Some(from)) = (&sent.kind, sent.connections.first()) else {
            return Some("something else was passed on as an ephemeral message".into());
        };
        if *from == connection {
            return Some("an ephemeral message came back to who sent it".into());
        }
        let last = self.ephemeral.insert((*from, connection), *number);
        last.filter(|last| last >= number).map(|last| format!("ephemeral message {number} after {last} of the same connection"))
    }
}
