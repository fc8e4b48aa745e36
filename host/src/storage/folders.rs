//! Files of the host that a mount reads as objects (`folders` of its plan). They are never written.
//!
//! Whoever asks for a key below the prefix of a folder gets the file of that path; all other keys are those of the store.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use super::files::pieces::FileReader;
use super::memory::clamp_range;
use super::{ObjectInfo, ObjectWriter, Objects, OpenObject, StorageError};
use crate::backup::Pinned;

/// A store, and folders in front of it.
pub(crate) struct WithFolders {
    objects: Arc<dyn Objects>,
    folders: RwLock<Arc<[Folder]>>,
}

/// A folder whose files are objects.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// Their keys begin so.
    pub(crate) prefix: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl WithFolders {
    /// A store without folders.
    pub(crate) fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects, folders: RwLock::new(Arc::new([])) }
    }

    /// Puts other folders in front.
    pub(crate) fn exchange(&self, folders: Vec<Folder>) {
        *self.folders.write() = folders.into();
    }

    /// The folder of a key, and the path in it.
    fn find(&self, key: &str) -> Option<(Folder, String)> {
        let folders = self.folders.read().clone();
        folders.iter().find_map(|folder| Some((folder.clone(), key.strip_prefix(&folder.prefix)?.to_owned())))
    }

    fn refuse_write(&self, key: &str) -> Result<(), StorageError> {
        match self.find(key) {
            Some(_) => Err(StorageError::Limit("files of a folder are never written".into())),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Objects for WithFolders {
    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        match self.find(key) {
            Some((folder, relative)) => super::blocking(move || folder.open(&relative).map(|(_, info)| info)).await,
            None => self.objects.head(mount, key).await,
        }
    }

    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        match self.find(key) {
            Some((folder, relative)) => super::blocking(move || folder.read(&relative, range)).await,
            None => self.objects.read(mount, key, range).await,
        }
    }

    async fn write(&self, mount: &str, key: &str, content_type: &str, content: Bytes) -> Result<ObjectInfo, StorageError> {
        self.refuse_write(key)?;
        self.objects.write(mount, key, content_type, content).await
    }

    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        match self.find(key) {
            Some((folder, relative)) => super::blocking(move || folder.begin(&relative, range)).await,
            None => self.objects.open(mount, key, range).await,
        }
    }

    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        self.refuse_write(key)?;
        self.objects.create(mount, key, content_type).await
    }

    async fn presign_download(&self, mount: &str, key: &str, valid_ms: u64) -> Result<Option<String>, StorageError> {
        match self.find(key) {
            Some(_) => Ok(None),
            None => self.objects.presign_download(mount, key, valid_ms).await,
        }
    }

    async fn presign_upload(
        &self,
        mount: &str,
        key: &str,
        sha256: &str,
        bytes_max: u64,
        valid_ms: u64,
    ) -> Result<Option<String>, StorageError> {
        self.refuse_write(key)?;
        self.objects.presign_upload(mount, key, sha256, bytes_max, valid_ms).await
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.refuse_write(key)?;
        self.objects.delete(mount, key).await
    }

    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let mut listed = self.objects.list(mount, prefix, after, limit).await?;
        let folders = self.folders.read().clone();
        for folder in folders.iter().filter(|folder| folder.prefix.starts_with(prefix) || prefix.starts_with(&folder.prefix)) {
            let folder = folder.clone();
            listed.extend(super::blocking(move || folder.list()).await?);
        }
        listed.retain(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        listed.sort_by(|(left, _), (right, _)| left.cmp(right));
        listed.truncate(limit.try_into().unwrap_or(usize::MAX));
        Ok(listed)
    }

    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        self.objects.pin().await
    }

    async fn object_bytes(&self, mount: &str) -> Result<u64, StorageError> {
        self.objects.object_bytes(mount).await
    }

    async fn ready(&self) -> Result<(), StorageError> {
        self.objects.ready().await
    }
}

impl Folder {
    /// Opens the file of a path, if it is one and lies in the folder, links followed.
    fn open(&self, relative: &str) -> Result<(File, ObjectInfo), StorageError> {
        let is_name = |name: &str| !name.is_empty() && name != "." && name != "..";
        if !relative.split('/').all(is_name) {
            return Err(StorageError::NotFound);
        }
        let root = self.path.canonicalize().map_err(failed)?;
        let path = root.join(relative).canonicalize().map_err(failed)?;
        // Looked at before it is opened: a pipe would keep whoever opens it.
        if !path.starts_with(&root) || !fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(StorageError::NotFound);
        }
        let file = File::open(&path).map_err(failed)?;
        let info = info_of(relative, &file.metadata().map_err(failed)?);
        Ok((file, info))
    }

    /// Opens a file where a range begins; gives its length too.
    fn open_at(&self, relative: &str, range: Option<(u64, u64)>) -> Result<(File, ObjectInfo, u64), StorageError> {
        let (mut file, info) = self.open(relative)?;
        let (start, length) = clamp_range(info.size, range);
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        Ok((file, info, length))
    }

    fn begin(&self, relative: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        let (file, info, length) = self.open_at(relative, range)?;
        let reader = FileReader::begin(file, &self.path.join(relative), length)?;
        Ok(OpenObject { info, length, reader: Box::new(reader) })
    }

    fn read(&self, relative: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        let (file, _, length) = self.open_at(relative, range)?;
        let mut content = Vec::new();
        let bytes = usize::try_from(length).map_err(|_| StorageError::Limit("memory".into()))?;
        content.try_reserve_exact(bytes).map_err(|_| StorageError::Limit("memory".into()))?;
        file.take(length).read_to_end(&mut content).map_err(failed)?;
        Ok(content.into())
    }

    /// All its files, in no order. Links to folders are passed over, so there are no circles.
    fn list(&self) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let mut listed = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(below) = waiting.pop() {
            let entries = match fs::read_dir(self.path.join(&below)).map_err(failed) {
                Ok(entries) => entries,
                Err(StorageError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let relative = format!("{below}{name}");
                if entry.file_type().map_err(failed)?.is_dir() {
                    waiting.push(format!("{relative}/"));
                } else if let Ok((_, info)) = self.open(&relative) {
                    listed.push((format!("{}{relative}", self.prefix), info));
                }
            }
        }
        Ok(listed)
    }
}

fn failed(error: io::Error) -> StorageError {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    match error.kind() {
        InvalidFilename | InvalidInput | NotADirectory | NotFound => StorageError::NotFound,
        _ => StorageError::Unavailable(error.to_string()),
    }
}

fn info_of(relative: &str, metadata: &Metadata) -> ObjectInfo {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    ObjectInfo {
        size: metadata.len(),
        content_type: content_type(relative).into(),
        sha256: None,
        created_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        etag: format!("{:x}-{:x}", modified.as_nanos(), metadata.len()),
    }
}

/// By the extension of a name.
fn content_type(relative: &str) -> &'static str {
    let extension = Path::new(relative).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryObjects;

    /// A folder with files, links among them, before a store with one object.
    async fn store() -> (tempfile::TempDir, WithFolders) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("web");
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        fs::write(root.join("page.HTML"), "0123456789").unwrap();
        fs::write(root.join("deep/script.js"), "x").unwrap();
        std::os::unix::fs::symlink("deep/script.js", root.join("inside")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("outside")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("up")).unwrap();
        let objects = MemoryObjects::new();
        objects.write("m", "own", "text/plain", Bytes::from_static(b"own")).await.unwrap();
        let store = WithFolders::new(Arc::new(objects));
        store.exchange(vec![Folder { prefix: "web/".into(), path: root }]);
        (outside, store)
    }

    #[tokio::test]
    async fn files_are_objects_below_their_prefix() {
        let (_folder, store) = store().await;
        let info = store.head("m", "web/page.HTML").await.unwrap();
        assert_eq!((info.size, info.content_type.as_str(), info.sha256), (10, "text/html; charset=utf-8", None));
        assert_eq!(store.read("m", "web/page.HTML", Some((8, 5))).await.unwrap(), "89");
        assert_eq!(store.read("m", "web/inside", None).await.unwrap(), "x");
        assert_eq!(store.read("m", "own", None).await.unwrap(), "own");
        let mut open = store.open("m", "web/page.HTML", Some((2, 3))).await.unwrap();
        assert_eq!((open.info.size, open.length, open.reader.next().await.unwrap()), (10, 3, Some(Bytes::from_static(b"234"))));
        assert_eq!(open.reader.next().await, Ok(None));
        assert_eq!(store.open("m", "own", None).await.unwrap().length, 3);
        let listed = store.list("m", "", None, 10).await.unwrap();
        let keys: Vec<_> = listed.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["own", "web/deep/script.js", "web/inside", "web/page.HTML"]);
        assert_eq!(store.list("m", "web/", Some("web/deep/script.js"), 1).await.unwrap()[0].0, "web/inside");
    }

    #[tokio::test]
    async fn nothing_leads_out_of_the_folder() {
        let (_folder, store) = store().await;
        for path in ["outside", "up/secret", "../secret", "deep/../../secret", "deep", "", "/", "deep//script.js", "page.HTML/", "a\0b"] {
            assert_eq!(store.head("m", &format!("web/{path}")).await, Err(StorageError::NotFound), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_never_written() {
        let (_folder, store) = store().await;
        let refused = store.write("m", "web/new", "text/plain", Bytes::new()).await;
        assert!(matches!(refused, Err(StorageError::Limit(_))));
        assert!(matches!(store.create("m", "web/new", "text/plain").await, Err(StorageError::Limit(_))));
        assert!(matches!(store.presign_upload("m", "web/new", "", 1, 1).await, Err(StorageError::Limit(_))));
        assert!(matches!(store.delete("m", "web/page.HTML").await, Err(StorageError::Limit(_))));
        assert_eq!(store.head("m", "web/page.HTML").await.unwrap().size, 10);
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_has_no_files() {
        let (_folder, store) = store().await;
        store.exchange(vec![Folder { prefix: "web/".into(), path: "/nowhere/at/all".into() }]);
        assert_eq!(store.head("m", "web/page.HTML").await, Err(StorageError::NotFound));
        assert_eq!(store.list("m", "web/", None, 10).await.unwrap(), []);
    }
}
