//! Plain HTTP on the mount: there is nothing to be had (docs/protocols/secsync.md, sections 2.1 and 11).

use crate::imports::{Header, RequestHead};
use crate::registry::{Response, empty_response};

/// 204 for a preflight, 404 for everything else, with the CORS headers that clients of the original server see.
pub fn refusal(head: &RequestHead) -> Response {
    let mut headers = vec![header("access-control-allow-origin", b"*"), header("access-control-allow-credentials", b"true")];
    let preflight = head.method == "OPTIONS";
    if preflight {
        headers.push(header("access-control-allow-methods", b"GET,HEAD,PUT,PATCH,POST,DELETE"));
        if let Some(asked) = head.headers.iter().find(|header| header.name == "access-control-request-headers") {
            headers.push(header("access-control-allow-headers", &asked.value));
        }
    }
    Response { headers, ..empty_response(if preflight { 204 } else { 404 }) }
}

fn header(name: &str, value: &[u8]) -> Header {
    Header { name: name.into(), value: value.to_vec() }
}
