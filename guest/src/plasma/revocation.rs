//! Users whose credentials were revoked a moment ago, so that a request of theirs that waits learns of it when it is woken.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::store::meta;
use crate::imports::{ConnectionId, Imports, Transaction};

/// How long a revocation is remembered: longer than any request waits.
const REMEMBERED_MS: u64 = 10 * 60_000;

/// The last revocation of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When, milliseconds since 1970.
    at_ms: u64,
    /// By which request.
    by: ConnectionId,
}

/// Revocations by user.
type Revocations = BTreeMap<String, Revocation>;

fn parse(stored: Option<String>) -> Result<Revocations, Failure> {
    let parsed = stored.map(|text| serde_json::from_str(&text)).transpose();
    Ok(parsed.map_err(|error| Failure::Unexpected(format!("revocations: {error}")))?.unwrap_or_default())
}

impl Engine {
    /// Remembers that a user's credentials were revoked by this request.
    pub fn revoke(&self, imports: Imports<'_>, user_id: &str, by: ConnectionId) -> Result<(), Failure> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let view: &dyn Transaction = transaction.as_ref();
        let mut revocations = parse(meta::get(sql, view, meta::REVOCATIONS)?)?;
        revocations.retain(|_, revocation| revocation.at_ms.saturating_add(REMEMBERED_MS) > imports.now_ms);
        revocations.insert(user_id.to_owned(), Revocation { at_ms: imports.now_ms, by });
        let stored = serde_json::to_string(&revocations).map_err(|error| Failure::Unexpected(error.to_string()))?;
        transaction.execute(meta::set(sql, meta::REVOCATIONS, &stored))?;
        Ok(transaction.commit()?)
    }

    /// The last revocation of a user, if it was not long ago.
    pub fn revocation(&self, imports: Imports<'_>, user_id: &str) -> Result<Option<Revocation>, Failure> {
        let sql = self.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE)?;
        Ok(parse(meta::get(sql, view.as_ref(), meta::REVOCATIONS)?)?.remove(user_id))
    }
}
