//! Objects in memory that were sent not long ago, within the bytes that the plan of their mount gives. A state machine: whoever
//! reads and writes the store tells it what happened.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::storage::ObjectInfo;

/// No larger object is kept: it would push out many others.
pub(crate) const CACHED_OBJECT_BYTES_MAX: u64 = 1 << 20;
/// Counted for each object besides its content.
const ENTRY_BYTES: u64 = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ObjectCache {
    entries: HashMap<String, Entry>,
    /// Keys by their last use.
    by_use: BTreeMap<u64, String>,
    uses: u64,
    bytes: u64,
    /// Objects that were changed so far.
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    info: ObjectInfo,
    content: Bytes,
    used: u64,
}

impl ObjectCache {
    /// An object, if it is here.
    pub(crate) fn get(&mut self, key: &str) -> Option<(ObjectInfo, Bytes)> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        let unused = std::mem::replace(&mut entry.used, self.uses);
        let key = self.by_use.remove(&unused)?;
        self.by_use.insert(self.uses, key);
        Some((entry.info.clone(), entry.content.clone()))
    }

    /// What an object that is read from now on may be kept by.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Keeps an object whose reading began at `changes`, within so many bytes. What was used longest ago goes for it.
    pub(crate) fn keep(&mut self, bytes_max: u64, changes: u64, key: &str, info: ObjectInfo, content: Bytes) {
        if changes != self.changes || !is_kept(bytes_max, info.size) {
            return;
        }
        self.remove(key);
        self.uses += 1;
        self.bytes += weight(&content);
        self.by_use.insert(self.uses, key.to_owned());
        self.entries.insert(key.to_owned(), Entry { info, content, used: self.uses });
        self.shrink(bytes_max);
    }

    /// An object was written or removed.
    pub(crate) fn changed(&mut self, key: &str) {
        self.changes += 1;
        self.remove(key);
    }

    /// Gives memory back beyond so many bytes.
    pub(crate) fn shrink(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max {
            let Some((_, key)) = self.by_use.pop_first() else { return };
            self.forget(&key);
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(used) = self.forget(key) {
            self.by_use.remove(&used);
        }
    }

    fn forget(&mut self, key: &str) -> Option<u64> {
        let entry = self.entries.remove(key)?;
        self.bytes -= weight(&entry.content);
        Some(entry.used)
    }
}

/// Whether an object of so many bytes is kept at all.
pub(crate) fn is_kept(bytes_max: u64, size: u64) -> bool {
    size <= CACHED_OBJECT_BYTES_MAX.min(bytes_max / 4)
}

fn weight(content: &Bytes) -> u64 {
    content.len() as u64 + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: u64 = 8 << 10;

    fn info(size: usize) -> ObjectInfo {
        ObjectInfo { size: size as u64, content_type: String::new(), sha256: None, created_ms: 0, etag: String::new() }
    }

    fn keep(cache: &mut ObjectCache, key: &str, size: usize) {
        let changes = cache.changes();
        cache.keep(BYTES_MAX, changes, key, info(size), Bytes::from(vec![0; size]));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_large_objects_are_not_kept() {
        let mut cache = ObjectCache::default();
        for key in ["a", "b", "c"] {
            keep(&mut cache, key, 2048);
        }
        assert!(cache.get("a").is_some());
        keep(&mut cache, "d", 2048);
        assert_eq!(["a", "b", "c", "d"].map(|key| cache.get(key).is_some()), [true, false, true, true]);
        keep(&mut cache, "e", 2049);
        assert!(cache.get("e").is_none());
        cache.shrink(0);
        assert!(cache.get("a").is_none() && cache.by_use.is_empty() && cache.bytes == 0);
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_kept() {
        let mut cache = ObjectCache::default();
        let changes = cache.changes();
        cache.changed("k");
        cache.keep(BYTES_MAX, changes, "k", info(1), Bytes::from_static(b"o"));
        assert!(cache.get("k").is_none());
        keep(&mut cache, "k", 1);
        assert_eq!(cache.get("k").map(|(info, _)| info.size), Some(1));
        cache.changed("k");
        assert!(cache.get("k").is_none());
    }

    proptest! {
        #[test]
        fn bytes_are_counted_rightly_whatever_happens(acts in prop::collection::vec((0..4_u8, 0..6_u8, 0..3000_usize), 0..200)) {
            let mut cache = ObjectCache::default();
            for (act, key, size) in acts {
                let key = key.to_string();
                match act {
                    0 => cache.changed(&key),
                    1 => drop(cache.get(&key)),
                    _ => keep(&mut cache, &key, size),
                }
                prop_assert!(cache.bytes <= BYTES_MAX);
                prop_assert_eq!(cache.bytes, cache.entries.values().map(|entry| weight(&entry.content)).sum::<u64>());
                prop_assert_eq!(cache.by_use.len(), cache.entries.len());
                prop_assert!(cache.by_use.iter().all(|(used, key)| cache.entries[key].used == *used));
            }
        }
    }
}
