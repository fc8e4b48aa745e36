//! Encodings that protocols share.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syncline_guest::encoding::{base64url, base64url_array, base64url_decode, percent_decode_or_raw, query_parameter};

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(base64url_decode(&base64url(bytes)).as_deref(), Some(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(decoded) = base64url_decode(text) {
        // Strict: one text for some bytes.
        assert_eq!(base64url(&decoded), text);
        assert_eq!(base64url_array::<32>(text).is_some(), decoded.len() == 32);
    }
    assert!(percent_decode_or_raw(text).len() <= text.len());
    let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(percent_decode_or_raw(&escaped), text);
    assert_eq!(query_parameter(&format!("other=1&name={escaped}&name=2"), "name").as_deref(), Some(text));
    // Only that it ends.
    query_parameter(text, "name");
});
