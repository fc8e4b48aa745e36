//! Places that are counted across all instances (open streams, attempts under way), leased.

use crate::sql::{Database, Dialect, Error, bytes, number, unsigned};
use sha2::{Digest as _, Sha256};

/// Takes a place of a name, or prolongs it; false where all are taken.
pub fn hold(database: &Database, name: &str, holder: &str, limit: u32, lease_ms: u64, now_ms: u64) -> Result<bool, Error> {
    let until = number(now_ms.saturating_add(lease_ms));
    database.write(|link| {
        if database.dialect() == Dialect::Postgres {
            link.run("SELECT CAST(pg_advisory_xact_lock($1) AS text)", &[lock_key(name).into()])?;
        }
        let over = database.own("DELETE FROM {}places WHERE name = ? AND until <= ?");
        link.run(&over, &[name.as_bytes().into(), number(now_ms)])?;
        let count = database.own("SELECT count(*) FROM {}places WHERE name = ? AND holder <> ?");
        let rows = link.run(&count, &[name.as_bytes().into(), holder.as_bytes().into()])?.rows;
        let others = rows.first().and_then(|row| row.first()).map_or(Ok(0), unsigned)?;
        if others >= u64::from(limit) {
            return Ok(false);
        }
        let take = database.own(
            "INSERT INTO {}places (name, holder, until) VALUES (?, ?, ?) ON CONFLICT (name, holder) DO UPDATE SET until = excluded.until",
        );
        link.run(&take, &[name.as_bytes().into(), holder.as_bytes().into(), until.clone()])?;
        Ok(true)
    })
}

/// Gives a place back.
pub fn release(database: &Database, name: &str, holder: &str) -> Result<(), Error> {
    let parameters = [name.as_bytes().into(), holder.as_bytes().into()];
    database.run("DELETE FROM {}places WHERE name = ? AND holder = ?", &parameters).map(drop)
}

/// Who has a place of a name.
pub fn holders(database: &Database, name: &str, now_ms: u64) -> Result<Vec<String>, Error> {
    let sql = "SELECT holder FROM {}places WHERE name = ? AND until > ? ORDER BY holder";
    let rows = database.run(sql, &[name.as_bytes().into(), number(now_ms)])?.rows;
    rows.into_iter().flatten().map(|cell| String::from_utf8(bytes(cell)?).map_err(|error| Error::Unavailable(error.to_string()))).collect()
}

/// Removes what is over.
pub fn remove_old(database: &Database, now_ms: u64) -> Result<(), Error> {
    database.run("DELETE FROM {}places WHERE until <= ?", &[number(now_ms)]).map(drop)
}

fn lock_key(name: &str) -> i64 {
    let digest = Sha256::new().chain_update("syncline places\0").chain_update(name).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}
