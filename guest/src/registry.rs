//! The protocols of this component, and the mounts that an instance has been given settings for.
//!
//! To add a protocol: a folder beside this file and one line in [`PROTOCOLS`].

use std::collections::HashMap;
use std::rc::Rc;

use crate::contract::exports::syncline::sync::{http, live, mounts, socket, timer};
use crate::imports::{ConnectionId, Imports, Publication, RequestHead};

pub use http::{Accept as AdmitAccept, Admission, BodyFailure, BodyIn, BodyOut, BodyPlan, Response, Work};
pub use live::{Alarm, Connection, Failure, Outcome};
pub use mounts::Plan;
pub use socket::{Deliveries, Group, Input, UpgradeResult};
pub use timer::FailedPost;

/// Every protocol that this component speaks.
pub static PROTOCOLS: &[&dyn Protocol] = &[&crate::secsync::Secsync, &crate::plasma::Plasma, &crate::files::Files];

/// A protocol: what can be mounted.
pub trait Protocol: Sync {
    /// The name by which the configuration mounts it.
    fn name(&self) -> &'static str;
    /// Checks settings (a JSON object, the effective `path` among them) without touching anything. Each problem names its key.
    fn check(&self, settings: &str) -> Result<Plan, Vec<String>>;
    /// Makes a mount from settings that [`Protocol::check`] accepted. `documents` are those of the plan, by name.
    fn configure(&self, mount: &str, settings: &str, documents: Vec<(String, Vec<u8>)>) -> Result<Rc<dyn Mount>, String>;
}

/// One mount of a protocol in one instance. It keeps nothing between calls but what follows from its settings.
///
/// Each function is the contract's of the same name (`wit/handler.wit`). What a protocol does not use stays at its default.
#[allow(unused_variables)]
pub trait Mount {
    /// Creates or migrates what the mount keeps; called again with the cursor until it gives none.
    fn start(&self, imports: Imports<'_>, cursor: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
    /// This process stops: last publications.
    fn stop(&self, imports: Imports<'_>) {}

    /// Decides from the head alone where a request's body goes.
    fn admit(&self, imports: Imports<'_>, connection: ConnectionId, head: RequestHead) -> Admission {
        Admission::Refuse(empty_response(404))
    }
    /// Answers a request.
    fn handle(&self, imports: Imports<'_>, request: Request) -> Response {
        empty_response(404)
    }
    /// Answers a parked request.
    fn resume(&self, imports: Imports<'_>, connection: ConnectionId, state: Vec<u8>) -> Response {
        empty_response(500)
    }
    /// The next piece of a generated response, and the cursor of the one after it.
    fn generate(
        &self,
        imports: Imports<'_>,
        cursor: Vec<u8>,
        view: Option<&dyn crate::imports::Query>,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        Err("this mount generates nothing".into())
    }

    /// Accepts or refuses a WebSocket.
    fn upgrade(&self, imports: Imports<'_>, connection: ConnectionId, head: RequestHead) -> UpgradeResult {
        UpgradeResult::Refuse(empty_response(404))
    }
    /// What happened on one connection, in order.
    fn receive(&self, imports: Imports<'_>, connection: Connection, inputs: Vec<Input>) -> Outcome {
        Outcome::default()
    }
    /// Slow work beside the frame order.
    fn task(&self, imports: Imports<'_>, connection: Connection, work: Vec<u8>) -> Vec<u8> {
        Vec::new()
    }
    /// The connection is gone.
    fn closed(&self, imports: Imports<'_>, connection: Connection, code: u16) {}
    /// The frames of a publication for the distinct groups of its local subscribers.
    fn deliver(&self, imports: Imports<'_>, publication: Publication, groups: Vec<Group>) -> Deliveries {
        Deliveries { frames: Vec::new(), outcomes: groups.iter().map(|_| socket::GroupOutcome::Skip).collect() }
    }
    /// The publications under a key after a sequence.
    fn refill(&self, imports: Imports<'_>, topic: &str, key: &str, after: u64) -> Vec<Publication> {
        Vec::new()
    }

    /// A job is due. A cursor asks to be called again with it.
    fn fire(&self, imports: Imports<'_>, name: &str, payload: Vec<u8>, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        None
    }
    /// A post failed for the first time, or was given up.
    fn post_failed(&self, imports: Imports<'_>, connection: ConnectionId, post: FailedPost) {}
}

/// A request with its body, as `http.handle` gets it.
pub struct Request {
    /// The request's id; it may be subscribed and parked.
    pub connection: ConnectionId,
    /// Method, path, headers.
    pub head: RequestHead,
    /// What `admit` said.
    pub context: Vec<u8>,
    /// The body, or where it was put.
    pub body: BodyIn,
    /// Set when this very call just failed on another instance.
    pub failure: Option<Failure>,
}

/// Answers a request, which may not have been admitted yet.
pub fn answer(
    mount: &dyn Mount,
    imports: Imports<'_>,
    connection: ConnectionId,
    head: RequestHead,
    context: Option<Vec<u8>>,
    body: BodyIn,
    failure: Option<Failure>,
) -> Response {
    let (context, body) = match context {
        Some(context) => (context, body),
        None => match mount.admit(imports, connection, head.clone()) {
            Admission::Refuse(refusal) => return refusal,
            Admission::Accept(accept) => (accept.context, within(body, &accept.body)),
        },
    };
    mount.handle(imports, Request { connection, head, context, body, failure })
}

/// A body that came before it was admitted, as it would have come after.
fn within(body: BodyIn, plan: &BodyPlan) -> BodyIn {
    match (&body, plan) {
        (BodyIn::Bytes(bytes), BodyPlan::Inline(bytes_max)) if bytes.len() as u64 > *bytes_max => BodyIn::Failed(BodyFailure::TooLarge),
        _ => body,
    }
}

/// A response without a body.
pub fn empty_response(status: u16) -> Response {
    Response { status, headers: Vec::new(), body: BodyOut::Empty }
}

impl Default for Outcome {
    /// Nothing happens.
    fn default() -> Self {
        Outcome {
            send: Vec::new(),
            attachment: None,
            close: None,
            seen: Vec::new(),
            cursors: Vec::new(),
            alarm: Alarm::Keep,
            pace: false,
            tasks: Vec::new(),
            defer: None,
            quiet_ms: None,
        }
    }
}

/// The protocol of a name.
pub fn protocol(name: &str) -> Option<&'static dyn Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.name() == name)
}

/// Checks the settings of a mount-to-be.
pub fn check(protocol_name: &str, settings: &str) -> Result<Plan, Vec<String>> {
    match protocol(protocol_name) {
        Some(protocol) => protocol.check(settings),
        None => {
            let known: Vec<_> = PROTOCOLS.iter().map(|protocol| protocol.name()).collect();
            Err(vec![format!("protocol: {protocol_name:?} is not one of {known:?}")])
        }
    }
}

/// The mounts that one instance serves.
#[derive(Default)]
pub struct Mounts {
    by_name: HashMap<String, (u64, Rc<dyn Mount>)>,
}

impl Mounts {
    /// Takes settings and documents for a mount; the same revision again is nothing new.
    pub fn configure(
        &mut self,
        mount: &str,
        protocol_name: &str,
        revision: u64,
        settings: &str,
        documents: Vec<(String, Vec<u8>)>,
    ) -> Result<(), String> {
        if self.by_name.get(mount).is_some_and(|(have, _)| *have == revision) {
            return Ok(());
        }
        let protocol = protocol(protocol_name).ok_or_else(|| format!("protocol {protocol_name:?} is unknown"))?;
        let configured = protocol.configure(mount, settings, documents)?;
        self.by_name.insert(mount.to_owned(), (revision, configured));
        Ok(())
    }

    /// A configured mount.
    pub fn get(&self, mount: &str) -> Option<Rc<dyn Mount>> {
        self.by_name.get(mount).map(|(_, mount)| mount.clone())
    }
}
