//! Answers on their way out.

use crate::bindings::syncline::host::types::Header;
use crate::ports::{AnswerHead, Exchange};

/// Headers that a component may give an answer.
const HEADERS_MAX: usize = 1000;

/// Sends an answer without a body.
pub(crate) async fn send_status(exchange: &mut impl Exchange, status: u16) {
    send_whole(exchange, status, Vec::new(), Vec::new(), true).await;
}

/// Sends a JSON object.
pub(crate) async fn send_json(exchange: &mut impl Exchange, status: u16, body: &serde_json::Value, has_body: bool) {
    let headers = vec![Header { name: "content-type".into(), value: b"application/json".to_vec() }];
    send_whole(exchange, status, headers, body.to_string().into_bytes(), has_body).await;
}

/// Sends an answer whose body is there.
pub(crate) async fn send_whole(exchange: &mut impl Exchange, status: u16, headers: Vec<Header>, body: Vec<u8>, wants_body: bool) {
    let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let head = head(status, headers, Some(length), wants_body);
    let body = if head.has_body { body } else { Vec::new() };
    exchange.answer(head, body).await;
}

/// The head of an answer whose body has so many bytes, where that is known. `wants_body`: it was not asked for by HEAD.
pub(crate) fn head(status: u16, mut headers: Vec<Header>, length: Option<u64>, wants_body: bool) -> AnswerHead {
    let has_no_body = matches!(status, 204 | 304);
    let has_body = wants_body && !has_no_body;
    headers.truncate(HEADERS_MAX);
    if has_body && length.is_some() {
        // Whatever the component says: bytes are counted here.
        headers.retain(|header| !header.name.eq_ignore_ascii_case("content-length"));
    }
    let is_given = headers.iter().any(|header| header.name.eq_ignore_ascii_case("content-length"));
    if let Some(length) = length.filter(|_| !is_given && !has_no_body) {
        headers.push(Header { name: "content-length".into(), value: length.to_string().into_bytes() });
    }
    let status = if (200..=599).contains(&status) { status } else { 500 };
    AnswerHead { status, headers, has_body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length_of(head: &AnswerHead) -> Option<&str> {
        let header = head.headers.iter().find(|header| header.name == "content-length")?;
        std::str::from_utf8(&header.value).ok()
    }

    fn given(length: &str) -> Vec<Header> {
        vec![Header { name: "content-length".into(), value: length.into() }]
    }

    #[test]
    fn the_length_is_that_of_the_body_and_said_where_there_is_none_to_send() {
        assert_eq!(length_of(&head(200, given("9"), Some(3), true)), Some("3"));
        assert_eq!(length_of(&head(200, given("9"), Some(0), false)), Some("9"), "HEAD: the component knows what GET would give");
        assert_eq!(length_of(&head(200, Vec::new(), Some(3), false)), Some("3"));
        assert_eq!(length_of(&head(200, Vec::new(), None, true)), None);
        for status in [204, 304] {
            let head = head(status, Vec::new(), Some(0), true);
            assert!(length_of(&head).is_none() && !head.has_body);
        }
    }

    #[test]
    fn what_is_no_status_of_an_answer_is_an_error_of_the_server() {
        for (given, sent) in [(101, 500), (99, 500), (600, 500), (200, 200), (599, 599)] {
            assert_eq!(head(given, Vec::new(), None, true).status, sent);
        }
    }
}
