//! A PostgreSQL server that crashes under load: what was acknowledged is there, nobody is left hanging, and service resumes.

use std::sync::Arc;

use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline_tests::postgres::PostgresServer;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::socket::{Received, Socket};
use syncline_tests::{eventually, scale};
use tokio::sync::watch;

use crate::documents::{create, open, saved, signature};

/// Acknowledgements before the server crashes.
const ENOUGH: u64 = 60;
/// Writers, each on a document of its own.
const WRITERS: u8 = 4;

/// What writers and the test tell each other.
struct Told {
    /// Acknowledgements of all writers.
    acknowledged: watch::Sender<u64>,
    /// Whether the crash is over.
    over: watch::Sender<bool>,
}

/// Writes until its connection ends, or it is acknowledged after the crash; the signatures that were acknowledged.
async fn write(mut socket: Socket, author: Author, document: String, snapshot_id: String, told: Arc<Told>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for clock in 0.. {
        if *told.over.borrow() {
            break;
        }
        let update = author.update(&document, &snapshot_id, clock, b"content");
        if socket.try_send(tokio_tungstenite::tungstenite::Message::text(update.to_string())).await.is_err() {
            break;
        }
        match socket.receive().await {
            Received::Json(reply) => {
                assert_eq!((&reply["type"], &reply["clock"]), (&"update-saved".into(), &clock.into()));
                acknowledged.push(signature(&update).to_owned());
                told.acknowledged.send_modify(|count| *count += 1);
            }
            Received::Close(code) => {
                assert_eq!(code, 1013, "it is told to come back");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_database_that_crashes_lose_nothing_that_was_acknowledged() {
    let mut database = PostgresServer::start().await;
    let settings = PostgresSettings::new(PostgresAddress::parse(&database.url()).expect("an address"));
    let executor = Arc::new(PostgresExecutor::start(settings).await.expect("the server is there"));
    let server = TestServer::with(Setup { executor: Some(executor), ..Setup::default() }).await;
    for round in 0..2 * scale() {
        let told = Arc::new(Told { acknowledged: watch::Sender::new(0), over: watch::Sender::new(false) });
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let (document, author) = (format!("d-{round}-{number}"), Author::new(number));
            let (socket, snapshot) = create(server.address, "secsync", &document, &author).await;
            writers.push((document.clone(), tokio::spawn(write(socket, author, document, snapshot.id, told.clone()))));
        }
        told.acknowledged.subscribe().wait_for(|count| *count >= ENOUGH).await.expect("writers come along");
        database.crash().await;
        // Whose COMMIT was under way hears nothing before the server can say what became of it.
        database.start_again().await;
        told.over.send_replace(true);
        let mut written = Vec::new();
        for (document, writer) in writers {
            written.push((document, writer.await.expect("the writer is content")));
        }
        for (document, acknowledged) in &written {
            // Until the first connection is made again, newcomers may be told to come back.
            let found = eventually("service", async || {
                let path = format!("/secsync/{document}?sessionKey=k&mode=complete");
                let mut socket = Socket::try_connect(server.address, &path).await.ok()?;
                match socket.receive().await {
                    Received::Json(found) if found["type"] == "document" => Some(found),
                    _ => None,
                }
            });
            let found = found.await;
            let there: Vec<_> = found["updates"].as_array().expect("a list").iter().map(signature).collect();
            assert!(there.len() <= acknowledged.len() + 1, "at most the last one was not told of");
            assert_eq!(there[..acknowledged.len()], acknowledged[..], "what was acknowledged is there, in its order");
        }
    }
    // Somebody new is served as if nothing had been.
    let author = Author::new(9);
    let (mut socket, snapshot) = create(server.address, "secsync", "after", &author).await;
    socket.send(&author.update("after", &snapshot.id, 0, b"")).await;
    saved(&mut socket, 0).await;
    drop(open(server.address, "after").await);
    server.stop().await;
}
