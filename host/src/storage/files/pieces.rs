//! Objects that are read and written piece by piece, in constant memory.
//!
//! A file begins with its header, and a header with the size and the hash of what follows: so the place of the header is kept
//! free, long enough for any, and what is left of it is filled with white space. What is written stays in `.temporary` until it
//! is whole, and goes with its writer.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Folder, HEADER_BYTES_MAX, Header, MAGIC, blocking, damaged, storage_error, write_error};
use crate::storage::memory::{ETAG_DIGITS, clamp_range, hashed_info};
use crate::storage::{ObjectInfo, ObjectReader, ObjectWriter, OpenObject, PIECE_BYTES, StorageError};

/// After so many bytes they are brought to the disk, so that the end of a large object does not hold up everybody's commits.
const SYNC_BYTES: u64 = 32 << 20;
/// Digits of a SHA-256 in hex.
const HASH_DIGITS: usize = 64;

/// What is left to be read of a file.
pub(in crate::storage) struct FileReader {
    path: PathBuf,
    /// Stands at the next byte; none while it is read, and after an error.
    file: Option<File>,
    left: u64,
    /// Read when it was opened.
    first: Option<Bytes>,
}

/// Opens an object, and reads its first piece. Blocks.
pub(super) fn open(path: &Path, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
    let (mut file, header) = Folder::open_object(path)?;
    let (start, length) = clamp_range(header.size, range);
    if start > 0 {
        let offset = i64::try_from(start).map_err(|_| damaged(path))?;
        file.seek(SeekFrom::Current(offset)).map_err(storage_error(path))?;
    }
    let reader = FileReader::begin(file, path, length)?;
    Ok(OpenObject { info: header.into_info(), length, reader: Box::new(reader) })
}

impl FileReader {
    /// Of so many bytes from where the file stands, which it must have; reads the first piece. Blocks.
    pub(in crate::storage) fn begin(mut file: File, path: &Path, length: u64) -> Result<Self, StorageError> {
        let first = read_piece(&mut file, path, length)?;
        let left = length - first.len() as u64;
        let first = Some(first).filter(|first| !first.is_empty());
        Ok(Self { path: path.to_owned(), file: Some(file), left, first })
    }
}

/// The next piece of what is left. A file that ends too early is damaged.
fn read_piece(file: &mut File, path: &Path, left: u64) -> Result<Bytes, StorageError> {
    let length = left.min(PIECE_BYTES as u64);
    let mut piece = Vec::with_capacity(length as usize);
    file.take(length).read_to_end(&mut piece).map_err(storage_error(path))?;
    if piece.len() as u64 == length { Ok(piece.into()) } else { Err(damaged(path)) }
}

#[async_trait]
impl ObjectReader for FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let (path, left) = (self.path.clone(), self.left);
        let mut file = self.file.take().ok_or_else(|| damaged(&path))?;
        let (file, piece) = blocking(move || {
            let piece = read_piece(&mut file, &path, left)?;
            Ok((file, piece))
        })
        .await?;
        self.file = Some(file);
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}

/// A file that is not whole yet. It goes when it is dropped, unless it was placed.
struct Draft {
    folder: Arc<Folder>,
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    header: Header,
    header_bytes: u32,
    unsynced_bytes: u64,
    placed: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = fs::remove_file(&self.temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %self.temporary.display(), "a part of an object was left behind; the next start sweeps it");
        }
    }
}

impl Draft {
    /// Begins a file with a header that has room for any size and hash.
    fn begin(folder: &Arc<Folder>, mount: &str, key: &str, content_type: &str) -> Result<Self, StorageError> {
        let path = folder.path_of(mount, key);
        folder.refuse_if_gone(&path)?;
        let header = Header {
            key: key.to_owned(),
            size: u64::MAX,
            content_type: content_type.to_owned(),
            sha256: Some("0".repeat(HASH_DIGITS)),
            created_ms: u64::MAX,
            etag: "0".repeat(ETAG_DIGITS),
        };
        let longest = encoded(&header)?;
        let header_bytes = u32::try_from(longest.len()).ok().filter(|length| *length <= HEADER_BYTES_MAX);
        let header_bytes = header_bytes.ok_or_else(|| StorageError::Limit("size of a key or content type".to_owned()))?;
        let temporary = folder.temporary_path();
        let file = File::create(&temporary).map_err(write_error(&temporary))?;
        let header = Header { size: 0, ..header };
        let mut draft = Self { folder: folder.clone(), file, temporary, path, header, header_bytes, unsynced_bytes: 0, placed: false };
        draft.io(|draft| {
            draft.file.write_all(MAGIC)?;
            draft.file.write_all(&header_bytes.to_be_bytes())?;
            draft.file.write_all(&longest)
        })?;
        Ok(draft)
    }

    fn io(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), StorageError> {
        work(self).map_err(write_error(&self.path))
    }

    fn append(&mut self, pieces: &[Bytes]) -> Result<(), StorageError> {
        self.io(|draft| {
            for piece in pieces {
                draft.file.write_all(piece)?;
                draft.header.size += piece.len() as u64;
                draft.unsynced_bytes += piece.len() as u64;
            }
            if draft.unsynced_bytes >= SYNC_BYTES {
                draft.unsynced_bytes = 0;
                draft.file.sync_data()?;
            }
            Ok(())
        })
    }

    /// Writes the header and puts the file where it belongs.
    fn place(mut self, sha256: &str) -> Result<ObjectInfo, StorageError> {
        self.folder.refuse_if_gone(&self.path)?;
        let info = hashed_info(self.header.size, &self.header.content_type, sha256, (self.folder.clock)());
        let ObjectInfo { size, content_type, sha256, created_ms, etag } = info.clone();
        let mut header = encoded(&Header { key: self.header.key.clone(), size, content_type, sha256, created_ms, etag })?;
        header.resize(self.header_bytes as usize, b' ');
        self.io(|draft| {
            draft.file.seek(SeekFrom::Start(MAGIC.len() as u64 + size_of::<u32>() as u64))?;
            draft.file.write_all(&header)?;
            draft.file.sync_all()?;
            draft.folder.place(&draft.temporary, &draft.path)
        })?;
        self.placed = true;
        Ok(info)
    }
}

fn encoded(header: &Header) -> Result<Vec<u8>, StorageError> {
    serde_json::to_vec(header).map_err(|error| StorageError::Unavailable(error.to_string()))
}

/// Where the file of a writer is.
enum State {
    Idle(Draft),
    /// A batch is being written; the next one is collected meanwhile.
    Writing(JoinHandle<Result<Draft, StorageError>>),
    Failed,
}

/// An object on its way into a file.
struct FileWriter {
    state: State,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

/// Begins an object.
pub(super) async fn create(
    folder: &Arc<Folder>,
    mount: &str,
    key: &str,
    content_type: &str,
) -> Result<Box<dyn ObjectWriter>, StorageError> {
    let (folder, mount, key, content_type) = (folder.clone(), mount.to_owned(), key.to_owned(), content_type.to_owned());
    let draft = blocking(move || Draft::begin(&folder, &mount, &key, &content_type)).await?;
    Ok(Box::new(FileWriter { state: State::Idle(draft), batch: Vec::new(), batch_bytes: 0 }))
}

impl FileWriter {
    /// The file, when what was handed over is written.
    async fn draft(&mut self) -> Result<Draft, StorageError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(draft) => Ok(draft),
            State::Writing(job) => job.await.unwrap_or_else(|error| Err(StorageError::Unavailable(error.to_string()))),
            State::Failed => Err(StorageError::Unavailable("an earlier piece of the object could not be written".to_owned())),
        }
    }
}

#[async_trait]
impl ObjectWriter for FileWriter {
    async fn write(&mut self, piece: Bytes) -> Result<(), StorageError> {
        self.batch_bytes += piece.len();
        self.batch.push(piece);
        if self.batch_bytes >= PIECE_BYTES {
            let mut draft = self.draft().await?;
            let batch = std::mem::take(&mut self.batch);
            self.batch_bytes = 0;
            self.state = State::Writing(tokio::task::spawn_blocking(move || draft.append(&batch).map(|()| draft)));
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>, sha256: &str) -> Result<ObjectInfo, StorageError> {
        let mut draft = self.draft().await?;
        let (batch, sha256) = (std::mem::take(&mut self.batch), sha256.to_owned());
        blocking(move || {
            draft.append(&batch)?;
            draft.place(&sha256)
        })
        .await
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // To remove a large file takes a while.
        if let (State::Idle(draft), Ok(runtime)) = (std::mem::replace(&mut self.state, State::Failed), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(draft));
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::super::TEMPORARY;
    use super::*;
    use crate::executor::sqlite::folder::hex;
    use crate::storage::Objects as _;
    use crate::storage::files::{FileObjects, verify_object};

    fn hash(content: &[u8]) -> String {
        hex(&Sha256::digest(content))
    }

    async fn empties(folder: &Path) {
        let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        for _ in 0..10_000 {
            if is_empty() {
                return;
            }
            tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        }
        panic!("{} is not empty", folder.display());
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        for pieces in [0, 1, 3] {
            let mut writer = store.create("m", "k", "").await.unwrap();
            for _ in 0..pieces {
                writer.write(Bytes::from(vec![7; PIECE_BYTES])).await.unwrap();
            }
            drop(writer);
            empties(&folder.path().join(TEMPORARY)).await;
        }
        assert_eq!(store.head("m", "k").await, Err(StorageError::NotFound));
    }

    #[tokio::test]
    async fn a_file_with_room_in_its_header_is_a_file_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        let mut writer = store.create("m", "key", "text/plain").await.unwrap();
        writer.write(Bytes::from_static(b"content")).await.unwrap();
        let info = writer.finish(&hash(b"content")).await.unwrap();
        drop(store);
        let store = FileObjects::open(folder.path()).await.unwrap();
        assert_eq!(store.list("m", "", None, 9).await, Ok(vec![("key".to_owned(), info)]));
        verify_object(&store.folder.path_of("m", "key"), true).unwrap();
        empties(&folder.path().join(TEMPORARY)).await;
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_takes_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path().join("objects")).await.unwrap();
        let mut writer = store.create("m", "k", "").await.unwrap();
        writer.write(Bytes::from_static(b"content")).await.unwrap();
        fs::remove_dir_all(folder.path().join("objects")).unwrap();
        assert!(matches!(writer.finish(&hash(b"content")).await, Err(StorageError::Unavailable(_))));
        assert!(matches!(store.create("m", "k", "").await, Err(StorageError::Unavailable(_))));
        assert!(!folder.path().join("objects").exists());
    }

    #[tokio::test]
    async fn a_file_that_was_cut_off_breaks_the_reading_off() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileObjects::open(folder.path()).await.unwrap();
        let content = vec![7; 3 * PIECE_BYTES];
        store.write("m", "k", "", Bytes::from(content)).await.unwrap();
        let mut open = store.open("m", "k", None).await.unwrap();
        let file = File::options().write(true).open(store.folder.path_of("m", "k")).unwrap();
        file.set_len(2 * PIECE_BYTES as u64).unwrap();
        assert!(open.reader.next().await.is_ok());
        let mut last = open.reader.next().await;
        while let Ok(Some(_)) = last {
            last = open.reader.next().await;
        }
        assert!(matches!(last, Err(StorageError::Unavailable(_))), "{last:?}");
        assert!(open.reader.next().await.is_err());
    }
}
