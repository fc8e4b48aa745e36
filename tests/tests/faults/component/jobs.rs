//! Durable jobs.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use syncline_tests::DEADLINE;
use syncline_tests::server::{Setup, TestServer};

use super::{Client, server, setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_fires_step_by_step() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("subscribe jobs\nschedule j 0 steps+3\necho scheduled").await, "scheduled");
    client.hears(&["j step 0", "j step 1", "j step 2", "j step 3"]).await;
    assert_eq!(client.ask("schedule k 600000 steps+0\ncancel k\necho cancelled").await, "cancelled");
    // A job that is due may fire before the call that put it down is answered.
    client.say("schedule l 30 steps+0").await;
    client.hears(&["l step 0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_survives_a_restart() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("schedule j 1500 write+k+fired\necho scheduled").await, "scheduled");
    assert_eq!(client.ask("view k").await, "view k=nothing");
    client.socket.close().await;
    let folder = server.stop().await;
    let server = TestServer::with(Setup { folder: Some(folder), ..setup(json!({}), None) }).await;
    let mut client = Client::connect(server.address).await;
    client.ask_until("view k", "view k=fired").await;
}

/// Only what was done is forgotten, not what was put down meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_puts_itself_down_anew_fires_again() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    // Both times due long ago, so in the same millisecond.
    assert_eq!(client.ask("schedule j 0 once+r+schedule+j+0+write+k+again\necho scheduled").await, "scheduled");
    client.ask_until("view k", "view k=again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_traps_once_goes_on_where_it_was() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("subscribe jobs\nschedule j 0 at+1+once+c+trap;steps+2\necho scheduled").await, "scheduled");
    client.hears(&["j step 0", "j step 1", "j step 2"]).await;
    // Other jobs are not held up by one that fails for good.
    client.say("schedule bad 0 trap\nschedule good 0 steps+0").await;
    client.hears(&["good step 0"]).await;
}

/// Makes what was put off due now; waits until something was.
async fn hurry(data: &Path) {
    let connection = Connection::open(data.join("syncline").join("jobs.sqlite")).expect("the jobs are there");
    connection.busy_timeout(Duration::from_secs(5)).expect("a timeout can be set");
    let hurrying = async {
        while connection.execute("UPDATE jobs SET due = 1 WHERE due > 1", []).expect("the jobs can be written") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, hurrying).await.expect("a job is put off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_failed_is_made_again_with_the_cursor_it_had() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    // Fails at step 1, and once more when it is tried again at once.
    let payload = "at+1+once+c+trap;at+1+once+d+trap;steps+2";
    assert_eq!(client.ask(&format!("subscribe jobs\nschedule j 0 {payload}\necho scheduled")).await, "scheduled");
    client.hears(&["j step 0"]).await;
    hurry(server.folder()).await;
    client.say("schedule other 600000 x").await;
    client.hears(&["j step 1", "j step 2"]).await;
}
