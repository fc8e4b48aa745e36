//! Everything that was asked for, and what every version made of it, for the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use syncline_tests::plasma::Replica;

use super::mutations::Mutation;
use super::rows::{Caller, Rows};
use super::watcher::Watched;

/// What is known of a client group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Whose.
    pub user: &'static str,
    /// The server has said that it knows it.
    pub known: bool,
    /// The administrator asked that it be forgotten.
    pub forgotten: bool,
    /// It has asked under more than one `ctx`.
    pub switched: bool,
}

/// What was processed of a client.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Its group.
    pub group: String,
    /// Of each mutation, from the first: under which version, and whether it took effect; none where the log was compacted
    /// before anybody looked.
    pub processed: Vec<(u64, Option<bool>)>,
}

impl Log {
    /// The last mutation processed up to a version.
    pub fn last_at(&self, version: u64) -> u64 {
        self.processed.partition_point(|(processed, _)| *processed <= version) as u64
    }

    /// What became of a mutation.
    pub fn of(&self, id: u64) -> Option<&(u64, Option<bool>)> {
        self.processed.get(usize::try_from(id.checked_sub(1)?).ok()?)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    /// By client and number.
    pub mutations: BTreeMap<(String, u64), Mutation>,
    /// By id.
    pub groups: BTreeMap<String, Group>,
    /// Operations of the administrator, by the counter that marks them.
    pub writes: BTreeMap<String, Vec<Value>>,
    /// Markers of those that were acknowledged.
    pub written: BTreeSet<String>,
    /// Markers of those that were refused.
    pub not_written: BTreeSet<String>,
    /// Clients of pushes that must be refused as a whole.
    pub intruders: BTreeSet<String>,
    /// Groups change their `ctx`, and take versions for that.
    pub switches: bool,
    /// Rows from the settings: version 1.
    pub seed: Option<Rows>,

    /// The rows as every version left them.
    pub versions: BTreeMap<u64, Arc<Rows>>,
    /// Versions of which the log said nothing any more when it was read: (from, up to), both exclusive.
    pub gaps: Vec<(u64, u64)>,
    /// What was processed, by client.
    pub logs: BTreeMap<String, Log>,
    /// The newest durable version.
    pub version: u64,
    /// Cookies below it get a reset.
    pub min_version: u64,

    /// Of each client that took something in after faults were over: as whom, its rows, and whether nothing more follows.
    pub ends: BTreeMap<usize, (Caller, BTreeMap<String, Value>, bool)>,
    /// By watcher and query: as whom, and the rows that it has.
    pub watched: BTreeMap<(usize, Watched), (Caller, Vec<Value>)>,
}

/// How far a cookie is, and where its load began if it is in the middle of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// `v`
    pub version: u64,
    /// `s`
    pub since: u64,
}

/// Reads a cookie; none before the first.
pub fn reached(cookie: &Value) -> Option<Reached> {
    let plain = cookie.as_u64().map(|version| Reached { version, since: version });
    plain.or_else(|| Some(Reached { version: cookie["v"].as_u64()?, since: cookie["s"].as_u64()? }))
}

impl History {
    /// Whether a mutation was processed, and whether it took effect as far as that is known.
    pub fn processed(&self, client: &str, id: u64) -> Option<&(u64, Option<bool>)> {
        self.logs.get(client)?.of(id)
    }

    /// Whether the log was compacted before anybody looked at this version.
    pub fn is_in_gap(&self, version: u64) -> bool {
        self.gaps.iter().any(|(from, to)| *from < version && version < *to)
    }

    /// Whether the administrator asked that a group be forgotten.
    pub fn is_forgotten(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.forgotten)
    }

    /// What is wrong with an answer that a replica of a group has taken in: `confirmed` is what it confirmed; `at_end`, and
    /// nothing more follows.
    pub fn check_replica(
        &self,
        group: &str,
        caller: &Caller,
        (replica, confirmed): (&Replica, &Value),
        at_end: bool,
    ) -> Result<(), String> {
        let Some(Reached { version, .. }) = reached(&replica.cookie) else { return Err(format!("no cookie: {}", replica.cookie)) };
        if version > self.version {
            return Err(format!("the cookie {} is above version {}, the newest that is durable", replica.cookie, self.version));
        }
        self.check_ids(group, (replica, confirmed), version, at_end)?;
        let Some(rows) = self.versions.get(&version).filter(|_| at_end) else { return Ok(()) };
        let mut expected = rows.visible(caller);
        for (key, row) in &replica.rows {
            match expected.remove(key) {
                Some(wanted) if wanted == row => {}
                Some(wanted) => return Err(format!("{key} is {row}, and at version {version} it is {wanted}")),
                None => return Err(format!("{key} is there, and at version {version} {} does not see it", caller.user)),
            }
        }
        match expected.first_key_value() {
            Some((missing, row)) => Err(format!("{missing} is missing, and at version {version} {} sees {row}", caller.user)),
            None => Ok(()),
        }
    }

    /// A confirmed mutation is never ahead of the data; and where nothing more follows, all of them are confirmed.
    fn check_ids(&self, group: &str, (replica, confirmed): (&Replica, &Value), version: u64, at_end: bool) -> Result<(), String> {
        let exact = at_end && !self.is_in_gap(version);
        if self.is_forgotten(group) {
            return Ok(());
        }
        // What was confirmed before a load began anew stays so.
        for (client, id) in confirmed.as_object().into_iter().flatten() {
            let id = id.as_u64().unwrap_or(0);
            match self.logs.get(client) {
                Some(log) if log.group != group => return Err(format!("{client} is of another group")),
                Some(log) if log.of(id).is_some_and(|(processed, _)| *processed <= version || self.is_in_gap(version)) => {}
                log => {
                    let processed = log.and_then(|log| log.of(id)).map(|(processed, _)| processed);
                    return Err(format!("mutation {id} of {client} is confirmed at version {version}, and its own is {processed:?}"));
                }
            }
        }
        for (client, log) in self.logs.iter().filter(|(_, log)| exact && log.group == group) {
            let (last, known) = (log.last_at(version), replica.last_mutation_ids.get(client).copied().unwrap_or(0));
            if last != known {
                return Err(format!("mutation {known} of {client} is confirmed at version {version}, and {last} is the last processed"));
            }
        }
        Ok(())
    }

    /// Why a cookie of a group may be answered with a reset; none: it must not be.
    pub fn cause_of_reset(&self, group: &str, cookie: &Value) -> Option<&'static str> {
        let Reached { version, since } = reached(cookie)?;
        if version.max(since) < self.min_version {
            return Some("compaction");
        }
        self.groups.get(group).filter(|group| group.switched).map(|_| "another ctx")
    }

    /// What is wrong with the results of a push of a group that was answered, of those mutations.
    pub fn check_results(&self, group: &str, results: &Value, pushed: &[(String, u64)]) -> Result<(), String> {
        let results = results.as_array().ok_or("a push is answered with results")?;
        for result in results {
            let (client, id) = (result["clientID"].as_str().unwrap_or_default(), result["id"].as_u64().unwrap_or(0));
            if !pushed.iter().any(|(pushed, number)| pushed == client && *number == id) {
                return Err(format!("a result of what was not pushed: {result}"));
            }
            let Some((_, took_effect)) = self.processed(client, id) else {
                if self.is_forgotten(group) {
                    continue;
                }
                return Err(format!("acknowledged, and not durable: {result}"));
            };
            let told = match result["status"].as_str() {
                Some("applied") => Some(true),
                Some("error") => Some(false),
                Some("duplicate") => None,
                _ => return Err(format!("{result} has no status")),
            };
            if told.zip(*took_effect).is_some_and(|(told, took_effect)| told != took_effect) {
                return Err(format!("{result}, and it did {}take effect", if *took_effect == Some(true) { "" } else { "not " }));
            }
        }
        Ok(())
    }
}
