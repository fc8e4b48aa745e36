//! How often an operation of the app fell and took its request along, for the guard between app and logic. It stands in the
//! key-value store, outside of transactions: a fall takes those along.
//!
//! A subject (a client) that nothing fell for costs one write and one removal a call: which of its operations fell is not known
//! then. From there on each of its operations is written before it is begun, until a call of it comes to its end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::back::Back;
use crate::ports::{KeyValue, PortError, Ports};

/// Before the keys of the guard in the store, which others may use too.
const PREFIX: &str = "syncline-falls:";
/// Operations of one subject that are remembered.
const OPERATIONS_MAX: usize = 32;

/// What is known of a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Falls {
    /// What is under way; none: some operation of a call.
    current: Option<String>,
    /// Falls of which the operation is not known.
    unknown: u32,
    /// Falls by operation.
    known: BTreeMap<String, u32>,
}

impl Falls {
    /// What is in the store; something else under the key counts as nothing, and is written over.
    fn read(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let count = |value: &Value| value.as_u64().and_then(|count| u32::try_from(count).ok());
        let known = value.get("known")?.as_object()?.iter().filter_map(|(name, falls)| Some((name.clone(), count(falls)?)));
        let current = value.get("current").and_then(Value::as_str).map(str::to_owned);
        Some(Self { current, unknown: count(value.get("unknown")?)?, known: known.collect() })
    }

    fn bytes(&self) -> Vec<u8> {
        json!({"current": self.current, "unknown": self.unknown, "known": self.known}).to_string().into_bytes()
    }

    /// What was under way has fallen.
    fn fell(&mut self) {
        match self.current.take() {
            None => self.unknown = self.unknown.saturating_add(1),
            Some(operation) => {
                if self.known.len() >= OPERATIONS_MAX && !self.known.contains_key(&operation) {
                    self.known.clear();
                }
                let falls = self.known.entry(operation).or_default();
                *falls = falls.saturating_add(1);
            }
        }
    }

    /// How often an operation fell. Those of which nothing else is known were its own if it fell since.
    fn of(&self, operation: &str) -> u32 {
        self.known.get(operation).map_or(0, |falls| falls.saturating_add(self.unknown))
    }
}

/// See the module.
pub struct Guard {
    ports: Rc<Ports>,
    label: String,
    store: RefCell<Option<Box<dyn KeyValue>>>,
    /// The subjects of the call that is under way; those that nothing fell for before have none.
    entered: RefCell<BTreeMap<String, Option<Falls>>>,
}

impl Guard {
    /// Over a store that is opened when it is first needed.
    pub fn new(ports: Rc<Ports>, label: &str) -> Self {
        Self { ports, label: label.to_owned(), store: RefCell::default(), entered: RefCell::default() }
    }

    fn with<T>(&self, run: impl FnOnce(&dyn KeyValue) -> Result<T, PortError>) -> Result<T, PortError> {
        let mut store = self.store.borrow_mut();
        let opened = match &mut *store {
            Some(opened) => opened,
            none => none.insert(self.ports.key_value.open(&self.label)?),
        };
        run(opened.as_ref())
    }

    /// An operation of a subject begins: how often it fell before.
    fn enter(&self, subject: &str, operation: &str) -> Result<u32, PortError> {
        let key = key(subject);
        let mut entered = self.entered.borrow_mut();
        let falls = match entered.get(&key) {
            Some(known) => known.clone(),
            None => {
                let kept = self.with(|store| store.get(&key))?.map(|bytes| Falls::read(&bytes).unwrap_or_default());
                kept.map(|mut falls| {
                    falls.fell();
                    falls
                })
            }
        };
        let Some(mut falls) = falls else {
            if let Entry::Vacant(place) = entered.entry(key) {
                self.with(|store| store.set(place.key(), &Falls::default().bytes()))?;
                place.insert(None);
            }
            return Ok(0);
        };
        falls.current = Some(operation.to_owned());
        self.with(|store| store.set(&key, &falls.bytes()))?;
        let count = falls.of(operation);
        entered.insert(key, Some(falls));
        Ok(count)
    }

    /// The call ended: nothing of it fell.
    fn leave(&self) -> Result<(), PortError> {
        for key in std::mem::take(&mut *self.entered.borrow_mut()).into_keys() {
            self.with(|store| store.delete(&key))?;
        }
        Ok(())
    }
}

/// Short, whatever a client calls itself.
fn key(subject: &str) -> String {
    let digest = Sha256::digest(subject.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{hex}")
}

impl Back {
    /// See `guard.enter` of the interface. Without its store the guard does not stop anybody.
    pub fn enter(&self, subject: &str, operation: &str) -> u32 {
        self.guarded(|guard| guard.enter(subject, operation)).unwrap_or(0)
    }

    /// What was entered in this call has not fallen.
    pub fn leave_guard(&self) {
        self.guarded(Guard::leave);
    }

    fn guarded<T>(&self, run: impl FnOnce(&Guard) -> Result<T, PortError>) -> Option<T> {
        let guard = self.guard.borrow();
        match run(guard.as_ref()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.log_own("warn", "falls of the app cannot be counted", &[("error", &error.to_string())]);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_what_is_not_ours_counts_as_nothing() {
        let falls = Falls { current: Some("2".into()), unknown: 1, known: [("1".to_owned(), 4)].into() };
        assert_eq!(Falls::read(&falls.bytes()), Some(falls));
        for bytes in [&b""[..], b"[]", b"{\"known\":{}}", b"\xff"] {
            assert_eq!(Falls::read(bytes), None);
        }
    }

    #[test]
    fn falls_are_bounded() {
        let mut falls = Falls::default();
        for number in 0..1000 {
            falls.current = Some(number.to_string());
            falls.fell();
        }
        assert!(falls.known.len() <= OPERATIONS_MAX);
    }
}
