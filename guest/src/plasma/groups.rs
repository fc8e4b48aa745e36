//! Client groups: ownership, and how they are forgotten.

use serde_json::json;

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::store::{self, clients, number};
use crate::imports::Imports;

/// Who owns a client group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody: it is unknown.
    Unknown,
    /// The user in question.
    Own,
    /// Somebody else: 403 `client-group-owner`.
    Foreign,
}

/// Groups that one step of the expiry looks at.
const GROUPS_PER_STEP: usize = 500;
/// Remembered mutations that one transaction removes: it holds the database for a short time.
const MUTATIONS_PER_TRANSACTION: u64 = 2000;

impl Engine {
    /// Whose a client group is, for connections that name one.
    pub fn ownership(&self, imports: Imports<'_>, client_group_id: &str, user_id: &str) -> Result<Ownership, Failure> {
        let sql = self.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE)?;
        let found = view.query(clients::group_statement(sql, client_group_id), None)?;
        Ok(match clients::group_of(found.rows)? {
            None => Ownership::Unknown,
            Some(group) if group.user_id == user_id => Ownership::Own,
            Some(_) => Ownership::Foreign,
        })
    }

    /// Forgets a client group; whether it was known. Its clients get ClientStateNotFound from then on.
    pub fn forget(&self, imports: Imports<'_>, client_group_id: &str) -> Result<bool, Failure> {
        self.forget_if(imports, client_group_id, None)
    }

    /// Forgets a group, if it was last seen before a time.
    fn forget_if(&self, imports: Imports<'_>, client_group_id: &str, seen_before_ms: Option<u64>) -> Result<bool, Failure> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        // With group and clients gone in one transaction nothing of the group counts any more.
        let before = number(seen_before_ms.unwrap_or(i64::MAX as u64));
        let template = "DELETE FROM {}_plasma_client_groups WHERE cg = ? AND seen_at < ?";
        let known = transaction.execute(sql.statement(template, [client_group_id.into(), before]))?.changed > 0;
        if known {
            transaction.execute(sql.statement("DELETE FROM {}_plasma_clients WHERE cg = ?", [client_group_id.into()]))?;
            transaction.commit()?;
            self.forget_mutations(imports, client_group_id)?;
        }
        Ok(known)
    }

    /// Removes what is remembered of a forgotten group's mutations. What a crash leaves is removed by compaction.
    fn forget_mutations(&self, imports: Imports<'_>, client_group_id: &str) -> Result<(), Failure> {
        let sql = self.sql(imports)?;
        loop {
            let transaction = self.begin(imports)?;
            let template = "DELETE FROM {}_plasma_mutations WHERE cg = ? AND (c, mid) IN \
                            (SELECT c, mid FROM {}_plasma_mutations WHERE cg = ? ORDER BY c, mid LIMIT ?)";
            let parameters = [client_group_id.into(), client_group_id.into(), number(MUTATIONS_PER_TRANSACTION)];
            let removed = transaction.execute(sql.statement(template, parameters))?.changed;
            transaction.commit()?;
            if removed < MUTATIONS_PER_TRANSACTION {
                return Ok(());
            }
        }
    }

    /// Forgets groups that were idle for too long (`clientGroupTtlMs`), a few in a step. `after`: where the step before ended.
    /// Gives where to go on; none: done.
    pub fn expire(&self, imports: Imports<'_>, after: Option<String>) -> Result<Option<String>, Failure> {
        let sql = self.sql(imports)?;
        let before_ms = imports.now_ms.saturating_sub(self.options.client_group_ttl_ms);
        let view = imports.executor.snapshot(DATABASE)?;
        let template = "SELECT cg, seen_at FROM {}_plasma_client_groups WHERE cg > ? ORDER BY cg LIMIT ?";
        let parameters = [after.unwrap_or_default().into(), number(GROUPS_PER_STEP as u64)];
        let looked_at = store::rows(sql, view.as_ref(), template, parameters)?;
        drop(view);
        let mut last = None;
        let full = looked_at.len() == GROUPS_PER_STEP;
        for mut row in looked_at {
            let seen_ms = store::unsigned(&row[1])?;
            let group_id = store::text(row.swap_remove(0))?;
            if seen_ms < before_ms && self.forget_if(imports, &group_id, Some(before_ms))? {
                let fields = json!({"clientGroupID": group_id}).to_string();
                imports.effects.log(crate::imports::Level::Info, "plasma: an idle client group is forgotten", &fields);
            }
            last = Some(group_id);
        }
        Ok(last.filter(|_| full))
    }
}
