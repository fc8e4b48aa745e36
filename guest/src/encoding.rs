//! Encodings that several protocols share: strict URL-safe base64, percent and form decoding.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Encodes as URL-safe base64 without padding.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes URL-safe base64 strictly: no padding, no other alphabet, no white space, no stray bits.
pub fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Decodes strictly into exactly `N` bytes.
pub fn base64url_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    base64url_decode(text)?.try_into().ok()
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Percent-decodes a path segment as UTF-8; text that is not UTF-8 afterwards stays as it was.
pub fn percent_decode_or_raw(raw: &str) -> String {
    match percent_encoding::percent_decode_str(raw).decode_utf8() {
        Ok(decoded) => decoded.into_owned(),
        Err(_) => raw.to_owned(),
    }
}

/// The first value of a query parameter, form-decoded (`+` is a space).
pub fn query_parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
