//! An app that was built against `syncline:app@0.1.0` as it was at first (`tests/fixtures/app-0.1`) runs for ever.

use std::path::Path;

use serde_json::json;
use syncline_tests::secsync::Author;

use super::{answer, heard, server};
use crate::support::*;

#[tokio::test]
async fn the_app_of_the_first_version_still_runs() {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/app-0.1/app.wasm");
    let server = server(&app).await;
    let mut log = open(&server, &place("d", "log")).await.0;
    let (author, mut writer) = (Author::new(1), open(&server, &place("d", "writer")).await.0);
    assert_eq!(heard(&mut log, "hasAccess").await, json!({"action": "read", "documentId": "d", "websocketSessionKey": "writer"}));
    let snapshot = author.first_snapshot("d", b"x");
    writer.send(&snapshot.frame).await;
    assert_eq!(answer(&mut writer).await, snapshot_saved(&snapshot));
    assert_eq!(heard(&mut log, "createSnapshot").await["snapshot"], snapshot.frame);
    let mut refused = join(&server, "refuse-d").await;
    refused.send(&author.first_snapshot("refuse-d", b"x").frame).await;
    assert_eq!(answer(&mut refused).await, bare_failure());
    assert_eq!(open(&server, &place("given-d", "k")).await.1["snapshot"], json!({"of": "the app"}));
}
