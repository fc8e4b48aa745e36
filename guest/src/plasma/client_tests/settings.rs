//! Section 2: every key, every refusal.

use serde_json::{Value as Json, json};

use super::support::fixture;
use crate::imports::Dialect;
use crate::plasma::Plasma;
use crate::plasma::plan::plan;
use crate::plasma::settings::{MigrationsMode, Settings};
use crate::registry::Protocol;

fn parse(changes: Json) -> Result<Settings, Vec<String>> {
    Settings::parse(&fixture(changes).to_string())
}

fn problems(changes: Json) -> Vec<String> {
    parse(changes).map(|_| ()).unwrap_err()
}

/// A schema of one table without files.
fn small_schema() -> Json {
    json!({"tables": {"t": {"columns": {"id": {"type": "text"}}, "primaryKey": ["id"]}}})
}

#[test]
fn the_fixture_is_taken_as_it_is() {
    let settings = parse(json!({})).unwrap();
    assert_eq!(settings.base_path, "/sync");
    assert_eq!(settings.schema_version, "7");
    assert_eq!((settings.push_mutations_max, settings.page_rows_max, settings.read_auth_refs_max), (200, 1000, 4));
    assert_eq!(settings.envelope_limits.allowed_key_ids, Some(vec!["k1".to_owned(), "k2".to_owned()]));
    assert_eq!(settings.blobs.as_ref().map(|blobs| (blobs.bytes_max, blobs.prefix.as_str())), Some((8_388_608, "plasma/blobs/")));
    assert_eq!(settings.schema.tables().len(), 7);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn what_is_left_out_has_its_default() {
    let minimal = json!({"schema": small_schema(), "schemaVersion": "1", "auth": {"mode": "static", "tokens": {}}});
    let settings = Settings::parse(&minimal.to_string()).unwrap();
    assert_eq!((settings.base_path.as_str(), settings.dialect, settings.blobs), ("/sync", None, None));
    assert_eq!((settings.payload_bytes_max, settings.body_bytes_max), (1_048_576, 16_777_216));
    let poke = settings.poke.unwrap();
    assert_eq!((poke.ping_interval_ms, poke.coalesce_ms, poke.retry_ms), (25_000, 0, 2000));
    assert!(poke.data_mode);
    assert_eq!((poke.connections_per_user_max, settings.client_group_ttl_ms), (100, 2_592_000_000));
    assert_eq!((settings.migrations.mode, settings.migrations.allow_destructive), (MigrationsMode::Auto, false));
    assert!(settings.on_pushed.poke && settings.on_error.log && settings.on_metric.prometheus);
    assert_eq!((settings.on_error.ring, settings.mutator_timeout_ms, settings.app_memory_bytes), (1000, 1000, 64 << 20));
    assert!(settings.change_log.before_images && !settings.hooks_in_background && !settings.over_limit_rejects);
    assert_eq!(settings.admin_token, None);
}

#[test]
fn both_spellings_name_a_key_and_data_is_taken_as_it_is() {
    let settings = json!({
        "schema_version": "1", "max_pull_page_size": 5, "poke": {"ping_interval_ms": 7}, "change_log": {"keep_versions": 3},
        "auth": {"mode": "static", "tokens": {"a_b": {"userId": "x"}}},
        "schema": {"tables": {"my_table": {"columns": {"user_id": {"type": "text"}, "userId": {"type": "text"}}, "primaryKey": ["user_id"]}}},
    });
    let settings = Settings::parse(&settings.to_string()).unwrap();
    assert_eq!((settings.page_rows_max, settings.change_log.keep_versions), (5, Some(3)));
    assert_eq!(settings.poke.unwrap().ping_interval_ms, 7);
    assert_eq!(settings.schema.table("my_table").unwrap().columns.len(), 2);
    assert_eq!(problems(json!({"schema_version": "7"})), ["schemaVersion: is given twice, in two spellings"]);
}

#[test]
fn every_wrong_key_is_named() {
    for (changes, named) in [
        (json!({"schema": null, "mutators": null}), "schema: is missing"),
        (json!({"schemaVersion": null}), "schemaVersion: is missing"),
        (json!({"schemaVersion": 7}), "schemaVersion: must be a string"),
        (json!({"auth": null}), "auth: is missing"),
        (json!({"protocolVersion": 2}), "protocolVersion: "),
        (json!({"executor": "mysql"}), "executor: "),
        (json!({"executor": {"kind": "x"}}), "executor.kind: "),
        (json!({"executor": {"kind": "sqlite", "poolSize": 0}}), "executor.poolSize: "),
        (json!({"executor": {"kind": "sqlite", "durability": "none"}}), "executor.durability: "),
        (json!({"executor": "d1", "dialect": "postgres"}), "dialect: does not match executor"),
        (json!({"dialect": "d1"}), "dialect: "),
        (json!({"onPushed": {"webhook": "example.com"}}), "onPushed.webhook: "),
        (json!({"onPushed": {"poke": 1}}), "onPushed.poke: "),
        (json!({"onError": {"colour": 1}}), "onError.colour: unknown key"),
        (json!({"onMetric": true}), "onMetric: "),
        (json!({"waitUntil": "later"}), "waitUntil: "),
        (json!({"maxMutationsPerPush": 0}), "maxMutationsPerPush: "),
        (json!({"maxPayloadBytes": "1MB"}), "maxPayloadBytes: "),
        (json!({"hostMaxBodyBytes": 10}), "hostMaxBodyBytes: "),
        (json!({"maxPullPageSize": -1}), "maxPullPageSize: "),
        (json!({"requireTableAuth": "yes"}), "requireTableAuth: "),
        (json!({"envelopeValidation": {"allowedKeyIds": "k1"}}), "envelopeValidation.allowedKeyIds: "),
        (json!({"blobs": null}), "blobs: is missing"),
        (json!({"blobs": {"default": {"store": "elsewhere"}}}), "blobs.default.store: "),
        (json!({"blobs": {"default": {"store": "storage"}, "docs": {}}}), "blobs.docs: per-table blob storage is not supported"),
        (json!({"blobs": {"colour": 1}}), "blobs.colour: unknown key"),
        (json!({"readAuthMode": "all"}), "readAuthMode: "),
        (json!({"overLimit": "drop"}), "overLimit: "),
        (json!({"poke": true, "live": {"maxRows": 0}}), "live.maxRows: "),
        (json!({"poke": "off"}), "poke: "),
        (json!({"poke": {"pingIntervalMs": 0}}), "poke.pingIntervalMs: "),
        (json!({"changeLog": {"keepVersions": -1}}), "changeLog.keepVersions: "),
        (json!({"clientGroupTtlMs": 0}), "clientGroupTtlMs: "),
        (json!({"sequencer": {"mode": "clock"}}), "sequencer.mode: "),
        (json!({"cors": {"origins": "*"}}), "cors.origins: "),
        (json!({"adminToken": ""}), "adminToken: must not be empty"),
        (json!({"seed": {"nothing": []}}), "seed.nothing: is no table of the schema"),
        (json!({"seed": {"counters": [{"id": "a"}, {"id": 7}]}}), "seed.counters[1]: "),
        (json!({"migrations": {"mode": "auto", "force": true}}), "migrations.force: unknown key"),
        (json!({"queryPolicy": "some"}), "queryPolicy: "),
        (json!({"namedQueries": {"mine": {"from": "nothing"}}}), "namedQueries.mine"),
        (json!({"mutatorTimeoutMs": 5001}), "mutatorTimeoutMs: "),
        (json!({"basePath": "sync"}), "basePath: "),
        (json!({"path": "/elsewhere"}), "basePath: is not the path"),
        (json!({"colour": 1}), "colour: unknown key"),
        (json!({"mutators": {"m": {"steps": [{"explode": {}}]}}}), "mutators.m"),
    ] {
        let found = problems(changes);
        assert!(found.iter().any(|problem| problem.starts_with(named)), "{named} in {found:?}");
        assert_eq!(found.len(), 1, "nothing else is wrong: {found:?}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let found = problems(json!({"schemaVersion": null, "auth": null, "maxPullPageSize": 0, "colour": 1, "poke": {"x": 1}}));
    let mut named: Vec<_> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, ["auth", "colour", "maxPullPageSize", "poke.x", "schemaVersion"]);
    assert_eq!(Settings::parse("[]").unwrap_err(), ["settings: must be an object"]);
}

#[test]
fn a_table_without_rules_is_refused_where_rules_are_required() {
    let changes = json!({"requireTableAuth": true, "schema": small_schema(), "mutators": {}});
    assert_eq!(problems(changes), ["requireTableAuth: table t has no auth block"]);
    assert!(parse(json!({"requireTableAuth": true})).is_ok());
}

#[test]
fn what_has_no_effect_or_is_dangerous_is_said() {
    let warned = |changes| parse(changes).unwrap().warnings;
    let open = |listen: &str, loopback_only: bool| {
        let auth = json!({"mode": "none", "allowInsecure": true, "loopbackOnly": loopback_only, "ctx": {"userId": "dev"}});
        warned(json!({"auth": auth, "listen": listen})).remove(0)
    };
    assert_eq!(open("127.0.0.1:1", false), "auth.mode: none: whoever reaches the server is let in as one user");
    assert!(open("0.0.0.0:1", false).starts_with("auth.mode: none: other machines reach 0.0.0.0:1,"));
    assert!(open("0.0.0.0:1", true).starts_with("auth.mode: none: whoever works on this machine "));
    let secret = |bytes: usize| warned(json!({"auth": {"mode": "jwt", "alg": "HS256", "key": "s".repeat(bytes)}}));
    assert!(secret(31)[0].starts_with("auth.key: the secret has fewer than 32 bytes"));
    assert_eq!(secret(32), [""; 0]);
    assert_eq!(warned(json!({"changeLog": {"triggers": true}})), [""; 0]);
    assert!(warned(json!({"poke": false}))[0].starts_with("poke: "));
}

#[test]
fn the_plan_says_what_the_host_must_know() {
    let hooks = json!({"onPushed": {"webhook": "https://a.example/x"}, "onError": {"webhook": "https://b.example/y"}});
    let plan = plan(&parse(hooks).unwrap());
    assert_eq!(plan.post_targets, ["https://a.example/x", "https://b.example/y"]);
    assert_eq!((plan.routes[0].path.as_str(), plan.routes[0].prefix), ("/sync", true));
    assert_eq!((plan.ping_ms, plan.idle_ms), (Some(25_000), Some(75_000)));
    assert_eq!((plan.max_body_bytes, plan.max_frame_bytes, plan.queue_bytes), (16_777_216, 1_048_576, 1_048_576));
    let codes = [plan.closes.slow.code, plan.closes.idle.code, plan.closes.too_large.code, plan.closes.shutdown.code];
    assert_eq!(codes, [4429, 4408, 4413, 1001]);
    let fallbacks = plan.fallbacks.unwrap();
    assert_eq!(fallbacks.unavailable.body, b"{\"error\":\"unavailable\"}");
    assert!(fallbacks.failed.headers.iter().any(|header| header.name == "access-control-allow-origin" && header.value == b"*"));
    let limits = plan.app_limits.unwrap();
    assert_eq!((limits.transaction_ms, limits.memory_bytes), (Some(1000), Some(64 << 20)));
    let jwt = json!({"auth": {"mode": "jwt", "alg": "RS256", "jwksUrl": "https://id.example/keys"}});
    assert_eq!(Plasma.check(&fixture(jwt).to_string()).unwrap().documents[0].url, "https://id.example/keys");
}

#[test]
fn an_executor_of_another_kind_stops_the_start() {
    for changes in [json!({"executor": "postgres"}), json!({"dialect": "postgres"}), json!({"executor": {"kind": "postgres"}})] {
        assert_eq!(parse(changes.clone()).unwrap().dialect, Some(Dialect::Postgres));
        let mount = Plasma.configure("m", &fixture(changes).to_string(), Vec::new()).unwrap();
        let host = crate::test_host::HostInMemory::default();
        let refusal = mount.start(host.imports(), None).unwrap_err();
        assert!(refusal.contains("dialect") && refusal.contains("postgres") && refusal.contains("sqlite"), "{refusal}");
    }
    assert_eq!(parse(json!({"executor": "d1"})).unwrap().dialect, Some(Dialect::Sqlite));
}

#[test]
fn what_needs_an_app_stops_the_start_without_one() {
    let refusal = |changes| {
        let mount = Plasma.configure("m", &fixture(changes).to_string(), Vec::new()).unwrap();
        mount.start(crate::test_host::HostInMemory::default().imports(), None).unwrap_err()
    };
    let needs = |function: &str| format!("needs an app component with the function `{function}`: give the mount an `app`");
    assert_eq!(refusal(json!({"auth": {"mode": "app"}})), format!("auth.mode: {}", needs("authenticate")));
    let hooks = json!({"onPushed": {"app": true}, "onMetric": {"app": true}});
    assert_eq!(refusal(hooks), format!("onPushed.app: {0}; onMetric.app: {0}", needs("event")));
}
