//! Where clients put their token (section 5.2).

use crate::encoding::base64url_decode;
use crate::http::{header_list, header_text, query_parameter};
use crate::imports::RequestHead;

/// Beginning of the subprotocol that holds a token.
const SUBPROTOCOL_PREFIX: &str = "auth.";

/// The token of an `Authorization` header: its whole value, with or without `Bearer `.
pub fn of_header(head: &RequestHead) -> Option<&str> {
    of_bearer(head).or_else(|| header_text(head, "authorization"))
}

/// The token of an `Authorization` header with the scheme `Bearer`.
pub fn of_bearer(head: &RequestHead) -> Option<&str> {
    let (scheme, token) = header_text(head, "authorization")?.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case("bearer ").then(|| token.trim_start())
}

/// The token of a request: of the header, else (where the route allows it) of the query or of a subprotocol.
pub fn token(head: &RequestHead, in_query: bool) -> Option<String> {
    of_header(head)
        .map(str::to_owned)
        .or_else(|| query_parameter(head, "auth").filter(|_| in_query))
        .or_else(|| of_subprotocol(head).filter(|_| in_query))
}

fn of_subprotocol(head: &RequestHead) -> Option<String> {
    let encoded = header_list(head, "sec-websocket-protocol").find_map(|entry| entry.strip_prefix(SUBPROTOCOL_PREFIX))?;
    String::from_utf8(base64url_decode(encoded)?).ok()
}
