//! plasma: push and pull over SQL tables (docs/protocols/plasma.md).
//!
//! This file wires the room to the registry. What clients see is in `http` and `realtime`, `settings` and `plan` say what was
//! configured, `errors`, `metrics` and `hooks` what others are told, `jobs` what is done by itself. Below them lies the engine
//! (`engine`, `push`, `pull`, `query`, `server_db`, `migration`, `compaction`, `blobs`), which knows tables, and neither HTTP nor topics; `schema` and
//! `language` are what it speaks.
//!
//! Promise: 200 on a push leaves only after what it tells of is durable; a poke leaves if and only if its version does.

pub mod blobs;
pub mod compaction;
pub mod cookie;
pub mod engine;
pub mod envelope;
pub mod errors;
pub mod failure;
pub mod groups;
pub mod hooks;
pub mod http;
pub mod jobs;
pub mod language;
pub mod live;
pub mod metrics;
pub mod migration;
pub mod mutators;
mod past;
pub mod plan;
pub mod pull;
pub mod push;
pub mod query;
pub mod realtime;
pub mod regions;
mod revocation;
pub mod schema;
pub mod sequencer;
pub mod server_db;
pub mod service;
pub mod settings;
pub mod stats;
mod store;
mod table_sql;
mod triggers;
mod write;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;

use crate::app::Function;
use crate::auth::Auth;
use crate::imports::{ConnectionId, Dialect, Imports, Publication, RequestHead};
use crate::registry::{
    Admission, Connection, Deliveries, FailedPost, Group, Input, Mount, Outcome, Plan, Protocol, Request, Response, UpgradeResult,
};
use engine::{DATABASE, Engine, EngineOptions, MigrationMode};
use hooks::Hook;
use settings::{MigrationsMode, Settings};

/// The protocol.
pub struct Plasma;

impl Protocol for Plasma {
    fn name(&self) -> &'static str {
        "plasma"
    }

    fn check(&self, settings: &str) -> Result<Plan, Vec<String>> {
        Ok(plan::plan(&Settings::parse(settings)?))
    }

    fn configure(&self, mount: &str, settings: &str, documents: Vec<(String, Vec<u8>)>) -> Result<Rc<dyn Mount>, String> {
        Ok(Rc::new(PlasmaMount::new(mount, settings, &documents)?))
    }
}

fn engine_options(mount: &str, settings: &Settings) -> EngineOptions {
    let rows = |rows: &Vec<_>| rows.iter().cloned().map(serde_json::Value::Object).collect();
    EngineOptions {
        mount: mount.to_owned(),
        schema_version: settings.schema_version.clone(),
        region: settings.sequencer.region.clone(),
        migrations: match settings.migrations.mode {
            MigrationsMode::Auto => MigrationMode::Auto,
            MigrationsMode::Check => MigrationMode::Check,
            MigrationsMode::Off => MigrationMode::Off,
        },
        allow_destructive: settings.migrations.allow_destructive,
        seed: settings.seed.iter().map(|(table, of)| (table.clone(), rows(of))).collect(),
        envelopes: settings.envelope_limits.clone(),
        require_uploaded: settings.blobs.as_ref().is_some_and(|blobs| blobs.require_uploaded),
        blob_prefix: settings.blobs.as_ref().map_or_else(String::new, |blobs| blobs.prefix.clone()),
        before_images: settings.change_log.before_images,
        triggers: settings.change_log.triggers,
        client_group_ttl_ms: settings.client_group_ttl_ms,
    }
}

/// One mount: its settings, and the engine that follows from them.
struct PlasmaMount {
    name: String,
    settings: Settings,
    /// As they were given, for the services of an app.
    source: String,
    engine: Engine,
}

/// What a call needs.
pub struct Call<'a> {
    /// Name of the mount.
    pub mount: &'a str,
    /// Its settings.
    pub settings: &'a Settings,
    /// Its engine.
    pub engine: &'a Engine,
    /// What the host gives.
    pub imports: Imports<'a>,
    /// The request or connection; 0 for jobs.
    pub connection: ConnectionId,
    /// Hooks that this call left to jobs.
    hook_jobs: Cell<u32>,
}

impl PlasmaMount {
    fn new(name: &str, source: &str, documents: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let mut settings = Settings::parse(source).map_err(|problems| problems.join("; "))?;
        settings.auth.take_documents(documents);
        let mutators = std::mem::take(&mut settings.mutators);
        let engine = Engine::new(settings.schema.clone(), mutators, engine_options(name, &settings));
        Ok(Self { name: name.to_owned(), settings, source: source.to_owned(), engine })
    }

    fn call<'a>(&'a self, imports: Imports<'a>, connection: ConnectionId) -> Call<'a> {
        // An app that fell over this question is asked it again where the answer matters.
        if self.engine.app(imports).is_ok_and(|app| !app.is_empty()) {
            service::note_mount(imports, &self.name, &self.source);
        }
        Call { mount: &self.name, settings: &self.settings, engine: &self.engine, imports, connection, hook_jobs: Cell::new(0) }
    }

    /// The host must speak the SQL that the settings expect.
    fn check_dialect(&self, imports: Imports<'_>) -> Result<(), String> {
        let info = imports.executor.describe(DATABASE).map_err(|error| format!("plasma: the database cannot be reached: {error:?}"))?;
        let name = |dialect| if dialect == Dialect::Sqlite { "sqlite" } else { "postgres" };
        match self.settings.dialect {
            Some(expected) if expected != info.dialect => {
                let (expected, found) = (name(expected), name(info.dialect));
                Err(format!("executor, dialect: the settings expect {expected}, the host's executor is {found}"))
            }
            _ if self.settings.change_log.triggers && info.dialect == Dialect::Sqlite => {
                let why = "SQLite cannot tell the server's own writes from those of others, and its triggers cannot write base64";
                Err(format!("changeLog.triggers: there are none on SQLite: {why}"))
            }
            _ => Ok(()),
        }
    }
}

impl PlasmaMount {
    /// Where the settings count on an app it must have what they ask for.
    fn check_app(&self, imports: Imports<'_>) -> Result<(), String> {
        let Settings { auth, on_pushed, on_error, on_metric, .. } = &self.settings;
        let app = self.engine.app(imports).map_err(|failure| failure.to_string())?;
        let hooks = [
            ("onPushed.app", on_pushed.app, Hook::Pushed),
            ("onError.app", on_error.app, Hook::Error),
            ("onMetric.app", on_metric.app, Hook::Metric),
        ];
        let needed = hooks.into_iter().filter(|(_, wanted, _)| *wanted == Some(true));
        let mut checks: Vec<_> = needed.map(|(key, _, hook)| app.require_event(key, hook.name())).collect();
        if matches!(auth, Auth::App) {
            checks.insert(0, app.require("auth.mode", Function::Authenticate));
        }
        let problems: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

impl Mount for PlasmaMount {
    fn start(&self, imports: Imports<'_>, _cursor: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        self.check_dialect(imports)?;
        self.check_app(imports)?;
        let migrated = self.engine.start(imports)?;
        let call = self.call(imports, 0);
        if let Some(result) = migrated {
            call.migrated(&result);
        }
        jobs::start(&call);
        Ok(None)
    }

    fn admit(&self, imports: Imports<'_>, connection: ConnectionId, head: RequestHead) -> Admission {
        http::admit(&self.call(imports, connection), &head)
    }

    fn handle(&self, imports: Imports<'_>, request: Request) -> Response {
        http::handle(&self.call(imports, request.connection), &request)
    }

    fn resume(&self, imports: Imports<'_>, connection: ConnectionId, state: Vec<u8>) -> Response {
        http::resume(&self.call(imports, connection), &state)
    }

    fn upgrade(&self, imports: Imports<'_>, connection: ConnectionId, head: RequestHead) -> UpgradeResult {
        realtime::open_socket(&self.call(imports, connection), &head)
    }

    fn receive(&self, imports: Imports<'_>, connection: Connection, inputs: Vec<Input>) -> Outcome {
        realtime::receive(&self.call(imports, connection.id), &connection, inputs)
    }

    fn closed(&self, imports: Imports<'_>, connection: Connection, _code: u16) {
        realtime::closed(&self.call(imports, connection.id), &connection);
    }

    fn deliver(&self, imports: Imports<'_>, publication: Publication, groups: Vec<Group>) -> Deliveries {
        realtime::deliver(&self.call(imports, 0), &publication, &groups)
    }

    fn refill(&self, imports: Imports<'_>, _topic: &str, key: &str, after: u64) -> Vec<Publication> {
        realtime::topics::refill(&self.call(imports, 0), key, after)
    }

    fn fire(&self, imports: Imports<'_>, name: &str, payload: Vec<u8>, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        jobs::fire(&self.call(imports, 0), name, &payload, cursor)
    }

    fn post_failed(&self, imports: Imports<'_>, connection: ConnectionId, post: FailedPost) {
        self.call(imports, connection).post_failed(&post);
    }
}
