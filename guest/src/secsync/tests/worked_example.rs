//! Section 3.5: fixed inputs whose every output was checked with the real client.

use serde_json::{Value as Json, json};

use crate::secsync::frames::{self, Kind, SnapshotFrame, UpdateFrame};
use crate::secsync::settings::Settings;
use crate::secsync::test_support::*;
use crate::secsync::verify;

const PUB_KEY: &str = "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w";
const SNAPSHOT_ID: &str = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
const CIPHERTEXT: &str = "G9dbuwYb4ir26ODAnYgkxMyD2Bk5kSfsenECnC0Sutc1bE0zUkMF4YFroCTsSPj_F0r9X1s";
const FIRST_PROOF: &str = "k_CZR7BveaeM7FOc0TYtEtTtTi0ElwG9XrDVLxb9tR0";
const PUBLIC_DATA: &str = r#"{"docId":"shopping-list","parentSnapshotId":"","parentSnapshotProof":"k_CZR7BveaeM7FOc0TYtEtTtTi0ElwG9XrDVLxb9tR0","parentSnapshotUpdateClocks":{},"pubKey":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w","snapshotId":"BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}"#;
const UPDATE: &str = r#"{"nonce":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD","ciphertext":"n7reVQ7B55IVF53w--anVtSW5rNNJGQftXpfygELXQYGK2AOHw4e_ofIfYYYLCngmOJcZ8gu","publicData":{"refSnapshotId":"BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","docId":"shopping-list","pubKey":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w","clock":0},"signature":"Addwu6y_KCV4LV-P3Fm99iWGnf-DuBRtf39jV0j7l5YAFu4mYT4G_5LRs_gxdt2M1tG1RyCZCYCsSNeYjH1GCQ"}"#;

fn snapshot() -> Json {
    json!({
        "ciphertext": CIPHERTEXT,
        "nonce": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD",
        "publicData": serde_json::from_str::<Json>(PUBLIC_DATA).unwrap(),
        "signature": "m9vZx7hWZekbq2WDoF7SODMMCtfA8JmFrTnl4eH79MXgLgympE3EOHXNI71K-gtxY1x0kGWw17XticRjXtViAQ",
    })
}

#[test]
fn the_snapshot_is_read_verified_and_hashed_as_the_client_does() {
    let settings = Settings::parse("{}").unwrap();
    let text = snapshot().to_string();
    let frame = SnapshotFrame::read(frames::parse(&text).unwrap(), &settings).unwrap();
    assert_eq!(frame.signed.public_json, PUBLIC_DATA);
    assert_eq!(frame.signed.pub_key, PUB_KEY);
    assert!(verify::is_signed(Kind::Snapshot, &frame.signed));
    assert!(!verify::is_signed(Kind::Update, &frame.signed));
    let hash = verify::hash(CIPHERTEXT);
    assert_eq!(hash, "pQF-kykrRNEccz0qLTsX67UCdXNCdDd4QSlV30iHejw");
    assert_eq!(verify::parent_snapshot_proof("", "", ""), FIRST_PROOF);
    assert_eq!(verify::parent_snapshot_proof(FIRST_PROOF, &hash, SNAPSHOT_ID), "g4VxuAEVHosaRBooDEx3X_s-NBVcN4T9fYRi7BEc4A4");
}

#[test]
fn the_update_is_read_and_verified_as_the_client_does() {
    let settings = Settings::parse("{}").unwrap();
    let frame = UpdateFrame::read(frames::parse(UPDATE).unwrap(), &settings).unwrap();
    assert_eq!((frame.ref_snapshot_id.as_str(), frame.clock), (SNAPSHOT_ID, 0));
    assert!(verify::is_signed(Kind::Update, &frame.signed));
}

#[test]
fn both_are_saved_relayed_and_loaded_field_for_field() {
    let host = TestHost::new(json!({"verify": {"parent_proof": "strict"}}));
    let (writer, reader) = (host.join("shopping-list", "k1"), host.join("shopping-list", "k2"));
    reader.take();
    assert_eq!(writer.ask(&snapshot()), json!({"type": "snapshot-saved", "snapshotId": SNAPSHOT_ID}));
    assert_eq!(reader.one(), json!({"type": "snapshot", "snapshot": snapshot()}));
    let update: Json = serde_json::from_str(UPDATE).unwrap();
    assert_eq!(writer.ask(&update), saved(SNAPSHOT_ID, 0));
    let mut relayed = update.clone();
    relayed["type"] = "update".into();
    assert_eq!(reader.one(), relayed);
    let document = json!({"type": "document", "snapshot": snapshot(), "updates": [update], "snapshotProofChain": []});
    assert_eq!(host.join("shopping-list", "k3").one(), document);
}

#[test]
fn a_changed_byte_anywhere_breaks_the_signature() {
    let settings = Settings::parse("{}").unwrap();
    for (field, value) in [("clock", json!(1)), ("docId", json!("other")), ("refSnapshotId", json!("other"))] {
        let mut changed: Json = serde_json::from_str(UPDATE).unwrap();
        changed["publicData"][field] = value;
        let text = changed.to_string();
        let frame = UpdateFrame::read(frames::parse(&text).unwrap(), &settings).unwrap();
        assert!(!verify::is_signed(Kind::Update, &frame.signed), "{field}");
    }
    for field in ["ciphertext", "nonce", "signature"] {
        let mut changed: Json = serde_json::from_str(UPDATE).unwrap();
        changed[field] = changed[field].as_str().unwrap().replacen(['A', 'n'], "B", 1).into();
        let text = changed.to_string();
        let frame = UpdateFrame::read(frames::parse(&text).unwrap(), &settings).unwrap();
        assert!(!verify::is_signed(Kind::Update, &frame.signed), "{field}");
    }
}

#[test]
fn keys_of_small_order_and_keys_not_written_canonically_sign_nothing() {
    let settings = Settings::parse("{}").unwrap();
    let identity = [&[1u8][..], &[0; 31]].concat();
    let not_canonical = [&[0xee][..], &[0xff; 30], &[0x7f]].concat();
    let identity_signature = [&identity[..], &[0; 32]].concat();
    for key in [identity.clone(), not_canonical, vec![0; 32]] {
        let mut frame: Json = serde_json::from_str(UPDATE).unwrap();
        frame["publicData"]["pubKey"] = crate::encoding::base64url(&key).into();
        frame["signature"] = crate::encoding::base64url(&identity_signature).into();
        let text = frame.to_string();
        let frame = UpdateFrame::read(frames::parse(&text).unwrap(), &settings).unwrap();
        assert!(!verify::is_signed(Kind::Update, &frame.signed), "{key:?}");
    }
}
