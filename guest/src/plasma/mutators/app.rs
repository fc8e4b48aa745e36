//! Mutators of the user's app.
//!
//! The app runs inside the push's transaction, but in an instance of its own; what it writes comes through `services`, the same
//! engine in a third instance. That one must write under the version of the mutation: before the app is called, a row of
//! `_plasma_meta` says which mutation is under way, and it is gone before the transaction ends.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::{Asker, Stopped, unknown};
use crate::imports::{AppFailure, Caller, Identity, Imports, Query, Transaction};
use crate::plasma::engine::Engine;
use crate::plasma::failure::Failure;
use crate::plasma::push::{Mutation, MutationError};
use crate::plasma::schema::Table;
use crate::plasma::server_db::Action;
use crate::plasma::store::meta;
use crate::plasma::write::{Row, Writer};
use crate::sql::Sql;

/// The mutation of the app that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenMutation {
    /// Its version.
    pub version: u64,
    /// The place of the next entry in it.
    pub sequence: u64,
    /// Rows changed by it so far.
    pub changed: u64,
    /// Their tables.
    pub tables: Vec<String>,
    /// The `ctx` in whose name it writes.
    pub context: Map<String, Json>,
}

impl OpenMutation {
    /// The one under way in this transaction.
    pub fn read(sql: &Sql, view: &dyn Query) -> Result<Option<Self>, Failure> {
        let parse = |text: String| serde_json::from_str(&text).map_err(|error| Failure::Unexpected(error.to_string()));
        meta::get(sql, view, meta::OPEN)?.map(parse).transpose()
    }

    /// Notes it for whoever writes next.
    pub fn write(&self, sql: &Sql, transaction: &dyn Transaction) -> Result<(), Failure> {
        let text = serde_json::to_string(self).map_err(|error| Failure::Unexpected(error.to_string()))?;
        transaction.execute(meta::set(sql, meta::OPEN, &text))?;
        Ok(())
    }
}

impl Engine {
    /// Runs a mutator of the app.
    pub(super) fn run_app_mutator(&self, writer: &mut Writer<'_>, asker: Asker<'_>, mutation: &Mutation) -> Result<(), Stopped> {
        let (transaction, sql) = (writer.transaction, writer.sql);
        let earlier = writer.flush();
        if !earlier.is_empty() {
            transaction.execute_batch(earlier).map_err(Failure::from)?;
        }
        writer.guard()?;
        let (version, sequence) = (writer.version(), writer.sequence());
        let open = OpenMutation { version, sequence, changed: 0, tables: Vec::new(), context: asker.context.clone() };
        open.write(sql, transaction)?;
        let caller = self.app_caller(asker.user_id, asker.context, Some((asker.client_group_id, mutation)));
        match writer.imports.app.mutate(&caller, &mutation.name, &mutation.arguments.to_string()) {
            Ok(_) => {
                let done = OpenMutation::read(sql, transaction)?;
                let done = done.ok_or_else(|| Failure::Unexpected("the app's mutation was closed by somebody else".into()))?;
                writer.adopt(done.sequence, done.changed, done.tables);
                transaction.execute(meta::remove(sql, meta::OPEN)).map_err(Failure::from)?;
                Ok(())
            }
            Err(failure) => Err(stopped(failure, &mutation.name)),
        }
    }

    /// Whether the app, too, allows a write.
    pub(in crate::plasma) fn app_allows(
        &self,
        imports: Imports<'_>,
        context: &Map<String, Json>,
        table: &Table,
        action: Action,
        (old, new): (Option<&Row>, Option<&Row>),
    ) -> bool {
        let user_id = context.get("userId").and_then(Json::as_str).unwrap_or_default();
        let object = json!({"table": table.name, "before": old, "after": new}).to_string();
        let answers = imports.app.authorize(&self.app_caller(user_id, context, None), action.name(), &[object]);
        answers.first().copied().unwrap_or(false)
    }

    fn app_caller(&self, user_id: &str, context: &Map<String, Json>, of: Option<(&str, &Mutation)>) -> Caller {
        let claims = Json::Object(context.clone()).to_string();
        let about = of.map(|(client_group_id, mutation)| {
            vec![
                ("clientGroupID".to_owned(), json!(client_group_id).to_string()),
                ("clientID".to_owned(), json!(mutation.client_id).to_string()),
                ("mutationID".to_owned(), mutation.id.to_string()),
                ("timestamp".to_owned(), json!(mutation.timestamp).to_string()),
            ]
        });
        Caller {
            mount: self.options.mount.clone(),
            connection: None,
            identity: Identity { user_id: Some(user_id.to_owned()), roles: Vec::new(), claims },
            context: about.unwrap_or_default(),
        }
    }
}

/// A trap, a timeout or the app's own error is the mutation's. Only where the app itself says that the same may succeed later is
/// nothing recorded: its client sends it again.
fn stopped(failure: AppFailure, name: &str) -> Stopped {
    let said = if failure.message.is_empty() { failure.code.clone() } else { failure.message };
    match failure.code.as_str() {
        "trapped" => Stopped::Failed(MutationError { name: "Error".into(), message: format!("mutator {name} trapped") }),
        "timed-out" => Stopped::TimedOut(MutationError { name: "Error".into(), message: format!("mutator {name} took too long") }),
        "not-implemented" | "unknown-mutator" => unknown(name),
        _ if failure.retriable => Stopped::Passing(Failure::Unavailable(said)),
        "PlasmaAuthorizationError" => Stopped::Failed(MutationError { name: failure.code, message: said }),
        _ => Stopped::failed(said),
    }
}
