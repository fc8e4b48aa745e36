//! The head of a request as the logic gets it: without what Spin and gateways add for their own use.

use subtle::ConstantTimeEq as _;

use crate::address::{Network, client};
use crate::bindings::syncline::host::types::{Header, RequestHead};
use crate::ports::Incoming;

/// By which a gateway shows that it is one.
const GATEWAY_HEADER: &str = "x-syncline-gateway";
/// Where Spin says who the peer is.
const CLIENT_ADDRESS_HEADER: &str = "spin-client-addr";
/// What Spin adds begins so.
const SPIN_PREFIX: &str = "spin-";
/// Names, values and what is between them.
const FIELDS_BYTES_MAX: usize = 64 << 10;

/// Why a head is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    /// Its fields are too large.
    #[error("the fields of the head are too large")]
    TooLarge,
}

/// A head for the logic.
pub(crate) fn request_head(incoming: Incoming, proxies: &[Network], gateway_secret: Option<&str>) -> Result<RequestHead, BadHead> {
    let Incoming { method, path_with_query, authority, secure, headers } = incoming;
    if headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() > FIELDS_BYTES_MAX {
        return Err(BadHead::TooLarge);
    }
    let (path, query) = match path_with_query.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (path_with_query, None),
    };
    let (mut peer, mut gateway) = (String::new(), false);
    let mut kept = Vec::with_capacity(headers.len() + 1);
    for (mut name, value) in headers {
        name.make_ascii_lowercase();
        if name == CLIENT_ADDRESS_HEADER {
            peer = String::from_utf8(value).unwrap_or_default();
        } else if name == GATEWAY_HEADER {
            gateway = gateway_secret.is_some_and(|secret| is_same(secret, &value));
        } else if !(name.starts_with(SPIN_PREFIX) || name == "host" && authority.is_some()) {
            kept.push(Header { name, value });
        }
    }
    if let Some(authority) = authority {
        kept.insert(0, Header { name: "host".into(), value: authority.into_bytes() });
    }
    let client = client(&peer, secure, &kept, proxies, gateway);
    Ok(RequestHead {
        method,
        path: if path.is_empty() { "/".into() } else { path },
        query,
        headers: kept,
        remote_address: client.address,
        secure: client.secure,
    })
}

/// Compares secrets in the same time wherever they differ.
pub(crate) fn is_same(secret: &str, presented: &[u8]) -> bool {
    presented.ct_eq(secret.as_bytes()).into()
}

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &[Header]) -> Option<&[u8]> {
    let value = headers.iter().find(|header| header.name == "authorization")?.value.as_slice();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// How many bytes of a body are announced.
pub(crate) fn announced_bytes(head: &RequestHead) -> Option<u64> {
    let value = head.headers.iter().find(|header| header.name == "content-length")?;
    std::str::from_utf8(&value.value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(headers: &[(&str, &str)]) -> Incoming {
        Incoming {
            method: "GET".into(),
            path_with_query: "/a%2Fb?c=%20d?e".into(),
            authority: Some("example.com:3000".into()),
            secure: false,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
        }
    }

    #[test]
    fn what_spin_adds_is_gone_and_the_host_is_back() {
        let added = [("Spin-Full-Url", "x"), ("spin-client-addr", "9.9.9.9:80"), ("Accept", "*/*"), ("host", "other")];
        let head = request_head(incoming(&added), &[], None).unwrap();
        let names: Vec<_> = head.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["host", "accept"]);
        assert_eq!((head.path.as_str(), head.query.as_deref()), ("/a%2Fb", Some("c=%20d?e")));
        assert_eq!((head.remote_address.as_str(), head.headers[0].value.as_slice()), ("9.9.9.9", b"example.com:3000".as_slice()));
    }

    #[test]
    fn only_a_gateway_with_the_secret_speaks_for_its_clients() {
        let said = [("spin-client-addr", "9.9.9.9:80"), ("x-forwarded-for", "1.1.1.1"), ("x-syncline-gateway", "s3cret")];
        let address = |secret| request_head(incoming(&said), &[], secret).unwrap();
        assert_eq!(address(Some("s3cret")).remote_address, "1.1.1.1");
        assert_eq!(address(Some("s3cret")).headers.len(), 2, "the secret is not for the logic");
        assert_eq!(address(Some("other")).remote_address, "9.9.9.9");
        assert_eq!(address(None).remote_address, "9.9.9.9");
        assert_eq!(address(None).headers.len(), 2);
    }

    #[test]
    fn a_head_has_bounds() {
        let large = "x".repeat(FIELDS_BYTES_MAX);
        assert_eq!(request_head(incoming(&[("a", &large)]), &[], None), Err(BadHead::TooLarge));
    }
}
