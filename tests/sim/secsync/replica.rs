//! A document as a client builds it from what it is told. It is as strict as the client of npm: a hole in the clocks of
//! an author or a snapshot that does not follow from the last one is the end.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syncline_tests::secsync::{Snapshot, hash, proof_of_child};

use super::history::{State, signature};

/// The active snapshot and the updates on it.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Signatures of updates by author and clock.
    pub updates: BTreeMap<(String, u64), String>,
}

/// Author and clock of an update.
fn author_and_clock(update: &Value) -> Option<(String, u64)> {
    let data = &update["publicData"];
    Some((data["pubKey"].as_str()?.to_owned(), data["clock"].as_u64()?))
}

impl Replica {
    /// A snapshot without updates.
    pub fn new(frame: Value) -> Self {
        let id = frame["publicData"]["snapshotId"].as_str().unwrap_or_default().to_owned();
        Self { snapshot: Snapshot { frame, id }, updates: BTreeMap::new() }
    }

    /// The clock of an author's next update.
    pub fn next_clock(&self, author: &str) -> u64 {
        let last = self.updates.range((author.to_owned(), 0)..=(author.to_owned(), u64::MAX)).next_back();
        last.map_or(0, |((_, clock), _)| clock + 1)
    }

    /// The last clock of each author.
    pub fn clocks(&self) -> BTreeMap<String, u64> {
        // Ascending: the last of each author stays.
        self.updates.keys().cloned().collect()
    }

    /// Takes an update in. `lenient` is the author whose updates may come out of order: one's own, since answers to
    /// several frames come together.
    pub fn apply(&mut self, update: &Value, lenient: &str) -> Result<(), String> {
        let Some((author, clock)) = author_and_clock(update) else { return Err(format!("an update without author or clock: {update}")) };
        if update["publicData"]["refSnapshotId"] != self.snapshot.id.as_str() {
            return Err(format!("an update on snapshot {}, and {} is active", update["publicData"]["refSnapshotId"], self.snapshot.id));
        }
        let next = self.next_clock(&author);
        if clock != next && author != lenient {
            return Err(format!("clock {clock} of {author}, and {next} is the next"));
        }
        self.insert(author, clock, signature(update))
    }

    /// Takes in an own update that is saved.
    pub fn insert(&mut self, author: String, clock: u64, signature: String) -> Result<(), String> {
        match self.updates.insert((author, clock), signature.clone()) {
            Some(before) if before != signature => Err(format!("two updates with clock {clock} of one author")),
            _ => Ok(()),
        }
    }

    /// Whether an update is taken in already.
    pub fn holds(&self, update: &Value) -> bool {
        author_and_clock(update).is_some_and(|key| self.updates.get(&key) == Some(&signature(update)))
    }

    /// For the oracle.
    pub fn state(&self) -> State {
        State { snapshot: Some(signature(&self.snapshot.frame)), updates: self.updates.values().cloned().collect() }
    }

    /// Checks a proof chain from this snapshot (exclusive) to another (inclusive).
    pub fn check_chain(&self, chain: &[Value], to: &Value) -> Result<(), String> {
        let mut proof = self.snapshot.frame["publicData"]["parentSnapshotProof"].clone();
        let mut id = json!(self.snapshot.id);
        let mut ciphertext_hash = json!(hash(self.snapshot.frame["ciphertext"].as_str().unwrap_or_default()));
        for entry in chain {
            let parent =
                json!({"grandParentSnapshotProof": proof, "parentSnapshotCiphertextHash": ciphertext_hash, "parentSnapshotId": id});
            let expected = hash(&serde_json_canonicalizer::to_string(&parent).map_err(|error| error.to_string())?);
            if entry["parentSnapshotProof"] != expected.as_str() {
                return Err(format!("the proof chain breaks at {entry}"));
            }
            (proof, id, ciphertext_hash) =
                (entry["parentSnapshotProof"].clone(), entry["snapshotId"].clone(), entry["snapshotCiphertextHash"].clone());
        }
        if id != to["publicData"]["snapshotId"] {
            return Err(format!("the proof chain ends at {id}"));
        }
        Ok(())
    }

    /// Whether a snapshot is a child of this one.
    pub fn check_child(&self, child: &Value) -> Result<(), String> {
        let data = &child["publicData"];
        if data["parentSnapshotId"] != self.snapshot.id.as_str() {
            return Err(format!("a snapshot on {}, and {} is active", data["parentSnapshotId"], self.snapshot.id));
        }
        if data["parentSnapshotProof"] != proof_of_child(&self.snapshot.frame).as_str() {
            return Err("a snapshot whose parent proof is wrong".into());
        }
        Ok(())
    }
}
