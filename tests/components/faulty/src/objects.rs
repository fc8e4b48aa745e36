//! Requests below `/object/`: a PUT makes an object of its body, a GET gives one. The query says what else is wanted:
//! `max=BYTES`, `sha=HASH`, `from=OFFSET`, `bytes=COUNT`.

use crate::bindings::exports::syncline::sync::http;
use crate::bindings::syncline::host::storage::ByteRange;
use crate::bindings::syncline::host::types::{Header, RequestHead};

fn key(head: &RequestHead) -> Option<String> {
    head.path.split_once("/object/").map(|(_, key)| key.to_owned())
}

fn wanted<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    let pairs = head.query.as_deref().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn number(head: &RequestHead, name: &str) -> Option<u64> {
    wanted(head, name)?.parse().ok()
}

/// Where the body of a PUT goes.
pub fn admit(head: &RequestHead) -> Option<http::Accept> {
    let key = key(head).filter(|_| head.method == "PUT")?;
    let max_bytes = number(head, "max").unwrap_or(u64::MAX);
    let upload = http::Upload { key, content_type: "a/b".into(), sha256: wanted(head, "sha").map(str::to_owned), max_bytes };
    Some(http::Accept { body: http::BodyPlan::Object(upload), context: Vec::new(), work: http::Work::Usual })
}

/// What became of the body, or an object.
pub fn handle(head: &RequestHead, body: &http::BodyIn) -> Option<http::Response> {
    let key = key(head)?;
    let said = match body {
        http::BodyIn::Stored(http::Stored { key, size, sha256, existed }) => format!("stored {key} {size} {sha256} {existed}"),
        http::BodyIn::Failed(http::BodyFailure::TooLarge) => "too large".into(),
        http::BodyIn::Failed(http::BodyFailure::WrongHash) => "wrong hash".into(),
        http::BodyIn::Failed(http::BodyFailure::Unavailable) => "unavailable".into(),
        http::BodyIn::Empty | http::BodyIn::Bytes(_) => {
            let range = number(head, "from").map(|start| ByteRange { start, length: number(head, "bytes").unwrap_or(u64::MAX) });
            // The host knows better how long it is.
            let headers =
                [("content-type", "a/b"), ("content-length", "1")].map(|(name, value)| Header { name: name.into(), value: value.into() });
            return Some(http::Response { status: 200, headers: headers.into(), body: http::BodyOut::Object((key, range)) });
        }
    };
    Some(http::Response { status: 200, headers: Vec::new(), body: http::BodyOut::Bytes(said.into_bytes()) })
}
