//! Counts of what was begun and never ended, for the guard between app and logic. They stand in the key-value store, outside of
//! transactions: a trap takes those along.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::back::Back;
use crate::ports::{KeyValue, PortError, Ports};

/// Before the keys of the guard in the store, which others may use too.
const PREFIX: &str = "syncline-attempt:";

/// See the module.
pub struct Guard {
    ports: Rc<Ports>,
    label: String,
    store: RefCell<Option<Box<dyn KeyValue>>>,
    /// Begun in this very instance and not yet ended.
    begun: RefCell<BTreeMap<String, u32>>,
}

impl Guard {
    /// Over a store that is opened when it is first needed.
    pub fn new(ports: Rc<Ports>, label: &str) -> Self {
        Self { ports, label: label.to_owned(), store: RefCell::default(), begun: RefCell::default() }
    }

    fn with<T>(&self, run: impl FnOnce(&dyn KeyValue) -> Result<T, PortError>) -> Result<T, PortError> {
        let mut store = self.store.borrow_mut();
        let opened = match &mut *store {
            Some(opened) => opened,
            none => none.insert(self.ports.key_value.open(&self.label)?),
        };
        run(opened.as_ref())
    }

    fn count(store: &dyn KeyValue, key: &str) -> Result<u32, PortError> {
        let value = store.get(&format!("{PREFIX}{key}"))?;
        // Something else under the key counts as nothing, and is written over.
        Ok(value.and_then(|value| value.try_into().ok()).map_or(0, u32::from_le_bytes))
    }

    /// How often something was begun before this instance without an end.
    pub fn earlier(&self, key: &str) -> Result<u32, PortError> {
        let own = self.begun.borrow().get(key).copied().unwrap_or(0);
        self.with(|store| Self::count(store, key)).map(|count| count.saturating_sub(own))
    }

    /// It begins.
    pub fn begin(&self, key: &str) -> Result<u32, PortError> {
        let count = self.with(|store| {
            let count = Self::count(store, key)?.saturating_add(1);
            store.set(&format!("{PREFIX}{key}"), &count.to_le_bytes()).map(|()| count)
        })?;
        *self.begun.borrow_mut().entry(key.to_owned()).or_default() += 1;
        Ok(count)
    }

    /// It ended.
    pub fn end(&self, key: &str) -> Result<(), PortError> {
        self.begun.borrow_mut().remove(key);
        self.with(|store| store.delete(&format!("{PREFIX}{key}")))
    }
}

impl Back {
    /// Whether something was begun in an earlier request and did not end.
    pub fn suspicious(&self, key: &str) -> bool {
        self.guarded("counts of attempts cannot be read", |guard| guard.earlier(key)).is_some_and(|count| count > 0)
    }

    /// It begins: how often it did without an end, this time included.
    pub fn begin_attempt(&self, key: &str) -> u32 {
        self.guarded("counts of attempts cannot be written", |guard| guard.begin(key)).unwrap_or(1)
    }

    /// It ended.
    pub fn end_attempt(&self, key: &str) {
        self.guarded("counts of attempts cannot be removed", |guard| guard.end(key));
    }

    /// Without its store the guard does not stop anybody.
    fn guarded<T>(&self, failure: &str, run: impl FnOnce(&Guard) -> Result<T, PortError>) -> Option<T> {
        let guard = self.guard.borrow();
        match run(guard.as_ref()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.log_own("warn", failure, &[("error", &error.to_string())]);
                None
            }
        }
    }
}
