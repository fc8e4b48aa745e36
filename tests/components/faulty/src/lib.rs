//! A component that does what its client says, faults included. A text frame holds commands, one a line; `run` knows
//! them. What a command says comes back as a text frame.
//!
//! A call that is made again after a failure says `failure KIND` and does nothing, unless its frame begins with
//! `again`: then it does the same again.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "syncline:sync/guest",
        generate_all,
    });
}

mod excess;
mod objects;
mod plan;
mod run;

use std::cell::RefCell;

use bindings::exports::syncline::sync::{http, live, mounts, socket, timer};
use bindings::syncline::host::pubsub::{Class, Order, Publication};
use bindings::syncline::host::types::{Close, ConnectionId, Frame, RequestHead};
use bindings::syncline::host::{executor, storage};
use run::{DATABASE, Run, statement};

struct Component;

thread_local! {
    /// The settings of the mount.
    static SETTINGS: RefCell<String> = const { RefCell::new(String::new()) };
    /// The documents that came with them.
    static DOCUMENTS: RefCell<Vec<(String, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// What is to happen in an export: `{"faults": {"start": "trap"}}`.
fn fault(settings: &str, export: &str) -> String {
    let settings: serde_json::Value = serde_json::from_str(settings).unwrap_or_default();
    settings["faults"][export].as_str().unwrap_or_default().to_owned()
}

fn configured_fault(export: &str) -> String {
    SETTINGS.with_borrow(|settings| fault(settings, export))
}

impl mounts::Guest for Component {
    fn check(_protocol: String, settings: String) -> Result<mounts::Plan, Vec<String>> {
        run::fall(&fault(&settings, "check"));
        plan::plan(&settings)
    }

    fn configure(
        _mount: String,
        _protocol: String,
        _revision: u64,
        settings: String,
        documents: Vec<(String, Vec<u8>)>,
    ) -> Result<(), String> {
        run::fall(&fault(&settings, "configure"));
        if documents.iter().any(|(_, content)| content == b"refused") {
            return Err("a document is refused".into());
        }
        DOCUMENTS.set(documents);
        SETTINGS.set(settings);
        Ok(())
    }

    fn start(_mount: String, _cursor: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        run::fall(&configured_fault("start"));
        let create = "CREATE TABLE IF NOT EXISTS item (key TEXT PRIMARY KEY, value TEXT NOT NULL)";
        let transaction = executor::Transaction::begin(DATABASE).map_err(|error| run::word_of(&error))?;
        transaction.execute(&statement(create, &[])).map_err(|error| run::word_of(&error))?;
        executor::Transaction::commit(transaction).map_err(|error| run::word_of(&error))?;
        Ok(None)
    }

    fn stop(_mount: String) {
        run::fall(&configured_fault("stop"));
    }
}

/// Commands in a query or on one line: `;` stands for the end of a line, `+` for a space.
fn unfolded(line: &str) -> String {
    line.replace(';', "\n").replace('+', " ")
}

impl http::Guest for Component {
    fn admit(_mount: String, _connection: u64, head: RequestHead) -> http::Admission {
        run::fall(&configured_fault("admit"));
        if let Some(accept) = objects::admit(&head) {
            return http::Admission::Accept(accept);
        }
        let work = if head.path.ends_with("/heavy") { http::Work::Heavy } else { http::Work::Usual };
        http::Admission::Accept(http::Accept { body: http::BodyPlan::Inline(1 << 20), context: Vec::new(), work })
    }

    fn handle(
        mount: String,
        connection: u64,
        head: RequestHead,
        _context: Option<Vec<u8>>,
        body: http::BodyIn,
        failure: Option<live::Failure>,
    ) -> http::Response {
        if let Some(response) = objects::handle(&head, &body) {
            return response;
        }
        let mut run = Run::new(mount, connection, "");
        let text = match body {
            http::BodyIn::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            _ => unfolded(head.query.as_deref().unwrap_or("")),
        };
        if head.path.ends_with("/stream") {
            run.say(format!("hello {connection}"));
        }
        // Of a generated body the commands are its pieces.
        if !head.path.ends_with("/generated") {
            run.frame(&text, failure);
        }
        let headers = std::mem::take(&mut run.headers);
        let body = match head.path.rsplit('/').next() {
            Some("parked") => match run.parked.take() {
                Some(parked) => http::BodyOut::Parked(parked),
                None => http::BodyOut::Bytes(run.said().into_bytes()),
            },
            Some("generated") => {
                let view = executor::Snapshot::open(DATABASE).ok();
                http::BodyOut::Generated(http::Generated { cursor: text.into_bytes(), view })
            }
            Some("stream") => http::BodyOut::Stream(http::StreamStart { keepalive: run.keepalive.take(), start: run.outcome }),
            _ => http::BodyOut::Bytes(run.said().into_bytes()),
        };
        http::Response { status: 200, headers, body }
    }

    /// The state holds commands.
    fn resume(mount: String, connection: u64, state: Vec<u8>) -> http::Response {
        let mut run = Run::new(mount, connection, "");
        run.frame(&unfolded(&String::from_utf8_lossy(&state)), None);
        let body = match run.parked.take() {
            Some(parked) => http::BodyOut::Parked(parked),
            None => http::BodyOut::Bytes(run.said().into_bytes()),
        };
        http::Response { status: 200, headers: run.headers, body }
    }

    /// The cursor holds lines, one a piece: `row KEY` gives a row as the view shows it, other commands what they say.
    fn generate(mount: String, cursor: Vec<u8>, view: Option<&executor::Snapshot>) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let cursor = String::from_utf8_lossy(&cursor).into_owned();
        let (line, rest) = cursor.split_once('\n').unwrap_or((&cursor, ""));
        let piece = match line.split_once(' ') {
            Some(("row", key)) => run::row(view.ok_or("no view")?, key)?.unwrap_or_else(|| "nothing".into()),
            Some(("fail", text)) => return Err(text.into()),
            _ => {
                let mut run = Run::new(mount, 0, "");
                run.frame(line, None);
                run.said()
            }
        };
        Ok((piece.into_bytes(), (!rest.is_empty()).then(|| rest.as_bytes().to_vec())))
    }
}

impl socket::Guest for Component {
    fn upgrade(mount: String, connection: u64, head: RequestHead) -> socket::UpgradeResult {
        let mut run = Run::new(mount, connection, "");
        run.say(format!("hello {connection}"));
        run.frame(&unfolded(head.query.as_deref().unwrap_or("")), None);
        socket::UpgradeResult::Accept(socket::Accept { subprotocol: None, headers: Vec::new(), start: run.outcome })
    }

    fn receive(mount: String, connection: live::Connection, inputs: Vec<socket::Input>) -> live::Outcome {
        let mut run = Run::new(mount, connection.id, &String::from_utf8_lossy(&connection.attachment));
        for (index, input) in inputs.into_iter().enumerate() {
            match input {
                socket::Input::Frame(Frame::Text(text)) => run.frame(&text, connection.failure),
                socket::Input::Frame(Frame::Binary(bytes)) => run.say(format!("binary {}", bytes.len())),
                socket::Input::Wake => run.say("wake".into()),
                socket::Input::Drained => run.say("drained".into()),
                socket::Input::TaskDone(result) => {
                    run::count("task-done", 1);
                    run.say(format!("done {}", String::from_utf8_lossy(&result)));
                }
                socket::Input::TaskFailed(socket::TaskFailure { work, failure }) => {
                    run.say(format!("task-failed {} {}", run::word_of_failure(failure), String::from_utf8_lossy(&work)));
                }
            }
            if let Some(delay_ms) = run.deferred.take() {
                run.outcome.defer = Some((u32::try_from(index).unwrap_or(u32::MAX), delay_ms));
                break;
            }
        }
        run.outcome
    }

    fn task(mount: String, connection: live::Connection, work: Vec<u8>) -> Vec<u8> {
        let mut run = Run::new(mount, connection.id, "");
        run.frame(&unfolded(&String::from_utf8_lossy(&work)), None);
        run.said().into_bytes()
    }

    fn closed(_mount: String, _connection: live::Connection, _code: u16) {
        run::count("closed", 1);
        run::fall(&configured_fault("closed"));
    }

    fn deliver(mount: String, publication: Publication, groups: Vec<socket::Group>) -> socket::Deliveries {
        run::count(&format!("deliver {}", publication.topic), 1);
        let message = String::from_utf8_lossy(&publication.message).into_owned();
        if let Some(commands) = message.strip_prefix('!') {
            Run::new(mount, 0, "").frame(&unfolded(commands), None);
        }
        let cursor_after = publication.order.as_ref().map(|order| order.sequence);
        let count = groups.len();
        let frame = |group: &socket::Group| {
            let parts =
                vec![socket::Part::Bytes(format!("{} of {count}: {message} since ", group.name).into_bytes()), socket::Part::CursorDecimal];
            socket::Template { binary: false, parts, cursor_after, alarm_after_ms: None }
        };
        let outcome = |(index, group): (usize, &socket::Group)| match group.name.as_str() {
            "skip" => socket::GroupOutcome::Skip,
            "leave" => socket::GroupOutcome::Leave(None),
            "bye" => socket::GroupOutcome::Leave(Some((Frame::Text("bye".into()), Close { code: 4001, reason: String::new() }))),
            _ => socket::GroupOutcome::Send(vec![u32::try_from(index).unwrap_or(u32::MAX)]),
        };
        socket::Deliveries { frames: groups.iter().map(frame).collect(), outcomes: groups.iter().enumerate().map(outcome).collect() }
    }

    /// The publications of a key are the rows `KEY:1`, `KEY:2` …
    fn refill(_mount: String, topic: String, key: String, after: u64) -> Vec<Publication> {
        let mut found = Vec::new();
        let mut sequence = after + 1;
        while let Ok(Some(text)) = run::view(&format!("{key}:{sequence}")) {
            let order = Some(Order { key: key.clone(), after: sequence - 1, sequence });
            let message = text.into_bytes();
            found.push(Publication { topic: topic.clone(), message, order, class: Class::MustDeliver, except: None, close: None });
            sequence += 1;
        }
        found
    }
}

impl timer::Guest for Component {
    fn post_failed(_mount: String, _connection: ConnectionId, post: timer::FailedPost) {
        let told = format!("{} {} {}", post.attempts, post.given_up, String::from_utf8_lossy(&post.body));
        storage::set("failed-post", told.as_bytes(), None).expect("facts can be kept");
    }

    fn fire(mount: String, name: String, payload: Vec<u8>, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut run = Run::new(mount, 0, "");
        run.job = Some((name, cursor.and_then(|cursor| String::from_utf8(cursor).ok()?.parse().ok()).unwrap_or(0)));
        run.frame(&unfolded(&String::from_utf8_lossy(&payload)), None);
        run.next_step.map(|step| step.to_string().into_bytes())
    }
}

bindings::export!(Component with_types_in bindings);

/// A document that the host handed over, as text.
fn document(name: &str) -> Option<String> {
    let found = |documents: &Vec<(String, Vec<u8>)>| documents.iter().find(|(known, _)| known == name).map(|(_, content)| content.clone());
    DOCUMENTS.with_borrow(found).map(|content| String::from_utf8_lossy(&content).into_owned())
}

/// A key-value fact as text.
fn fact(key: &str) -> Option<String> {
    storage::get(key).ok()?.and_then(|value| String::from_utf8(value).ok())
}
