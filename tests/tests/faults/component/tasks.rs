//! Tasks: beside the frames, back in order, made once.

use serde_json::json;

use super::{Client, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_fails_comes_back_as_a_failure() {
    let server = server(json!({"task_ms": 200})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("task trap").await, "task-failed trapped trap");
    assert_eq!(client.ask("task eat").await, "task-failed trapped eat");
    client.say("task loop").await;
    assert_eq!(client.ask("echo meanwhile").await, "meanwhile");
    client.hears(&["task-failed timed-out loop"]).await;
    // Made once.
    assert_eq!(client.ask("task keep+made;trap").await, "task-failed trapped keep+made;trap");
    assert_eq!(client.ask("count made").await, "count made=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_a_task_follows_its_publications() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("subscribe t\necho listening").await, "listening");
    client.say("task publish+t+p;write+k+v;echo+r").await;
    client.hears(&["p", "done r"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_tasks_come_as_they_are_there_and_a_slow_one_holds_up_nobody() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    client.say("task spin+300;echo+slow\ntask echo+quick\ntask trap").await;
    let mut quick = [client.hear().await, client.hear().await];
    quick.sort();
    assert_eq!(quick, ["done quick", "task-failed trapped trap"]);
    client.hears(&["done slow"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_tasks_run_at_once_than_the_plan_says() {
    let server = server(json!({"max_tasks": 1})).await;
    let mut client = Client::connect(server.address).await;
    let task = "task keep+started;spin+100;count+started\n".repeat(3);
    client.say(&task).await;
    client.hears(&["done count started=1", "done count started=2", "done count started=3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_a_task_whose_connection_has_gone_is_dropped() {
    let server = server(json!({})).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    assert_eq!(client.ask("task keep+started;spin+300;keep+over\necho asked").await, "asked");
    other.ask_until("count started", "count started=1").await;
    client.socket.close().await;
    other.ask_until("count closed", "count closed=1").await;
    other.ask_until("count over", "count over=1").await;
    for _ in 0..100 {
        assert_eq!(other.ask("count task-done").await, "count task-done=0");
    }
}
