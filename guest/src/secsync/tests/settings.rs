//! Section 10: every key, and what is refused by name.

use serde_json::{Value as Json, json};

use crate::contract::exports::syncline::sync::mounts::UpgradeAnswer;
use crate::registry;
use crate::secsync::settings::{AutoCreate, Logging, ParentProof, Retention, Settings};

fn problems(settings: Json) -> Vec<String> {
    Settings::parse(&settings.to_string()).unwrap_err()
}

#[test]
fn nothing_given_means_the_defaults_and_their_plan() {
    let settings = Settings::parse("{}").unwrap();
    assert_eq!((settings.path.as_str(), settings.max_bad_frames, settings.logging), ("/secsync", 20, Logging::Off));
    assert_eq!((settings.auto_create, settings.parent_proof, settings.retention), (AutoCreate::Always(true), ParentProof::On, None));
    let plan = registry::check("secsync", "{}").unwrap();
    assert_eq!((plan.routes[0].path.as_str(), plan.routes[0].prefix), ("/secsync", true));
    assert_eq!((plan.max_frame_bytes, plan.max_frame_bytes_before_auth, plan.queue_bytes), (16 << 20, 16 << 20, 16 << 20));
    assert_eq!((plan.ping_ms, plan.idle_ms, plan.drain_ms, plan.call_deadline_ms), (Some(30_000), None, Some(5000), 5000));
    assert!(matches!(&plan.upgrades.failed, UpgradeAnswer::Close((frames, close)) if frames.is_empty() && close.code == 1013));
    let codes =
        [&plan.closes.slow, &plan.closes.idle, &plan.closes.too_large, &plan.closes.failed, &plan.closes.shutdown].map(|close| close.code);
    assert_eq!(codes, [1013, 1001, 1009, 1013, 1001]);
}

#[test]
fn every_key_is_taken_in_both_spellings() {
    let snake = json!({
        "enabled": true, "path": "/x/", "auto_create": false, "access": "policy", "broadcast_access": "policy",
        "policy": [{"session_keys": ["*"], "documents": ["*"], "actions": ["read"], "public_keys": ["p"], "broadcast": true}],
        "max_updates_per_snapshot": {"a*": 1, "abc*": 2}, "additional_public_data": {"ephemeral_message": "any", "update": {"a": "number?"}},
        "deny_ephemeral": "drop", "on_broadcast_denied": "close",
        "verify": {"signatures": false, "shape": false, "parent_proof": "strict"}, "logging": "debug",
        "max_message_bytes": 1, "max_backlog_bytes": 2, "max_bad_frames": 3, "ping_interval_ms": 0,
        "retention": {"superseded_snapshots": 1, "max_age_days": 2},
        "snapshot_grace_ms": 4, "quiet_pipelined_refusals": false, "shutdown_drain_ms": 5
    });
    let camel = json!({
        "enabled": true, "path": "/x/", "autoCreate": false, "access": "policy", "broadcastAccess": "policy",
        "policy": [{"sessionKeys": ["*"], "documents": ["*"], "actions": ["read"], "publicKeys": ["p"], "broadcast": true}],
        "maxUpdatesPerSnapshot": {"a*": 1, "abc*": 2}, "additionalAuthenticationDataValidations": {"ephemeralMessage": "any", "update": {"a": "number?"}},
        "denyEphemeral": "drop", "onBroadcastDenied": "close",
        "verify": {"signatures": false, "shape": false, "parentProof": "strict"}, "logging": "debug",
        "maxMessageBytes": 1, "maxBacklogBytes": 2, "maxBadFrames": 3, "pingIntervalMs": 0,
        "retention": {"supersededSnapshots": 1, "maxAgeDays": 2},
        "snapshotGraceMs": 4, "quietPipelinedRefusals": false, "shutdownDrainMs": 5
    });
    let settings = Settings::parse(&snake.to_string()).unwrap();
    assert_eq!(Settings::parse(&camel.to_string()).unwrap(), settings);
    assert_eq!(settings.path, "/x");
    assert_eq!(settings.retention, Some(Retention { superseded_snapshots: Some(1), max_age_days: Some(2) }));
    let limits = ["abcd", "ab", "b"].map(|doc_id| settings.updates_limit(doc_id));
    assert_eq!(limits, [Some(2), Some(1), None], "the most specific glob wins");
}

#[test]
fn mistakes_are_all_named_by_their_keys() {
    let found = problems(json!({
        "path": "x", "auto_create": 3, "access": "nobody", "policy": [{"session_keys": ["a"], "documents": "x", "actions": ["fly"], "colour": 1}],
        "max_updates_per_snapshot": "many", "additional_public_data": {"snapshot": {"a": "date"}, "other": 1}, "verify": {"parent_proof": true, "hash": 1},
        "max_message_bytes": 0, "retention": {"days": 1}, "ping_interval_ms": -1, "colour": "red"
    }));
    for key in [
        "path:",
        "auto_create:",
        "access:",
        "policy[0].documents:",
        "policy[0].actions:",
        "policy[0].colour: unknown",
        "max_updates_per_snapshot:",
        "additional_public_data.snapshot.a:",
        "additional_public_data.other: unknown",
        "verify.parent_proof:",
        "verify.hash: unknown",
        "max_message_bytes:",
        "retention.days: unknown",
        "ping_interval_ms:",
        "colour: unknown",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(key)), "{key} in {found:#?}");
    }
    assert_eq!(problems(json!({"retention": {}})).len(), 1);
    assert_eq!(problems(json!([])).len(), 1);
}

#[test]
fn access_by_the_app_needs_no_policy() {
    let warnings = |settings: Json| registry::check("secsync", &settings.to_string()).unwrap().warnings;
    let settings =
        json!({"path": "/x", "access": "app", "broadcast_access": "app", "on_broadcast_denied": "close", "deny_ephemeral": "drop"});
    assert_eq!(warnings(settings), Vec::<String>::new());
    assert_eq!(warnings(json!({"access": "app", "policy": []})).len(), 1);
}

#[test]
fn a_mount_that_is_not_enabled_has_no_route() {
    assert!(registry::check("secsync", r#"{"enabled": false}"#).unwrap().routes.is_empty());
    let plan = registry::check("secsync", r#"{"path": "", "ping_interval_ms": 0}"#).unwrap();
    assert_eq!((plan.routes[0].path.as_str(), plan.ping_ms), ("", None));
}

#[test]
fn what_has_no_effect_or_a_dangerous_one_is_said_and_the_usual_is_not() {
    let warnings = |settings: Json| registry::check("secsync", &settings.to_string()).unwrap().warnings;
    let rules = json!([{"session_keys": ["*"], "documents": ["*"], "actions": ["read"]}]);
    for settings in [json!({}), json!({"listen": "127.0.0.1:8787"}), json!({"listen": "[::1]:0"}), json!({"listen": "localhost:80"})] {
        assert_eq!(warnings(settings), Vec::<String>::new());
    }
    assert_eq!(warnings(json!({"access": "policy", "policy": rules, "deny_ephemeral": "drop"})), Vec::<String>::new());
    assert_eq!(warnings(json!({"broadcast_access": "policy", "policy": rules, "on_broadcast_denied": "close"})), Vec::<String>::new());
    for (settings, key) in [
        (json!({"policy": rules}), "policy: has no effect"),
        (json!({"denyEphemeral": "drop"}), "deny_ephemeral: has no effect"),
        (json!({"on_broadcast_denied": "close"}), "on_broadcast_denied: has no effect"),
        (json!({"access": "policy"}), "access: nobody"),
        (json!({"verify": {"signatures": false}}), "verify.signatures: off"),
        (json!({"enabled": false}), "enabled: off"),
        (json!({"listen": "0.0.0.0:8787", "access": "policy", "policy": rules}), "broadcast_access: allow-all"),
        (json!({"listen": "[::]:80", "broadcast_access": "policy", "policy": rules}), "access: allow-all"),
    ] {
        let said = warnings(settings);
        assert!(matches!(said.as_slice(), [one] if one.starts_with(key)), "{said:?}");
    }
}
