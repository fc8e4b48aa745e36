//! A mount with tables of every kind, and clients that check what the real one checks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json, json};

use crate::plasma::cookie::Cookie;
use crate::plasma::engine::{Caller, Committing, Dialect, Engine, EngineOptions, Hooks};
use crate::plasma::mutators::Mutators;
use crate::plasma::pull::{PullRefused, PullReply, PullRequest};
use crate::plasma::push::{Mutation, MutationStatus, OverLimit, PushRefused, PushReply, PushRequest};
use crate::plasma::schema::Schema;
use crate::plasma::server_db::{Operation, Policy, WriteRefused, Written};
use crate::test_host::HostInMemory;

pub fn schema() -> Json {
    let own = json!({"op": "=", "left": {"col": "owner"}, "right": {"ctx": "userId"}});
    let text = || json!({"type": "text"});
    json!({"tables": {
        "todos": {
            "columns": {"id": text(), "owner": text(), "title": text(), "done": {"type": "boolean", "default": false},
                "rank": {"type": "integer", "default": 0}, "shared": {"type": "boolean", "default": true},
                "meta": {"type": "json", "nullable": true}},
            "primaryKey": ["id"],
            "auth": {
                "read": {"or": [own, {"op": "=", "left": {"col": "shared"}, "right": {"val": true}},
                    {"op": "=", "left": {"ctx": "role"}, "right": {"val": "admin"}}]},
                "write": {"insert": own, "update": own}
            }
        },
        "counters": {"columns": {"id": text(), "n": {"type": "integer", "default": 0}}, "primaryKey": ["id"]},
        "notes": {"columns": {"id": text(), "owner": text(), "body": {"type": "text", "encrypted": true}}, "primaryKey": ["id"],
            "auth": {"read": own, "write": own}},
        "docs": {"columns": {"id": text(), "cover": {"type": "file", "nullable": true}}, "primaryKey": ["id"]},
        "members": {"columns": {"team": text(), "userId": text()}, "primaryKey": ["team", "userId"]},
        "teams": {"columns": {"id": text(), "org": {"type": "text", "nullable": true}}, "primaryKey": ["id"]},
        "boards": {"columns": {"id": text(), "team": text(), "name": text()}, "primaryKey": ["id"],
            "indexes": {"by_team": {"columns": ["team"]}},
            "auth": {"read": member_of("team")}},
        // Visible by way of two tables, or where nobody is a member.
        "cards": {"columns": {"id": text(), "board": text(), "text": text()}, "primaryKey": ["id"],
            "auth": {"read": {"or": [
                {"exists": {"table": "boards", "where": {"and": [
                    {"op": "=", "left": {"col": "id"}, "right": {"outer": "board"}}, member_of("team")]}}},
                {"not": {"exists": {"table": "boards", "where": {"op": "=", "left": {"col": "id"}, "right": {"outer": "board"}}}}}]}}},
        "parents": {"columns": {"id": text(), "code": {"type": "integer", "nullable": true}}, "primaryKey": ["id"],
            "indexes": {"code": {"columns": ["code"], "unique": true}}},
        "cascading": {"columns": {"id": text(), "parent": {"type": "text", "references": {"table": "parents", "column": "id", "onDelete": "cascade"}}},
            "primaryKey": ["id"]},
        "loosened": {"columns": {"id": text(),
            "parent": {"type": "text", "nullable": true, "references": {"table": "parents", "column": "id", "onDelete": "setNull"}},
            "self": {"type": "text", "nullable": true, "references": {"table": "loosened", "column": "id", "onDelete": "cascade"}}},
            "primaryKey": ["id"]},
        "restricting": {"columns": {"id": text(),
            "parent": {"type": "integer", "nullable": true, "references": {"table": "parents", "column": "code", "onDelete": "restrict"}}},
            "primaryKey": ["id"]},
        "keyed": {"columns": {"n": {"type": "integer"}, "big": {"type": "bigint"}, "flag": {"type": "boolean"}, "name": text(),
            "x": {"type": "real", "nullable": true}, "data": {"type": "bytes", "nullable": true}}, "primaryKey": ["n", "big", "flag", "name"]},
    }})
}

fn member_of(column: &str) -> Json {
    json!({"exists": {"table": "members", "where": {"and": [
        {"op": "=", "left": {"col": "team"}, "right": {"outer": column}},
        {"op": "=", "left": {"col": "userId"}, "right": {"ctx": "userId"}}]}}})
}

pub fn mutators() -> Json {
    json!({
        "addTodo": {"steps": [{"insert": {"table": "todos", "values": {"id": {"arg": "id"}, "owner": {"ctx": "userId"},
            "title": {"arg": "title", "default": "untitled"}, "shared": {"arg": "shared"}, "meta": {"arg": "meta"}}}}]},
        "share": {"steps": [{"update": {"table": "todos", "key": [{"arg": "id"}], "set": {"shared": {"arg": "shared"}}}}]},
        "inc": {"args": {"id": "text"}, "steps": [
            {"insert": {"table": "counters", "values": {"id": {"arg": "id"}}, "ifAbsent": true}},
            {"update": {"table": "counters", "key": [{"arg": "id"}], "set": {"n": {"add": [{"col": "n"}, {"arg": "by", "default": 1}]}}}}]},
        "many": {"steps": [{"forEach": {"arg": "items", "do": [
            {"insert": {"table": "counters", "values": {"id": {"item": "id"}, "n": {"item": "n"}}}}]}}]},
        "writeThenFail": {"steps": [
            {"insert": {"table": "counters", "values": {"id": {"arg": "id"}, "n": {"val": 99}}}},
            {"fail": {"message": "refused by rule"}}]},
        "guarded": {"steps": [
            {"assert": {"where": {"op": "=", "left": {"arg": "word"}, "right": {"val": "please"}}, "message": "say please"}},
            {"assert": {"exists": {"table": "counters", "where": {"op": "=", "left": {"col": "id"}, "right": {"arg": "id"}}}, "message": "no such counter"}},
            {"delete": {"table": "counters", "key": [{"arg": "id"}]}}]},
        "stamp": {"steps": [{"upsert": {"table": "counters", "values": {"id": {"concat": [{"val": "a"}, {"val": "b"}]},
            "n": {"now": "mutation"}}}},
            {"upsert": {"table": "counters", "values": {"id": {"val": "server"}, "n": {"now": "server"}}}},
            {"upsert": {"table": "counters", "values": {"id": {"uuid": true}, "n": {"coalesce": [{"arg": "none"}, {"val": 7}]}}}}]},
        "noop": {"steps": []},
    })
}

/// Version, writes to rows, new mutations, client.
pub type Commit = (u64, u64, u64, Option<String>);

/// Remembers what was committed.
#[derive(Default)]
pub struct Recorder {
    pub commits: RefCell<Vec<Commit>>,
}

impl Hooks for Recorder {
    fn committing(&self, change: &Committing<'_>) {
        let client = change.client_id.map(str::to_owned);
        self.commits.borrow_mut().push((change.version, change.rows_changed, change.new_mutations, client));
    }
}

pub struct World {
    pub host: HostInMemory,
    pub engine: Engine,
    pub hooks: Recorder,
    pub mutations_max: usize,
}

impl World {
    pub fn new() -> Self {
        Self::with(EngineOptions::default())
    }

    pub fn with(options: EngineOptions) -> Self {
        let world = Self::not_started(options, &schema());
        world.engine.start(world.host.imports()).unwrap();
        world
    }

    pub fn not_started(options: EngineOptions, schema: &Json) -> Self {
        let schema = Schema::parse(schema, "schema").unwrap();
        let mutators = Mutators::parse(&schema, &mutators(), "mutators", true, false);
        let mutators = mutators.unwrap_or_default();
        let engine = Engine::new(Rc::new(schema), mutators, options);
        Self { host: HostInMemory::default(), engine, hooks: Recorder::default(), mutations_max: 200 }
    }

    /// The same database under another schema or other options.
    pub fn restarted(self, options: EngineOptions, schema: &Json) -> Self {
        Self { host: self.host, ..Self::not_started(options, schema) }
    }

    pub fn push_request(&self, group: &str, mutations: &[(&str, u64, &str, Json)]) -> PushRequest {
        let mutation = |(client, id, name, arguments): &(&str, u64, &str, Json)| Mutation {
            client_id: (*client).into(),
            id: *id,
            name: (*name).into(),
            arguments: arguments.clone(),
            unreadable: None,
            timestamp: 910.6,
        };
        PushRequest {
            dialect: Dialect::Replicache,
            client_group_id: group.into(),
            mutations: mutations.iter().map(mutation).collect(),
            mutations_max: self.mutations_max,
            over_limit: OverLimit::ApplyPrefix,
            second_try: false,
            transaction_ms: 1000,
        }
    }

    pub fn try_push(&self, user: &str, group: &str, mutations: &[(&str, u64, &str, Json)]) -> Result<PushReply, PushRefused> {
        self.send(user, &self.push_request(group, mutations))
    }

    pub fn send(&self, user: &str, request: &PushRequest) -> Result<PushReply, PushRefused> {
        self.engine.push(self.host.imports(), &caller(user), request, &self.hooks)
    }

    /// Pushes what must not be refused as a whole.
    pub fn push(&self, user: &str, group: &str, mutations: &[(&str, u64, &str, Json)]) -> PushReply {
        self.try_push(user, group, mutations).unwrap()
    }

    /// Runs one mutation in a client of its own; its error, if it has one.
    pub fn run(&self, user: &str, name: &str, arguments: Json) -> Result<PushReply, String> {
        let client = format!("run-{}", self.host.sql("SELECT count(*) FROM t__plasma_clients").len() + self.hooks.commits.borrow().len());
        let reply = self.push(user, &format!("group of {user}"), &[(&client, 1, name, arguments)]);
        match &reply.results[0].status {
            MutationStatus::Applied => Ok(reply),
            MutationStatus::Error(error) => Err(format!("{}: {}", error.name, error.message)),
            MutationStatus::Duplicate => panic!("a new client's mutation is a duplicate"),
        }
    }

    pub fn try_pull(&self, user: &str, group: &str, cookie: &Json, rows_max: usize) -> Result<PullReply, PullRefused> {
        self.pull_as(&caller(user), group, cookie, rows_max, Dialect::Replicache)
    }

    pub fn pull_as(
        &self,
        caller: &Caller,
        group: &str,
        cookie: &Json,
        rows_max: usize,
        dialect: Dialect,
    ) -> Result<PullReply, PullRefused> {
        let cookie = Cookie::parse(cookie).unwrap();
        let request = PullRequest { dialect, client_group_id: group.into(), cookie, rows_max, queries: Vec::new() };
        self.engine.pull(self.host.imports(), caller, &request)
    }

    pub fn write(&self, policy: &Policy, operations: &Json) -> Result<Written, WriteRefused> {
        let operations: Vec<_> = operations.as_array().unwrap().iter().map(|one| Operation::parse(one).unwrap()).collect();
        self.engine.write(self.host.imports(), policy, &operations, &self.hooks)
    }

    pub fn version(&self) -> u64 {
        self.engine.version(self.host.imports()).unwrap()
    }

    /// A count or another number.
    pub fn number(&self, sql: &str) -> i64 {
        match self.host.sql(sql)[0][0] {
            crate::imports::Value::Integer(number) => number,
            ref other => panic!("{other:?}"),
        }
    }

    /// Compacts to the end.
    pub fn compact(&self, up_to: crate::plasma::compaction::CompactUpTo) -> crate::plasma::compaction::Compaction {
        let mut done = self.engine.compact(self.host.imports(), up_to, false).unwrap();
        let mut removed = done.removed;
        while let Some(next) = done.next.take() {
            done = self.engine.compact_on(self.host.imports(), next).unwrap();
            removed += done.removed;
        }
        crate::plasma::compaction::Compaction { removed, ..done }
    }
}

pub fn context(user: &str) -> Map<String, Json> {
    json!({"userId": user}).as_object().unwrap().clone()
}

pub fn caller(user: &str) -> Caller {
    Caller { context: context(user), user_id: user.into(), context_digest: format!("digest of {user}") }
}

/// A client group as the real client keeps it, with the real client's checks (docs/protocols/plasma.md, section 7.3).
#[derive(Clone, Debug)]
pub struct Client {
    pub caller: Caller,
    pub group: String,
    pub cookie: Json,
    pub rows: BTreeMap<String, Json>,
    pub last_ids: BTreeMap<String, u64>,
    pub resets: u64,
    /// Operations of the last pull, `clear` left out.
    pub last_ops: Vec<String>,
}

pub fn order(cookie: &Json) -> f64 {
    match cookie {
        Json::Null => -1.0,
        Json::Number(number) => number.as_f64().unwrap(),
        object => object["order"].as_f64().unwrap(),
    }
}

impl Client {
    pub fn new(user: &str, group: &str) -> Self {
        Self {
            caller: caller(user),
            group: group.into(),
            cookie: Json::Null,
            rows: BTreeMap::new(),
            last_ids: BTreeMap::new(),
            resets: 0,
            last_ops: Vec::new(),
        }
    }

    /// Pulls one page; whether there is more.
    pub fn pull_page(&mut self, world: &World, rows_max: usize) -> bool {
        let reply = world.pull_as(&self.caller, &self.group, &self.cookie, rows_max, Dialect::Replicache).unwrap();
        self.take(&reply);
        reply.has_more
    }

    /// Takes a reply as the real client does.
    pub fn take(&mut self, reply: &PullReply) {
        let patch: Vec<Json> = serde_json::from_str(&reply.patch).unwrap();
        let cookie = reply.cookie.to_json();
        if cookie == self.cookie {
            assert!(patch.is_empty() && reply.last_mutation_ids.is_empty() && !reply.has_more, "{reply:?}");
        } else {
            assert!(order(&cookie) > order(&self.cookie), "{} after {}", cookie, self.cookie);
        }
        assert_eq!(Cookie::parse(&cookie), Some(reply.cookie.clone()));
        for (region, before) in self.cookie["r"].as_object().into_iter().flatten() {
            assert!(cookie["r"][region].as_u64() >= before.as_u64(), "{region} fell from {} to {cookie}", self.cookie);
        }
        if reply.reset {
            self.resets += 1;
            assert_eq!(patch[0], json!({"op": "clear"}));
        }
        self.last_ops.clear();
        for (index, change) in patch.iter().enumerate() {
            let key = change["key"].as_str().unwrap_or_default().to_owned();
            match change["op"].as_str().unwrap() {
                "clear" => {
                    assert!(index == 0 && (reply.reset || self.cookie.is_null()));
                    self.rows.clear();
                    continue;
                }
                "put" => drop(self.rows.insert(key.clone(), change["value"].clone())),
                "del" => drop(self.rows.remove(&key)),
                other => panic!("{other}"),
            }
            self.last_ops.push(format!("{} {key}", change["op"].as_str().unwrap()));
        }
        for (client, id) in &reply.last_mutation_ids {
            let before = self.last_ids.insert(client.clone(), *id);
            assert!(before.is_none_or(|before| before <= *id), "last mutation id of {client} fell from {before:?} to {id}");
        }
        self.cookie = cookie;
    }

    /// Pulls until there is no more.
    pub fn pull(&mut self, world: &World) -> &mut Self {
        while self.pull_page(world, 1000) {}
        self
    }

    pub fn keys(&self) -> Vec<&str> {
        self.rows.keys().map(String::as_str).collect()
    }
}

/// Writes in the server's name.
pub fn bypass(world: &World, operations: &Json) -> Written {
    world.write(&Policy::Bypass, operations).unwrap()
}
