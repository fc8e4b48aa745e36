//! secsync: end-to-end encrypted documents, ordered, checked, stored and relayed without any key (docs/protocols/secsync.md).
//!
//! This file wires the room to the registry; the way through it is
//! `connect` (upgrade, the `document` frame) or `receive` → `snapshot` | `update` | `ephemeral` → `deliver`.
//! `frames`, `public_data` and `verify` judge what came in, `store` and `reading` hold the statements, `settings`, `policy` and
//! `plan` what was configured, `hooks` what the app decides, `service` what it may do, `retention` and `sweep` what is dropped.
//!
//! Promise: a reply or a broadcast leaves only after what it tells of is committed.
//! Invariant: decisions (`decide`, `answer`, `lacking`, `Access`) see no database, no clock and no connection.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

pub mod attachment;
pub mod connect;
pub mod deliver;
pub mod ephemeral;
pub mod failure;
pub mod frames;
pub mod hooks;
mod http;
mod log;
pub mod plan;
pub mod policy;
pub mod public_data;
pub mod reading;
pub mod receive;
pub mod retention;
pub mod server_messages;
pub mod service;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod sweep;
pub mod update;
pub mod verify;

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

use crate::app::{Description, Function};
use crate::imports::{ConnectionId, Imports, Level, Publication, RequestHead};
use crate::registry::{Admission, Connection, Deliveries, Group, Input, Mount, Outcome, Plan, Protocol, UpgradeResult};
use crate::sql::Sql;
use failure::Failure;
use policy::Access;
use settings::Settings;
use store::Call;

/// The protocol.
pub struct Secsync;

impl Protocol for Secsync {
    fn name(&self) -> &'static str {
        "secsync"
    }

    fn check(&self, settings: &str) -> Result<Plan, Vec<String>> {
        Ok(plan::plan(&Settings::parse(settings)?))
    }

    fn configure(&self, mount: &str, settings: &str, _documents: Vec<(String, Vec<u8>)>) -> Result<Rc<dyn Mount>, String> {
        let settings = Settings::parse(settings).map_err(|problems| problems.join("; "))?;
        let mount = mount.to_owned();
        Ok(Rc::new(SecsyncMount { mount, settings, app: OnceCell::new(), sql: OnceCell::new(), objects_written: Cell::new(0) }))
    }
}

/// One mount: its settings, and what an instance may remember.
struct SecsyncMount {
    mount: String,
    settings: Settings,
    /// The app is asked once what it has.
    app: OnceCell<Description>,
    /// The host is asked once how statements are written.
    sql: OnceCell<Sql>,
    objects_written: Cell<u64>,
}

impl SecsyncMount {
    /// Runs something with what a call needs.
    fn with<T>(&self, imports: Imports<'_>, connection: ConnectionId, run: impl FnOnce(&Call<'_>) -> T) -> Result<T, Failure> {
        let sql = match self.sql.get() {
            Some(sql) => sql,
            None => {
                let sql = Sql::of(imports.executor, store::DATABASE)?;
                self.sql.get_or_init(|| sql)
            }
        };
        let app = match self.app.get() {
            Some(app) => app,
            None => {
                let app = Description::of(imports.app).map_err(|error| Failure::Transient(error.to_string()))?;
                self.app.get_or_init(|| app)
            }
        };
        let Self { mount, settings, objects_written, .. } = self;
        Ok(run(&Call { mount, settings, app, imports, sql, connection, objects_written }))
    }

    /// What the settings ask of the app and it does not have.
    fn check_app(&self, app: &Description) -> Result<(), Failure> {
        for (key, access) in [("access", &self.settings.access), ("broadcast_access", &self.settings.broadcast_access)] {
            if *access == Access::App {
                app.require(key, Function::Authorize).map_err(Failure::Unexpected)?;
            }
        }
        Ok(())
    }
}

impl Mount for SecsyncMount {
    fn start(&self, imports: Imports<'_>, _cursor: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        if self.settings.access == Access::AllowAll {
            let message =
                "secsync: access is allow-all: anybody who reaches the server may read, write and send; session keys are not verified";
            imports.effects.log(Level::Warn, message, &serde_json::json!({"path": self.settings.path}).to_string());
        }
        if !self.settings.verify_signatures {
            imports.effects.log(Level::Warn, "secsync: signatures are not checked; this is for load tests only", "{}");
        }
        let started = self.with(imports, 0, |call| {
            self.check_app(call.app)?;
            store::create_tables(call)?;
            retention::start(call);
            sweep::start(call);
            Ok::<(), Failure>(())
        });
        started.and_then(|created| created).map(|()| None).map_err(|failure| failure.to_string())
    }

    fn admit(&self, _imports: Imports<'_>, _connection: ConnectionId, head: RequestHead) -> Admission {
        Admission::Refuse(http::refusal(&head))
    }

    fn upgrade(&self, imports: Imports<'_>, connection: ConnectionId, head: RequestHead) -> UpgradeResult {
        self.with(imports, connection, |call| connect::upgrade(call, &head)).unwrap_or_else(|failure| connect::failed(&failure))
    }

    fn receive(&self, imports: Imports<'_>, connection: Connection, inputs: Vec<Input>) -> Outcome {
        let received = self.with(imports, connection.id, |call| receive::receive(call, &connection, &inputs));
        received.unwrap_or_else(|failure| Outcome { close: Some(plan::close(failure.close_code())), ..Outcome::default() })
    }

    fn deliver(&self, imports: Imports<'_>, publication: Publication, groups: Vec<Group>) -> Deliveries {
        let delivered = self.with(imports, 0, |call| deliver::deliver(call, &publication, &groups));
        // Nobody is told that may not be, and nobody misses anything for good: the connections come back for it.
        delivered.unwrap_or_else(|_| deliver::skip(&groups))
    }

    fn refill(&self, imports: Imports<'_>, topic: &str, key: &str, after: u64) -> Vec<Publication> {
        self.with(imports, 0, |call| deliver::refill(call, topic, key, after)).unwrap_or_else(|_| vec![deliver::reconnect(topic)])
    }

    fn fire(&self, imports: Imports<'_>, name: &str, _payload: Vec<u8>, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let fired = self.with(imports, 0, |call| match name {
            retention::RETENTION_JOB => retention::fire(call),
            sweep::SWEEP_JOB => sweep::fire(call, cursor),
            _ => None,
        });
        fired.ok().flatten()
    }
}
