//! The start of a mount: tables, seed, and the way from a stored schema to the configured one.

use serde::Serialize;
use serde_json::Value as Json;

use super::engine::{DATABASE, Engine, MigrationMode};
use super::failure::Failure;
use super::mutators::expression::uuid;
use super::schema::{
    Schema, SchemaDiff, Table, create_schema, from_sql, impossible, migration_statements, needs_reset, pk_json, quoted, select_cell,
    table_name, to_sql,
};
use super::server_db::WriteRefused;
use super::store::changes::{self, NewEntry};
use super::store::{self, meta, number};
use super::table_sql::place;
use super::write::Writer;
use crate::imports::{Imports, Level, Statement, Transaction, Value};
use crate::sql::Sql;

/// Something that a migration did, in the shape that the admin API shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MigrationEvent {
    /// It begins.
    Start,
    /// A statement that was run, or would be.
    Statement {
        /// Its text.
        sql: String,
    },
    /// Rows that were filled.
    Backfill {
        /// Whose.
        table: String,
        /// How many.
        rows: u64,
    },
    /// It is done.
    Done,
    /// It is refused.
    Refused,
}

/// What a migration did, or would do, in the shape that the admin API shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationResult {
    /// Always true.
    pub ok: bool,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What differs.
    pub diff: SchemaDiff,
    /// In order.
    pub events: Vec<MigrationEvent>,
}

/// Why a migration was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MigrationRefused {
    /// 409 `migration-refused`.
    #[error("migration refused: {}", reasons.join("; "))]
    Refused {
        /// One line each.
        reasons: Vec<String>,
        /// What differs.
        diff: Box<SchemaDiff>,
    },
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Rows that are logged under one version when they were there before the log: a page of a pull never ends inside a version.
const ROWS_PER_VERSION: u64 = 500;

impl Engine {
    /// Creates or migrates what the mount keeps, and seeds it once. The error stops the start.
    ///
    /// All of it is one transaction, so a crash leaves nothing half done.
    /// Gives what was migrated, if anything.
    pub fn start(&self, imports: Imports<'_>) -> Result<Option<MigrationResult>, String> {
        self.try_start(imports).map_err(|refused| refused.to_string())
    }

    fn try_start(&self, imports: Imports<'_>) -> Result<Option<MigrationResult>, MigrationRefused> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let tables: &dyn Transaction = transaction.as_ref();
        execute_all(tables, store::create_tables(sql))?;
        bring_to_format(sql, tables)?;
        execute_all(tables, vec![changes::add_region(sql, &self.options.region)])?;

        let to: &Schema = &self.schema;
        let (mut migrated, mut fits) = (None, true);
        match stored_schema(sql, tables)? {
            None => self.create(imports, sql, tables)?,
            Some(from) if from.source() == to.source() || self.options.migrations == MigrationMode::Off => {
                fits = from.source() == to.source();
                execute_all(tables, plain(create_schema(to, sql.dialect(), sql.prefix())))?;
            }
            Some(from) => {
                let diff = SchemaDiff::between(&from, to);
                if self.options.migrations == MigrationMode::Check && !diff.is_empty() {
                    let mut reasons = vec!["migrations.mode is \"check\", and the stored schema differs".into()];
                    reasons.extend(diff.lines());
                    return Err(MigrationRefused::Refused { reasons, diff: Box::new(diff) });
                }
                let result = self.migrate_in(imports, sql, tables, (&from, to), false, self.options.allow_destructive)?;
                let fields = serde_json::to_string(&result).map_err(|error| Failure::Unexpected(error.to_string()))?;
                imports.effects.log(Level::Info, "plasma: the schema was migrated", &fields);
                migrated = Some(result);
            }
        }
        self.bring_triggers(sql, tables, to, migrated.is_some())?;
        self.note_start(sql, tables, fits)?;
        transaction.commit().map_err(Failure::from)?;
        Ok(migrated)
    }

    /// The first start: tables, rows that were there before them, seed.
    fn create(&self, imports: Imports<'_>, sql: &Sql, transaction: &dyn Transaction) -> Result<(), MigrationRefused> {
        execute_all(transaction, plain(create_schema(&self.schema, sql.dialect(), sql.prefix())))?;
        if self.options.before_images {
            // Before the first version there was nothing, the seed neither.
            execute_all(transaction, vec![meta::set(sql, meta::IMAGES_SINCE, "0")])?;
        }
        for table in self.schema.tables() {
            self.log_all_rows(imports, sql, transaction, table)?;
        }
        if self.options.seed.is_empty() {
            return Ok(());
        }
        let mut writer = Writer::new(self, sql, imports, transaction, None);
        let version = changes::head_to_write(sql, transaction)?.last + 1;
        writer.set_version(version, 0);
        for (table, rows) in &self.options.seed {
            for (index, row) in rows.iter().enumerate() {
                let written = match row.as_object() {
                    Some(row) => writer.table(table).and_then(|table| writer.insert(table, row, false)),
                    None => Err(WriteRefused::Invalid("expected an object".into())),
                };
                match written {
                    Ok(()) => {}
                    Err(WriteRefused::Failure(failure)) => return Err(failure.into()),
                    Err(why) => {
                        let reasons = vec![format!("seed.{table}[{index}]: {why}")];
                        return Err(MigrationRefused::Refused { reasons, diff: Box::default() });
                    }
                }
            }
        }
        let mut statements = writer.flush();
        statements.push(changes::set_version(sql, &self.options.region, version));
        Ok(execute_all(transaction, statements)?)
    }

    /// Notes with what the mount started.
    /// `fits`: whether the tables are those of the schema. Where they are not, since migrations are off, the stored schema stays, so
    /// that a later start can still migrate.
    fn note_start(&self, sql: &Sql, transaction: &dyn Transaction, fits: bool) -> Result<(), Failure> {
        let schema = meta::set(sql, meta::SCHEMA, &self.schema.source().to_string());
        let mut facts = vec![
            meta::set(sql, meta::SCHEMA_VERSION, &self.options.schema_version),
            meta::set(sql, meta::FORMAT, &store::FORMAT.to_string()),
            sql.statement("INSERT INTO {}_plasma_meta (key, value) VALUES ('serverId', ?) ON CONFLICT (key) DO NOTHING", [uuid().into()]),
        ];
        facts.extend(Some(schema).filter(|_| fits));
        let has_images = meta::get(sql, transaction, meta::IMAGES_SINCE)?.is_some();
        if self.options.before_images && !has_images {
            let version = changes::head(sql, transaction)?.version;
            facts.push(meta::set(sql, meta::IMAGES_SINCE, &version.to_string()));
        } else if !self.options.before_images && has_images {
            facts.push(meta::remove(sql, meta::IMAGES_SINCE));
        }
        execute_all(transaction, facts)
    }

    /// Brings the stored schema to another one.
    pub fn migrate(
        &self,
        imports: Imports<'_>,
        to: &Schema,
        dry_run: bool,
        allow_destructive: bool,
    ) -> Result<MigrationResult, MigrationRefused> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let from = stored_schema(sql, transaction.as_ref())?;
        let from = from.as_ref().unwrap_or(&self.schema);
        let result = self.migrate_in(imports, sql, transaction.as_ref(), (from, to), dry_run, allow_destructive)?;
        if !dry_run {
            self.bring_triggers(sql, transaction.as_ref(), to, true)?;
            execute_all(transaction.as_ref(), vec![meta::set(sql, meta::SCHEMA, &to.source().to_string())])?;
            transaction.commit().map_err(Failure::from)?;
        }
        Ok(result)
    }

    /// The writer of the database is alone, so no other machine migrates meanwhile.
    fn migrate_in(
        &self,
        imports: Imports<'_>,
        sql: &Sql,
        transaction: &dyn Transaction,
        (from, to): (&Schema, &Schema),
        dry_run: bool,
        allow_destructive: bool,
    ) -> Result<MigrationResult, MigrationRefused> {
        let diff = SchemaDiff::between(from, to);
        let mut reasons = impossible(from, to);
        if !allow_destructive && let Err(unsafe_changes) = diff.assert_safe_for_v1() {
            reasons = unsafe_changes;
        }
        if !reasons.is_empty() {
            return Err(MigrationRefused::Refused { reasons, diff: Box::new(diff) });
        }
        let mut events = vec![MigrationEvent::Start];
        for step in migration_statements(from, to, sql.dialect(), sql.prefix()) {
            events.push(MigrationEvent::Statement { sql: step.statement.sql.clone() });
            if dry_run {
                continue;
            }
            let done = transaction.execute(step.statement).map_err(Failure::from)?;
            if let Some(table) = step.backfills {
                events.push(MigrationEvent::Backfill { table, rows: done.changed });
            }
        }
        if !dry_run && !diff.is_empty() {
            self.relog(imports, sql, transaction, (from, to), &diff)?;
        }
        events.push(MigrationEvent::Done);
        Ok(MigrationResult { ok: true, dry_run, diff, events })
    }

    /// Brings the log to the new schema, and sees to it that clients begin anew if rows look different.
    fn relog(
        &self,
        imports: Imports<'_>,
        sql: &Sql,
        transaction: &dyn Transaction,
        (from, to): (&Schema, &Schema),
        diff: &SchemaDiff,
    ) -> Result<(), Failure> {
        for table in diff.removed_tables.iter().chain(&diff.changed_primary_keys) {
            for system in ["_plasma_changes", "_plasma_blob_refs"] {
                let template = format!("DELETE FROM {{}}{system} WHERE tbl = ?");
                transaction.execute(sql.statement(&template, [table.as_str().into()]))?;
            }
        }
        for name in diff.added_tables.iter().chain(&diff.changed_primary_keys) {
            if let Some(table) = to.table(name) {
                self.log_all_rows(imports, sql, transaction, table)?;
            }
        }
        let region = &self.options.region;
        let version = changes::head_to_write(sql, transaction)?.last + 1;
        let mut statements = Vec::new();
        if needs_reset(from, to) {
            // Cookies and before-images from before are of no use any more.
            statements.push(changes::set_version(sql, region, version));
            statements.push(changes::raise_min_version(sql, region, version));
        }
        let template = "INSERT INTO {}_plasma_migrations (id, \"from\", \"to\", diff, at) \
                        SELECT coalesce(max(id), 0) + 1, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT) \
                        FROM {}_plasma_migrations";
        let diff = serde_json::to_string(diff).map_err(|error| Failure::Unexpected(error.to_string()))?;
        let sources = [from.source().to_string().into(), to.source().to_string().into(), diff.into(), number(imports.now_ms)];
        statements.push(sql.statement(template, sources));
        execute_all(transaction, statements)
    }

    /// Writes entries for the rows of a table that was there before the log.
    fn log_all_rows(&self, imports: Imports<'_>, sql: &Sql, transaction: &dyn Transaction, table: &Table) -> Result<(), Failure> {
        let region = &self.options.region;
        let dialect = sql.dialect();
        let cells: Vec<_> = table.key_columns().map(|column| select_cell(column, &quoted(&column.name), dialect)).collect();
        let names: Vec<_> = table.key_columns().map(|column| quoted(&column.name)).collect();
        let places: Vec<_> = table.key_columns().enumerate().map(|(index, column)| place(column, dialect, index + 1)).collect();
        let (relation, names) = (table_name(sql.prefix(), &table.name), names.join(", "));
        let first = format!("SELECT {} FROM {relation}", cells.join(", "));
        let order = format!(" ORDER BY {names} LIMIT {ROWS_PER_VERSION}");
        // A long log must not be looked through for every page where it can have nothing to say.
        let logged_before = changes::has_entries(sql, transaction, &table.name)?;
        let mut last: Option<Vec<Json>> = None;
        loop {
            let statement = match &last {
                None => Statement { sql: format!("{first}{order}"), parameters: Vec::new() },
                Some(key) => Statement {
                    sql: format!("{first} WHERE ({names}) > ({}){order}", places.join(", ")),
                    parameters: table.key_columns().zip(key).map(|(column, value)| to_sql(column, value)).collect(),
                },
            };
            let found = store::checked(transaction.query(statement, None)?)?;
            let key_of =
                |cells: &Vec<Value>| -> Vec<Json> { table.key_columns().zip(cells).map(|(column, cell)| from_sql(column, cell)).collect() };
            let keys: Vec<_> = found.iter().map(key_of).collect();
            let version = changes::head_to_write(sql, transaction)?.last + 1;
            let entry = |(sequence, key): (usize, &Vec<Json>)| {
                let (table, key) = (table.name.clone(), pk_json(key));
                NewEntry { version, sequence: sequence as u64, table, key, put: true, before: None }
            };
            let entries: Vec<_> = keys.iter().enumerate().map(entry).collect();
            if entries.is_empty() {
                return Ok(());
            }
            let mut statements = match logged_before {
                true => changes::append(sql, region, imports.now_ms, &entries),
                false => vec![changes::append_first(sql, region, imports.now_ms, &entries)],
            };
            statements.push(changes::set_version(sql, region, version));
            execute_all(transaction, statements)?;
            last = keys.into_iter().next_back();
        }
    }
}

fn execute_all(transaction: &dyn Transaction, statements: Vec<Statement>) -> Result<(), Failure> {
    transaction.execute_batch(statements)?;
    Ok(())
}

fn plain(texts: Vec<String>) -> Vec<Statement> {
    texts.into_iter().map(|sql| Statement { sql, parameters: Vec::new() }).collect()
}

fn bring_to_format(sql: &Sql, transaction: &dyn Transaction) -> Result<(), Failure> {
    let found = meta::get(sql, transaction, meta::FORMAT)?.and_then(|format| format.parse::<i64>().ok());
    match found {
        Some(format) if format > store::FORMAT => Err(Failure::Unexpected(format!(
            "the tables of database {DATABASE:?} have format {format}, this version reads up to {}",
            store::FORMAT
        ))),
        Some(format) => execute_all(transaction, store::upgrade_tables(sql, format)),
        None => Ok(()),
    }
}

/// The schema of the last start or migration.
fn stored_schema(sql: &Sql, transaction: &dyn Transaction) -> Result<Option<Schema>, Failure> {
    let Some(text) = meta::get(sql, transaction, meta::SCHEMA)? else { return Ok(None) };
    let unreadable = |why: String| Failure::Unexpected(format!("the stored schema cannot be read: {why}"));
    let source: Json = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    Schema::parse(&source, "schema").map(Some).map_err(|problems| unreadable(problems.join("; ")))
}
