//! Writes of the server's side: `/admin/db`, and apps through `services`.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::engine::{Committing, DATABASE, Engine, Hooks};
use super::failure::Failure;
use super::language::{Bindings, Sources, compile_query, parse_query};
use super::mutators::OpenMutation;
use super::schema::{Column, normalize_key};
use super::store::changes;
use super::write::{Row, Writer};
use crate::imports::{Imports, SqlError};
use crate::sql;

/// On whose behalf rows are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The server's own: nothing is judged.
    Bypass,
    /// Someone's: the write predicates hold with this `ctx`.
    Enforce(Map<String, Json>),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// An existing key is an error.
    Insert {
        /// Its table.
        table: String,
        /// Columns left out take their defaults.
        row: Map<String, Json>,
    },
    /// Inserts, or updates the given columns.
    Upsert {
        /// Its table.
        table: String,
        /// With all columns of the key.
        row: Map<String, Json>,
    },
    /// A missing row is an error.
    Update {
        /// Its table.
        table: String,
        /// The primary key.
        key: Vec<Json>,
        /// Columns to set.
        set: Map<String, Json>,
    },
    /// A missing row is none.
    Delete {
        /// Its table.
        table: String,
        /// The primary key.
        key: Vec<Json>,
    },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version it took; the current one where there was nothing to do.
    pub version: u64,
    /// Writes to rows that changed something, those that follow from deletions among them.
    pub changed: u64,
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It comes.
    Insert,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

impl Action {
    /// `insert`, `update`, `delete`
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Why a write was refused; nothing of it was kept.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteRefused {
    /// 403 `plasma-authorization` (`PlasmaAuthorizationError`).
    #[error("{} on {table} is not allowed", action.name())]
    Authorization {
        /// Where.
        table: String,
        /// What.
        action: Action,
    },
    /// 422 `db-error`.
    #[error("{0}")]
    Invalid(String),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Operation {
    /// From `{"insert":{table,row}}` and its like.
    pub fn parse(source: &Json) -> Result<Self, String> {
        let mut entries = source.as_object().into_iter().flatten();
        let (Some((kind, body)), None) = (entries.next(), entries.next()) else {
            return Err("an operation is an object with one key".into());
        };
        let body = body.as_object().ok_or_else(|| format!("{kind}: expected an object"))?;
        let table = body.get("table").and_then(Json::as_str).ok_or_else(|| format!("{kind}.table: expected a string"))?.to_owned();
        let row = |key: &str| body.get(key).and_then(Json::as_object).cloned().ok_or_else(|| format!("{kind}.{key}: expected an object"));
        let key = || body.get("pk").and_then(Json::as_array).cloned().ok_or_else(|| format!("{kind}.pk: expected a list"));
        let known: &[&str] = match kind.as_str() {
            "insert" | "upsert" => &["table", "row"],
            "update" => &["table", "pk", "set"],
            "delete" => &["table", "pk"],
            _ => return Err(format!("unknown operation {kind}")),
        };
        if let Some(unknown) = body.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("{kind}.{unknown}: unknown key"));
        }
        Ok(match kind.as_str() {
            "insert" => Self::Insert { table, row: row("row")? },
            "upsert" => Self::Upsert { table, row: row("row")? },
            "update" => Self::Update { table, key: key()?, set: row("set")? },
            _ => Self::Delete { table, key: key()? },
        })
    }
}

impl Engine {
    /// Carries out writes, all or none, under one version. Inside a mutator of the app (the transaction of its push is open) they
    /// are part of that mutation: under its version and, with [`Policy::Enforce`], in its caller's name.
    pub fn write(
        &self,
        imports: Imports<'_>,
        policy: &Policy,
        operations: &[Operation],
        hooks: &dyn Hooks,
    ) -> Result<Written, WriteRefused> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let open = OpenMutation::read(sql, transaction.as_ref())?;
        let head = changes::head_to_write(sql, transaction.as_ref())?;
        if operations.is_empty() {
            return Ok(Written { version: open.map_or(head.version, |open| open.version), changed: 0 });
        }
        let context = match (policy, &open) {
            (Policy::Bypass, _) => None,
            (Policy::Enforce(_), Some(open)) => Some(&open.context),
            (Policy::Enforce(context), None) => Some(context),
        };
        let mut writer = Writer::new(self, sql, imports, transaction.as_ref(), context);
        let version = open.as_ref().map_or(head.last + 1, |open| open.version);
        writer.set_version(version, open.as_ref().map_or(0, |open| open.sequence));
        operations.iter().try_for_each(|operation| writer.apply(operation))?;

        let mut statements = writer.flush();
        if open.is_none() {
            statements.push(changes::set_version(sql, &self.options.region, version));
        }
        transaction.execute_batch(statements).map_err(Failure::from)?;
        let changed = writer.changed;
        match &open {
            Some(open) => {
                let tables: BTreeSet<_> = open.tables.iter().cloned().chain(writer.tables.iter().cloned()).collect();
                let (sequence, changed) = (writer.sequence(), open.changed + changed);
                let now = OpenMutation { sequence, changed, tables: tables.into_iter().collect(), ..open.clone() };
                now.write(sql, transaction.as_ref())?;
            }
            None => hooks.committing(&Committing {
                version,
                rows_changed: changed,
                tables: &writer.tables,
                new_mutations: 0,
                client_group_id: None,
                client_id: None,
                caller: None,
            }),
        }
        drop(writer);
        transaction.commit().map_err(Failure::from)?;
        Ok(Written { version, changed })
    }

    /// Rows of a query (an AST), as far as the policy shows them; inside a mutator of the app with what that wrote.
    pub fn select(
        &self,
        imports: Imports<'_>,
        policy: &Policy,
        query: &Json,
        parameters: Option<&Map<String, Json>>,
    ) -> Result<Vec<Row>, WriteRefused> {
        let query = parse_query(&self.schema, query).map_err(|invalid| WriteRefused::Invalid(invalid.to_string()))?;
        let sql = self.sql(imports)?;
        let read_auth = *policy != Policy::Bypass;
        let compiled = compile_query(&self.schema, &query, sql.dialect(), &Sources::of_prefix(sql.prefix()), read_auth);
        let found = sql::read(imports.executor, DATABASE, |view| {
            let open = if read_auth { OpenMutation::read(sql, view)?.map(|open| open.context) } else { None };
            let context = match (policy, open) {
                (_, Some(context)) => context,
                (Policy::Enforce(context), None) => context.clone(),
                (Policy::Bypass, None) => Map::new(),
            };
            let statement = compiled.statement(&Bindings { parameters, ..Bindings::of_context(&context) })?;
            view.query(statement, None).map_err(WriteRefused::from)
        })?;
        if found.truncated {
            return Err(WriteRefused::Invalid("more rows than one answer holds: give the query a limit".into()));
        }
        Ok(compiled.rows(&found))
    }

    /// The complete row of a key, if it is there and the policy shows it.
    pub fn get(&self, imports: Imports<'_>, policy: &Policy, table: &str, key: &[Json]) -> Result<Option<Row>, WriteRefused> {
        let unknown = || WriteRefused::Invalid(format!("unknown table {table}"));
        let table = self.schema.table(table).ok_or_else(unknown)?;
        let key = normalize_key(table, key)?;
        let equals = |(column, value): (&Column, &Json)| json!({"op": "=", "left": {"col": column.name}, "right": {"val": value}});
        let all: Vec<Json> = table.key_columns().zip(&key).map(equals).collect();
        let found = self.select(imports, policy, &json!({"from": table.name, "where": {"and": all}}), None)?;
        Ok(found.into_iter().next())
    }
}

impl From<SqlError> for WriteRefused {
    fn from(error: SqlError) -> Self {
        Failure::from(error).into()
    }
}
