//! Lines that break and servers that die while others write.

use syncline_tests::process::{Process, data_folder};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_whose_servers_do_not_hear_for_a_while_come_to_the_same_rows() {
    let pair = Pair::start(tables(NEVER_MS)).await;
    let (all, addresses) = (written(2, 20), pair.addresses());
    let readers = [read_at(addresses[0], "first", all).await, read_at(addresses[1], "second", all).await];
    let (mut writing, mut reading) = (std::pin::pin!(write_at(&addresses, 20)), std::pin::pin!(join_all(readers)));
    let mut is_written = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut reading => break,
            () = &mut writing, if !is_written => is_written = true,
            // Again and again, as long as there is anything to be missed.
            () = tokio::time::sleep(std::time::Duration::from_millis(150)), if !is_written => {
                tokio::task::block_in_place(|| pair.deafen());
            }
        }
    }
    // Readers may have everything before the last writer has its answer.
    if !is_written {
        writing.await;
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_when_one_is_killed() {
    let schemas = PostgresSchemas::new().await;
    let configuration = tempfile::tempdir().expect("a folder");
    let file = configuration.path().join("syncline.json");
    let settings = fixture_with(json!({"sequencer": {"pollMs": NEVER_MS}}));
    std::fs::write(&file, json!({"mount": [{"protocol": "plasma", "settings": settings}]}).to_string()).expect("files can be written");
    let start = async || {
        let data = data_folder();
        let configuration = file.to_str().expect("UTF-8");
        let arguments = ["serve", "--config", configuration, "--executor", schemas.url(), "--pubsub", "postgres:"];
        (Process::start(data.path(), &arguments).await, data)
    };
    let ((first, _first_data), (second, _second_data)) = (start().await, start().await);
    let all = written(2, 10);
    let reading = read_at(second.address, "second", all).await;
    let dying = first.address;
    write_at(&[dying], 10).await;
    let mut lost = bob(dying).events("").await;
    lost.next_of("hello").await;
    first.kill().await;
    while lost.next().await.is_some() {}
    // What it had acknowledged is there, and the other takes what follows.
    let others = alice(second.address);
    for round in 1..=20 {
        let todo = json!({"id": format!("later-{round}"), "title": "x", "shared": true});
        let mutations =
            [mutation("later", 2 * round - 1, "createTodo", todo), mutation("later", 2 * round, "inc", json!({"id": "all", "by": 1}))];
        others.push("later", &mutations).await;
    }
    reading.await;
    assert_eq!(second.status("/readyz").await, 200);
    assert_eq!(second.terminate().await, 0);
}
