//! HTTP as rooms need it: reading heads, and answers in JSON.

use serde_json::{Map, Value as Json};

use crate::gzip;
use crate::imports::{Header, RequestHead};
use crate::registry::{BodyOut, Response};

/// Smaller answers are sent as they are: one packet holds them.
const GZIP_BYTES_MIN: usize = 1024;

/// A header to send.
pub fn header(name: &str, value: impl Into<Vec<u8>>) -> Header {
    Header { name: name.into(), value: value.into() }
}

/// The first value of a header, where it is UTF-8, without the white space around it.
pub fn header_text<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    let found = head.headers.iter().find(|header| header.name == name)?;
    std::str::from_utf8(&found.value).ok().map(str::trim)
}

/// The elements of a header that is a list, over all its occurrences.
pub fn header_list<'a>(head: &'a RequestHead, name: &str) -> impl Iterator<Item = &'a str> {
    let values = head.headers.iter().filter(move |header| header.name == name);
    values.filter_map(|header| std::str::from_utf8(&header.value).ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// The size that the head announces, in bytes.
pub fn content_length(head: &RequestHead) -> Option<u64> {
    header_text(head, "content-length")?.parse().ok()
}

/// A query parameter, form-decoded. Of several the first counts.
pub fn query_parameter(head: &RequestHead, name: &str) -> Option<String> {
    crate::encoding::query_parameter(head.query.as_deref()?, name)
}

/// Whether the client takes a response in gzip.
pub fn accepts_gzip(head: &RequestHead) -> bool {
    let refused = |parameters: &str| parameters.trim().strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0_f32));
    header_list(head, "accept-encoding").any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !refused(parameters)
    })
}

/// Whether the body came as it is or in gzip, and in no other coding.
pub fn has_known_coding(head: &RequestHead) -> bool {
    is_plain(head) || is_gzip(head) && codings(head).count() == 1
}

/// Whether the body of the request came as it is.
pub fn is_plain(head: &RequestHead) -> bool {
    codings(head).all(|coding| coding.eq_ignore_ascii_case("identity"))
}

fn codings(head: &RequestHead) -> impl Iterator<Item = &str> {
    header_list(head, "content-encoding").filter(|coding| !coding.is_empty())
}

/// Whether the body of the request came in gzip.
pub fn is_gzip(head: &RequestHead) -> bool {
    header_text(head, "content-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"))
}

/// An answer in JSON that nobody keeps.
pub fn json_response(status: u16, body: impl Into<Vec<u8>>) -> Response {
    let headers = vec![header("content-type", "application/json"), header("cache-control", "no-store")];
    Response { status, headers, body: BodyOut::Bytes(body.into()) }
}

/// An answer for people, that nobody keeps.
pub fn text_response(status: u16, text: &str) -> Response {
    let headers = vec![header("content-type", "text/plain; charset=utf-8"), header("cache-control", "no-store")];
    Response { status, headers, body: BodyOut::Bytes(format!("{text}\n").into_bytes()) }
}

/// Puts a body of bytes in gzip, where that is worth it and the client takes it.
pub fn compress(head: &RequestHead, response: &mut Response) {
    let BodyOut::Bytes(body) = &response.body else { return };
    if body.len() <= GZIP_BYTES_MIN || !accepts_gzip(head) {
        return;
    }
    let deflated = gzip::deflate(body);
    if deflated.len() < body.len() {
        response.body = BodyOut::Bytes(deflated);
        response.headers.push(header("content-encoding", "gzip"));
    }
    response.headers.push(header("vary", "Accept-Encoding"));
}

/// The head of a request as apps get it: JSON with `method`, `path`, `query`, `headers` (by name; values that are not
/// UTF-8 are left out), `remoteAddress` and `secure`.
pub fn head_json(head: &RequestHead) -> Json {
    let mut headers = Map::new();
    for Header { name, value } in &head.headers {
        if let Ok(value) = std::str::from_utf8(value) {
            match headers.get_mut(name) {
                Some(Json::String(before)) => {
                    before.push_str(", ");
                    before.push_str(value);
                }
                _ => {
                    headers.insert(name.clone(), value.into());
                }
            }
        }
    }
    serde_json::json!({
        "method": head.method, "path": head.path, "query": head.query, "headers": headers,
        "remoteAddress": head.remote_address, "secure": head.secure,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A GET with headers and a query.
    pub(crate) fn head(headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: "GET".into(),
            path: "/".into(),
            query: Some("a=1+2&a=3".into()),
            headers: headers.iter().map(|(name, value)| header(name, *value)).collect(),
            remote_address: "::1".into(),
            secure: false,
        }
    }

    #[test]
    fn codings_are_read_with_their_weights() {
        for (accepted, expected) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("gzip; q=0.0", false), ("identity", false), ("", false)]
        {
            assert_eq!(accepts_gzip(&head(&[("accept-encoding", accepted)])), expected, "{accepted}");
        }
        assert!(accepts_gzip(&head(&[("accept-encoding", "br"), ("accept-encoding", "gzip")])));
    }

    #[test]
    fn an_app_sees_headers_of_one_name_joined() {
        let shown = head_json(&head(&[("x-a", "1"), ("x-a", "2")]));
        assert_eq!(shown["headers"], serde_json::json!({"x-a": "1, 2"}));
        assert_eq!(query_parameter(&head(&[]), "a").as_deref(), Some("1 2"));
    }
}
