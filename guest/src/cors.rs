//! Cross-origin requests: which origins may read answers.

use crate::http::{header, header_text};
use crate::imports::{Header, RequestHead};
use crate::registry::{Response, empty_response};

/// What a mount lets pages of other origins do.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Origins as browsers send them; `*` is any, one that ends in `:*` has any port or none.
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
            [origin] if !origin.ends_with('*') => self.for_origin(origin),
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
        self.origins.iter().any(|allowed| match allowed.strip_suffix(":*") {
            Some(host) => origin.strip_prefix(host).is_some_and(is_port_or_nothing),
            None => allowed == "*" || allowed == origin,
        })
    }

    fn for_origin(&self, origin: &str) -> Vec<Header> {
        vec![
            header("access-control-allow-origin", origin),
            header("vary", "Origin"),
            header("access-control-expose-headers", self.exposed_headers),
        ]
    }
}

/// Whether a text is what may follow a host: nothing, or a port.
fn is_port_or_nothing(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()),
        None => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors { origins: origins.iter().map(|&origin| origin.into()).collect(), methods: "", request_headers: "", exposed_headers: "" }
    }

    #[test]
    fn an_origin_with_any_port_is_of_that_host_only() {
        let cors = cors(&["http://localhost:*", "https://app.example"]);
        for origin in ["http://localhost", "http://localhost:5173", "https://app.example"] {
            assert!(cors.allows(origin), "{origin}");
        }
        for origin in [
            "https://localhost:1",
            "http://localhost:",
            "http://localhost:1x",
            "http://localhost.evil.example:80",
            "https://app.example:1",
            "null",
        ] {
            assert!(!cors.allows(origin), "{origin}");
        }
    }

    #[test]
    fn answers_given_blindly_name_no_pattern() {
        let allowed =
            |origins: &[&str]| cors(origins).blind_headers().first().map(|header| String::from_utf8_lossy(&header.value).into_owned());
        assert_eq!(allowed(&[]), None);
        assert_eq!(allowed(&["https://app.example"]).as_deref(), Some("https://app.example"));
        assert_eq!(allowed(&["http://localhost:*"]).as_deref(), Some("*"));
    }
}
