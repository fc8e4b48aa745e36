//! Services, app and logic as one component.

use std::path::Path;

use serde_json::json;
use syncline::compose::{self, ComposeError};
use syncline_tests::process::{command, run};
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};

use super::{APP, answer, heard};
use crate::support::*;

#[tokio::test]
async fn what_is_composed_ahead_of_time_serves_as_the_parts_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("whole.wasm");
    let mut composing = command(&["compose", "--app", APP, "--output"]);
    composing.arg(&output);
    let (composed, said) = run(composing).await;
    assert!(composed, "{said}");
    let component = std::fs::read(&output).expect("it was written");
    let mounts = vec![secsync_mount("secsync", json!({"access": "app", "broadcast_access": "app"}))];
    let server = TestServer::with(Setup { component, mounts, ..Setup::default() }).await;
    let mut log = open(&server, &place("d", "log")).await.0;
    let (author, mut writer) = (Author::new(1), open(&server, &place("d", "w")).await.0);
    let snapshot = author.first_snapshot("d", b"x");
    writer.send(&snapshot.frame).await;
    assert_eq!(answer(&mut writer).await, snapshot_saved(&snapshot));
    assert_eq!(heard(&mut log, "createSnapshot").await["snapshot"], snapshot.frame);
    let mut refused = join(&server, "refuse-d").await;
    refused.send(&author.first_snapshot("refuse-d", b"x").frame).await;
    assert_eq!(answer(&mut refused).await, bare_failure());
}

#[test]
fn what_is_no_app_is_refused_by_what_it_lacks() {
    assert!(matches!(compose::with_services(b"no component"), Err(ComposeError::NotAComponent(_))));
    let logic = syncline::runtime::GUEST_COMPONENT;
    assert!(matches!(compose::with_services(logic), Err(ComposeError::NoApp)));
    let empty = syncline::runtime::EMPTY_APP_COMPONENT;
    assert_eq!(compose::with_services(empty).expect("it is an app").as_ref(), empty, "it needs no services");
    assert!(Path::new(APP).exists());
}
