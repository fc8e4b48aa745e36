//! Several servers on one PostgreSQL: what one of them takes reaches the clients of the others.

mod broken;
mod plasma;
mod secsync;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::pubsub::PubSub;
use syncline::pubsub::memory::MemoryPubSub;
use syncline::pubsub::postgres::PostgresPubSub;
use syncline::runtime::MountSettings;
use syncline::storage::Objects;
use syncline::storage::memory::MemoryObjects;
use syncline_tests::plasma::{Events, Mirror, Replica, User, alice, bob, fixture_with, mutation, plasma_mount, pull_body};
use syncline_tests::postgres::PostgresSchemas;
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::socket::Socket;

use crate::support::encode;

/// Looking is no help: whatever arrives was announced, or asked for because it was known to be missing.
const NEVER_MS: u64 = 600_000;

/// Two servers with the same data.
struct Pair {
    servers: [TestServer; 2],
    schemas: PostgresSchemas,
}

impl Pair {
    /// Two servers that publish to each other.
    async fn start(mounts: Vec<MountSettings>) -> Self {
        Self::with(mounts, true).await
    }

    /// `publishes`: else neither hears of the other.
    async fn with(mounts: Vec<MountSettings>, publishes: bool) -> Self {
        let schemas = PostgresSchemas::new().await;
        let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::new());
        let first = Self::server(&schemas, &mounts, &objects, publishes).await;
        let second = Self::server(&schemas, &mounts, &objects, publishes).await;
        Self { servers: [first, second], schemas }
    }

    async fn server(schemas: &PostgresSchemas, mounts: &[MountSettings], objects: &Arc<dyn Objects>, publishes: bool) -> TestServer {
        let settings = || PostgresSettings::new(PostgresAddress::parse(schemas.url()).expect("an address"));
        let pubsub: Arc<dyn PubSub> = match publishes {
            true => Arc::new(PostgresPubSub::start(settings()).await.expect("the server is there")),
            false => Arc::new(MemoryPubSub::default()),
        };
        let executor = Arc::new(PostgresExecutor::start(settings()).await.expect("the server is there"));
        TestServer::with(Setup {
            mounts: mounts.to_vec(),
            executor: Some(executor),
            objects: Some(objects.clone()),
            pubsub: Some(pubsub),
            ..Setup::default()
        })
        .await
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.servers[0].address, self.servers[1].address]
    }

    /// Ends the connections on which the servers listen; how many there were.
    fn deafen(&self) -> usize {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN ' || current_schema()";
        self.schemas.query("syncline", "pubsub", sql, &[]).len()
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

/// The fixture of plasma; looked at every so often for what nobody announced.
fn tables(poll_ms: u64) -> Vec<MountSettings> {
    vec![plasma_mount(fixture_with(json!({"sequencer": {"pollMs": poll_ms}})))]
}

/// Two users of each server write, each todos of its own and a counter that all share.
async fn write_at(addresses: &[SocketAddr], rounds: u64) {
    let writers = addresses.iter().enumerate().flat_map(|(server, address)| (0..2).map(move |writer| (server, writer, alice(*address))));
    join_all(writers.map(|(server, writer, user)| async move {
        let client = format!("c{server}{writer}");
        for round in 1..=rounds {
            let todo = json!({"id": format!("{client}-{round}"), "title": "x", "shared": true});
            let mutations =
                [mutation(&client, 2 * round - 1, "createTodo", todo), mutation(&client, 2 * round, "inc", json!({"id": "all", "by": 1}))];
            user.push(&format!("g{client}"), &mutations).await;
        }
    }))
    .await;
}

/// How many rows there are when all have written.
fn written(addresses: usize, rounds: u64) -> (usize, u64) {
    let todos = 2 * addresses as u64 * rounds;
    (usize::try_from(todos).expect("a small number") + 1, todos)
}

fn has_all(replica: &Replica, (rows, count): (usize, u64)) -> bool {
    replica.rows.len() == rows && replica.rows["counters/all"]["n"] == count
}

/// Pulls whenever it is poked, until it has everything.
async fn follow_pokes(user: User, group: &str, mut events: Events, all: (usize, u64)) {
    let mut replica = Replica::new();
    loop {
        while replica.apply(&user.pull(group, &replica.cookie).await).unwrap_or_else(|broken| panic!("{broken}")).has_more {}
        if has_all(&replica, all) {
            return;
        }
        events.next_of("poke").await;
    }
}

/// Pulls that wait, until it has everything.
async fn follow_by_waiting(user: User, group: &str, all: (usize, u64)) {
    let mut replica = Replica::new();
    while !has_all(&replica, all) {
        let answer = user.post("/pull?wait=60000", &pull_body(group, &replica.cookie)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        replica.apply(&answer.json()).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// Takes changes as they come, until it has everything.
async fn follow_changes(mut events: Events, mut replica: Replica, all: (usize, u64)) {
    while !has_all(&replica, all) {
        let patch = events.next_of("patch").await.json();
        assert_eq!(patch["baseCookie"], replica.cookie);
        let mut answer = patch["pullResponse"].clone();
        answer["hasMore"] = false.into();
        replica.apply(&answer).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// Follows live queries, until they have everything.
async fn follow_live(mut socket: Socket, (rows, count): (usize, u64)) {
    let (mut todos, mut counters) = (Mirror::new(&["id"]), Mirror::new(&["id"]));
    while todos.rows.len() != rows - 1 || counters.rows.first().is_none_or(|row| row["n"] != count) {
        let message = socket.json().await;
        let mirror = match message["id"].as_str() {
            Some("todos") => &mut todos,
            Some("counters") => &mut counters,
            _ => continue,
        };
        mirror.apply(&message).unwrap_or_else(|broken| panic!("{broken:#}"));
    }
}

/// A socket with live queries.
async fn live_socket(address: SocketAddr) -> Socket {
    let mut socket = Socket::connect(address, "/sync/ws?auth=tok-bob").await;
    socket.json_of("hello").await;
    for table in ["todos", "counters"] {
        socket.send(&json!({"type": "live.start", "id": table, "query": {"from": table}})).await;
    }
    socket
}

/// Readers of every kind at a server, which go on until they have everything.
async fn read_at(address: SocketAddr, name: &str, all: (usize, u64)) -> impl Future<Output = ()> + use<> {
    let user = bob(address);
    let [poked, waiting, changing] = ["poked", "waiting", "changing"].map(|kind| format!("{kind} at {name}"));
    let pokes = user.events("").await;
    let changes = user.events(&format!("?clientGroupID={}&mode=data&cookie=null", encode(&changing))).await;
    let socket = live_socket(address).await;
    async move {
        tokio::join!(
            follow_pokes(user, &poked, pokes, all),
            follow_by_waiting(user, &waiting, all),
            follow_changes(changes, Replica::new(), all),
            follow_live(socket, all),
        );
    }
}
