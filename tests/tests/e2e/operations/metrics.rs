//! The documented list of metrics is the list of metrics.

use std::collections::BTreeSet;

use serde_json::json;
use syncline_tests::server::{Setup, TestServer, secsync_mount};

use crate::raw::get;

/// Names in the first cells of the table of the section "Metrics".
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../../docs/operations.md");
    let section = page.split("\n## Metrics\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the section is there");
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|line| line.split(" |").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_the_other_way_round() {
    let server = TestServer::start().await;
    let text = get(server.address, "/metrics").await.body;
    let shown: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(shown, documented());
}

#[tokio::test]
async fn the_series_of_a_mount_are_there_from_the_start() {
    let mounts = vec![secsync_mount("first", json!({})), secsync_mount("second", json!({}))];
    let server = TestServer::with(Setup { mounts, ..Setup::default() }).await;
    let text = get(server.address, "/metrics").await.body;
    let value = |series: &str| text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series} in\n{text}"));
    for mount in ["first", "second"] {
        for series in [
            format!("syncline_connections{{mount=\"{mount}\"}}"),
            format!("syncline_slow_readers_total{{mount=\"{mount}\"}}"),
            format!("syncline_closes_total{{code=\"1013\",mount=\"{mount}\"}}"),
            format!("syncline_frames_total{{direction=\"in\",mount=\"{mount}\"}}"),
            format!("syncline_calls_total{{export=\"receive\",mount=\"{mount}\",result=\"failed\"}}"),
            format!("syncline_groups_total{{mount=\"{mount}\",result=\"lost\"}}"),
            format!("syncline_jobs_total{{mount=\"{mount}\",result=\"failed\"}}"),
            format!("syncline_http_requests_total{{mount=\"{mount}\",status=\"5xx\"}}"),
            format!("syncline_instances{{mount=\"{mount}\",state=\"busy\"}}"),
        ] {
            assert_eq!(value(&series).trim(), "0", "{series}");
        }
        let size_bytes: f64 = value(&format!("syncline_database_bytes{{mount=\"{mount}\"}}")).trim().parse().expect("a number");
        assert!(size_bytes > 4096.0);
    }
    assert_eq!(value("syncline_last_backup_timestamp_seconds").trim(), "0");
}
