//! Cross-origin requests: which origins may read answers.

use crate::http::{header, header_text};
use crate::imports::{Header, RequestHead};
use crate::registry::{Response, empty_response};

/// What a mount lets pages of other origins do.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Origins as browsers send them; `*` is any.
    pub origins: Vec<String>,
    /// Methods of a preflight's answer.
    pub methods: &'static str,
    /// Request headers of a preflight's answer.
    pub request_headers: &'static str,
    /// Response headers that pages may read.
    pub exposed_headers: &'static str,
}

impl Cors {
    /// What every response to this request carries, errors too.
    pub fn headers(&self, head: &RequestHead) -> Vec<Header> {
        match header_text(head, "origin") {
            Some(origin) if self.allows(origin) => self.for_origin(origin),
            _ => Vec::new(),
        }
    }

    /// What answers carry that are given without a look at the request. They hold nothing worth hiding, so where several
    /// origins are allowed any may read them.
    pub fn blind_headers(&self) -> Vec<Header> {
        match self.origins.as_slice() {
            [] => Vec::new(),
            [origin] => self.for_origin(origin),
            _ => self.for_origin("*"),
        }
    }

    /// The answer to a preflight. An origin that is not listed learns nothing from it, so its page may not go on.
    pub fn preflight(&self, head: &RequestHead) -> Response {
        let mut headers = self.headers(head);
        headers.push(header("access-control-allow-methods", self.methods));
        headers.push(header("access-control-allow-headers", self.request_headers));
        headers.push(header("access-control-max-age", "86400"));
        Response { headers, ..empty_response(204) }
    }

    /// Whether pages of an origin may use the mount.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }

    fn for_origin(&self, origin: &str) -> Vec<Header> {
        vec![
            header("access-control-allow-origin", origin),
            header("vary", "Origin"),
            header("access-control-expose-headers", self.exposed_headers),
        ]
    }
}
