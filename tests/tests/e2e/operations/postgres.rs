//! A server whose databases are in PostgreSQL, for whoever runs it.

use syncline_tests::postgres::PostgresSchemas;
use syncline_tests::process::Process;
use syncline_tests::secsync::Author;

use crate::cli::{data_folder, enter, fails, path_of, run};
use crate::support::*;

#[tokio::test]
async fn it_is_served_looked_at_and_backed_up_by_its_own_means() {
    let (data, schemas) = (data_folder(), PostgresSchemas::new().await);
    let with = ["--executor", schemas.url(), "--data", path_of(&data)];
    let process = Process::start(data.path(), &with[..2]).await;
    let (mut socket, _) = enter(&process, &place("doc", "k")).await;
    let snapshot = Author::new(1).first_snapshot("doc", b"content");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    assert_eq!(process.status("/readyz").await, 200);
    assert!(process.get("/metrics").await.contains("syncline_database_bytes{mount=\"secsync\"}"));
    let backup = data.path().with_extension("backup");
    let to = backup.to_str().expect("text");
    fails(&["backup", "--to", to, with[0], with[1], with[2], with[3]], &["no backup was made", "pg_dump"]).await;
    assert_eq!(process.terminate().await, 0);
    fails(&["backup", "--to", to, with[0], with[1], with[2], with[3]], &["no backup was made", "pg_dump"]).await;
    assert!(!backup.exists());
    let (output, text) = run(&["doctor", "--listen", "127.0.0.1:0", with[0], with[1], with[2], with[3]], &[]).await;
    assert!(output.status.success() && text.contains("ok       databases: PostgreSQL "), "{text}");
    // The documents are in the database, not in the folder.
    assert_eq!(schemas.query("secsync", "secsync", "SELECT id FROM ss_documents", &[]), [["doc"]]);
    assert!(!data.path().join("secsync").exists());
    let process = Process::start(data.path(), &with[..2]).await;
    let (_, document) = enter(&process, &place("doc", "k")).await;
    assert_eq!(document["snapshot"], snapshot.frame);
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let data = data_folder();
    let gone = "postgres://me:pass-word@127.0.0.1:1/x";
    for command in ["serve", "doctor"] {
        let (output, text) = run(&[command, "--listen", "127.0.0.1:0", "--executor", gone, "--data", path_of(&data)], &[]).await;
        assert!(!output.status.success() && text.contains("…@127.0.0.1:1/x") && !text.contains("pass-word"), "{command}: {text}");
    }
}
