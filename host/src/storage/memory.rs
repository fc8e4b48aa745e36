//! In memory: for tests, and for a server that may forget. What the other backends share is here too.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{KeyValue, ObjectInfo, ObjectReader, ObjectWriter, Objects, OpenObject, PIECE_BYTES, StorageError};
use crate::backup::{NothingPinned, Pinned};
use crate::executor::sqlite::folder::hex;

/// Of the hash that the etag begins with.
pub(super) const ETAG_DIGITS: usize = 32;

/// Milliseconds since 1970, from wherever.
pub(super) type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The clock of the system.
pub(crate) fn system_clock() -> Clock {
    Box::new(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The sum of a counter. A counter is its decimal text, as in Redis: what was set to such a text counts as one.
pub(super) fn counter_sum(current: Option<&[u8]>, delta: i64) -> Result<i64, StorageError> {
    let value = match current {
        None => 0,
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| StorageError::Conflict)?;
            let value: i64 = text.parse().map_err(|_| StorageError::Conflict)?;
            if value.to_string() != text {
                return Err(StorageError::Conflict);
            }
            value
        }
    };
    value.checked_add(delta).ok_or_else(|| StorageError::Limit("a counter is a 64-bit integer".to_owned()))
}

/// The facts of a content that is written now.
pub(super) fn object_info(content: &[u8], content_type: &str, created_ms: u64) -> ObjectInfo {
    hashed_info(content.len() as u64, content_type, &hex(&Sha256::digest(content)), created_ms)
}

/// The same for a content whose hash is known.
pub(super) fn hashed_info(size: u64, content_type: &str, sha256: &str, created_ms: u64) -> ObjectInfo {
    let etag = sha256.chars().take(ETAG_DIGITS).collect();
    ObjectInfo { size, content_type: content_type.to_owned(), etag, sha256: Some(sha256.to_owned()), created_ms }
}

/// The part of `size` bytes that a range asks for: its start and length.
pub(crate) fn clamp_range(size: u64, range: Option<(u64, u64)>) -> (u64, u64) {
    let (start, length) = range.unwrap_or((0, size));
    let start = start.min(size);
    (start, length.min(size - start))
}

struct Fact {
    value: Vec<u8>,
    expires_ms: Option<u64>,
}

type Facts = BTreeMap<(String, String), Fact>;

/// Key-value facts in memory.
pub struct MemoryKeyValue {
    facts: Mutex<Facts>,
    clock: Clock,
}

impl Default for MemoryKeyValue {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryKeyValue {
    /// Empty.
    pub fn new() -> Self {
        Self { facts: Mutex::default(), clock: system_clock() }
    }

    /// Empty; `clock` gives milliseconds since 1970.
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { facts: Mutex::default(), clock: Box::new(clock) }
    }

    /// Runs with the facts, the key without what has expired, and now.
    fn with<T>(&self, mount: &str, key: &str, run: impl FnOnce(&mut Facts, (String, String), u64) -> T) -> T {
        let now_ms = (self.clock)();
        let place = (mount.to_owned(), key.to_owned());
        let mut facts = self.facts.lock();
        if facts.get(&place).is_some_and(|fact| is_expired(fact, now_ms)) {
            facts.remove(&place);
        }
        run(&mut facts, place, now_ms)
    }
}

fn is_expired(fact: &Fact, now_ms: u64) -> bool {
    fact.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
}

#[async_trait]
impl KeyValue for MemoryKeyValue {
    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        Ok(Box::new(NothingPinned))
    }

    async fn get(&self, mount: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.with(mount, key, |facts, place, _| facts.get(&place).map(|fact| fact.value.clone())))
    }

    async fn set(&self, mount: &str, key: &str, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), StorageError> {
        self.with(mount, key, |facts, place, now_ms| {
            let expires_ms = time_to_live_ms.map(|time_to_live_ms| now_ms.saturating_add(time_to_live_ms));
            facts.insert(place, Fact { value, expires_ms });
        });
        Ok(())
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.with(mount, key, |facts, place, _| facts.remove(&place));
        Ok(())
    }

    async fn increment(&self, mount: &str, key: &str, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, StorageError> {
        self.with(mount, key, |facts, place, now_ms| {
            let current = facts.get(&place);
            let sum = counter_sum(current.map(|fact| fact.value.as_slice()), delta)?;
            let expires_ms = match current {
                Some(fact) => fact.expires_ms,
                None => time_to_live_ms.map(|time_to_live_ms| now_ms.saturating_add(time_to_live_ms)),
            };
            facts.insert(place, Fact { value: sum.to_string().into_bytes(), expires_ms });
            Ok(sum)
        })
    }

    async fn compare_and_set(&self, mount: &str, key: &str, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StorageError> {
        Ok(self.with(mount, key, |facts, place, _| {
            let same = facts.get(&place).map(|fact| &fact.value) == expected.as_ref();
            if same {
                facts.insert(place, Fact { value, expires_ms: None });
            }
            same
        }))
    }

    async fn keys(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError> {
        let now_ms = (self.clock)();
        let facts = self.facts.lock();
        let alive = from(&facts, mount, prefix, after).filter(|(_, fact)| !is_expired(fact, now_ms));
        Ok(alive.take(limit as usize).map(|(key, _)| key.to_owned()).collect())
    }

    async fn ready(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Entries of a mount with a prefix, after a key, in order.
fn from<'a, T>(
    map: &'a BTreeMap<(String, String), T>,
    mount: &str,
    prefix: &'a str,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a str, &'a T)> {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded((mount.to_owned(), after.to_owned())),
        _ => Bound::Included((mount.to_owned(), prefix.to_owned())),
    };
    let mount = mount.to_owned();
    map.range((start, Bound::Unbounded))
        .take_while(move |((of_mount, key), _)| *of_mount == mount && key.starts_with(prefix))
        .map(|((_, key), value)| (key.as_str(), value))
}

type Contents = BTreeMap<(String, String), (ObjectInfo, Bytes)>;

/// Objects in memory.
pub struct MemoryObjects {
    objects: Arc<Mutex<Contents>>,
    clock: Arc<Clock>,
}

impl Default for MemoryObjects {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryObjects {
    /// Empty.
    pub fn new() -> Self {
        Self { objects: Arc::default(), clock: Arc::new(system_clock()) }
    }

    /// Empty; `clock` gives milliseconds since 1970.
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { objects: Arc::default(), clock: Arc::new(Box::new(clock)) }
    }

    fn get(&self, mount: &str, key: &str) -> Result<(ObjectInfo, Bytes), StorageError> {
        let objects = self.objects.lock();
        objects.get(&(mount.to_owned(), key.to_owned())).cloned().ok_or(StorageError::NotFound)
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        Ok(Box::new(NothingPinned))
    }

    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        Ok(self.get(mount, key)?.0)
    }

    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        let (info, content) = self.get(mount, key)?;
        let (start, length) = clamp_range(info.size, range);
        // Both are at most the length of what is in memory.
        Ok(content.slice(start as usize..(start + length) as usize))
    }

    async fn write(&self, mount: &str, key: &str, content_type: &str, content: Bytes) -> Result<ObjectInfo, StorageError> {
        let info = object_info(&content, content_type, (self.clock)());
        self.objects.lock().insert((mount.to_owned(), key.to_owned()), (info.clone(), content));
        Ok(info)
    }

    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        let (info, content) = self.get(mount, key)?;
        let (start, length) = clamp_range(info.size, range);
        let content = content.slice(start as usize..(start + length) as usize);
        Ok(OpenObject { info, length, reader: Box::new(MemoryReader(content)) })
    }

    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        Ok(Box::new(MemoryWriter {
            objects: self.objects.clone(),
            clock: self.clock.clone(),
            place: (mount.to_owned(), key.to_owned()),
            content_type: content_type.to_owned(),
            content: Vec::new(),
        }))
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.objects.lock().remove(&(mount.to_owned(), key.to_owned()));
        Ok(())
    }

    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let objects = self.objects.lock();
        let found = from(&objects, mount, prefix, after).take(limit as usize);
        Ok(found.map(|(key, (info, _))| (key.to_owned(), info.clone())).collect())
    }

    async fn ready(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// What is left to be read of an object in memory.
struct MemoryReader(Bytes);

#[async_trait]
impl ObjectReader for MemoryReader {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let piece = self.0.split_to(self.0.len().min(PIECE_BYTES));
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

/// An object on its way into memory.
struct MemoryWriter {
    objects: Arc<Mutex<Contents>>,
    clock: Arc<Clock>,
    place: (String, String),
    content_type: String,
    content: Vec<u8>,
}

#[async_trait]
impl ObjectWriter for MemoryWriter {
    async fn write(&mut self, piece: Bytes) -> Result<(), StorageError> {
        self.content.extend_from_slice(&piece);
        Ok(())
    }

    async fn finish(self: Box<Self>, sha256: &str) -> Result<ObjectInfo, StorageError> {
        let Self { objects, clock, place, content_type, content } = *self;
        let info = hashed_info(content.len() as u64, &content_type, sha256, clock());
        objects.lock().insert(place, (info.clone(), content.into()));
        Ok(info)
    }
}

/// What every backend must do, run by the tests of each.
#[cfg(test)]
pub(super) mod suite {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// A clock that stands still until it is moved.
    #[derive(Clone, Default)]
    pub(crate) struct ManualClock(Arc<AtomicU64>);

    impl ManualClock {
        pub(crate) fn pass(&self, milliseconds: u64) {
            self.0.fetch_add(milliseconds, Ordering::SeqCst);
        }

        pub(crate) fn read(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
            let time = Arc::clone(&self.0);
            move || time.load(Ordering::SeqCst)
        }
    }

    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    pub(crate) async fn keyvalue(store: &dyn KeyValue, clock: &ManualClock) {
        store.ready().await.unwrap();
        values(store).await;
        times(store, clock).await;
        counters(store, clock).await;
        key_order(store, clock).await;
    }

    async fn values(store: &dyn KeyValue) {
        assert_eq!(store.get("m", "k").await, Ok(None));
        store.delete("m", "k").await.unwrap();
        store.set("m", "k", vec![0, 255], None).await.unwrap();
        store.set("other", "k", vec![], None).await.unwrap();
        assert_eq!(store.get("m", "k").await, Ok(Some(vec![0, 255])));
        assert_eq!(store.get("other", "k").await, Ok(Some(vec![])));
        store.delete("m", "k").await.unwrap();
        assert_eq!(store.get("m", "k").await, Ok(None));
        assert_eq!(store.compare_and_set("m", "k", Some(vec![]), vec![1]).await, Ok(false));
        assert_eq!(store.compare_and_set("m", "k", None, vec![1]).await, Ok(true));
        assert_eq!(store.compare_and_set("m", "k", None, vec![2]).await, Ok(false));
        assert_eq!(store.compare_and_set("m", "k", Some(vec![1]), vec![3]).await, Ok(true));
        assert_eq!(store.get("m", "k").await, Ok(Some(vec![3])));
        assert_eq!(store.get("other", "k").await, Ok(Some(vec![])));
    }

    async fn times(store: &dyn KeyValue, clock: &ManualClock) {
        store.set("times", "short", vec![1], Some(10)).await.unwrap();
        store.set("times", "long", vec![2], Some(u64::MAX)).await.unwrap();
        clock.pass(9);
        assert_eq!(store.get("times", "short").await, Ok(Some(vec![1])));
        clock.pass(1);
        assert_eq!(store.get("times", "short").await, Ok(None));
        assert_eq!(store.get("times", "long").await, Ok(Some(vec![2])));
        assert_eq!(store.keys("times", "", None, 9).await, Ok(vec!["long".to_owned()]));
        assert_eq!(store.compare_and_set("times", "short", None, vec![3]).await, Ok(true), "what expired is absent");
        clock.pass(1_000);
        assert_eq!(store.get("times", "short").await, Ok(Some(vec![3])), "the old time does not count for the new value");
        store.set("times", "short", vec![4], Some(0)).await.unwrap();
        assert_eq!(store.get("times", "short").await, Ok(None));
    }

    async fn counters(store: &dyn KeyValue, clock: &ManualClock) {
        assert_eq!(store.increment("counters", "n", 5, Some(10)).await, Ok(5));
        clock.pass(6);
        assert_eq!(store.increment("counters", "n", -7, Some(10)).await, Ok(-2));
        assert_eq!(store.get("counters", "n").await, Ok(Some(b"-2".to_vec())));
        clock.pass(6);
        assert_eq!(store.increment("counters", "n", 0, None).await, Ok(0), "its time counts from its creation");
        store.set("counters", "n", b"41".to_vec(), None).await.unwrap();
        assert_eq!(store.increment("counters", "n", 1, None).await, Ok(42));
        assert_eq!(store.compare_and_set("counters", "n", Some(b"42".to_vec()), b"text".to_vec()).await, Ok(true));
        for no_number in ["text", "", "+1", "01", "-0", " 1", "9223372036854775808"] {
            store.set("counters", "n", no_number.into(), None).await.unwrap();
            assert_eq!(store.increment("counters", "n", 1, None).await, Err(StorageError::Conflict), "{no_number:?}");
            assert_eq!(store.get("counters", "n").await, Ok(Some(no_number.into())));
        }
        store.set("counters", "n", i64::MAX.to_string().into(), None).await.unwrap();
        assert!(matches!(store.increment("counters", "n", 1, None).await, Err(StorageError::Limit(_))));
        assert_eq!(store.increment("counters", "n", 0, None).await, Ok(i64::MAX));
    }

    async fn key_order(store: &dyn KeyValue, clock: &ManualClock) {
        // By bytes: U+FF5E has a lower code than U+1F600, and would come after it as UTF-16.
        let keys = ["", "%", "A", "_", "a", "a\0", "a/b", "aa", "a\u{ff5e}", "a\u{1f600}", "b", "\u{10ffff}", "\u{10ffff}x"];
        for key in keys.iter().rev() {
            store.set("order", key, vec![], None).await.unwrap();
        }
        store.set("orde", "a", vec![], None).await.unwrap();
        store.set("order2", "a", vec![], None).await.unwrap();
        store.set("order", "ab", vec![], Some(1)).await.unwrap();
        clock.pass(1);
        for prefix in ["", "a", "a/", "\u{10ffff}", "none"] {
            for after in [None, Some(""), Some("A"), Some("a"), Some("a/zzz"), Some("b"), Some("\u{10ffff}y")] {
                for limit in [0, 1, 3, 99] {
                    let wanted = keys.iter().filter(|key| key.starts_with(prefix) && after.is_none_or(|after| **key > after));
                    let wanted: Vec<_> = wanted.take(limit as usize).map(|key| (*key).to_owned()).collect();
                    assert_eq!(store.keys("order", prefix, after, limit).await, Ok(wanted), "{prefix:?} {after:?} {limit}");
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    pub(crate) enum Act {
        Set(u8, Vec<u8>, Option<u64>),
        Delete(u8),
        Increment(u8, i64, Option<u64>),
        CompareAndSet(u8, Option<Vec<u8>>, Vec<u8>),
        Pass(u64),
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"1".to_vec()),
            Just(b"2".to_vec()),
            Just(b"x".to_vec()),
            any::<i64>().prop_map(|number| number.to_string().into())
        ]
    }

    pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
        let time = || prop::option::of(0u64..20);
        let act = prop_oneof![
            (0..3u8, value(), time()).prop_map(|(key, value, time)| Act::Set(key, value, time)),
            (0..3u8).prop_map(Act::Delete),
            (0..3u8, prop_oneof![-3i64..3, any::<i64>()], time()).prop_map(|(key, delta, time)| Act::Increment(key, delta, time)),
            (0..3u8, prop::option::of(value()), value()).prop_map(|(key, old, new)| Act::CompareAndSet(key, old, new)),
            (0u64..15).prop_map(Act::Pass),
        ];
        prop::collection::vec(act, 0..60)
    }

    /// Plays a history on a store and on a plain map.
    pub(crate) async fn history(store: &dyn KeyValue, clock: &ManualClock, acts: Vec<Act>) {
        let mut map: BTreeMap<u8, (Vec<u8>, Option<u64>)> = BTreeMap::new();
        for act in acts {
            let now_ms = clock.read()();
            match act {
                Act::Set(key, value, time) => {
                    store.set("m", &key.to_string(), value.clone(), time).await.unwrap();
                    map.insert(key, (value, time.map(|time| now_ms + time)));
                }
                Act::Delete(key) => {
                    store.delete("m", &key.to_string()).await.unwrap();
                    map.remove(&key);
                }
                Act::Increment(key, delta, time) => {
                    let (old, expires) = map.get(&key).cloned().unwrap_or((b"0".to_vec(), time.map(|time| now_ms + time)));
                    let old: Option<i64> = String::from_utf8(old).unwrap().parse().ok();
                    let sum = store.increment("m", &key.to_string(), delta, time).await;
                    match old.map(|old| old.checked_add(delta)) {
                        None => assert_eq!(sum, Err(StorageError::Conflict)),
                        Some(None) => assert!(matches!(sum, Err(StorageError::Limit(_)))),
                        Some(Some(expected)) => {
                            assert_eq!(sum, Ok(expected));
                            map.insert(key, (expected.to_string().into(), expires));
                        }
                    }
                }
                Act::CompareAndSet(key, old, new) => {
                    let same = map.get(&key).map(|(value, _)| value) == old.as_ref();
                    assert_eq!(store.compare_and_set("m", &key.to_string(), old, new.clone()).await, Ok(same));
                    if same {
                        map.insert(key, (new, None));
                    }
                }
                Act::Pass(milliseconds) => clock.pass(milliseconds),
            }
            let now_ms = clock.read()();
            map.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now_ms));
            for key in 0..3u8 {
                let expected = map.get(&key).map(|(value, _)| value.clone());
                assert_eq!(store.get("m", &key.to_string()).await, Ok(expected));
            }
            let keys: Vec<_> = map.keys().map(u8::to_string).collect();
            assert_eq!(store.keys("m", "", None, 9).await, Ok(keys));
        }
    }

    pub(crate) async fn objects(store: &dyn Objects) {
        store.ready().await.unwrap();
        assert_eq!(store.head("m", "k").await, Err(StorageError::NotFound));
        assert_eq!(store.read("m", "k", None).await, Err(StorageError::NotFound));
        store.delete("m", "k").await.unwrap();
        let before_ms = system_clock()();
        let info = store.write("m", "k", "text/plain; x=\"ü\"", Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(info.size, 5);
        assert_eq!(info.content_type, "text/plain; x=\"ü\"");
        assert_eq!(info.sha256.as_deref(), Some("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"));
        assert!((before_ms..=system_clock()()).contains(&info.created_ms));
        assert_eq!(store.head("m", "k").await, Ok(info.clone()));
        let ranges = [
            (None, "hello"),
            (Some((1, 3)), "ell"),
            (Some((3, u64::MAX)), "lo"),
            (Some((5, 1)), ""),
            (Some((u64::MAX, 1)), ""),
            (Some((0, 0)), ""),
        ];
        for (range, wanted) in ranges {
            assert_eq!(store.read("m", "k", range).await, Ok(Bytes::from(wanted)), "{range:?}");
        }
        let other = store.write("m", "k", "", Bytes::new()).await.unwrap();
        assert_ne!(other.etag, info.etag);
        assert_eq!(store.read("m", "k", None).await, Ok(Bytes::new()));
        assert_eq!(store.head("n", "k").await, Err(StorageError::NotFound));
        store.write("n", "k", "", Bytes::from_static(b"n")).await.unwrap();
        store.delete("m", "k").await.unwrap();
        assert_eq!(store.head("m", "k").await, Err(StorageError::NotFound));
        assert_eq!(store.list("m", "", None, 9).await, Ok(vec![]));
        assert_eq!(store.read("n", "k", None).await, Ok(Bytes::from_static(b"n")));
    }

    /// An object that is written and read piece by piece.
    pub(crate) async fn pieces(store: &dyn Objects) {
        let content: Vec<u8> = (0..3 * PIECE_BYTES + 17).map(|position| (position % 251) as u8).collect();
        let hash = |content: &[u8]| hex(&Sha256::digest(content));
        let write = async |key: &str, content: &[u8]| {
            let mut writer = store.create("m", key, "a/b").await.unwrap();
            for piece in content.chunks(50_001) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            writer
        };
        let read = async |key: &str, range| {
            let OpenObject { info, length, mut reader } = store.open("m", key, range).await.unwrap();
            let mut found = Vec::new();
            while let Some(piece) = reader.next().await.unwrap() {
                assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                found.extend_from_slice(&piece);
            }
            assert_eq!(length, found.len() as u64);
            (info, found)
        };
        drop(write("k", &content).await);
        assert_eq!(store.head("m", "k").await, Err(StorageError::NotFound));
        assert!(matches!(store.open("m", "k", None).await, Err(StorageError::NotFound)));
        let writer = write("k", &content).await;
        assert_eq!(store.head("m", "k").await, Err(StorageError::NotFound), "it is not there before it is whole");
        let info = writer.finish(&hash(&content)).await.unwrap();
        assert_eq!((info.size, info.content_type.as_str(), info.sha256.as_deref()), (content.len() as u64, "a/b", Some(&*hash(&content))));
        assert_eq!(store.head("m", "k").await, Ok(info.clone()));
        assert_eq!(store.read("m", "k", None).await.unwrap(), content);
        assert_eq!(read("k", None).await, (info.clone(), content.clone()));
        let middle = PIECE_BYTES - 1..2 * PIECE_BYTES + 3;
        assert_eq!(read("k", Some((middle.start as u64, middle.len() as u64))).await, (info.clone(), content[middle].to_vec()));
        assert_eq!(read("k", Some((info.size - 2, u64::MAX))).await.1, content[content.len() - 2..]);
        assert_eq!(read("k", Some((info.size, 1))).await.1, b"");
        // Whoever reads goes on with what was opened.
        let mut old = store.open("m", "k", None).await.unwrap();
        let other = write("k", b"other").await.finish(&hash(b"other")).await.unwrap();
        assert_ne!(other.etag, info.etag);
        let mut length = 0;
        while let Some(piece) = old.reader.next().await.unwrap() {
            length += piece.len();
        }
        assert_eq!(length, content.len());
        assert_eq!(read("k", None).await, (other, b"other".to_vec()));
        let empty = write("empty", b"").await.finish(&hash(b"")).await.unwrap();
        assert_eq!(read("empty", None).await, (empty, Vec::new()));
        for key in ["k", "empty"] {
            store.delete("m", key).await.unwrap();
        }
        assert_eq!(store.list("m", "", None, 9).await, Ok(vec![]));
    }

    pub(crate) fn weird_keys() -> impl Strategy<Value = Vec<String>> {
        let key = prop_oneof![any::<String>(), "[a-bA./%~]{0,4}", "[ü/]{110,130}", "x{238,242}", "(long){80}[a-b]{1,2}"];
        prop::collection::btree_set(key, 0..12).prop_map(|keys| keys.into_iter().collect())
    }

    /// Writes objects under rising keys, and finds them all in that order.
    pub(crate) async fn weird_objects(store: &dyn Objects, mount: &str, keys: Vec<String>) {
        for key in keys.iter().rev() {
            store.write(mount, key, "", Bytes::from(key.clone())).await.unwrap();
        }
        let all = store.list(mount, "", None, 99).await.unwrap();
        assert_eq!(all.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys);
        for (key, info) in &all {
            assert_eq!(store.read(mount, key, None).await, Ok(Bytes::from(key.clone())));
            assert_eq!(store.head(mount, key).await.as_ref(), Ok(info));
        }
        for (index, key) in keys.iter().enumerate() {
            let next = store.list(mount, "", Some(key), 1).await.unwrap();
            assert_eq!(next.first().map(|(key, _)| key), keys.get(index + 1));
            let prefix: String = key.chars().take(2).collect();
            let like = store.list(mount, &prefix, None, 99).await.unwrap();
            assert_eq!(like.len(), keys.iter().filter(|key| key.starts_with(&prefix)).count());
        }
        for key in &keys {
            store.delete(mount, key).await.unwrap();
        }
        assert_eq!(store.list(mount, "", None, 99).await, Ok(vec![]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::suite::{ManualClock, block_on};
    use super::*;

    #[tokio::test]
    async fn keyvalue_keeps_the_contract() {
        let clock = ManualClock::default();
        suite::keyvalue(&MemoryKeyValue::with_clock(clock.read()), &clock).await;
    }

    #[tokio::test]
    async fn objects_keep_the_contract() {
        suite::objects(&MemoryObjects::new()).await;
        suite::pieces(&MemoryObjects::new()).await;
    }

    proptest! {
        #[test]
        fn any_history_of_keyvalue(acts in suite::acts()) {
            let clock = ManualClock::default();
            block_on(suite::history(&MemoryKeyValue::with_clock(clock.read()), &clock, acts));
        }

        #[test]
        fn any_keys_of_objects(mount in any::<String>(), keys in suite::weird_keys()) {
            block_on(suite::weird_objects(&MemoryObjects::new(), &mount, keys));
        }
    }
}
