//! secsync: end-to-end encrypted documents, ordered, checked, stored and relayed without any key (docs/protocols/secsync.md).
//!
//! This file wires the room to the registry; the way through it is
//! `connect` (upgrade, the `document` frame) or `receive` → `snapshot` | `update` | `ephemeral` → `deliver`.
//! `frames`, `public_data` and `verify` judge what came in, `store` and `reading` hold the statements, `settings`, `policy` and
//! `plan` what was configured, `retention` and `sweep` what is dropped.
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
mod http;
mod log;
pub mod plan;
pub mod policy;
pub mod public_data;
pub mod reading;
pub mod receive;
pub mod retention;
pub mod server_messages;
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

    fn configure(&self, _mount: &str, settings: &str, _documents: Vec<(String, Vec<u8>)>) -> Result<Rc<dyn Mount>, String> {
        let settings = Settings::parse(settings).map_err(|problems| problems.join("; "))?;
        Ok(Rc::new(SecsyncMount { settings, sql: OnceCell::new(), objects_written: Cell::new(0) }))
    }
}

/// One mount: its settings, and what an instance may remember.
struct SecsyncMount {
    settings: Settings,
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
        Ok(run(&Call { settings: &self.settings, imports, sql, connection, objects_written: &self.objects_written }))
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

    fn deliver(&self, _imports: Imports<'_>, publication: Publication, groups: Vec<Group>) -> Deliveries {
        deliver::deliver(&self.settings, publication, &groups)
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
