//! The layer that every write passes: values, permissions, references, the change log and blob references.
//!
//! Rows are written at once, so that statements see them; entries of the log wait until [`Writer::flush`], so that a push of many
//! mutations writes them with few statements.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::engine::Engine;
use super::failure::Failure;
use super::language::{BindError, Bindings, Compiled, Exists, Lookup, Predicate, Sources, compile_exists, evaluate};
use super::schema::{
    Column, ColumnType, Referrer, Table, ValueError, complete_row, from_sql, key_text, normalize_key, normalize_set, pk_json, to_sql,
};
use super::server_db::{Action, Operation, WriteRefused};
use super::store::changes::{self, NewEntry};
use super::store::{self, number};
use super::table_sql::TableSql;
use crate::imports::{ConstraintKind, Imports, SqlError, Statement, Transaction, Value};
use crate::sql::Sql;

/// A row in wire form, complete.
pub type Row = Map<String, Json>;

impl From<ValueError> for WriteRefused {
    fn from(error: ValueError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<BindError> for WriteRefused {
    fn from(error: BindError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What an instance keeps: statements that follow from the schema and the mutators.
#[derive(Default)]
pub struct StatementCache {
    tables: RefCell<HashMap<String, Rc<TableSql>>>,
    /// By the address of the `exists`, which lives as long as the engine.
    exists: RefCell<HashMap<usize, Rc<Compiled>>>,
}

impl StatementCache {
    /// The statements of a table.
    pub fn table(&self, sql: &Sql, table: &Table) -> Rc<TableSql> {
        if let Some(known) = self.tables.borrow().get(&table.name) {
            return known.clone();
        }
        let made = Rc::new(TableSql::new(table, sql));
        self.tables.borrow_mut().insert(table.name.clone(), made.clone());
        made
    }

    fn exists(&self, sql: &Sql, exists: &Exists) -> Rc<Compiled> {
        let address = std::ptr::from_ref(exists) as usize;
        if let Some(known) = self.exists.borrow().get(&address) {
            return known.clone();
        }
        let made = Rc::new(compile_exists(exists, sql.dialect(), &Sources::of_prefix(sql.prefix())));
        self.exists.borrow_mut().insert(address, made.clone());
        made
    }
}

/// Writes within one transaction.
pub struct Writer<'a> {
    pub(super) engine: &'a Engine,
    pub(super) sql: &'a Sql,
    pub(super) imports: Imports<'a>,
    pub(super) transaction: &'a dyn Transaction,
    /// The `ctx` in whose name rows are written; none: the server's own, nothing is judged.
    pub(super) context: Option<&'a Map<String, Json>>,
    version: u64,
    sequence: u64,
    /// Entries that the log does not have yet.
    pending: Vec<NewEntry>,
    /// Rows that changed.
    pub(super) changed: u64,
    /// Their tables.
    pub(super) tables: BTreeSet<String>,
    /// Set by the first write of a mutation.
    savepoint: Option<u32>,
    guarded: bool,
}

/// A row with its table and its key.
type Keyed<'a> = (&'a Table, Vec<Json>, Row);

/// Where a mutation began, to which its failure leads back.
pub struct Beginning {
    pending: usize,
    changed: u64,
    tables: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    /// Writes under versions that [`Self::set_version`] gives.
    pub fn new(
        engine: &'a Engine,
        sql: &'a Sql,
        imports: Imports<'a>,
        transaction: &'a dyn Transaction,
        context: Option<&'a Map<String, Json>>,
    ) -> Self {
        Self {
            engine,
            sql,
            imports,
            transaction,
            context,
            version: 0,
            sequence: 0,
            pending: Vec::new(),
            changed: 0,
            tables: BTreeSet::new(),
            savepoint: None,
            guarded: false,
        }
    }

    /// From here on entries belong to a version, from a place within it.
    pub fn set_version(&mut self, version: u64, sequence: u64) {
        self.version = version;
        self.sequence = sequence;
    }

    /// The version that entries belong to.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes over what somebody else wrote under the same version.
    pub fn adopt(&mut self, sequence: u64, changed: u64, tables: impl IntoIterator<Item = String>) {
        self.sequence = sequence;
        self.changed += changed;
        self.tables.extend(tables);
    }

    /// The place of the next entry.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A mutation begins, which may fail by itself.
    pub fn begin_mutation(&mut self) -> Beginning {
        self.savepoint = None;
        self.guarded = true;
        Beginning { pending: self.pending.len(), changed: self.changed, tables: self.tables.clone() }
    }

    /// The mutation is done.
    pub fn keep_mutation(&mut self) -> Result<(), Failure> {
        self.guarded = false;
        match self.savepoint.take() {
            Some(savepoint) => Ok(self.transaction.release(savepoint)?),
            None => Ok(()),
        }
    }

    /// The mutation failed: nothing of it stays.
    pub fn undo_mutation(&mut self, beginning: Beginning) -> Result<(), Failure> {
        self.guarded = false;
        self.pending.truncate(beginning.pending);
        self.changed = beginning.changed;
        self.tables = beginning.tables;
        if let Some(savepoint) = self.savepoint.take() {
            self.transaction.rollback_to(savepoint)?;
            self.transaction.release(savepoint)?;
        }
        Ok(())
    }

    /// Puts a savepoint before the first statement of a mutation that may fail.
    pub fn guard(&mut self) -> Result<(), Failure> {
        if self.guarded && self.savepoint.is_none() {
            self.savepoint = Some(self.transaction.savepoint()?);
        }
        Ok(())
    }

    /// The statements that write the waiting entries.
    pub fn flush(&mut self) -> Vec<Statement> {
        let entries = std::mem::take(&mut self.pending);
        changes::append(self.sql, &self.engine.options.region, self.imports.now_ms, &entries)
    }

    /// A table by its name.
    pub fn table(&self, name: &str) -> Result<&'a Table, WriteRefused> {
        self.engine.schema.table(name).ok_or_else(|| WriteRefused::Invalid(format!("unknown table {name}")))
    }

    fn statements(&self, table: &Table) -> Rc<TableSql> {
        self.engine.cache.table(self.sql, table)
    }

    /// The row of a key in normal form.
    pub fn row(&self, table: &Table, key: &[Json]) -> Result<Option<Row>, WriteRefused> {
        let statement = self.statements(table).select(table, key);
        let found = self.transaction.query(statement, Some(1)).map_err(|error| refused(table, error))?;
        Ok(found.rows.first().map(|cells| row_of(table, cells)))
    }

    /// Carries out one operation.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), WriteRefused> {
        match operation {
            Operation::Insert { table, row } => self.insert(self.table(table)?, row, false),
            Operation::Upsert { table, row } => self.upsert(self.table(table)?, row),
            Operation::Update { table, key, set } => {
                let table = self.table(table)?;
                match self.update(table, key, |_| Ok(set.clone()))? {
                    true => Ok(()),
                    false => Err(WriteRefused::Invalid(format!("row not found: {}", key_text(&table.name, key)))),
                }
            }
            Operation::Delete { table, key } => self.delete(self.table(table)?, key),
        }
    }

    /// Inserts a row; columns left out take their defaults. An existing key is an error, or nothing happens (`if_absent`).
    pub fn insert(&mut self, table: &'a Table, values: &Row, if_absent: bool) -> Result<(), WriteRefused> {
        let row = complete_row(table, values, &self.engine.options.envelopes)?;
        let key = table.key_of(&row);
        if if_absent && self.row(table, &key)?.is_some() {
            return Ok(());
        }
        self.insert_complete(table, &key, row)
    }

    fn insert_complete(&mut self, table: &'a Table, key: &[Json], row: Row) -> Result<(), WriteRefused> {
        self.judge(table, Action::Insert, None, Some(&row))?;
        self.check_references(table, None, &row)?;
        self.guard()?;
        let done = self.transaction.execute(self.statements(table).insert(table, &row)).map_err(|error| refused(table, error))?;
        if done.changed == 0 {
            return Err(WriteRefused::Invalid(format!("row exists: {}", key_text(&table.name, key))));
        }
        self.log(table, key, None, Some(&row))
    }

    /// Inserts a row, or updates the given columns of the one that is there.
    pub fn upsert(&mut self, table: &'a Table, values: &Row) -> Result<(), WriteRefused> {
        let key: Vec<Json> = table.key_columns().map(|column| values.get(&column.name).cloned().unwrap_or(Json::Null)).collect();
        let has_key = table.key_columns().all(|column| values.contains_key(&column.name));
        if has_key {
            let key = normalize_key(table, &key)?;
            if let Some(old) = self.row(table, &key)? {
                let set = normalize_set(table, values, &self.engine.options.envelopes)?;
                return self.replace(table, &key, old, set);
            }
        }
        self.insert(table, values, false)
    }

    /// Updates the columns that `set` gives for the row before; whether there is such a row.
    pub fn update(
        &mut self,
        table: &'a Table,
        key: &[Json],
        set: impl FnOnce(&Row) -> Result<Row, WriteRefused>,
    ) -> Result<bool, WriteRefused> {
        let key = normalize_key(table, key)?;
        let Some(old) = self.row(table, &key)? else { return Ok(false) };
        let set = normalize_set(table, &set(&old)?, &self.engine.options.envelopes)?;
        self.replace(table, &key, old, set)?;
        Ok(true)
    }

    fn replace(&mut self, table: &'a Table, key: &[Json], old: Row, set: Row) -> Result<(), WriteRefused> {
        if let Some(column) = table.key_columns().find(|column| set.get(&column.name).is_some_and(|value| *value != old[&column.name])) {
            return Err(WriteRefused::Invalid(format!("column {} of the primary key cannot change", column.name)));
        }
        let mut new = old.clone();
        new.extend(set);
        self.judge(table, Action::Update, Some(&old), Some(&new))?;
        self.store_update(table, key, &old, &new)
    }

    /// Writes what differs, already judged.
    fn store_update(&mut self, table: &'a Table, key: &[Json], old: &Row, new: &Row) -> Result<(), WriteRefused> {
        let differing: Vec<&Column> = table.columns.iter().filter(|column| old[&column.name] != new[&column.name]).collect();
        if differing.is_empty() {
            return Ok(());
        }
        self.check_references(table, Some(old), new)?;
        self.check_referrers(table, &differing, old)?;
        self.guard()?;
        let statement = self.statements(table).update(table, self.sql, &differing, new, key);
        self.transaction.execute(statement).map_err(|error| refused(table, error))?;
        self.log(table, key, Some(old), Some(new))
    }

    /// Deletes a row, if it is there, and does what follows from it to rows that refer to it.
    pub fn delete(&mut self, table: &'a Table, key: &[Json]) -> Result<(), WriteRefused> {
        let key = normalize_key(table, key)?;
        let Some(old) = self.row(table, &key)? else { return Ok(()) };
        self.judge(table, Action::Delete, Some(&old), None)?;
        // What follows is the schema's doing and not judged again. A list instead of recursion: chains may be long.
        let mut waiting = vec![(table, key, old)];
        while let Some((table, key, old)) = waiting.pop() {
            self.guard()?;
            let done = self.transaction.execute(self.statements(table).delete(table, &key)).map_err(|error| refused(table, error))?;
            if done.changed == 0 {
                continue;
            }
            self.log(table, &key, Some(&old), None)?;
            for referrer in self.engine.schema.referrers(&table.name) {
                waiting.extend(self.follow(&referrer, table, &old)?);
            }
        }
        Ok(())
    }

    /// What the deletion of a row does to those that refer to it; gives those to be deleted, too.
    fn follow(&mut self, referrer: &Referrer<'a>, target: &Table, old: &Row) -> Result<Vec<Keyed<'a>>, WriteRefused> {
        use super::schema::OnDelete::{Cascade, Restrict, SetNull};
        let Some(rows) = self.referring(referrer, target, old)? else { return Ok(Vec::new()) };
        let keyed = rows.into_iter().map(|row| (referrer.table, referrer.table.key_of(&row), row));
        match referrer.reference.on_delete {
            Cascade => Ok(keyed.collect()),
            Restrict => match keyed.into_iter().next() {
                Some((_, key, _)) => {
                    let (target, from) = (&target.name, key_text(&referrer.table.name, &key));
                    Err(WriteRefused::Invalid(format!("row of {target} is referenced by {from}")))
                }
                None => Ok(Vec::new()),
            },
            SetNull => {
                for (table, key, row) in keyed {
                    let mut new = row.clone();
                    new.insert(referrer.column.name.clone(), Json::Null);
                    self.store_update(table, &key, &row, &new)?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// The rows that refer to one; none where its column is null.
    fn referring(&self, referrer: &Referrer<'_>, target: &Table, old: &Row) -> Result<Option<Vec<Row>>, WriteRefused> {
        let (Some(column), Some(value)) = (target.column(&referrer.reference.column), old.get(&referrer.reference.column)) else {
            return Ok(None);
        };
        if value.is_null() {
            return Ok(None);
        }
        let statement = self.statements(referrer.table).select_by(referrer.table, self.sql, referrer.column, to_sql(column, value));
        let found = self.transaction.query(statement, None).map_err(|error| refused(referrer.table, error))?;
        Ok(Some(store::checked(found)?.iter().map(|cells| row_of(referrer.table, cells)).collect()))
    }

    /// A value that others refer to cannot change under them.
    fn check_referrers(&self, table: &Table, differing: &[&Column], old: &Row) -> Result<(), WriteRefused> {
        for referrer in self.engine.schema.referrers(&table.name) {
            let changes = differing.iter().any(|column| column.name == referrer.reference.column);
            if changes && self.referring(&referrer, table, old)?.is_some_and(|rows| !rows.is_empty()) {
                let (column, from) = (&referrer.reference.column, &referrer.table.name);
                return Err(WriteRefused::Invalid(format!("column {column} of {} is referenced by {from}", table.name)));
            }
        }
        Ok(())
    }

    /// What a row refers to is there, and so are its blobs where they must be.
    fn check_references(&self, table: &Table, old: Option<&Row>, new: &Row) -> Result<(), WriteRefused> {
        for column in &table.columns {
            let value = &new[&column.name];
            if value.is_null() || old.is_some_and(|old| old[&column.name] == *value) {
                continue;
            }
            if let Some(reference) = &column.references {
                let target = self.table(&reference.table)?;
                let own = target.name == table.name && new.get(&reference.column) == Some(value);
                let statement = self.statements(target).select_by_name(target, self.sql, &reference.column, to_sql(column, value));
                if !own && self.transaction.query(statement, Some(1)).map_err(|error| refused(target, error))?.rows.is_empty() {
                    return Err(WriteRefused::Invalid(format!("column {} refers to no row of {}", column.name, target.name)));
                }
            }
            if let (true, Some(hash)) = (self.engine.options.require_uploaded, blob_hash(column, value))
                && !self.engine.is_uploaded(self.imports, self.sql, self.transaction, hash)?
            {
                return Err(WriteRefused::Invalid(format!("blob not uploaded: {hash}")));
            }
        }
        Ok(())
    }

    /// Whether the policy allows a write.
    fn judge(&self, table: &Table, action: Action, old: Option<&Row>, new: Option<&Row>) -> Result<(), WriteRefused> {
        let Some(context) = self.context else { return Ok(()) };
        let predicate = match action {
            Action::Insert => &table.auth.insert,
            Action::Update => &table.auth.update,
            Action::Delete => &table.auth.delete,
        };
        let bindings = Bindings::of_context(context);
        for row in old.into_iter().chain(new) {
            if *predicate != Predicate::Const(true) && !evaluate(predicate, row, &bindings, self)? {
                return Err(WriteRefused::Authorization { table: table.name.clone(), action });
            }
        }
        if !self.engine.app_allows(self.imports, context, table, action, (old, new))? {
            return Err(WriteRefused::Authorization { table: table.name.clone(), action });
        }
        Ok(())
    }

    /// Notes that a row changed.
    fn log(&mut self, table: &Table, key: &[Json], old: Option<&Row>, new: Option<&Row>) -> Result<(), WriteRefused> {
        let key = pk_json(key);
        let blobs = self.blob_references(table, &key, old, new);
        if !blobs.is_empty() {
            self.transaction.execute_batch(blobs).map_err(Failure::from)?;
        }
        let before = old.filter(|_| self.engine.options.before_images);
        let before = before.map(|row| serde_json::to_string(row).map_err(|error| Failure::Unexpected(error.to_string()))).transpose()?;
        let (version, sequence) = (self.version, self.sequence);
        self.pending.push(NewEntry { version, sequence, table: table.name.clone(), key, put: new.is_some(), before });
        self.sequence += 1;
        self.changed += 1;
        if !self.tables.contains(&table.name) {
            self.tables.insert(table.name.clone());
        }
        Ok(())
    }

    /// Which blobs a row refers to, kept with it.
    fn blob_references(&self, table: &Table, key: &str, old: Option<&Row>, new: Option<&Row>) -> Vec<Statement> {
        let mut statements = Vec::new();
        for column in &table.columns {
            let hash = |row: Option<&Row>| blob_hash(column, row?.get(&column.name)?).map(str::to_owned);
            let (before, after) = (hash(old), hash(new));
            if before == after {
                continue;
            }
            let place = || [table.name.as_str().into(), key.into(), column.name.as_str().into()];
            if let Some(hash) = before {
                let template = "DELETE FROM {}_plasma_blob_refs WHERE hash = ? AND tbl = ? AND pk = ? AND col = ?";
                statements.push(self.sql.statement(template, std::iter::once(hash.into()).chain(place())));
            }
            if let Some(hash) = after {
                let template = "INSERT INTO {}_plasma_blob_refs (hash, tbl, pk, col, version) VALUES (?, ?, ?, ?, ?) \
                                ON CONFLICT (hash, tbl, pk, col) DO UPDATE SET version = excluded.version";
                let values = std::iter::once(hash.into()).chain(place()).chain([number(self.version)]);
                statements.push(self.sql.statement(template, values));
            }
        }
        statements
    }
}

impl Lookup for Writer<'_> {
    type Error = WriteRefused;

    fn exists(&self, exists: &Exists, outer: &Row, bindings: &Bindings<'_>) -> Result<bool, WriteRefused> {
        let compiled = self.engine.cache.exists(self.sql, exists);
        let statement = compiled.statement(&Bindings { outer: Some(outer), ..*bindings }, &[])?;
        let found = self.transaction.query(statement, Some(1)).map_err(Failure::from)?;
        Ok(!found.rows.is_empty())
    }
}

/// The blob that a value refers to.
pub fn blob_hash<'a>(column: &Column, value: &'a Json) -> Option<&'a str> {
    let is_file = column.column_type == ColumnType::File && !column.encrypted;
    value.get("hash").filter(|_| is_file).and_then(Json::as_str)
}

/// Cells of a select over all columns as a row.
pub fn row_of(table: &Table, cells: &[Value]) -> Row {
    table.columns.iter().zip(cells).map(|(column, cell)| (column.name.clone(), from_sql(column, cell))).collect()
}

/// What the database says against a row, in words that are the same for every database.
fn refused(table: &Table, error: SqlError) -> WriteRefused {
    let table = &table.name;
    match error {
        SqlError::Constraint((ConstraintKind::Unique, _)) => WriteRefused::Invalid(format!("a unique index of {table} has these values")),
        SqlError::Constraint((kind, _)) => WriteRefused::Invalid(format!("a constraint of {table} does not hold ({kind:?})")),
        SqlError::InvalidStatement(_) => WriteRefused::Invalid(format!("the database does not take a value of {table}")),
        other => Failure::from(other).into(),
    }
}
