//! Versions for writers outside of this server: ranges that are handed out before they are used.
//!
//! Writers of this server take their versions within their own transaction, so versions become visible in their order. Somebody
//! else, who writes rows and log by his own means, reserves a range first. With `sequencer.mode: "reserve"` readers see nothing
//! from the beginning of an open range on, until it is closed or its lease is over; then whoever had it has lost it and must reserve
//! anew. With `row-lock` a range is only a hole: it must be written before anybody reads on.
//!
//! All regions of a database share one order: a version is after another one whichever regions took them. Cookies tell of each region
//! all the same (`regions`).

use super::engine::Engine;
use super::failure::Failure;
use super::store::{changes, meta, number};
use crate::imports::Imports;

/// How long a range may stay open, milliseconds.
pub const LEASE_MS: u64 = 10_000;
/// Versions of one range.
pub const RANGE_MAX: u64 = 1_000_000;

/// A range of versions that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// By whom it is to be used.
    pub region: String,
    /// Its first version.
    pub first: u64,
    /// Its last version.
    pub last: u64,
    /// Which one it is: grows with each.
    pub epoch: u64,
}

impl Engine {
    /// Hands out a range in a short transaction of its own. `holds`: readers wait for it, until a lease is over.
    pub fn reserve(&self, imports: Imports<'_>, region: &str, count: u64, holds: bool) -> Result<Reserved, Failure> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let head = changes::head_to_write(sql, transaction.as_ref())?;
        let epoch = meta::get(sql, transaction.as_ref(), meta::EPOCH)?.and_then(|epoch| epoch.parse::<u64>().ok()).unwrap_or(0) + 1;
        let reserved = Reserved { region: region.to_owned(), first: head.last + 1, last: head.last + count, epoch };
        let mut statements = vec![
            changes::add_region(sql, region),
            changes::set_version(sql, region, reserved.last),
            meta::set(sql, meta::EPOCH, &epoch.to_string()),
        ];
        if holds {
            let template =
                "INSERT INTO {}_plasma_open_ranges (first_version, last_version, region, epoch, until_ms) VALUES (?, ?, ?, ?, ?)";
            let until_ms = imports.now_ms.saturating_add(LEASE_MS);
            let values = [number(reserved.first), number(reserved.last), region.into(), number(epoch), number(until_ms)];
            statements.push(sql.statement(template, values));
        }
        transaction.execute_batch(statements)?;
        transaction.commit()?;
        Ok(reserved)
    }

    /// Closes a range; false: it was not open any more.
    pub fn close_range(&self, imports: Imports<'_>, first: u64, epoch: u64) -> Result<bool, Failure> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let template = "DELETE FROM {}_plasma_open_ranges WHERE first_version = ? AND epoch = ?";
        let closed = transaction.execute(sql.statement(template, [number(first), number(epoch)]))?.changed > 0;
        transaction.commit()?;
        Ok(closed)
    }

    /// Closes ranges whose lease is over; whether there were any.
    pub fn close_expired_ranges(&self, imports: Imports<'_>) -> Result<bool, Failure> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let expired = sql.statement("DELETE FROM {}_plasma_open_ranges WHERE until_ms <= ?", [number(imports.now_ms)]);
        let closed = transaction.execute(expired)?.changed > 0;
        transaction.commit()?;
        Ok(closed)
    }
}
