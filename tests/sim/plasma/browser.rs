//! What the tabs of one browser share: a client group, a user, and the mutations that are not confirmed yet, also those of
//! tabs that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::history::{Group, History};
use super::mutations::Mutation;
use super::rows::Caller;

/// See the module.
#[derive(Debug)]
pub struct Browser {
    /// The client group.
    pub group: String,
    /// As whom it asks.
    pub caller: Caller,
    /// Its connections say which group they are of. Others hear of further pages while none of the group does.
    pub names_group: bool,
    /// By client and number.
    pub pending: BTreeMap<String, BTreeMap<u64, Mutation>>,
    /// Clients whose tab is open.
    pub open: BTreeSet<String>,
}

impl Browser {
    /// A new group of a user.
    pub fn new(caller: Caller, names_group: bool, history: &mut History) -> Arc<Mutex<Self>> {
        let group = format!("g{}", history.groups.len() + 1);
        let known = Group { user: caller.user, known: false, forgotten: false, switched: false };
        history.groups.insert(group.clone(), known);
        Arc::new(Mutex::new(Self { group, caller, names_group, pending: BTreeMap::new(), open: BTreeSet::new() }))
    }

    /// The value of `Authorization`.
    pub fn token(&self) -> String {
        token(&self.caller)
    }

    /// Mutations of a client.
    pub fn pending_of(&self, client: &str) -> Vec<Mutation> {
        self.pending.get(client).into_iter().flat_map(|pending| pending.values().cloned()).collect()
    }

    /// Mutations of tabs that are gone.
    pub fn abandoned(&self) -> Vec<Mutation> {
        let gone = self.pending.iter().filter(|(client, _)| !self.open.contains(*client));
        gone.flat_map(|(_, pending)| pending.values().cloned()).collect()
    }

    /// Drops what is confirmed up to these numbers.
    pub fn confirm(&mut self, last_mutation_ids: &BTreeMap<String, u64>) {
        for (client, pending) in &mut self.pending {
            let last = last_mutation_ids.get(client).copied().unwrap_or(0);
            pending.retain(|id, _| *id > last);
        }
        self.pending.retain(|_, pending| !pending.is_empty());
    }
}

/// The value of `Authorization` for a caller.
pub fn token(caller: &Caller) -> String {
    format!("tok-{}{}", caller.user, if caller.is_admin { "-admin" } else { "" })
}
