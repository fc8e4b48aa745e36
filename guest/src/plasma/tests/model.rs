//! Random histories against an oracle: what clients hold, when nothing moves any more, is what the oracle shows them, and on the way
//! there cookies grow, acknowledgements never run ahead of data, and deltas hold nothing that neither changed nor flipped.
//!
//! `PROPTEST_CASES` runs it longer.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::support::*;
use crate::imports::SqlError;
use crate::plasma::compaction::CompactUpTo;
use crate::plasma::cookie::Cookie;
use crate::plasma::engine::{Dialect, EngineOptions};
use crate::plasma::push::{MutationStatus, PushRefused};
use crate::test_host::Fault;

/// The client groups: user and name. Each has two clients.
const GROUPS: [(&str, &str); 3] = [("alice", "ga"), ("bob", "gb"), ("bob", "gb-other")];

/// Who writes: one after the other, and all in one order.
const REGIONS: [&str; 3] = ["local", "eu", "us"];

/// One change, as a built-in mutator or a declared one.
#[derive(Clone, Debug)]
enum Change {
    PutTodo { id: u8, shared: bool },
    DropTodo(u8),
    Join { team: u8, user: u8 },
    Leave { team: u8, user: u8 },
    PutBoard { id: u8, team: u8 },
    DropBoard(u8),
    PutCard { id: u8, board: u8 },
    DropCard(u8),
    Count(u8),
    Fail,
    Nothing,
}

#[derive(Clone, Debug)]
enum Action {
    /// A client pushes what it has not had confirmed, after so many more changes.
    Push {
        group: usize,
        client: u8,
        changes: Vec<Change>,
        fails_at: Option<u32>,
    },
    /// The server writes, all or nothing.
    Write(Vec<Change>),
    /// A group pulls a page. The reply may get lost.
    Pull {
        group: usize,
        rows_max: usize,
        lost: bool,
    },
    Compact {
        keep: u64,
        tombstones_only: bool,
    },
    /// The caller of a group gains or loses a role.
    Role {
        group: usize,
    },
    /// Another instance takes over, which has no statements yet, and writes in the name of this region.
    Restart(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..3_u8, any::<bool>()).prop_map(|(id, shared)| Change::PutTodo { id, shared }),
        1 => (0..3_u8).prop_map(Change::DropTodo),
        3 => (0..2_u8, 0..2_u8).prop_map(|(team, user)| Change::Join { team, user }),
        3 => (0..2_u8, 0..2_u8).prop_map(|(team, user)| Change::Leave { team, user }),
        3 => (0..3_u8, 0..2_u8).prop_map(|(id, team)| Change::PutBoard { id, team }),
        2 => (0..3_u8).prop_map(Change::DropBoard),
        3 => (0..4_u8, 0..3_u8).prop_map(|(id, board)| Change::PutCard { id, board }),
        1 => (0..4_u8).prop_map(Change::DropCard),
        2 => (0..2_u8).prop_map(Change::Count),
        1 => Just(Change::Fail),
        1 => Just(Change::Nothing),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let changes = |most: usize| prop::collection::vec(change(), 1..most);
    prop_oneof![
        6 => (0..GROUPS.len(), 0..2_u8, changes(5), prop::option::weighted(0.1, 0..8_u32))
            .prop_map(|(group, client, changes, fails_at)| Action::Push { group, client, changes, fails_at }),
        2 => changes(4).prop_map(Action::Write),
        8 => (0..GROUPS.len(), 1..6_usize, prop::bool::weighted(0.2))
            .prop_map(|(group, rows_max, lost)| Action::Pull { group, rows_max, lost }),
        1 => (0..8_u64, any::<bool>()).prop_map(|(keep, tombstones_only)| Action::Compact { keep, tombstones_only }),
        1 => (0..GROUPS.len()).prop_map(|group| Action::Role { group }),
        1 => (0..REGIONS.len()).prop_map(Action::Restart),
    ]
}

type Tables = BTreeMap<String, Json>;

/// What the server must hold.
#[derive(Default)]
struct Oracle {
    /// By key as in patches.
    rows: Tables,
    version: u64,
    /// When a row changed last, gone ones among them.
    changed_at: BTreeMap<String, u64>,
    /// By client: the version of each of its mutations.
    processed: BTreeMap<String, Vec<u64>>,
}

fn name_of(change: &Change, user: &str) -> (&'static str, Json) {
    let team = |team: &u8| format!("team{team}");
    let member = |index: &u8| ["alice", "bob"][usize::from(*index)];
    match change {
        Change::PutTodo { id, shared } => ("todos.upsert", json!({"id": format!("t{id}"), "owner": user, "title": "t", "shared": shared})),
        Change::DropTodo(id) => ("todos.delete", json!({"id": format!("t{id}")})),
        Change::Join { team: id, user } => ("members.insert", json!({"team": team(id), "userId": member(user)})),
        Change::Leave { team: id, user } => ("members.delete", json!({"team": team(id), "userId": member(user)})),
        Change::PutBoard { id, team: of } => ("boards.upsert", json!({"id": format!("b{id}"), "team": team(of), "name": "b"})),
        Change::DropBoard(id) => ("boards.delete", json!({"id": format!("b{id}")})),
        Change::PutCard { id, board } => ("cards.upsert", json!({"id": format!("c{id}"), "board": format!("b{board}"), "text": "c"})),
        Change::DropCard(id) => ("cards.delete", json!({"id": format!("c{id}")})),
        Change::Count(id) => ("inc", json!({"id": format!("k{id}")})),
        Change::Fail => ("writeThenFail", json!({"id": "k0"})),
        Change::Nothing => ("noop", Json::Null),
    }
}

impl Oracle {
    /// Carries out a change under a version; whether it succeeds. `enforced`: whether write predicates count.
    fn apply(&mut self, change: &Change, user: &str, version: u64, enforced: bool) -> bool {
        let (name, row) = name_of(change, user);
        let table = name.split('.').next().unwrap();
        let key = match change {
            Change::Join { .. } | Change::Leave { .. } => {
                format!("members/{}/{}", row["team"].as_str().unwrap(), row["userId"].as_str().unwrap())
            }
            _ => format!("{table}/{}", row["id"].as_str().unwrap_or_default()),
        };
        let old = self.rows.get(&key).cloned();
        match change {
            Change::Fail => return false,
            Change::Nothing => return true,
            Change::Count(_) => {
                let key = format!("counters/{}", row["id"].as_str().unwrap());
                let n = self.rows.get(&key).map_or(0, |row| row["n"].as_i64().unwrap());
                self.put(key, json!({"id": row["id"], "n": n + 1}), version);
            }
            Change::Join { .. } if old.is_some() => return false,
            Change::PutTodo { .. } => {
                if enforced && old.as_ref().is_some_and(|old| old["owner"] != user) {
                    return false;
                }
                let mut new = old.unwrap_or_else(|| json!({"done": false, "rank": 0, "meta": null}));
                new.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
                self.put(key, new, version);
            }
            // The schema names no rule for deletions, so nobody may.
            Change::DropTodo(_) if old.is_some() && enforced => return false,
            Change::DropTodo(_) | Change::Leave { .. } | Change::DropBoard(_) | Change::DropCard(_) => {
                if self.rows.remove(&key).is_some() {
                    self.changed_at.insert(key, version);
                }
            }
            Change::Join { .. } | Change::PutBoard { .. } | Change::PutCard { .. } => self.put(key, row, version),
        }
        true
    }

    fn put(&mut self, key: String, row: Json, version: u64) {
        if self.rows.get(&key) != Some(&row) {
            self.rows.insert(key.clone(), row);
            self.changed_at.insert(key, version);
        }
    }

    fn is_member(&self, team: &Json, user: &str) -> bool {
        self.rows.contains_key(&format!("members/{}/{user}", team.as_str().unwrap()))
    }

    fn visible(&self, client: &Client) -> Tables {
        let user = client.caller.user_id.as_str();
        let shows = |key: &str, row: &Json| match key.split('/').next().unwrap() {
            "todos" => row["owner"] == user || row["shared"] == true || client.caller.context.contains_key("role"),
            "boards" => self.is_member(&row["team"], user),
            "cards" => match self.rows.get(&format!("boards/{}", row["board"].as_str().unwrap())) {
                Some(board) => self.is_member(&board["team"], user),
                None => true,
            },
            _ => true,
        };
        self.rows.iter().filter(|(key, row)| shows(key, row)).map(|(key, row)| (key.clone(), row.clone())).collect()
    }
}

struct Run {
    world: World,
    oracle: Oracle,
    clients: Vec<Client>,
    /// By client id: all its mutations ever, in order.
    queues: BTreeMap<String, Vec<Change>>,
    /// Whether anything gave a reason for a client to start anew.
    may_reset: bool,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        world.mutations_max = 6;
        let clients = GROUPS.iter().map(|(user, group)| Client::new(user, group)).collect();
        Self { world, oracle: Oracle::default(), clients, queues: BTreeMap::new(), may_reset: false }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Push { group, client, changes, fails_at } => self.push(*group, *client, changes, *fails_at),
            Action::Write(changes) => self.write(changes),
            Action::Pull { group, rows_max, lost } => drop(self.pull(*group, *rows_max, *lost)),
            Action::Compact { keep, tombstones_only } => {
                self.may_reset = true;
                let mut step = self.world.engine.compact(self.world.host.imports(), CompactUpTo::Keep(*keep), *tombstones_only).unwrap();
                while let Some(next) = step.next {
                    step = self.world.engine.compact_on(self.world.host.imports(), next).unwrap();
                }
            }
            Action::Role { group } => {
                self.may_reset = true;
                let caller = &mut self.clients[*group].caller;
                if caller.context.remove("role").is_none() {
                    caller.context.insert("role".into(), json!("admin"));
                }
                caller.context_digest = json!(caller.context).to_string();
            }
            Action::Restart(region) => {
                let options = EngineOptions { region: REGIONS[*region].into(), ..EngineOptions::default() };
                let world = std::mem::replace(&mut self.world, World::not_started(options.clone(), &schema()));
                let mutations_max = world.mutations_max;
                self.world = world.restarted(options, &schema());
                self.world.mutations_max = mutations_max;
                self.world.engine.start(self.world.host.imports()).unwrap();
            }
        }
    }

    /// Sends all that the client's group does not know to be processed, as the real client does.
    fn push(&mut self, group: usize, client: u8, changes: &[Change], fails_at: Option<u32>) {
        let (user, group_id) = GROUPS[group];
        let client_id = format!("{group_id}-{client}");
        let queue = self.queues.entry(client_id.clone()).or_default();
        queue.extend(changes.iter().cloned());
        let confirmed = self.clients[group].last_ids.get(&client_id).copied().unwrap_or(0) as usize;
        let pending: Vec<_> = (confirmed..queue.len())
            .map(|index| {
                let (name, arguments) = name_of(&queue[index], user);
                (client_id.as_str(), index as u64 + 1, name, arguments)
            })
            .collect();
        if let Some(statement) = fails_at {
            self.world.host.fail(Fault::Statement(statement), SqlError::Unavailable("away".into()));
        }
        let pushed = self.world.try_push(user, group_id, &pending);
        self.world.host.no_faults();
        let reply = match pushed {
            Ok(reply) => reply,
            Err(PushRefused::Failure(_)) if fails_at.is_some() => return assert_eq!(self.world.version(), self.oracle.version),
            Err(refused) => panic!("{refused:?}"),
        };
        let queue = &self.queues[&client_id];
        let processed = self.oracle.processed.entry(client_id.clone()).or_default().clone();
        for result in &reply.results {
            let index = result.id as usize - 1;
            if index < processed.len() {
                assert_eq!(result.status, MutationStatus::Duplicate);
                continue;
            }
            self.oracle.version += 1;
            let version = self.oracle.version;
            let applied = self.oracle.apply(&queue[index], user, version, true);
            assert_eq!(result.status == MutationStatus::Applied, applied, "{:?}: {:?}", queue[index], result.status);
            self.oracle.processed.get_mut(&client_id).unwrap().push(version);
        }
        assert_eq!(reply.version, self.oracle.version);
        assert_eq!(reply.last_mutation_ids[&client_id], self.oracle.processed[&client_id].len() as u64);
        assert_eq!(reply.remaining, queue.len() - self.oracle.processed[&client_id].len());
    }

    fn write(&mut self, changes: &[Change]) {
        let operations: Vec<Json> = changes.iter().filter_map(operation).collect();
        // Nothing to do takes no version.
        let version = self.oracle.version + u64::from(!operations.is_empty());
        let before = (self.oracle.rows.clone(), self.oracle.changed_at.clone());
        let changes: Vec<_> = changes.iter().filter(|change| operation(change).is_some()).collect();
        let works = changes.iter().all(|change| self.oracle.apply(change, "alice", version, false));
        let written = self.world.write(&crate::plasma::server_db::Policy::Bypass, &json!(operations));
        assert_eq!(written.is_ok(), works, "{written:?}");
        if works {
            self.oracle.version = version;
        } else {
            (self.oracle.rows, self.oracle.changed_at) = before;
        }
    }

    /// Pulls a page; whether there is more.
    fn pull(&mut self, group: usize, rows_max: usize, lost: bool) -> bool {
        let client = &mut self.clients[group];
        let reply = self.world.pull_as(&client.caller, &client.group, &client.cookie, rows_max, Dialect::Replicache).unwrap();
        // Another context takes a version.
        self.oracle.version = self.oracle.version.max(self.world.version());
        assert!(self.may_reset || !reply.reset, "a reset without a reason");
        if lost {
            return true;
        }
        let before = client.clone();
        client.take(&reply);
        let reached = reply.cookie.version();
        for (id, last) in &reply.last_mutation_ids {
            let versions = &self.oracle.processed[id];
            assert!(versions[*last as usize - 1] <= reached, "{id} {last} is acknowledged before its effects");
        }
        // A client that was caught up gets what changed or flipped, and nothing else.
        let is_caught_up = before.cookie.is_number() || before.cookie.get("v").is_none();
        let caught_up = Cookie::parse(&before.cookie).filter(|cookie| *cookie != Cookie::Null && is_caught_up);
        if let (Some(caught_up), false) = (caught_up.map(|cookie| cookie.version()), reply.reset) {
            for operation in &client.last_ops {
                let (kind, key) = operation.split_once(' ').unwrap();
                let changed = self.oracle.changed_at.get(key).is_some_and(|version| *version > caught_up);
                assert!(changed || (kind == "put") != before.rows.contains_key(key), "{operation} neither changed nor flipped");
            }
        }
        if !reply.has_more {
            assert_eq!(client.rows, self.oracle.visible(client), "{} at {}", client.group, client.cookie);
            assert_eq!(reached, self.oracle.version);
        }
        reply.has_more
    }

    /// Everybody pulls to the end.
    fn settle(&mut self) {
        for (group, (_, name)) in GROUPS.iter().enumerate() {
            while self.pull(group, 3, false) {}
            for client in 0..2 {
                let id = format!("{name}-{client}");
                let processed = self.oracle.processed.get(&id).map_or(0, Vec::len) as u64;
                assert_eq!(self.clients[group].last_ids.get(&id).copied().unwrap_or(0), processed, "{id}");
            }
        }
        self.check_log();
    }

    /// Every row that is there has exactly one newest entry, which says so.
    fn check_log(&self) {
        for table in ["todos", "members", "boards", "cards", "counters"] {
            let rows = self.world.number(&format!("SELECT count(*) FROM t_{table}"));
            let newest = format!("SELECT count(*) FROM t__plasma_changes WHERE tbl = '{table}' AND newest = 1 AND op = 'put'");
            assert_eq!(rows, self.world.number(&newest), "{table}");
        }
        let outdated = "SELECT count(*) FROM t__plasma_changes AS a JOIN t__plasma_changes AS b ON a.tbl = b.tbl AND a.pk = b.pk \
                        WHERE a.newest = 1 AND (b.version, b.seq) > (a.version, a.seq)";
        assert_eq!(self.world.number(outdated), 0);
    }
}

/// A change as an operation of the server's side, if it is one.
fn operation(change: &Change) -> Option<Json> {
    let (name, row) = name_of(change, "alice");
    let (table, action) = name.split_once('.')?;
    Some(match (action, change) {
        ("delete", Change::Leave { .. }) => json!({"delete": {"table": table, "pk": [row["team"], row["userId"]]}}),
        ("delete", _) => json!({"delete": {"table": table, "pk": [row["id"]]}}),
        _ => json!({action: {"table": table, "row": row}}),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96),
        ..ProptestConfig::default() })]

    #[test]
    fn clients_converge_to_what_the_oracle_shows_them(actions in prop::collection::vec(action(), 1..50)) {
        let mut run = Run::new();
        actions.iter().for_each(|action| run.act(action));
        run.settle();
    }
}
