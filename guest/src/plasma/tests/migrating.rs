//! Starts, seeds and migrations.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::imports::SqlError;
use crate::plasma::engine::{EngineOptions, MigrationMode};
use crate::plasma::migration::{MigrationEvent, MigrationRefused};
use crate::plasma::schema::Schema;
use crate::test_host::Fault;

fn small(columns: Json) -> Json {
    json!({"tables": {"things": {"columns": columns, "primaryKey": ["id"]}}})
}

fn text() -> Json {
    json!({"type": "text"})
}

fn start(options: EngineOptions, schema: &Json) -> World {
    let world = World::not_started(options, schema);
    world.engine.start(world.host.imports()).unwrap();
    world
}

fn restart(world: World, schema: &Json, options: EngineOptions) -> (World, Result<(), String>) {
    let world = world.restarted(options, schema);
    let started = world.engine.start(world.host.imports()).map(drop);
    (world, started)
}

#[test]
fn a_start_is_harmless_twice_and_after_a_crash() {
    let world = World::not_started(EngineOptions::default(), &schema());
    for statement in [0, 3, 12, 20, 30] {
        world.host.fail(Fault::Statement(statement), SqlError::Unavailable("away".into()));
        assert!(world.engine.start(world.host.imports()).is_err());
        assert!(world.host.sql("SELECT 1 FROM sqlite_master").is_empty(), "a start that failed left something");
    }
    world.host.no_faults();
    world.engine.start(world.host.imports()).unwrap();
    bypass(&world, &json!([{"insert": {"table": "counters", "row": {"id": "k"}}}]));
    let (world, again) = restart(world, &schema(), EngineOptions::default());
    assert_eq!((again, world.version()), (Ok(()), 1));
}

#[test]
fn a_seed_is_version_one_and_comes_once() {
    let seed = |rows: Json| EngineOptions { seed: vec![("things".into(), rows.as_array().unwrap().clone())], ..EngineOptions::default() };
    let schema = small(json!({"id": text(), "name": text()}));
    let world = start(seed(json!([{"id": "a", "name": "A"}, {"id": "b", "name": "B"}])), &schema);
    assert_eq!(world.version(), 1);
    let (world, again) = restart(world, &schema, seed(json!([{"id": "c", "name": "C"}])));
    assert_eq!((again, world.version()), (Ok(()), 1));
    let mut client = Client::new("alice", "g1");
    assert_eq!(client.pull(&world).keys(), ["things/a", "things/b"]);
    let broken = World::not_started(seed(json!([{"id": "a"}])), &schema);
    let error = broken.engine.start(broken.host.imports()).unwrap_err();
    assert_eq!(error, "migration refused: seed.things[0]: column name is not nullable");
}

#[test]
fn rows_that_were_there_before_are_in_the_first_load() {
    let world = World::not_started(EngineOptions::default(), &small(json!({"id": text(), "name": text()})));
    world.host.sql("CREATE TABLE t_things (id TEXT PRIMARY KEY, name TEXT NOT NULL) STRICT");
    world.host.sql("INSERT INTO t_things SELECT 'k' || value, 'n' FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 1200) SELECT value FROM n)");
    world.engine.start(world.host.imports()).unwrap();
    let mut client = Client::new("alice", "g1");
    assert_eq!(client.pull(&world).rows.len(), 1200);
    assert_eq!(world.version(), 3);
}

#[test]
fn safe_changes_are_made_at_the_start_and_clients_see_them() {
    let world = start(EngineOptions::default(), &small(json!({"id": text()})));
    bypass(&world, &json!([{"insert": {"table": "things", "row": {"id": "a"}}}]));
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    let mut wider = small(json!({"id": text(), "note": {"type": "text", "nullable": true}, "rank": {"type": "integer", "default": 4}}));
    wider["tables"]["more"] = json!({"columns": {"id": text()}, "primaryKey": ["id"]});
    let (world, started) = restart(world, &wider, EngineOptions::default());
    assert_eq!(started, Ok(()));
    client.pull(&world);
    assert_eq!((client.resets, &client.rows["things/a"]), (1, &json!({"id": "a", "note": null, "rank": 4})));
    bypass(&world, &json!([{"insert": {"table": "more", "row": {"id": "m"}}}]));
    client.pull(&world);
    assert_eq!((client.resets, client.rows.len()), (1, 2));
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_migrations"), 1);
}

#[test]
fn a_new_table_alone_costs_nobody_a_reset() {
    let first = small(json!({"id": text()}));
    let world = start(EngineOptions::default(), &first);
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    let mut wider = first;
    wider["tables"]["more"] = json!({"columns": {"id": text()}, "primaryKey": ["id"]});
    let (world, _) = restart(world, &wider, EngineOptions::default());
    bypass(&world, &json!([{"insert": {"table": "more", "row": {"id": "m"}}}]));
    client.pull(&world);
    assert_eq!((client.resets, client.keys()), (0, vec!["more/m"]));
}

#[test]
fn what_was_not_migrated_can_be_later() {
    let before = small(json!({"id": text()}));
    let after = small(json!({"id": text(), "rank": {"type": "integer", "default": 7}}));
    let world = start(EngineOptions::default(), &before);
    bypass(&world, &json!([{"insert": {"table": "things", "row": {"id": "a"}}}]));
    let (world, started) = restart(world, &after, EngineOptions { migrations: MigrationMode::Off, ..EngineOptions::default() });
    assert_eq!(started, Ok(()));
    let (world, started) = restart(world, &after, EngineOptions::default());
    assert_eq!(started, Ok(()));
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!(client.rows["things/a"], json!({"id": "a", "rank": 7}));
}

#[test]
fn what_would_destroy_is_refused_with_reasons() {
    let before = small(json!({"id": text(), "rank": {"type": "integer", "nullable": true}, "gone": {"type": "text", "nullable": true}}));
    let after = small(json!({"id": text(), "rank": {"type": "text", "nullable": true}, "must": text()}));
    let world = start(EngineOptions::default(), &before);
    bypass(&world, &json!([{"insert": {"table": "things", "row": {"id": "a", "rank": 3, "gone": "x"}}}]));
    let (world, started) = restart(world, &after, EngineOptions::default());
    let error = started.unwrap_err();
    for reason in ["column things.rank would change", "things.gone", "things.must"] {
        assert!(error.contains(reason), "{error}");
    }
    let (world, started) = restart(world, &before, EngineOptions { migrations: MigrationMode::Check, ..EngineOptions::default() });
    assert_eq!(started, Ok(()));
    let wider = small(
        json!({"id": text(), "rank": {"type": "integer", "nullable": true}, "gone": {"type": "text", "nullable": true}, "x": {"type": "text", "nullable": true}}),
    );
    let (world, started) = restart(world, &wider, EngineOptions { migrations: MigrationMode::Check, ..EngineOptions::default() });
    let error = started.unwrap_err();
    assert!(error.contains("migrations.mode") && error.contains("new column things.x"), "{error}");
    let allowed = EngineOptions { allow_destructive: true, ..EngineOptions::default() };
    let after = small(json!({"id": text(), "rank": {"type": "text", "nullable": true}}));
    let (world, started) = restart(world, &after, allowed);
    assert_eq!(started, Ok(()));
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!(client.rows["things/a"], json!({"id": "a", "rank": "3"}));
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let world = start(EngineOptions::default(), &small(json!({"id": text()})));
    let to = Schema::parse(&small(json!({"id": text(), "rank": {"type": "integer", "default": 4}})), "schema").unwrap();
    let result = world.engine.migrate(world.host.imports(), &to, true, false).unwrap();
    assert!(result.dry_run && result.events.iter().any(|event| matches!(event, MigrationEvent::Statement { .. })));
    assert_eq!(world.number("SELECT count(*) FROM pragma_table_info('t_things')"), 1);
    let narrower = Schema::parse(&json!({"tables": {}}), "schema").unwrap();
    let refused = world.engine.migrate(world.host.imports(), &narrower, true, false).unwrap_err();
    assert!(matches!(refused, MigrationRefused::Refused { ref reasons, .. } if reasons.len() == 1), "{refused}");
    let result = world.engine.migrate(world.host.imports(), &to, false, false).unwrap();
    assert_eq!(serde_json::to_value(&result).unwrap()["diff"]["addedColumns"][0]["column"], "rank");
    assert_eq!(world.number("SELECT count(*) FROM pragma_table_info('t_things')"), 2);
    let result = world.engine.migrate(world.host.imports(), &narrower, false, true).unwrap();
    assert_eq!(result.diff.removed_tables, ["things"]);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let world = start(EngineOptions::default(), &small(json!({"id": text()})));
    world.host.sql("UPDATE t__plasma_meta SET value = '99' WHERE key = 'format'");
    let error = world.engine.start(world.host.imports()).unwrap_err();
    assert!(error.contains("format 99"), "{error}");
}

#[test]
fn figures_are_counted() {
    let world = World::new();
    world.push("alice", "g1", &[("c1", 1, "inc", json!({"id": "k"}))]);
    let stats = serde_json::to_value(world.engine.stats(world.host.imports()).unwrap()).unwrap();
    assert_eq!(
        (&stats["tables"]["counters"], &stats["logEntries"], &stats["version"], &stats["clients"]),
        (&json!(1), &json!(2), &json!(1), &json!(1))
    );
}
