//! The exports of the contract over the registry of `syncline_guest`.

use std::cell::RefCell;
use std::rc::Rc;

use syncline_guest::contract::exports::syncline::sync::{http, live, mounts, socket, timer};
use syncline_guest::contract::syncline::host::executor;
use syncline_guest::host::{self, Host, LentSnapshot};
use syncline_guest::imports::{ConnectionId, Imports, Publication, Query, RequestHead};
use syncline_guest::registry::{self, Mount, Mounts};

thread_local! {
    /// An instance has one thread; what it knows follows from `configure`.
    static MOUNTS: RefCell<Mounts> = RefCell::default();
}

/// The component.
pub struct Component;

fn imports() -> Imports<'static> {
    host::imports(&Host)
}

/// A mount that the host configured. It always does so first, so another name is a fault of the host: trap.
fn mount(name: &str) -> Rc<dyn Mount> {
    let found = MOUNTS.with_borrow(|mounts| mounts.get(name));
    found.unwrap_or_else(|| panic!("mount {name:?} was called before it was configured"))
}

impl mounts::Guest for Component {
    fn check(protocol: String, settings: String) -> Result<mounts::Plan, Vec<String>> {
        registry::check(&protocol, &settings)
    }

    fn configure(
        mount: String,
        protocol: String,
        revision: u64,
        settings: String,
        documents: Vec<(String, Vec<u8>)>,
    ) -> Result<(), String> {
        MOUNTS.with_borrow_mut(|mounts| mounts.configure(&mount, &protocol, revision, &settings, documents))
    }

    fn start(mount_name: String, cursor: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        mount(&mount_name).start(imports(), cursor)
    }

    fn stop(mount_name: String) {
        mount(&mount_name).stop(imports());
    }
}

impl http::Guest for Component {
    fn admit(mount_name: String, connection: ConnectionId, head: RequestHead) -> http::Admission {
        mount(&mount_name).admit(imports(), connection, head)
    }

    fn handle(
        mount_name: String,
        connection: ConnectionId,
        head: RequestHead,
        context: Option<Vec<u8>>,
        body: http::BodyIn,
        failure: Option<live::Failure>,
    ) -> http::Response {
        registry::answer(mount(&mount_name).as_ref(), imports(), connection, head, context, body, failure)
    }

    fn resume(mount_name: String, connection: ConnectionId, state: Vec<u8>) -> http::Response {
        mount(&mount_name).resume(imports(), connection, state)
    }

    fn generate(mount_name: String, cursor: Vec<u8>, view: Option<&executor::Snapshot>) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let view = view.map(LentSnapshot);
        mount(&mount_name).generate(imports(), cursor, view.as_ref().map(|view| view as &dyn Query))
    }
}

impl socket::Guest for Component {
    fn upgrade(mount_name: String, connection: ConnectionId, head: RequestHead) -> socket::UpgradeResult {
        mount(&mount_name).upgrade(imports(), connection, head)
    }

    fn receive(mount_name: String, connection: live::Connection, inputs: Vec<socket::Input>) -> live::Outcome {
        mount(&mount_name).receive(imports(), connection, inputs)
    }

    fn task(mount_name: String, connection: live::Connection, work: Vec<u8>) -> Vec<u8> {
        mount(&mount_name).task(imports(), connection, work)
    }

    fn closed(mount_name: String, connection: live::Connection, code: u16) {
        mount(&mount_name).closed(imports(), connection, code);
    }

    fn deliver(mount_name: String, publication: Publication, groups: Vec<socket::Group>) -> socket::Deliveries {
        mount(&mount_name).deliver(imports(), publication, groups)
    }

    fn refill(mount_name: String, topic: String, key: String, after: u64) -> Vec<Publication> {
        mount(&mount_name).refill(imports(), &topic, &key, after)
    }
}

impl timer::Guest for Component {
    fn fire(mount_name: String, name: String, payload: Vec<u8>, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        mount(&mount_name).fire(imports(), &name, payload, cursor)
    }

    fn post_failed(mount_name: String, connection: ConnectionId, post: timer::FailedPost) {
        mount(&mount_name).post_failed(imports(), connection, post);
    }
}
