//! The quota of a mount: what adds to it is refused, all else goes on.

use std::sync::Arc;

use serde_json::json;
use syncline_tests::DEADLINE;
use syncline_tests::server::{Setup, TestServer};
use tempfile::TempDir;

use super::{Client, setup};

const QUOTA_BYTES: u64 = 400_000;
const VALUE_BYTES: usize = 20_000;

async fn server_with(quota_bytes: Option<u64>, folder: Option<Arc<TempDir>>) -> TestServer {
    let mut setup = Setup { folder, ..setup(json!({}), None) };
    setup.mounts[0].quota_bytes = quota_bytes;
    TestServer::with(setup).await
}

/// Writes values until one is refused; how many are there then.
async fn fill(client: &mut Client) -> usize {
    let value = "x".repeat(VALUE_BYTES);
    for number in 0.. {
        let answer = client.ask(&format!("write k{number} {value}\necho written")).await;
        if answer != "written" {
            assert_eq!(answer, "error limit");
            return number;
        }
        // What it weighs is known when it is on disk.
        assert!(client.ask(&format!("view k{number}")).await.starts_with("view"));
    }
    unreachable!("the loop has no end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_can_be_read_and_emptied_and_then_takes_more() {
    let server = server_with(Some(QUOTA_BYTES), None).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    let count = fill(&mut client).await;
    assert!((10..=20).contains(&count), "{count} values");
    assert_eq!(other.ask("write k x\necho written").await, "error limit");
    assert_eq!(other.ask("store o 1\necho stored").await, "error limit");
    assert_eq!(other.ask("view nothing").await, "view nothing=nothing", "reading goes on");
    assert_eq!(other.ask("set fact 1\nget fact").await, "get fact=1", "small facts do not count");
    assert_eq!(other.ask("remove k0\nremove k1\nview k0").await, "view k0=nothing");
    assert_eq!(other.ask("write k x\necho written").await, "written");
    assert!(fill(&mut client).await >= 2);
    // It starts although it is full, and a higher quota lets it go on.
    let folder = server.stop().await;
    let server = server_with(Some(QUOTA_BYTES), Some(folder)).await;
    assert_eq!(Client::connect(server.address).await.ask("write k x").await, "error limit");
    let server = server_with(Some(2 * QUOTA_BYTES), Some(server.stop().await)).await;
    assert_eq!(Client::connect(server.address).await.ask("write k x\nview k").await, "view k=x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_count_until_they_are_gone() {
    let server = server_with(Some(QUOTA_BYTES), None).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("store a 500000\necho stored").await, "error limit", "it is refused before it is written");
    assert_eq!(client.ask("store a 200000\nstore a 200000\nstore a 200000\necho stored").await, "stored", "one in the place of another");
    assert_eq!(client.ask("store b 200000\necho stored").await, "error limit");
    assert_eq!(client.ask("discard a\necho done").await, "done");
    // The object goes once the call that gave it up is released.
    let stored = async { while client.ask("store b 200000\necho stored").await != "stored" {} };
    tokio::time::timeout(DEADLINE, stored).await.expect("there is room again");
}
