//! A host in memory and clients that sign, for the tests of this room.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value as Json, json};

use super::Secsync;
use super::attachment::Attachment;
use super::verify;
use crate::contract::exports::syncline::sync::socket::{GroupOutcome, Part};
use crate::encoding::base64url;
use crate::imports::*;
use crate::registry::{Connection, Group, Input, Mount, Outcome, Protocol, UpgradeResult};
use crate::test_host::HostInMemory;

pub use crate::test_host::Fault;

/// A connection as the host keeps it.
#[derive(Default)]
struct Socket {
    attachment: Vec<u8>,
    inbox: VecDeque<Json>,
    closed: Option<u16>,
}

/// A host with one mount.
pub struct TestHost {
    host: HostInMemory,
    app: Box<dyn App>,
    mount: Rc<dyn Mount>,
    sockets: RefCell<HashMap<ConnectionId, Socket>>,
}

impl std::ops::Deref for TestHost {
    type Target = HostInMemory;
    fn deref(&self) -> &HostInMemory {
        &self.host
    }
}

impl TestHost {
    pub fn new(settings: Json) -> Self {
        Self::with_app(settings, NoApp)
    }

    /// A mount with an app.
    pub fn with_app(settings: Json, app: impl App + 'static) -> Self {
        let host = Self::stopped(settings, app);
        assert_eq!(host.mount.start(host.imports(), None), Ok(None));
        host
    }

    /// A mount that has not been started.
    pub fn stopped(settings: Json, app: impl App + 'static) -> Self {
        let mount = Secsync.configure("m", &settings.to_string(), Vec::new()).unwrap();
        Self { host: HostInMemory::default(), app: Box::new(app), mount, sockets: RefCell::default() }
    }

    /// The imports of one call, the app among them.
    pub fn imports(&self) -> Imports<'_> {
        self.host.imports_with(self.app.as_ref())
    }

    pub fn mount(&self) -> &dyn Mount {
        self.mount.as_ref()
    }

    pub fn head(path: &str, query: &str) -> RequestHead {
        RequestHead {
            method: "GET".into(),
            path: path.into(),
            query: Some(query.into()),
            headers: Vec::new(),
            remote_address: "127.0.0.1".into(),
            secure: false,
        }
    }

    /// Opens a socket on a URL below the mount.
    pub fn open(&self, url: &str) -> Peer<'_> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let id = self.sockets.borrow().len() as u64 + 1;
        let UpgradeResult::Accept(accept) = self.mount.upgrade(self.imports(), id, Self::head(path, query)) else {
            panic!("an upgrade was refused")
        };
        self.sockets.borrow_mut().insert(id, Socket::default());
        self.apply(id, accept.start);
        Peer { host: self, id }
    }

    /// Opens a document in mode `complete` with a session key.
    pub fn join(&self, doc_id: &str, session_key: &str) -> Peer<'_> {
        self.open(&format!("/secsync/{doc_id}?sessionKey={session_key}&mode=complete"))
    }

    fn apply(&self, id: ConnectionId, outcome: Outcome) {
        self.broadcast();
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.get_mut(&id).unwrap();
        if let Some(attachment) = outcome.attachment {
            socket.attachment = attachment;
        }
        socket.inbox.extend(outcome.send.into_iter().map(json_of));
        if let Some(close) = outcome.close {
            socket.closed = Some(close.code);
            self.pubsub.subscriptions.borrow_mut().retain(|(of, _), _| *of != id);
        }
    }

    /// Brings what was published to its subscribers.
    pub fn broadcast(&self) {
        for publication in self.pubsub.published.take() {
            let subscriptions = self.pubsub.subscriptions.borrow().clone();
            for ((id, _), subscription) in subscriptions.into_iter().filter(|(_, subscription)| subscription.topic == publication.topic) {
                self.deliver(id, &subscription, &publication);
            }
        }
    }

    fn deliver(&self, id: ConnectionId, subscription: &Subscription, publication: &Publication) {
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.get_mut(&id).unwrap();
        let mut send = |bytes: &[u8]| {
            if publication.except != Some(id) {
                socket.inbox.push_back(serde_json::from_slice(bytes).unwrap());
            }
        };
        if subscription.mode == Mode::ForwardText {
            return send(&publication.message);
        }
        let group = Group { name: subscription.group.clone(), cursor: None };
        let deliveries = self.mount.deliver(self.imports(), publication.clone(), vec![group]);
        match &deliveries.outcomes[0] {
            GroupOutcome::Send(frames) => {
                for index in frames {
                    let [Part::Bytes(bytes)] = deliveries.frames[*index as usize].parts.as_slice() else { panic!("a frame of parts") };
                    send(bytes);
                }
            }
            GroupOutcome::Leave(last) => {
                self.pubsub.subscriptions.borrow_mut().remove(&(id, subscription.topic.clone()));
                if let Some((frame, close)) = last {
                    socket.inbox.push_back(json_of(frame.clone()));
                    socket.closed = Some(close.code);
                }
            }
            GroupOutcome::Skip => {}
            other => panic!("{other:?}"),
        }
    }
}

fn json_of(frame: Frame) -> Json {
    let Frame::Text(text) = frame else { panic!("the server sends text") };
    serde_json::from_str(&text).unwrap()
}

/// A client's end of a socket.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    host: &'a TestHost,
    pub id: ConnectionId,
}

impl Peer<'_> {
    /// Sends one frame as text.
    pub fn send(&self, frame: &Json) {
        self.send_frames(vec![Frame::Text(frame.to_string())]);
    }

    /// Sends frames that the host hands over together.
    pub fn send_frames(&self, frames: Vec<Frame>) -> Option<(u32, u64)> {
        let attachment = self.host.sockets.borrow()[&self.id].attachment.clone();
        let connection = Connection { id: self.id, attachment, cursors: Vec::new(), failure: None };
        let inputs = frames.into_iter().map(Input::Frame).collect();
        let outcome = self.host.mount.receive(self.host.imports(), connection, inputs);
        let defer = outcome.defer;
        self.host.apply(self.id, outcome);
        defer
    }

    /// Sends a frame and takes the one frame that came meanwhile.
    pub fn ask(&self, frame: &Json) -> Json {
        self.take();
        self.send(frame);
        self.one()
    }

    /// Takes everything that came.
    pub fn take(&self) -> Vec<Json> {
        self.host.sockets.borrow_mut().get_mut(&self.id).unwrap().inbox.drain(..).collect()
    }

    /// Takes what came, which is one frame.
    pub fn one(&self) -> Json {
        let mut frames = self.take();
        assert_eq!(frames.len(), 1, "{frames:#?}");
        frames.remove(0)
    }

    /// The code that the server closed with.
    pub fn closed(&self) -> Option<u16> {
        self.host.sockets.borrow()[&self.id].closed
    }

    pub fn attachment(&self) -> Attachment {
        Attachment::decode(&self.host.sockets.borrow()[&self.id].attachment).unwrap()
    }
}

/// Somebody with a signing key.
pub struct Author {
    key: SigningKey,
    pub pub_key: String,
}

impl Author {
    pub fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let pub_key = base64url(key.verifying_key());
        Self { key, pub_key }
    }

    /// Signs a frame; `pubKey` is put in.
    pub fn sign(&self, context: &str, ciphertext: &str, mut public_data: Json) -> Json {
        public_data["pubKey"] = self.pub_key.clone().into();
        self.sign_as_is(context, ciphertext, public_data)
    }

    /// Signs a frame.
    pub fn sign_as_is(&self, context: &str, ciphertext: &str, public_data: Json) -> Json {
        let nonce = base64url([3; 24]);
        let canonical = serde_json_canonicalizer::to_string(&public_data).unwrap();
        let signed = json!({"ciphertext": ciphertext, "nonce": nonce, "publicData": base64url(canonical)});
        let message = format!("{context}{}", serde_json_canonicalizer::to_string(&signed).unwrap());
        let signature = base64url(self.key.sign(message.as_bytes()).to_bytes());
        json!({"ciphertext": ciphertext, "nonce": nonce, "publicData": public_data, "signature": signature})
    }

    /// A snapshot on a parent (none: a first one) with the clocks that its creator saw there.
    pub fn snapshot(&self, doc_id: &str, id: &str, parent: Option<&Json>, clocks: Json) -> Json {
        let parent_id = parent.map_or("", |parent| parent["publicData"]["snapshotId"].as_str().unwrap());
        let proof = match parent {
            None => verify::parent_snapshot_proof("", "", ""),
            Some(parent) => verify::parent_snapshot_proof(
                parent["publicData"]["parentSnapshotProof"].as_str().unwrap(),
                &verify::hash(parent["ciphertext"].as_str().unwrap()),
                parent_id,
            ),
        };
        let public_data = json!({"docId": doc_id, "snapshotId": id, "parentSnapshotId": parent_id,
            "parentSnapshotProof": proof, "parentSnapshotUpdateClocks": clocks});
        self.sign("secsync_snapshot", &ciphertext(id), public_data)
    }

    pub fn update(&self, doc_id: &str, snapshot_id: &str, clock: u64, text: &str) -> Json {
        let public_data = json!({"docId": doc_id, "refSnapshotId": snapshot_id, "clock": clock});
        self.sign("secsync_update", &ciphertext(text), public_data)
    }

    pub fn ephemeral_message(&self, doc_id: &str, text: &str) -> Json {
        self.sign("secsync_ephemeral_message", &ciphertext(text), json!({"docId": doc_id}))
    }
}

/// Something that looks like a ciphertext.
pub fn ciphertext(text: &str) -> String {
    base64url([&[7; 48], text.as_bytes()].concat())
}

pub fn saved(snapshot_id: &str, clock: u64) -> Json {
    json!({"type": "update-saved", "snapshotId": snapshot_id, "clock": clock})
}

pub fn refused(snapshot_id: &str, clock: u64) -> Json {
    json!({"type": "update-save-failed", "snapshotId": snapshot_id, "clock": clock, "requiresNewSnapshot": false})
}

pub fn failed() -> Json {
    json!({"type": "snapshot-save-failed"})
}

pub fn empty_document() -> Json {
    json!({"type": "document", "updates": [], "snapshotProofChain": []})
}
