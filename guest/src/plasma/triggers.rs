//! Triggers that log what other programs write into the tables (`changeLog.triggers`), on PostgreSQL.
//!
//! A statement of another program takes the lock of the database's writer before it touches a row, and holds it up to its COMMIT: so
//! versions become visible in their order, as with the server's own. Then it logs what it changed, as the server would: with the row
//! before, in wire form, and the key as `pk_json` writes it. The server's own transactions say who they are (`syncline.writer`, which
//! also holds the key of the lock), and set off nothing.
//!
//! SQLite has no session that could be told apart, and its triggers cannot write bytes in base64.

use super::engine::Engine;
use super::failure::Failure;
use super::schema::{Column, ColumnType, Schema, Table, quoted, table_name};
use super::store::{self, meta};
use crate::imports::{Dialect, Statement, Transaction};
use crate::sql::Sql;

/// Rows that are logged under one version: a page of a pull never ends inside a version.
const ROWS_PER_VERSION: u32 = 500;
/// Columns that one call of `jsonb_build_object` takes: functions have at most 100 arguments.
const COLUMNS_PER_OBJECT: usize = 40;
/// Asks for the key of the lock that this transaction holds.
const WRITER: &str = "SELECT current_setting('syncline.writer')";
/// When a trigger goes off: not in the server's own transactions. A setting that was never set is null, one of an earlier
/// transaction is empty.
const FOREIGN: &str = "coalesce(current_setting('syncline.writer', true), '') = ''";

/// Text as a literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A member of the key of the row `r`, as JSON text.
fn key_part(column: &Column) -> String {
    let cell = format!("r.{}", quoted(&column.name));
    match column.column_type {
        ColumnType::Text => format!("to_json({cell})::text"),
        ColumnType::Bigint => format!("'\"' || {cell}::text || '\"'"),
        _ => format!("{cell}::text"),
    }
}

/// The key of the row `r` as `pk_json` writes it.
fn key(table: &Table) -> String {
    let parts: Vec<_> = table.key_columns().map(key_part).collect();
    format!("('[' || {} || ']') COLLATE \"C\"", parts.join(" || ',' || "))
}

/// A cell of the row `r` in wire form.
fn cell(column: &Column) -> String {
    let cell = format!("r.{}", quoted(&column.name));
    match column.column_type {
        _ if column.is_json() => cell,
        ColumnType::Bigint => format!("{cell}::text"),
        // PostgreSQL breaks base64 into lines.
        ColumnType::Bytes => format!("translate(encode({cell}, 'base64'), E'\\n', '')"),
        _ => cell,
    }
}

/// The row `r` in wire form.
fn image(table: &Table) -> String {
    let object = |columns: &[Column]| {
        let members: Vec<_> = columns.iter().map(|column| format!("{}, {}", literal(&column.name), cell(column))).collect();
        format!("jsonb_build_object({})", members.join(", "))
    };
    table.columns.chunks(COLUMNS_PER_OBJECT).map(object).collect::<Vec<_>>().join(" || ")
}

/// The function behind the triggers of all tables. Their arguments are the table's name, and the expressions of key and row.
fn function(sql: &Sql, region: &str, has_images: bool, lock_key: &str) -> String {
    let relation = |name: &str| table_name(sql.prefix(), name);
    let (name, log, versions) = (relation("_plasma_log"), relation("_plasma_changes"), relation("_plasma_region_versions"));
    let (region, before) = (literal(region), if has_images { "e.before" } else { "NULL" });
    format!(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $log$
DECLARE
  last_version bigint;
  olds text := 'SELECT NULL::text COLLATE \"C\" AS pk, NULL::jsonb AS image WHERE false';
  news text := olds;
  keys text[];
  ops text[];
  befores jsonb[];
BEGIN
  PERFORM pg_advisory_xact_lock({lock_key});
  IF TG_OP = 'TRUNCATE' THEN
    olds := format('SELECT %s AS pk, %s AS image FROM %I.%I AS r', TG_ARGV[1], TG_ARGV[2], TG_TABLE_SCHEMA, TG_TABLE_NAME);
  ELSIF TG_WHEN = 'BEFORE' THEN
    RETURN NULL;
  END IF;
  IF TG_OP IN ('UPDATE', 'DELETE') THEN
    olds := format('SELECT %s AS pk, %s AS image FROM old_rows AS r', TG_ARGV[1], TG_ARGV[2]);
  END IF;
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    news := format('SELECT %s AS pk, %s AS image FROM new_rows AS r', TG_ARGV[1], TG_ARGV[2]);
  END IF;
  EXECUTE format('SELECT array_agg(pk ORDER BY pk), array_agg(op ORDER BY pk), array_agg(before ORDER BY pk) FROM ('
    'SELECT coalesce(n.pk, o.pk) AS pk, CASE WHEN n.pk IS NULL THEN ''del'' ELSE ''put'' END AS op, o.image AS before '
    'FROM (%s) AS o FULL JOIN (%s) AS n ON n.pk = o.pk WHERE n.image IS DISTINCT FROM o.image) AS entries', olds, news)
    INTO keys, ops, befores;
  IF keys IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT max(version) INTO last_version FROM {versions};
  UPDATE {log} SET newest = 0 WHERE newest = 1 AND tbl = TG_ARGV[0] AND pk = ANY (keys);
  INSERT INTO {log} (version, seq, tbl, pk, op, before, newest, region, at)
    SELECT last_version + 1 + (e.place - 1) / {ROWS_PER_VERSION}, (e.place - 1) % {ROWS_PER_VERSION}, TG_ARGV[0], e.pk, e.op, {before}, 1,
      {region}, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM unnest(keys, ops, befores) WITH ORDINALITY AS e(pk, op, before, place);
  UPDATE {versions} SET version = last_version + 1 + (cardinality(keys) - 1) / {ROWS_PER_VERSION} WHERE region = {region};
  RETURN NULL;
END
$log$"
    )
}

/// The triggers of a table.
fn of_table(sql: &Sql, table: &Table) -> Vec<String> {
    let (relation, function) = (table_name(sql.prefix(), &table.name), table_name(sql.prefix(), "_plasma_log"));
    let arguments = [&table.name, &key(table), &image(table)].map(|text| literal(text)).join(", ");
    let trigger = |name: &str, event: &str| {
        format!(
            "CREATE TRIGGER _plasma_log_{name} {event} FOR EACH STATEMENT WHEN ({FOREIGN}) EXECUTE FUNCTION {function}({arguments})",
            event = event.replace("{}", &relation)
        )
    };
    vec![
        // Before any row is locked, for whose lock the server may wait.
        trigger("lock", "BEFORE INSERT OR UPDATE OR DELETE ON {}"),
        trigger("insert", "AFTER INSERT ON {} REFERENCING NEW TABLE AS new_rows"),
        trigger("update", "AFTER UPDATE ON {} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        trigger("delete", "AFTER DELETE ON {} REFERENCING OLD TABLE AS old_rows"),
        trigger("truncate", "BEFORE TRUNCATE ON {}"),
    ]
}

impl Engine {
    /// Brings the triggers to what the settings and a schema want. Where they are so already, nothing is touched, but after a migration:
    /// tables that were built anew have lost theirs.
    pub(super) fn bring_triggers(
        &self,
        sql: &Sql,
        transaction: &dyn Transaction,
        schema: &Schema,
        is_migrated: bool,
    ) -> Result<(), Failure> {
        if sql.dialect() == Dialect::Sqlite {
            // Settings that want them stopped the start.
            return Ok(());
        }
        let wanted = if self.options.triggers { self.triggers(sql, transaction, schema)? } else { Vec::new() };
        let known = meta::get(sql, transaction, meta::TRIGGERS)?.unwrap_or_default();
        let text = wanted.join(";\n");
        if known == text && !(is_migrated && self.options.triggers) {
            return Ok(());
        }
        // The triggers of all tables go with it.
        let drop = format!("DROP FUNCTION IF EXISTS {}() CASCADE", table_name(sql.prefix(), "_plasma_log"));
        let statements = std::iter::once(drop).chain(wanted).map(|sql| Statement { sql, parameters: Vec::new() });
        let note = if text.is_empty() { meta::remove(sql, meta::TRIGGERS) } else { meta::set(sql, meta::TRIGGERS, &text) };
        transaction.execute_batch(statements.chain([note]).collect())?;
        Ok(())
    }

    /// What makes function and triggers.
    fn triggers(&self, sql: &Sql, transaction: &dyn Transaction, schema: &Schema) -> Result<Vec<String>, Failure> {
        let found = store::checked(transaction.query(Statement { sql: WRITER.into(), parameters: Vec::new() }, None)?)?;
        let lock_key = found.into_iter().next().and_then(|mut row| row.pop()).map(store::text).transpose()?.unwrap_or_default();
        // It becomes part of a text.
        if lock_key.parse::<i64>().is_err() {
            return Err(Failure::Unexpected("the host does not say which lock its writer holds".into()));
        }
        let function = function(sql, &self.options.region, self.options.before_images, &lock_key);
        Ok(std::iter::once(function).chain(schema.tables().iter().flat_map(|table| of_table(sql, table))).collect())
    }
}
