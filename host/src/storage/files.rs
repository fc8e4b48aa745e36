//! Objects as files.
//!
//! One file holds an object and what is known of it, so both appear, change and go at once:
//!
//! ```text
//! SYNCOBJ1 │ header bytes, u32 big-endian │ header, JSON │ content
//! ```
//!
//! It is written to `<folder>/.temporary/`, synced, renamed to `<folder>/<mount>/<shard>/<key>.object`, and the folder
//! is synced. The shard is the first byte of the key's hash; mount and key are encoded so that any text is safe. The
//! name gives the key back unless the key is long; then the header does.

pub(super) mod pieces;

use std::collections::{BinaryHeap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::freezer::{Freezer, FrozenView};
use super::memory::{Clock, clamp_range, object_info, system_clock};
use super::{ObjectInfo, ObjectWriter, Objects, OpenObject, StorageError, blocking};
use crate::backup::{BackupError, Pinned, Target};
use crate::executor::sqlite::folder::{FolderLock, NAME_BYTES_MAX, create_folder, decode_name, encode_name, hex, sync_folder};
use crate::executor::sqlite::format::{note_made, refuse_if_gone};

/// First bytes of a file; the digit is the format version.
const MAGIC: &[u8; 8] = b"SYNCOBJ1";

/// A header is larger than its key and content type by a few hundred bytes; more than this is damage.
const HEADER_BYTES_MAX: u32 = 1 << 20;

/// Of the encoded key. File names have at most 255 bytes.
const KEY_BYTES_MAX: usize = 240;

/// Written by the probe of readiness, so that a disk without space shows.
const READY_BYTES: usize = 64 << 10;

const SUFFIX: &str = ".object";

/// The folder in a data folder, by custom.
const OBJECTS: &str = "objects";

/// Beside the mounts: no encoded name has a dot.
const TEMPORARY: &str = ".temporary";

/// Objects in a folder, which belongs to one process.
pub struct FileObjects {
    folder: Arc<Folder>,
}

struct Folder {
    path: PathBuf,
    temporary: PathBuf,
    temporary_next: AtomicU64,
    freezer: Arc<Freezer>,
    clock: Clock,
    _lock: FolderLock,
}

/// What stands before the content.
#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    size: u64,
    content_type: String,
    sha256: Option<String>,
    created_ms: u64,
    etag: String,
}

impl Header {
    fn into_info(self) -> ObjectInfo {
        let Self { key: _, size, content_type, sha256, created_ms, etag } = self;
        ObjectInfo { size, content_type, sha256, created_ms, etag }
    }
}

impl FileObjects {
    /// Opens a folder (by custom `<data>/objects`), making it where there is none, and sweeps what a crash left.
    pub async fn open(folder: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let folder = folder.into();
        let folder = blocking(move || Folder::open(folder, system_clock())).await?;
        Ok(Self { folder: Arc::new(folder) })
    }

    async fn run<T: Send + 'static>(
        &self,
        mount: &str,
        key: &str,
        work: impl FnOnce(&Folder, &str, &str) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (folder, mount, key) = (Arc::clone(&self.folder), mount.to_owned(), key.to_owned());
        blocking(move || work(&folder, &mount, &key)).await
    }
}

fn storage_error(path: &Path) -> impl Fn(io::Error) -> StorageError {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => StorageError::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => StorageError::Limit("disk".to_owned()),
        _ => StorageError::Unavailable(format!("{}: {error}", path.display())),
    }
}

/// For writes: a folder that has gone is no answer to "where is the object".
fn write_error(path: &Path) -> impl Fn(io::Error) -> StorageError {
    move |error| match storage_error(path)(error) {
        StorageError::NotFound => StorageError::Unavailable(format!("{}: its folder is gone", path.display())),
        other => other,
    }
}

fn damaged(path: &Path) -> StorageError {
    StorageError::Unavailable(format!("{} is damaged: restore it from a backup", path.display()))
}

impl Folder {
    fn open(path: PathBuf, clock: Clock) -> Result<Self, StorageError> {
        refuse_if_gone(&path).map_err(StorageError::Unavailable)?;
        create_folder(&path).map_err(write_error(&path))?;
        note_made(&path).map_err(write_error(&path))?;
        let lock = FolderLock::take(&path, ".lock").map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let temporary = path.join(TEMPORARY);
        create_folder(&temporary).map_err(write_error(&temporary))?;
        // The lock says that nobody is writing these.
        for entry in fs::read_dir(&temporary).map_err(write_error(&temporary))? {
            let leftover = entry.map_err(write_error(&temporary))?.path();
            fs::remove_file(&leftover).map_err(write_error(&leftover))?;
        }
        let folder = Self { path, temporary, temporary_next: AtomicU64::new(0), freezer: Arc::default(), clock, _lock: lock };
        folder.ready()?;
        Ok(folder)
    }

    fn path_of_mount(&self, mount: &str) -> PathBuf {
        self.path.join(encode_name(mount, NAME_BYTES_MAX))
    }

    fn path_of(&self, mount: &str, key: &str) -> PathBuf {
        let shard = hex(&Sha256::digest(key.as_bytes())[..1]);
        let name = format!("{}{SUFFIX}", encode_name(key, KEY_BYTES_MAX));
        self.path_of_mount(mount).join(shard).join(name)
    }

    /// Opens an object; the file stands at its content.
    fn open_object(path: &Path) -> Result<(File, Header), StorageError> {
        let mut file = File::open(path).map_err(storage_error(path))?;
        let cut = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(path),
            _ => storage_error(path)(error),
        };
        let mut start = [0; 12];
        file.read_exact(&mut start).map_err(cut)?;
        let (magic, length) = start.split_at(MAGIC.len());
        let length = length.try_into().map(u32::from_be_bytes).map_err(|_| damaged(path))?;
        if magic[..MAGIC.len() - 1] == MAGIC[..MAGIC.len() - 1] && magic.last() > MAGIC.last() {
            let newer = format!("{} is of a format that only a newer version of this program knows", path.display());
            return Err(StorageError::Unavailable(newer));
        }
        if magic != MAGIC || length > HEADER_BYTES_MAX {
            return Err(damaged(path));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(cut)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| damaged(path))?;
        let content_start = start.len() as u64 + u64::from(length);
        if Some(file.metadata().map_err(storage_error(path))?.len()) != content_start.checked_add(header.size) {
            return Err(damaged(path));
        }
        Ok((file, header))
    }

    fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        let path = &self.path_of(mount, key);
        let (mut file, header) = Self::open_object(path)?;
        let (start, length) = clamp_range(header.size, range);
        let bytes = usize::try_from(length).map_err(|_| StorageError::Limit("memory".to_owned()))?;
        let content_start = file.stream_position().map_err(storage_error(path))?;
        file.seek(SeekFrom::Start(content_start + start)).map_err(storage_error(path))?;
        let mut content = Vec::new();
        // Not `vec!`: too large an object is an error of this call, not the end of the process.
        content.try_reserve_exact(bytes).map_err(|_| StorageError::Limit("memory".to_owned()))?;
        file.take(length).read_to_end(&mut content).map_err(storage_error(path))?;
        // A piece cannot be checked against the hash of the whole.
        let whole = length == header.size;
        if content.len() != bytes || whole && header.sha256.is_some_and(|expected| hex(&Sha256::digest(&content)) != expected) {
            return Err(damaged(path));
        }
        Ok(content.into())
    }

    fn write(&self, mount: &str, key: &str, content_type: &str, content: &[u8]) -> Result<ObjectInfo, StorageError> {
        let ObjectInfo { size, content_type, sha256, created_ms, etag } = object_info(content, content_type, (self.clock)());
        let header = Header { key: key.to_owned(), size, content_type, sha256, created_ms, etag };
        let encoded = serde_json::to_vec(&header).map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let length = u32::try_from(encoded.len()).ok().filter(|length| *length <= HEADER_BYTES_MAX);
        let length = length.ok_or_else(|| StorageError::Limit("size of a key or content type".to_owned()))?;
        let path = self.path_of(mount, key);
        self.refuse_if_gone(&path)?;
        let temporary = self.temporary_path();
        let written = write_synced(&temporary, &[MAGIC, &length.to_be_bytes(), &encoded, content]);
        if let Err(error) = written.and_then(|()| self.place(&temporary, &path)) {
            // If it is there at all, it is of no use; the next start would sweep it.
            let _ = fs::remove_file(&temporary);
            return Err(write_error(&path)(error));
        }
        Ok(header.into_info())
    }

    /// Made anew the folder would hide that all objects are gone.
    fn refuse_if_gone(&self, path: &Path) -> Result<(), StorageError> {
        if self.path.is_dir() { Ok(()) } else { Err(write_error(path)(io::ErrorKind::NotFound.into())) }
    }

    /// Puts a file that is whole and synced where it belongs.
    fn place(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.path);
        create_folder(folder)?;
        self.freezer.replace(temporary, path)?;
        sync_folder(folder)
    }

    fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        let path = self.path_of(mount, key);
        match self.freezer.remove(&path) {
            Ok(()) => sync_folder(path.parent().unwrap_or(&self.path)).map_err(write_error(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(storage_error(&path)(error)),
        }
    }

    fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        // An object that is deleted between the look at its name and the look at its header leaves a gap, and an
        // answer below the limit would be taken for the last: then all is looked at again.
        let mut left_out = HashSet::new();
        'again: loop {
            let mut infos = Vec::new();
            for (key, path) in self.smallest_keys(mount, prefix, after, limit as usize, &left_out)? {
                match Self::open_object(&path) {
                    Ok((_, header)) => infos.push((key, header.into_info())),
                    Err(error) => {
                        if error != StorageError::NotFound {
                            // One bad file must not hide all others.
                            tracing::error!(mount, key, %error, "an object is left out of a listing");
                            left_out.insert(path);
                        }
                        continue 'again;
                    }
                }
            }
            return Ok(infos);
        }
    }

    fn smallest_keys(
        &self,
        mount: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        left_out: &HashSet<PathBuf>,
    ) -> Result<Vec<(String, PathBuf)>, StorageError> {
        // The largest is on top, and goes when there are too many.
        let mut smallest = BinaryHeap::new();
        for shard in entries(&self.path_of_mount(mount))? {
            for path in entries(&shard)? {
                let Some(key) = key_of(&path) else { continue };
                if left_out.contains(&path) || !key.starts_with(prefix) || after.is_some_and(|after| key.as_str() <= after) {
                    continue;
                }
                smallest.push((key, path));
                if smallest.len() > limit {
                    smallest.pop();
                }
            }
        }
        Ok(smallest.into_sorted_vec())
    }

    /// The bytes of all files of a mount, headers included.
    fn object_bytes(&self, mount: &str) -> Result<u64, StorageError> {
        let mut bytes = 0;
        for shard in entries(&self.path_of_mount(mount))? {
            for path in entries(&shard)? {
                match fs::metadata(&path) {
                    Ok(metadata) => bytes += metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(storage_error(&path)(error)),
                }
            }
        }
        Ok(bytes)
    }

    fn temporary_path(&self) -> PathBuf {
        self.temporary.join(self.temporary_next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Whether objects can be written, of every mount that has any.
    fn ready(&self) -> Result<(), StorageError> {
        for folder in std::iter::once(self.path.clone()).chain(entries(&self.path)?).filter(|path| path.is_dir()) {
            access(&folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| write_error(&folder)(error.into()))?;
        }
        let path = self.temporary_path();
        let number = (self.clock)().to_be_bytes();
        let written = write_synced(&path, &[&number, &[0; READY_BYTES]]);
        let read = written.and_then(|()| fs::read(&path));
        // A full disk is to have this space back.
        let removed = fs::remove_file(&path);
        let read = read.map_err(write_error(&path))?;
        removed.map_err(write_error(&path))?;
        if read.starts_with(&number) { Ok(()) } else { Err(StorageError::Unavailable("read something else than was written".to_owned())) }
    }
}

fn write_synced(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = File::create(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// What is in a folder; nothing where there is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A file that is none of ours.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(storage_error(folder)(error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(storage_error(folder))).collect()
}

/// The key of an object's file; none where it is something else, or cannot be told.
fn key_of(path: &Path) -> Option<String> {
    let encoded = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    if let Some(key) = decode_name(encoded, KEY_BYTES_MAX) {
        return Some(key);
    }
    match Folder::open_object(path) {
        Ok((_, header)) => Some(header.key),
        Err(StorageError::NotFound) => None,
        Err(error) => {
            tracing::error!(%error, "an object is left out of a listing");
            None
        }
    }
}

/// Files of objects below a folder, of all mounts.
pub(crate) fn object_files(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut files = Vec::new();
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    for mount in entries(folder)?.into_iter().filter(|path| !hidden(path)) {
        for shard in entries(&mount)? {
            files.extend(entries(&shard)?.into_iter().filter(|path| path.to_str().is_some_and(|path| path.ends_with(SUFFIX))));
        }
    }
    Ok(files)
}

/// Reads an object's file: all of its header, and its content where that is to be compared with its hash. Blocks.
pub(crate) fn verify_object(path: &Path, content: bool) -> Result<(), StorageError> {
    let (mut file, header) = Folder::open_object(path)?;
    if let Some(sha256) = header.sha256.filter(|_| content) {
        let mut digest = Sha256::new();
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk).map_err(storage_error(path))? {
                0 => break,
                length => digest.update(&chunk[..length]),
            }
        }
        if hex(&digest.finalize()) != sha256 {
            return Err(StorageError::Unavailable(format!("{} has another content than it was written with", path.display())));
        }
    }
    Ok(())
}

/// All objects as they were at one moment.
struct PinnedObjects {
    folder: Arc<Folder>,
    view: FrozenView,
}

impl PinnedObjects {
    fn copy_file(&self, path: &Path, target: &mut Target) -> Result<(), BackupError> {
        let failed = |error| BackupError::io(path, error);
        let below = path.strip_prefix(&self.folder.path).map_err(|error| failed(io::Error::other(error)))?;
        let relative = Path::new(OBJECTS).join(below);
        let copy = target.place(&relative)?;
        // A file of an object never changes: where the file system allows it, the backup shares it.
        if self.view.link(path, &copy) {
            return target.finished(&relative);
        }
        match self.view.open(path).map_err(failed)? {
            Some(mut file) => target.copy(&mut file, &relative),
            None => Ok(()),
        }
    }
}

impl Pinned for PinnedObjects {
    fn copy(self: Box<Self>, target: &mut Target) -> Result<(), BackupError> {
        let failed = |error: StorageError| BackupError::Backend { backend: "objects", message: error.to_string() };
        let mut listed: HashSet<PathBuf> = object_files(&self.folder.path).map_err(failed)?.into_iter().collect();
        for path in &listed {
            self.copy_file(path, target)?;
        }
        // What was removed before it could be listed.
        for path in self.view.kept() {
            if listed.insert(path.clone()) {
                self.copy_file(&path, target)?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Objects for FileObjects {
    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        self.run(mount, key, |folder, mount, key| Ok(Folder::open_object(&folder.path_of(mount, key))?.1.into_info())).await
    }

    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        self.run(mount, key, move |folder, mount, key| folder.read(mount, key, range)).await
    }

    async fn write(&self, mount: &str, key: &str, content_type: &str, content: Bytes) -> Result<ObjectInfo, StorageError> {
        let content_type = content_type.to_owned();
        self.run(mount, key, move |folder, mount, key| folder.write(mount, key, &content_type, &content)).await
    }

    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        self.run(mount, key, move |folder, mount, key| pieces::open(&folder.path_of(mount, key), range)).await
    }

    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        pieces::create(&self.folder, mount, key, content_type).await
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.run(mount, key, |folder, mount, key| folder.delete(mount, key)).await
    }

    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let after = after.map(str::to_owned);
        self.run(mount, prefix, move |folder, mount, prefix| folder.list(mount, prefix, after.as_deref(), limit)).await
    }

    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        let view = self.folder.freezer.freeze(self.folder.temporary.clone());
        let view = view.ok_or_else(|| StorageError::Unavailable("another backup is under way".to_owned()))?;
        Ok(Box::new(PinnedObjects { folder: Arc::clone(&self.folder), view }))
    }

    async fn object_bytes(&self, mount: &str) -> Result<u64, StorageError> {
        self.run(mount, "", |folder, mount, _| folder.object_bytes(mount)).await
    }

    async fn ready(&self) -> Result<(), StorageError> {
        self.run("", "", |folder, _, _| folder.ready()).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::memory::suite::{self, block_on};

    #[tokio::test]
    async fn objects_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path().join("objects")).await.unwrap();
        suite::objects(&store).await;
        suite::pieces(&store).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_keys_of_objects(mount in any::<String>(), keys in suite::weird_keys()) {
            let folder = tempfile::tempdir().unwrap();
            block_on(async {
                let store = FileObjects::open(folder.path().join("objects")).await.unwrap();
                suite::weird_objects(&store, &mount, keys).await;
            });
            // All of it is below the folder; beside it is the note that the folder was made.
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }

    /// What a disk may give back: a whole file with some bytes changed, cut, or with a header of any numbers.
    fn damaged_file() -> impl Strategy<Value = Vec<u8>> {
        let with_header = |header: String, content: Vec<u8>| {
            let length = u32::try_from(header.len()).unwrap().to_be_bytes();
            [MAGIC, &length[..], header.as_bytes(), &content].concat()
        };
        let number = prop_oneof![any::<u64>(), Just(u64::MAX), Just(0), 0_u64..40];
        let header = (number.clone(), number, any::<String>()).prop_map(|(size, created_ms, text)| {
            let name = serde_json::to_string(&text).unwrap();
            format!(r#"{{"key":"k","size":{size},"content_type":{name},"sha256":[],"created_ms":{created_ms},"etag":{name}}}"#)
        });
        let whole = (header, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(move |(header, content)| with_header(header, content));
        let changed = (whole, any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(mut file, at, byte, cut)| {
            let at = at.index(file.len());
            match cut {
                true => file.truncate(at),
                false => file[at] = byte,
            }
            file
        });
        prop_oneof![changed, proptest::collection::vec(any::<u8>(), 0..64)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_file_is_an_object_or_damaged(file in damaged_file()) {
            let folder = tempfile::tempdir().unwrap();
            block_on(async {
                let store = FileObjects::open(folder.path()).await.unwrap();
                store.write("m", "k", "", Bytes::new()).await.unwrap();
                fs::write(store.folder.path_of("m", "k"), &file).unwrap();
                match (store.head("m", "k").await, store.read("m", "k", None).await) {
                    (Ok(info), Ok(content)) => assert_eq!(info.size, content.len() as u64),
                    (Err(head), Err(read)) => assert!(matches!((&head, &read), (StorageError::Unavailable(_), StorageError::Unavailable(_)))),
                    (head, read) => panic!("{head:?}, and yet {read:?}"),
                }
            });
        }
    }

    #[tokio::test]
    async fn objects_survive_a_restart_and_leftovers_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        let refused = FileObjects::open(folder.path()).await.err();
        assert!(matches!(refused, Some(StorageError::Unavailable(_))), "{refused:?}");
        let info = store.write("m", "k", "a/b", Bytes::from_static(b"content")).await.unwrap();
        drop(store);
        let leftover = folder.path().join(TEMPORARY).join("7");
        fs::write(&leftover, b"half").unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        assert!(!leftover.exists());
        assert_eq!(store.head("m", "k").await, Ok(info));
        assert_eq!(store.read("m", "k", None).await, Ok(Bytes::from_static(b"content")));
    }

    #[tokio::test]
    async fn a_damaged_file_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        store.write("m", "k", "", Bytes::from_static(b"content")).await.unwrap();
        let path = store.folder.path_of("m", "k");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(store.read("m", "k", None).await, Err(StorageError::Unavailable(_))), "{length}");
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, &flipped).unwrap();
        let refused = store.read("m", "k", None).await.unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()) && refused.contains("restore"), "{refused}");
        let mut newer = whole.clone();
        newer[MAGIC.len() - 1] = b'2';
        fs::write(&path, &newer).unwrap();
        let refused = store.head("m", "k").await.unwrap_err().to_string();
        assert!(refused.contains("newer version"), "{refused}");
        store.write("m", "whole", "", Bytes::from_static(b"content")).await.unwrap();
        let listed = store.list("m", "", None, 1).await.unwrap();
        assert_eq!(listed.len(), 1, "a listing goes on behind it");
        assert_eq!(listed[0].0, "whole");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        for refused in [store.read("m", "k", None).await.err(), store.write("m", "k", "", Bytes::new()).await.err()] {
            assert!(matches!(&refused, Some(StorageError::Unavailable(what)) if what.contains(".object")), "{refused:?}");
        }
        fs::remove_dir(&path).unwrap();
        store.write("m", "k", "", Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(store.read("m", "k", None).await, Ok(Bytes::from_static(b"new")));
    }

    #[tokio::test]
    async fn foreign_files_are_no_objects() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        store.write("m", "k", "", Bytes::new()).await.unwrap();
        let shard = store.folder.path_of("m", "k").parent().unwrap().to_owned();
        fs::write(shard.join("notes.txt"), b"").unwrap();
        let keys: Vec<_> = store.list("m", "", None, 9).await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["k"]);
    }
}
