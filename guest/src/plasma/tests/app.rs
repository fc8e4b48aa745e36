//! Mutators of the app: what it writes joins the mutation, and its falls cost the mutation only.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::{Map, Value as Json, json};

use super::support::*;
use crate::imports::{App, AppFailure, Caller as AppCaller, Identity, NoApp, Reply, RouteRequest, RouteResponse, Verdict};
use crate::plasma::engine::{Engine, EngineOptions, NoHooks};
use crate::plasma::failure::Failure;
use crate::plasma::mutators::Mutators;
use crate::plasma::push::{MutationStatus, PushRefused, PushReply};
use crate::plasma::schema::Schema;
use crate::plasma::server_db::{Operation, Policy};

/// An app whose mutators write through an engine of their own, as `services` does.
struct TestApp<'a> {
    world: &'a World,
    services: Engine,
    callers: RefCell<Vec<AppCaller>>,
    allows: Cell<bool>,
}

fn engine(options: EngineOptions, app: bool) -> Engine {
    let schema = Schema::parse(&schema(), "schema").unwrap();
    let mutators = Mutators::parse(&schema, &mutators(), "mutators", false, app).unwrap();
    Engine::new(Rc::new(schema), mutators, options)
}

fn app(world: &World) -> TestApp<'_> {
    let services = engine(EngineOptions::default(), false);
    TestApp { world, services, callers: RefCell::default(), allows: Cell::new(true) }
}

impl TestApp<'_> {
    fn write(&self, operations: &Json) -> Result<String, AppFailure> {
        let operations: Vec<_> = operations.as_array().unwrap().iter().map(|one| Operation::parse(one).unwrap()).collect();
        let written = self.services.write(self.world.host.imports(), &Policy::Enforce(Map::new()), &operations, &NoHooks);
        let failed = |error: crate::plasma::server_db::WriteRefused| AppFailure {
            code: String::new(),
            message: error.to_string(),
            retriable: false,
        };
        written.map(|written| written.changed.to_string()).map_err(failed)
    }

    fn send(&self, engine: &Engine, second_try: bool, mutations: &[(&str, u64, &str, Json)]) -> Result<PushReply, PushRefused> {
        let request = crate::plasma::push::PushRequest { second_try, ..self.world.push_request("g1", mutations) };
        engine.push(self.world.host.imports_with(self), &caller("alice"), &request, &self.world.hooks)
    }
}

fn failure(code: &str, retriable: bool) -> AppFailure {
    AppFailure { code: code.into(), message: "so it is".into(), retriable }
}

impl App for TestApp<'_> {
    fn mutate(&self, caller: &AppCaller, name: &str, arguments: &str) -> Result<String, AppFailure> {
        self.callers.borrow_mut().push(caller.clone());
        let arguments: Json = serde_json::from_str(arguments).unwrap();
        let insert = json!([{"insert": {"table": "counters", "row": {"id": arguments["id"], "n": 1}}}]);
        match name {
            "write" => {
                self.write(&insert)?;
                let get = |key: &str| self.services.get(self.world.host.imports(), &Policy::Enforce(Map::new()), "counters", &[json!(key)]);
                assert!(get(arguments["id"].as_str().unwrap()).unwrap().is_some(), "the app reads what it wrote");
                self.write(&json!([{"update": {"table": "counters", "pk": [arguments["id"]], "set": {"n": 2}}}]))
            }
            "own" => self.write(&json!([{"insert": {"table": "todos", "row": {"id": "t", "owner": arguments["owner"], "title": "t"}}}])),
            "swallow" => {
                self.write(&insert)?;
                // A write that fails is undone by itself.
                assert!(
                    self.write(&json!([{"delete": {"table": "counters", "pk": ["k"]}}, {"insert": {"table": "nowhere", "row": {}}}]))
                        .is_err()
                );
                Ok("null".into())
            }
            "trap" | "slow" | "later" | "refuse" => {
                self.write(&insert)?;
                match name {
                    "trap" => Err(failure("trapped", true)),
                    "slow" => Err(failure("timed-out", true)),
                    "later" => Err(failure("busy", true)),
                    _ => Err(failure("", false)),
                }
            }
            _ => Err(failure("unknown-mutator", false)),
        }
    }
    fn authorize(&self, _: &AppCaller, action: &str, objects: &[String]) -> Vec<bool> {
        let object: Json = serde_json::from_str(&objects[0]).unwrap();
        assert_eq!((action, &object["table"]), ("insert", &json!("counters")));
        vec![self.allows.get()]
    }
    fn describe(&self) -> String {
        NoApp.describe()
    }
    fn authenticate(&self, mount: &str, credentials: &str, request: &str) -> Result<Identity, AppFailure> {
        NoApp.authenticate(mount, credentials, request)
    }
    fn validate(&self, caller: &AppCaller, operation: &str) -> Verdict {
        NoApp.validate(caller, operation)
    }
    fn call(&self, caller: &AppCaller, method: &str, parameters: &str) -> Result<Reply, AppFailure> {
        NoApp.call(caller, method, parameters)
    }
    fn event(&self, caller: &AppCaller, name: &str, data: &str) -> Result<Reply, AppFailure> {
        NoApp.event(caller, name, data)
    }
    fn route(&self, caller: &AppCaller, request: &RouteRequest) -> RouteResponse {
        NoApp.route(caller, request)
    }
}

fn error(reply: &PushReply, index: usize) -> String {
    match &reply.results[index].status {
        MutationStatus::Error(error) => error.message.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_app_writes_is_part_of_its_mutation() {
    let world = World::new();
    let (app, engine) = (app(&world), engine(EngineOptions::default(), true));
    let batch = [("c1", 1, "inc", json!({"id": "a"})), ("c1", 2, "write", json!({"id": "k"})), ("c1", 3, "inc", json!({"id": "k"}))];
    let reply = app.send(&engine, false, &batch).unwrap();
    assert_eq!((reply.version, reply.rows_changed, reply.results[1].status.clone()), (3, 5, MutationStatus::Applied));
    assert_eq!(*world.hooks.commits.borrow(), [(3, 5, 3, Some("c1".into()))]);
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_meta WHERE key = 'open'"), 0);
    let log = |sql: &str| world.number(&format!("SELECT count(*) FROM t__plasma_changes WHERE {sql}"));
    assert_eq!((log("version = 2"), log("version = 2 AND seq IN (0, 1)"), log("newest = 1")), (2, 2, 2));
    let caller = app.callers.borrow()[0].clone();
    assert_eq!(caller.identity.user_id.as_deref(), Some("alice"));
    assert_eq!(caller.identity.claims, r#"{"userId":"alice"}"#);
    assert!(caller.context.contains(&("mutationID".into(), "2".into())));
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!((&client.rows["counters/k"]["n"], client.last_ids["c1"]), (&json!(3), 3));
}

#[test]
fn an_app_that_falls_or_refuses_fails_its_mutation_and_nothing_else() {
    let world = World::new();
    let (app, engine) = (app(&world), engine(EngineOptions::default(), true));
    let one = |id: u64, name: &'static str| ("c1", id, name, json!({"id": format!("k{id}")}));
    let batch = [one(1, "write"), one(2, "trap"), one(3, "refuse"), one(4, "slow"), one(5, "nowhere"), one(6, "write"), one(7, "swallow")];
    let reply = app.send(&engine, false, &batch).unwrap();
    assert_eq!(error(&reply, 1), "mutator trap trapped");
    assert_eq!(error(&reply, 2), "so it is");
    assert_eq!(error(&reply, 3), "mutator slow took too long");
    assert_eq!(error(&reply, 4), "unknown mutator: nowhere");
    assert_eq!((reply.last_mutation_ids["c1"], reply.version), (7, 7));
    // The slow one took the transaction along, so those before it ran once more, without it.
    assert_eq!(app.callers.borrow().len(), 4 + 6);
    let mut client = Client::new("alice", "g1");
    assert_eq!(client.pull(&world).keys(), ["counters/k1", "counters/k6", "counters/k7"]);
}

#[test]
fn an_app_that_asks_for_another_try_gets_one() {
    let world = World::new();
    let (app, engine) = (app(&world), engine(EngineOptions::default(), true));
    let batch = [("c1", 1, "write", json!({"id": "k"})), ("c1", 2, "later", json!({"id": "l"}))];
    let refused = app.send(&engine, false, &batch).unwrap_err();
    assert_eq!(refused, PushRefused::Failure(Failure::Unavailable("so it is".into())));
    assert_eq!((world.version(), world.number("SELECT count(*) FROM t_counters")), (0, 0));
}

#[test]
fn an_app_writes_in_the_name_of_its_caller() {
    let world = World::new();
    let (app, engine) = (app(&world), engine(EngineOptions::default(), true));
    let reply =
        app.send(&engine, false, &[("c1", 1, "own", json!({"owner": "bob"})), ("c1", 2, "own", json!({"owner": "alice"}))]).unwrap();
    assert_eq!(error(&reply, 0), "insert on todos is not allowed");
    assert_eq!(reply.results[1].status, MutationStatus::Applied);
}

#[test]
fn an_app_may_judge_writes_too() {
    let world = World::new();
    let app = app(&world);
    let engine = engine(EngineOptions { app_authorizes: true, ..EngineOptions::default() }, true);
    let many = |id: u64| ("c1", id, "many", json!({"items": [{"id": format!("k{id}"), "n": 1}]}));
    assert_eq!(app.send(&engine, false, &[many(1)]).unwrap().results[0].status, MutationStatus::Applied);
    app.allows.set(false);
    assert_eq!(error(&app.send(&engine, false, &[many(2)]).unwrap(), 0), "insert on counters is not allowed");
}

#[test]
fn outside_of_a_mutator_the_app_takes_versions_of_its_own() {
    let world = World::new();
    let app = app(&world);
    let operations = [Operation::parse(&json!({"insert": {"table": "counters", "row": {"id": "k"}}})).unwrap()];
    let written = app.services.write(world.host.imports(), &Policy::Bypass, &operations, &world.hooks).unwrap();
    assert_eq!((written.version, world.version()), (1, 1));
    assert_eq!(*world.hooks.commits.borrow(), [(1, 1, 0, None)]);
}

#[test]
fn a_mutation_that_takes_whole_calls_along_is_given_up() {
    let world = World::new();
    let (app, engine) = (app(&world), engine(EngineOptions::default(), true));
    let one = |id: u64| ("c1", id, "write", json!({"id": format!("k{id}")}));
    // The second try of a push notes what it is about to run; the process dies with it, and its transaction.
    let noted = crate::imports::Storage::compare_and_set(&world.host.storage, "tried/c1", None, b"2".to_vec());
    assert_eq!(noted, Ok(true));
    // The next first try knows nothing of notes; the next second one does.
    assert_eq!(app.send(&engine, false, &[one(1)]).unwrap().results[0].status, MutationStatus::Applied);
    let reply = app.send(&engine, true, &[one(1), one(2), one(3)]).unwrap();
    assert_eq!(error(&reply, 1), "mutator write failed again and again");
    assert_eq!(reply.results[2].status, MutationStatus::Applied);
    assert_eq!(reply.last_mutation_ids["c1"], 3);
    assert_eq!(crate::imports::Storage::get(&world.host.storage, "tried/c1"), Ok(Some(b"3".to_vec())));
}
