//! What the head of a request must be, beyond what the HTTP library checks.

use hyper::header::{HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, StatusCode, Version};

/// Header fields of a request: names, values and what is between them.
const FIELDS_BYTES_MAX: u64 = 64 << 10;
/// The whole head, which is refused while it is read: as much again for the URL, which may have 65,534 bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 128 << 10;

/// The status of a head that is not served; the connection ends with the answer.
pub(crate) fn refused<B>(request: &Request<B>) -> Option<StatusCode> {
    refusal(request.version(), request.headers())
}

fn refusal(version: Version, headers: &HeaderMap) -> Option<StatusCode> {
    if fields_bytes(headers) > FIELDS_BYTES_MAX {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Some(StatusCode::BAD_REQUEST);
    }
    // Bodies are not inflated: nothing but chunks is undone.
    let codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.map(HeaderValue::as_bytes).any(|coding| !coding.eq_ignore_ascii_case(b"chunked")).then_some(StatusCode::NOT_IMPLEMENTED)
}

/// Bytes of a head, about as they came.
pub(crate) fn head_bytes<B>(request: &Request<B>) -> u64 {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    u64::try_from(target).unwrap_or(u64::MAX).saturating_add(fields_bytes(request.headers()))
}

fn fields_bytes(headers: &HeaderMap) -> u64 {
    // A colon, a space and the end of the line.
    let field = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    u64::try_from(headers.iter().map(field).sum::<usize>()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_needs_one_host_and_no_coding_but_chunks() {
        let code = |version, fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            refusal(version, &headers).map(|code| code.as_u16())
        };
        assert_eq!(code(Version::HTTP_11, &[("host", "a")]), None);
        assert_eq!(code(Version::HTTP_11, &[("host", "")]), None);
        assert_eq!(code(Version::HTTP_11, &[]), Some(400));
        assert_eq!(code(Version::HTTP_10, &[]), None);
        assert_eq!(code(Version::HTTP_11, &[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(code(Version::HTTP_11, &[("host", "a"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(code(Version::HTTP_11, &[("host", "a"), ("transfer-encoding", "gzip, chunked")]), Some(501));
        let with = |length: usize| code(Version::HTTP_11, &[("host", "a"), ("x", &"y".repeat(length))]);
        let rest = "host".len() + 1 + 4 + 1 + 4;
        assert_eq!(with((64 << 10) - rest), None);
        assert_eq!(with((64 << 10) - rest + 1), Some(431));
    }
}
