//! Clients, their groups, and which version processed which mutation.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::changes::{self, HEAD, Head};
use super::{list, list_text, number, optional_text, rows, text, unsigned};
use crate::imports::{Query, Statement, Value};
use crate::plasma::failure::Failure;
use crate::plasma::regions::Regions;
use crate::sql::Sql;

/// A client group as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Whose.
    pub user_id: String,
    /// The digest of the `ctx` of its last pull; none before the first.
    pub context_digest: Option<String>,
    /// Cookies below it get a reset.
    pub reset_version: u64,
    /// When it last pushed or pulled, about.
    pub seen_ms: u64,
}

/// A client as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its group.
    pub group_id: String,
    /// The highest mutation id that was processed.
    pub last_mutation_id: u64,
}

/// Asks for a group.
pub fn group_statement(sql: &Sql, group_id: &str) -> Statement {
    let template = "SELECT uid, ctx_digest, reset_version, seen_at FROM {}_plasma_client_groups WHERE cg = ?";
    sql.statement(template, [group_id.into()])
}

/// Reads the answer to [`group_statement`].
pub fn group_of(rows: Vec<Vec<Value>>) -> Result<Option<Group>, Failure> {
    rows.into_iter().next().map(group_of_row).transpose()
}

fn group_of_row(row: Vec<Value>) -> Result<Group, Failure> {
    let [uid, digest, reset, seen] = <[Value; 4]>::try_from(row).map_err(|_| Failure::Unexpected("four columns".into()))?;
    let (reset_version, seen_ms) = (unsigned(&reset)?, unsigned(&seen)?);
    Ok(Group { user_id: text(uid)?, context_digest: optional_text(digest)?, reset_version, seen_ms })
}

/// Head and group in one question: all that an idle pull needs. Where there are several regions, the last version of each; else
/// nothing is said of them.
pub fn head_and_group(sql: &Sql, view: &dyn Query, group_id: &str) -> Result<(Head, Regions, Option<Group>), Failure> {
    let regions = changes::regions_template(sql.dialect());
    let template = format!(
        "SELECT v.last, v.min_version, v.held_from, CASE WHEN v.regions > 1 THEN ({regions}) END, \
         g.uid, g.ctx_digest, g.reset_version, g.seen_at FROM ({HEAD}) AS v LEFT JOIN {{}}_plasma_client_groups AS g ON g.cg = ?"
    );
    let found = rows(sql, view, &template, [group_id.into()])?;
    let mut row = found.into_iter().next().ok_or_else(|| Failure::Unexpected("no region has a version".into()))?;
    let group = row.split_off(4);
    let regions = row.pop().map_or_else(|| Ok(Regions::new()), changes::regions_of)?;
    let head = changes::head_of_row(&row)?;
    let group = if group[0] == Value::Null { None } else { Some(group_of_row(group)?) };
    Ok((head, regions, group))
}

/// Writes a group: its owner, and when it was seen. What is there otherwise stays.
pub fn touch_group(sql: &Sql, group_id: &str, user_id: &str, now_ms: u64) -> Statement {
    let template = "INSERT INTO {}_plasma_client_groups (cg, uid, ctx_digest, reset_version, created_at, seen_at) \
                    VALUES (?, ?, NULL, 0, ?, ?) ON CONFLICT (cg) DO UPDATE SET seen_at = excluded.seen_at";
    sql.statement(template, [group_id.into(), user_id.into(), number(now_ms), number(now_ms)])
}

/// Notes the `ctx` of a group's pull and from which version on its cookies are good.
pub fn set_context(sql: &Sql, group_id: &str, digest: &str, reset_version: u64) -> Statement {
    let template = "UPDATE {}_plasma_client_groups SET ctx_digest = ?, reset_version = ? WHERE cg = ?";
    sql.statement(template, [digest.into(), number(reset_version), group_id.into()])
}

/// Asks for clients.
pub fn clients_statement(sql: &Sql, ids: &[&str]) -> Statement {
    let template = format!(
        "SELECT c, cg, lmid FROM {{}}_plasma_clients WHERE c IN (SELECT {} FROM {})",
        list_text(sql.dialect()),
        list(sql.dialect())
    );
    sql.statement(&template, [json!(ids).to_string().into()])
}

/// Reads the answer to [`clients_statement`].
pub fn clients_of(rows: Vec<Vec<Value>>) -> Result<BTreeMap<String, Client>, Failure> {
    let client = |row: Vec<Value>| {
        let [id, group, last] = <[Value; 3]>::try_from(row).map_err(|_| Failure::Unexpected("three columns".into()))?;
        Ok((text(id)?, Client { group_id: text(group)?, last_mutation_id: unsigned(&last)? }))
    };
    rows.into_iter().map(client).collect()
}

/// A mutation that was processed.
#[derive(Clone, Debug)]
pub struct Processed {
    /// Under which version.
    pub version: u64,
    /// Whose.
    pub client_id: String,
    /// Which.
    pub mutation_id: u64,
}

/// Writes which mutations were processed, and the last one of each client.
pub fn processed(sql: &Sql, group_id: &str, now_ms: u64, mutations: &[Processed]) -> [Statement; 2] {
    let all: Json = mutations.iter().map(|one| json!([one.version, one.client_id, one.mutation_id])).collect();
    let last_of: BTreeMap<_, _> = mutations.iter().map(|one| (&one.client_id, one)).collect();
    let last: Json = last_of.values().map(|one| json!([one.version, one.client_id, one.mutation_id])).collect();
    let list = list(sql.dialect());
    // What an earlier life of a forgotten client left is overwritten. SQLite needs the WHERE to tell ON CONFLICT from a join.
    let mutations = format!(
        "INSERT INTO {{}}_plasma_mutations (version, cg, c, mid) SELECT CAST(e.value ->> 0 AS BIGINT), CAST(? AS TEXT), e.value ->> 1, \
         CAST(e.value ->> 2 AS BIGINT) FROM {list} WHERE true ON CONFLICT (cg, c, mid) DO UPDATE SET version = excluded.version"
    );
    let clients = format!(
        "INSERT INTO {{}}_plasma_clients (c, cg, lmid, version, seen_at) SELECT e.value ->> 1, CAST(? AS TEXT), \
         CAST(e.value ->> 2 AS BIGINT), CAST(e.value ->> 0 AS BIGINT), CAST(? AS BIGINT) FROM {list} WHERE true \
         ON CONFLICT (c) DO UPDATE SET lmid = excluded.lmid, version = excluded.version, seen_at = excluded.seen_at"
    );
    [
        sql.statement(&mutations, [group_id.into(), all.to_string().into()]),
        sql.statement(&clients, [group_id.into(), number(now_ms), last.to_string().into()]),
    ]
}

/// The last mutation ids that a group learns when it gets from version `after` to `upto`. `known`: up to where it may know them
/// already, so that none is lower than one it has.
pub fn last_mutation_ids(
    sql: &Sql,
    view: &dyn Query,
    group_id: &str,
    (after, upto, known): (u64, u64, u64),
) -> Result<BTreeMap<String, u64>, Failure> {
    let template = "SELECT c, lmid, version FROM {}_plasma_clients WHERE cg = ? AND version > ?";
    let mut ids = BTreeMap::new();
    let mut has_later = false;
    for row in rows(sql, view, template, [group_id.into(), number(after)])? {
        let [id, last, version] = <[Value; 3]>::try_from(row).map_err(|_| Failure::Unexpected("three columns".into()))?;
        if unsigned(&version)? <= upto {
            ids.insert(text(id)?, unsigned(&last)?);
        } else {
            has_later = true;
        }
    }
    if has_later {
        let template = "SELECT c, max(mid) FROM {}_plasma_mutations WHERE cg = ? AND version > ? AND version <= ? GROUP BY c";
        for row in rows(sql, view, template, [group_id.into(), number(after.max(known)), number(upto)])? {
            let [id, last] = <[Value; 2]>::try_from(row).map_err(|_| Failure::Unexpected("two columns".into()))?;
            ids.entry(text(id)?).or_insert(unsigned(&last)?);
        }
    }
    Ok(ids)
}
