//! The system tables (docs/protocols/plasma.md, section 14.1).

use crate::imports::{Dialect, Statement};
use crate::sql::Sql;

/// The format of the tables; a newer one is refused.
pub const FORMAT: i64 = 2;

/// Text that is compared and ordered by code unit.
fn text(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "TEXT",
        Dialect::Postgres => "TEXT COLLATE \"C\"",
    }
}

/// Creates what is missing; idempotent.
///
/// `newest` is 1 for the newest entry of a row, so a pull reads live entries only, however long the log is. Entries by table serve
/// the question what changed in a table since a version.
pub fn create(sql: &Sql) -> Vec<Statement> {
    let dialect = sql.dialect();
    let (text, json, clustered) = match dialect {
        Dialect::Sqlite => (text(dialect), "TEXT", " WITHOUT ROWID"),
        Dialect::Postgres => (text(dialect), "JSONB", ""),
    };
    let templates = [
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_changes (version BIGINT NOT NULL, seq BIGINT NOT NULL, tbl {text} NOT NULL, \
             pk {text} NOT NULL, op {text} NOT NULL, before {json}, region {text} NOT NULL, at BIGINT NOT NULL, newest BIGINT NOT NULL, \
             PRIMARY KEY (version, seq)){clustered}"
        ),
        "CREATE INDEX IF NOT EXISTS {}_plasma_changes_live ON {}_plasma_changes (version, seq) WHERE newest = 1".into(),
        "CREATE UNIQUE INDEX IF NOT EXISTS {}_plasma_changes_newest ON {}_plasma_changes (tbl, pk) WHERE newest = 1".into(),
        "CREATE INDEX IF NOT EXISTS {}_plasma_changes_by_table ON {}_plasma_changes (tbl, version, seq)".into(),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_mutations (version BIGINT NOT NULL, cg {text} NOT NULL, c {text} NOT NULL, \
             mid BIGINT NOT NULL, PRIMARY KEY (cg, c, mid)){clustered}"
        ),
        "CREATE INDEX IF NOT EXISTS {}_plasma_mutations_by_version ON {}_plasma_mutations (cg, version)".into(),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_clients (c {text} NOT NULL PRIMARY KEY, cg {text} NOT NULL, lmid BIGINT NOT NULL, \
             version BIGINT NOT NULL, seen_at BIGINT NOT NULL){clustered}"
        ),
        "CREATE INDEX IF NOT EXISTS {}_plasma_clients_by_group ON {}_plasma_clients (cg, version)".into(),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_client_groups (cg {text} NOT NULL PRIMARY KEY, uid {text} NOT NULL, ctx_digest {text}, \
             reset_version BIGINT NOT NULL, created_at BIGINT NOT NULL, seen_at BIGINT NOT NULL){clustered}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_blob_refs (hash {text} NOT NULL, tbl {text} NOT NULL, pk {text} NOT NULL, \
             col {text} NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (hash, tbl, pk, col)){clustered}"
        ),
        "CREATE INDEX IF NOT EXISTS {}_plasma_blob_refs_by_version ON {}_plasma_blob_refs (hash, version)".into(),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_blobs (hash {text} NOT NULL PRIMARY KEY, size BIGINT NOT NULL, \
             content_type {text} NOT NULL, created_at BIGINT NOT NULL, object {text} NOT NULL DEFAULT ''){clustered}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_region_versions (region {text} NOT NULL PRIMARY KEY, version BIGINT NOT NULL, \
             min_version BIGINT NOT NULL){clustered}"
        ),
        format!("CREATE TABLE IF NOT EXISTS {{}}_plasma_meta (key {text} NOT NULL PRIMARY KEY, value {text} NOT NULL){clustered}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {{}}_plasma_migrations (id BIGINT NOT NULL PRIMARY KEY, \"from\" {text}, \"to\" {text} NOT NULL, \
             diff {text} NOT NULL, at BIGINT NOT NULL){clustered}"
        ),
    ];
    templates.iter().map(|template| sql.statement(template, [])).collect()
}

/// What brings tables of an older format to this one.
pub fn upgrade(sql: &Sql, from: i64) -> Vec<Statement> {
    let blobs = format!("ALTER TABLE {{}}_plasma_blobs ADD COLUMN object {} NOT NULL DEFAULT ''", text(sql.dialect()));
    // Until the second format there were no blobs.
    if from < 2 { vec![sql.statement(&blobs, [])] } else { Vec::new() }
}
