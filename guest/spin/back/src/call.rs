//! What is known of the call of the logic that is under way: from `begin` to `end`.

use std::collections::{BTreeMap, HashMap};

use crate::bindings::exports::syncline::host::pubsub::{ConnectionId, Publication, Subscription};
use crate::executor::Root;
use crate::sql::Error;
use crate::store::outbox::Post;

/// What one call may let out, in pieces.
const EFFECTS_MAX: usize = 65_536;
/// The same in bytes.
const EFFECT_BYTES_MAX: usize = 128 << 20;
/// Lines that one call may log.
const LOG_LINES_MAX: usize = 1000;

/// What leaves with a transaction, or at the end of the call.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To the subscribers of a topic.
    Publish(Publication),
    /// To a target outside.
    Post(Post),
}

/// What is done to the storage when the effects of the call are released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deferred {
    /// Sets a key.
    Set {
        /// The key.
        key: String,
        /// Its value.
        value: Vec<u8>,
        /// It expires so long after it was set.
        time_to_live_ms: Option<u64>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Removes an object.
    DeleteObject {
        /// Its key.
        key: String,
    },
}

/// What changed for a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It listens to what comes after the position.
    Subscribed(ConnectionId, Subscription, u64),
    /// It does not any more.
    Unsubscribed(ConnectionId, String),
}

/// See the module.
pub struct Call {
    /// Whose it is.
    pub mount: String,
    /// How long a transaction of it may stay open.
    pub transaction_ms: u64,
    /// The open transaction.
    pub root: Option<Root>,
    /// The database that it writes.
    pub written: Option<String>,
    /// It did what cannot be repeated.
    pub unrepeatable: bool,
    /// What it let out while no transaction was open.
    pub outside: Vec<Effect>,
    /// In order.
    pub deferred: Vec<Deferred>,
    /// Keys as the call sees them.
    pub overlay: HashMap<String, Option<Vec<u8>>>,
    /// Words for the other parts of the call.
    pub notes: BTreeMap<String, Vec<u8>>,
    /// Subscriptions, in order.
    pub changes: Vec<Change>,
    /// The position of the last publication.
    pub published: Option<u64>,
    /// The newest position when the last transaction or view began.
    pub saw: Option<u64>,
    /// A document was fetched anew.
    pub refreshed: bool,
    commits: u32,
    aborted: bool,
    /// How many of `deferred` leave though the call fails.
    kept: usize,
    failure: Option<String>,
    log_lines: usize,
    pieces: usize,
    bytes: usize,
}

impl Call {
    /// A call that begins.
    pub fn new(mount: &str, transaction_ms: u64) -> Self {
        Self {
            mount: mount.to_owned(),
            transaction_ms,
            root: None,
            written: None,
            unrepeatable: false,
            outside: Vec::new(),
            deferred: Vec::new(),
            overlay: HashMap::new(),
            notes: BTreeMap::new(),
            changes: Vec::new(),
            published: None,
            saw: None,
            refreshed: false,
            commits: 0,
            aborted: false,
            kept: 0,
            failure: None,
            log_lines: 0,
            pieces: 0,
            bytes: 0,
        }
    }

    /// Remembers that something was aborted: then the whole call is made again.
    pub fn noted<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        if matches!(done, Err(Error::Aborted)) {
            self.aborted = true;
        }
        done
    }

    /// Something was aborted.
    pub fn abort(&mut self) {
        self.aborted = true;
    }

    /// The call can only fail: an interface that has no errors could not do what it promises.
    pub fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    /// Whether it may go on.
    pub fn check(&self) -> Result<(), Error> {
        match &self.failure {
            Some(why) => Err(Error::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Why it can only fail.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Lets something out: with the open transaction, or at the end.
    pub fn effect(&mut self, effect: Effect) {
        let bytes = match &effect {
            Effect::Publish(publication) => {
                publication.topic.len() + publication.message.len() + publication.order.as_ref().map_or(0, |order| order.key.len())
            }
            Effect::Post(post) => post.bytes(),
        };
        if self.weigh(bytes) {
            match &mut self.root {
                Some(root) => root.effects.push(effect),
                None => self.outside.push(effect),
            }
        }
    }

    /// Does something to the storage when the effects are released.
    pub fn defer(&mut self, deferred: Deferred) {
        let bytes = match &deferred {
            Deferred::Set { key, value, .. } => key.len() + value.len(),
            Deferred::Delete { key } | Deferred::DeleteObject { key } => key.len(),
        };
        if self.weigh(bytes) {
            self.deferred.push(deferred);
        }
    }

    /// Counts what the call lets out; false, and the call has failed, where that is too much.
    pub fn weigh(&mut self, bytes: usize) -> bool {
        self.pieces += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.pieces > EFFECTS_MAX {
            self.fail(format!("the call let out more than {EFFECTS_MAX} effects"));
        } else if self.bytes > EFFECT_BYTES_MAX {
            self.fail(format!("the call let out more than {EFFECT_BYTES_MAX} bytes"));
        }
        self.failure.is_none()
    }

    /// A transaction was committed, its last publication at a position.
    pub fn committed(&mut self, position: Option<u64>) {
        self.commits += 1;
        self.kept = self.deferred.len();
        self.published = position.or(self.published);
    }

    /// What leaves though the call fails.
    pub fn keep_only_committed(&mut self) {
        self.outside.clear();
        self.deferred.truncate(self.kept);
    }

    /// Whether the call is to be made again; an error where it would have to be and cannot.
    pub fn again(&self) -> Result<bool, String> {
        match self.aborted {
            false => Ok(false),
            true if self.commits == 0 && !self.unrepeatable => Ok(true),
            true => Err("a transaction was aborted, and the call cannot be made again".into()),
        }
    }

    /// Whether it may log one more line; none: this is the one that says that no more follow.
    pub fn may_log(&mut self) -> Option<bool> {
        self.log_lines += 1;
        if self.log_lines == LOG_LINES_MAX + 1 { None } else { Some(self.log_lines <= LOG_LINES_MAX) }
    }
}
