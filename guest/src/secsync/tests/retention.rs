//! Section 8: what is dropped of superseded snapshots, and what never is.

use serde_json::{Value as Json, json};

use crate::imports::Value;
use crate::secsync::test_support::*;

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Saves `count` snapshots of which each but the last has one update on it, all of them large.
fn furnish(host: &TestHost, count: usize) -> Vec<Json> {
    let a = Author::new(1);
    let peer = host.join("doc", "w");
    let large = ciphertext(&"x".repeat(300 << 10));
    let mut snapshots: Vec<Json> = Vec::new();
    for index in 0..count {
        let clocks = if index == 0 { json!({}) } else { json!({a.pub_key.clone(): 0}) };
        let plain = a.snapshot("doc", &format!("s{index}"), snapshots.last(), clocks);
        let mut snapshot = a.sign("secsync_snapshot", &large, plain["publicData"].clone());
        assert_eq!(
            {
                snapshot["additionalServerData"] = json!("x".repeat(300 << 10));
                peer.ask(&snapshot)["type"].clone()
            },
            "snapshot-saved"
        );
        if index + 1 < count {
            let update = a.sign("secsync_update", &large, json!({"docId": "doc", "refSnapshotId": format!("s{index}"), "clock": 0}));
            assert_eq!(peer.ask(&update), saved(&format!("s{index}"), 0));
        }
        snapshots.push(snapshot);
    }
    snapshots
}

fn with_content(host: &TestHost) -> Vec<Value> {
    host.sql("SELECT id FROM t_ss_snapshots WHERE body IS NOT NULL OR object_key IS NOT NULL ORDER BY ordinal").concat()
}

fn ids(ids: &[&str]) -> Vec<Value> {
    ids.iter().map(|id| Value::Text(id.to_string())).collect()
}

fn chain_length_from_first(host: &TestHost) -> usize {
    host.open("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId=s0").one()["snapshotProofChain"].as_array().unwrap().len()
}

#[test]
fn by_default_everything_is_kept() {
    let host = TestHost::new(json!({}));
    furnish(&host, 4);
    assert_eq!(with_content(&host).len(), 4);
    assert_eq!(host.storage.objects.borrow().len(), 11);
    assert!(!host.pubsub.jobs.borrow().contains_key("retention"));
}

#[test]
fn a_new_snapshot_drops_the_contents_of_those_too_far_behind_but_no_chain_entry() {
    let host = TestHost::new(json!({"retention": {"superseded_snapshots": 1}}));
    let snapshots = furnish(&host, 4);
    assert_eq!(with_content(&host), ids(&["s2", "s3"]));
    assert_eq!(host.sql("SELECT snapshot_id FROM t_ss_updates").concat(), ids(&["s2"]));
    assert_eq!(host.storage.objects.borrow().len(), 5, "two snapshots with server data, one update");
    assert_eq!(chain_length_from_first(&host), 3);
    let mut active = snapshots[3].clone();
    active.as_object_mut().unwrap().remove("additionalServerData");
    assert_eq!(host.join("doc", "r").one()["snapshot"], active);
    assert_eq!(host.join("doc", "r").ask(&Author::new(1).snapshot("doc", "s0", None, json!({}))), failed(), "its id stays used");
}

#[test]
fn none_kept_means_only_the_active_one() {
    let host = TestHost::new(json!({"retention": {"superseded_snapshots": 0}}));
    furnish(&host, 3);
    assert_eq!(with_content(&host), ids(&["s2"]));
    assert_eq!(host.storage.objects.borrow().len(), 2);
}

fn run_job(host: &TestHost) -> usize {
    run(host, "retention")
}

/// Runs a job to its end; how many steps it took.
fn run(host: &TestHost, job: &str) -> usize {
    let mut steps = 1;
    let mut cursor = None;
    while let Some(next) = host.mount().fire(host.imports(), job, Vec::new(), cursor) {
        cursor = Some(next);
        steps += 1;
    }
    steps
}

#[test]
fn the_daily_job_drops_what_was_superseded_too_long_ago_in_steps() {
    let host = TestHost::new(json!({"retention": {"max_age_days": 3}}));
    assert!(host.pubsub.jobs.borrow().contains_key("retention"));
    furnish(&host, 10);
    host.now_ms.set(host.now_ms.get() + 3 * DAY_MS);
    assert_eq!((run_job(&host), with_content(&host).len()), (1, 10), "not yet");
    host.now_ms.set(host.now_ms.get() + 1);
    assert_eq!(run_job(&host), 2);
    assert_eq!(with_content(&host), ids(&["s9"]), "the active one stays however old it is");
    assert_eq!(host.storage.objects.borrow().len(), 2);
    assert_eq!(host.pubsub.jobs.borrow()["retention"], host.now_ms.get() + DAY_MS);
    assert_eq!(chain_length_from_first(&host), 9);
}

#[test]
fn with_both_limits_both_must_hold() {
    let host = TestHost::new(json!({"retention": {"superseded_snapshots": 2, "max_age_days": 1}}));
    furnish(&host, 5);
    assert_eq!(with_content(&host), ids(&["s2", "s3", "s4"]));
    host.now_ms.set(host.now_ms.get() + 2 * DAY_MS);
    run_job(&host);
    assert_eq!(with_content(&host), ids(&["s4"]));
}

#[test]
fn a_job_that_fails_tries_again_within_the_hour() {
    let host = TestHost::new(json!({"retention": {"max_age_days": 1}}));
    host.fail(Fault::Begin, crate::imports::SqlError::Unavailable("away".into()));
    run_job(&host);
    assert_eq!(host.pubsub.jobs.borrow()["retention"], host.now_ms.get() + 3600 * 1000);
}

#[test]
fn an_unknown_job_and_one_no_longer_wanted_do_nothing() {
    let host = TestHost::new(json!({}));
    assert_eq!(host.mount().fire(host.imports(), "retention", Vec::new(), None), None);
    assert_eq!(host.mount().fire(host.imports(), "whatever", Vec::new(), None), None);
    assert_eq!(host.pubsub.jobs.borrow().keys().collect::<Vec<_>>(), ["sweep"]);
}

/// The keys of objects, as rows or the storage have them.
fn object_keys(host: &TestHost) -> Vec<String> {
    host.storage.objects.borrow().keys().cloned().collect()
}

fn leave_behind(host: &TestHost, count: usize) {
    for number in 0..count {
        host.storage.objects.borrow_mut().insert(format!("ss/0-leftover-{number:04}"), Vec::new());
    }
}

#[test]
fn objects_that_no_row_names_are_swept_once_they_are_old() {
    let host = TestHost::new(json!({}));
    assert_eq!(host.pubsub.jobs.borrow()["sweep"], host.now_ms.get() + 5_000, "it runs soon after a start");
    furnish(&host, 3);
    let named = object_keys(&host);
    assert_eq!(named.len(), 8, "snapshots with server data, and updates");
    host.now_ms.set(DAY_MS);
    host.storage.created_ms.set(DAY_MS - HOUR_MS);
    leave_behind(&host, 450);
    host.storage.objects.borrow_mut().insert("of-somebody-else".into(), Vec::new());
    assert_eq!(run(&host, "sweep"), 3);
    assert_eq!(object_keys(&host).len(), named.len() + 451, "they are too young");
    host.now_ms.set(DAY_MS + 1);
    assert_eq!(run(&host, "sweep"), 3);
    host.storage.objects.borrow_mut().remove("of-somebody-else").expect("it is not ours to remove");
    assert_eq!(object_keys(&host), named);
    assert_eq!(host.pubsub.jobs.borrow()["sweep"], host.now_ms.get() + DAY_MS);
    let lines = host.effects.lines.borrow();
    assert!(lines.iter().any(|(_, line)| line.contains("removed") && line.contains("200")), "{lines:?}");
}

#[test]
fn a_sweep_that_cannot_read_removes_nothing_and_tries_again_within_the_hour() {
    let host = TestHost::new(json!({}));
    furnish(&host, 2);
    host.now_ms.set(DAY_MS);
    let there = object_keys(&host);
    host.fail(Fault::Snapshot, crate::imports::SqlError::Unavailable("away".into()));
    assert_eq!(run(&host, "sweep"), 1);
    assert_eq!(object_keys(&host), there);
    assert_eq!(host.pubsub.jobs.borrow()["sweep"], DAY_MS + HOUR_MS);
}
