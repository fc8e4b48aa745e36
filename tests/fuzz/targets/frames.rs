//! Frames of clients: what has the shape of a frame keeps its limits, and what is relayed reads as what was sent.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use syncline_guest::secsync::frames::{ID_BYTES_MAX, Kind, Signed, SnapshotFrame, UpdateFrame, parse, read_ephemeral_message};
use syncline_guest::secsync::settings::Settings;
use syncline_guest::secsync::verify;

/// As by default, and with as few checks as can be set.
static SETTINGS: LazyLock<[Settings; 2]> = LazyLock::new(|| {
    let lax = r#"{"verify": {"shape": false}, "additional_public_data": {"snapshot": "any", "update": "any", "ephemeral_message": "any"}}"#;
    ["{}", lax].map(|settings| Settings::parse(settings).expect("valid settings"))
});

fn check(kind: Kind, signed: &Signed<'_>) {
    let public_data: Value = serde_json::from_str(&signed.public_json).expect("what is stored is JSON");
    assert_eq!(serde_json_canonicalizer::to_string(&public_data).expect("JSON"), signed.public_json, "canonical JSON stays as it is");
    let body = signed.body();
    let again = read_ephemeral_message(parse(&body).expect("what is relayed is a frame"), &SETTINGS[1]).expect("and has its shape");
    assert_eq!(again.body(), body, "what is relayed reads as what was sent");
    assert_eq!(verify::is_signed(kind, &again), verify::is_signed(kind, signed), "also for its signature");
}

fuzz_target!(|text: &str| {
    for settings in SETTINGS.iter() {
        let Ok(frame) = parse(text) else { continue };
        match frame.kind {
            Kind::Snapshot => {
                let Ok(frame) = SnapshotFrame::read(frame, settings) else { continue };
                assert!(frame.snapshot_id.len() <= ID_BYTES_MAX && frame.parent_snapshot_id.len() <= ID_BYTES_MAX);
                assert!(frame.parent_snapshot_update_clocks.values().all(|clock| clock.is_finite()));
                verify::parent_snapshot_proof(&frame.parent_snapshot_proof, &verify::hash(&frame.signed.ciphertext), &frame.snapshot_id);
                check(Kind::Snapshot, &frame.signed);
            }
            Kind::Update => {
                let Ok(frame) = UpdateFrame::read(frame, settings) else { continue };
                assert!(frame.ref_snapshot_id.len() <= ID_BYTES_MAX && frame.clock < 1 << 53);
                check(Kind::Update, &frame.signed);
            }
            Kind::EphemeralMessage => {
                let Ok(signed) = read_ephemeral_message(frame, settings) else { continue };
                check(Kind::EphemeralMessage, &signed);
            }
        }
    }
});
