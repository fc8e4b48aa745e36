//! The URL of an upgrade: path and query, separated by a question mark.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syncline_guest::secsync::connect::{Request, doc_id_of, topic};
use syncline_guest::secsync::frames::ID_BYTES_MAX;

fuzz_target!(|url: &str| {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    for prefix in ["", "/secsync", "/a/b"] {
        let Ok(request) = Request::read(prefix, &format!("{prefix}{path}"), query) else { continue };
        let held = |id: &str| !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('\0');
        assert!(held(&request.doc_id), "an id that no database holds: {:?}", request.doc_id);
        assert!(request.known_snapshot_id.as_deref().is_none_or(held));
        assert!(request.known_snapshot_update_clocks.values().all(|clock| clock.is_finite()));
        assert_eq!(doc_id_of(&topic(&request.doc_id)), request.doc_id);
        assert_eq!(Request::read(prefix, &format!("{prefix}{path}"), query).as_ref(), Ok(&request));
    }
});
