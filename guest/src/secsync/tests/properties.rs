//! Decoders under arbitrary input: nothing panics, what is understood is understood the same way twice.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use crate::encoding::{base64url, base64url_decode};
use crate::imports::Frame;
use crate::secsync::connect::Request;
use crate::secsync::frames::{self, SnapshotFrame, UpdateFrame, integer_clock, read_ephemeral_message};
use crate::secsync::settings::Settings;
use crate::secsync::test_support::*;

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,6}".prop_map(Json::from),
        Just(json!("doc")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((any_key(), inner), 0..4).prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["docId", "pubKey", "snapshotId", "refSnapshotId", "clock", "parentSnapshotId", "publicData", "nonce"])
            .prop_map(str::to_owned),
        ".{0,4}".prop_map(String::from),
    ]
}

/// A frame whose fields are right or anything.
fn any_frame() -> impl Strategy<Value = Json> {
    let field = |good: Json| prop_oneof![3 => Just(Some(good)), 1 => any_json().prop_map(Some), 1 => Just(None)];
    let public = (
        field(json!("doc")),
        field(json!(Author::new(1).pub_key)),
        field(json!("s")),
        field(json!("")),
        field(json!({})),
        field(json!(0)),
        any::<bool>(),
        (any_key(), any_json()),
    );
    let public = public.prop_map(|(doc_id, pub_key, id, parent, clocks, clock, is_snapshot, (key, extra))| {
        let id_name = if is_snapshot { "snapshotId" } else { "refSnapshotId" };
        let named = [
            ("docId", doc_id),
            ("pubKey", pub_key),
            (id_name, id),
            ("parentSnapshotId", parent),
            ("parentSnapshotUpdateClocks", clocks),
            ("clock", clock),
        ];
        let mut fields: Map<String, Json> = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        fields.entry(key).or_insert(extra);
        Json::Object(fields)
    });
    let text = |good: String| prop_oneof![3 => Just(json!(good)), 1 => any_json()];
    (public, text(ciphertext("x")), text(base64url([3; 24])), text(base64url([4; 64]))).prop_map(|(public_data, ciphertext, nonce, signature)| {
        json!({"publicData": public_data, "ciphertext": ciphertext, "nonce": nonce, "signature": signature})
    })
}

fn read_every_way(text: &str) {
    let settings =
        Settings::parse(r#"{"additional_public_data": {"snapshot": "any", "update": "any", "ephemeral_message": "any"}}"#).unwrap();
    if let Ok(frame) = frames::parse(text) {
        let _ = SnapshotFrame::read(frame, &settings);
    }
    if let Ok(frame) = frames::parse(text) {
        let _ = UpdateFrame::read(frame, &settings);
    }
    if let Ok(frame) = frames::parse(text)
        && let Ok(signed) = read_ephemeral_message(frame, &settings)
    {
        // What is relayed reads as what was sent.
        let body = signed.body();
        let again = read_ephemeral_message(frames::parse(&body).unwrap(), &settings).unwrap();
        assert_eq!(again.body(), body);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_as_a_frame(text: String) {
        read_every_way(&text);
    }

    #[test]
    fn arbitrary_json_as_a_frame(frame in prop_oneof![any_json(), any_frame()]) {
        read_every_way(&frame.to_string());
    }

    #[test]
    fn a_connection_survives_arbitrary_frames(frames in prop::collection::vec(prop_oneof![
        any_frame().prop_map(|frame| Frame::Text(frame.to_string())),
        any::<Vec<u8>>().prop_map(Frame::Binary),
        ".*".prop_map(Frame::Text),
    ], 1..8), verified: bool) {
        let host = TestHost::new(json!({"verify": {"signatures": verified, "parent_proof": "off"}, "max_bad_frames": 0}));
        let peer = host.join("doc", "k");
        peer.take();
        peer.send_frames(frames);
        prop_assert_eq!(peer.closed(), None);
        let document = host.join("doc", "r").one();
        prop_assert_eq!(&document["type"], "document");
    }

    #[test]
    fn arbitrary_urls(path in "(/secsync)?/?.{0,20}", query: String) {
        if let Ok(request) = Request::read("/secsync", &path, &query) {
            prop_assert!(!request.doc_id.is_empty());
        }
    }

    #[test]
    fn what_is_written_into_a_url_is_read_from_it(
        doc_id in "[^\0]{1,12}", key: String, known in "[^\0]{1,12}",
        clocks in prop::collection::btree_map(".{0,4}", any::<u32>().prop_map(f64::from), 0..4), delta: bool,
    ) {
        let escape = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mode = if delta { "delta" } else { "complete" };
        let clocks_json = serde_json::to_string(&clocks).unwrap();
        let query = format!("mode={mode}&knownSnapshotUpdateClocks={}&sessionKey={}&knownSnapshotId={}", escape(&clocks_json), escape(&key), escape(&known));
        let request = Request::read("/secsync", &format!("/secsync/{}", escape(&doc_id)), &query).unwrap();
        let expected = Request { doc_id, session_key: key, delta, known_snapshot_id: Some(known), known_snapshot_update_clocks: clocks };
        prop_assert_eq!(request, expected);
    }

    #[test]
    fn arbitrary_clocks_are_integers_or_none(number in any::<f64>(), integer in 0u64..(1 << 53)) {
        prop_assert_eq!(integer_clock(integer as f64), Some(integer));
        if let Some(clock) = integer_clock(number) {
            prop_assert_eq!(clock as f64, number);
        }
    }

    #[test]
    fn numbers_keep_their_value_to_the_last_digit(number in any::<f64>()) {
        let text = json!({"publicData": {"x": number}}).to_string();
        let frame = frames::parse(&text).unwrap();
        prop_assert_eq!(&frame.public_data["x"], &json!(number));
    }

    #[test]
    fn base64_is_strict_and_round(bytes: Vec<u8>, text in "[A-Za-z0-9_=+/ -]{0,12}") {
        prop_assert_eq!(base64url_decode(&base64url(&bytes)), Some(bytes));
        if let Some(decoded) = base64url_decode(&text) {
            prop_assert_eq!(base64url(decoded), text);
        }
    }

    #[test]
    fn arbitrary_settings(settings in any_json(), text: String, key in prop::sample::select(vec![
        "path", "auto_create", "access", "policy", "max_updates_per_snapshot", "additional_public_data", "verify", "retention", "logging",
    ]), value in any_json()) {
        let _ = Settings::parse(&text);
        let _ = Settings::parse(&settings.to_string());
        let _ = Settings::parse(&json!({key: value}).to_string());
    }
}
