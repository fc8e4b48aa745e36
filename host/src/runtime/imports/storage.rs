//! `syncline:host/storage` over the [`crate::storage`] that the host was given.

use bytes::Bytes;

use crate::runtime::bindings::guest::syncline::host::storage::{ByteRange, Error, Host, ObjectInfo};
use crate::runtime::effect::{Deferred, Effect};
use crate::runtime::limits::{LISTED_MAX, TRANSFER_BYTES_MAX, Weight};
use crate::runtime::state::State;
use crate::storage::{self, StorageError};

impl Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        if let Some(own) = self.call()?.overlay.get(&key) {
            return Ok(Ok(own.clone()));
        }
        Ok(self.mount()?.storage.keyvalue.get(&self.mount()?.name, &key).await.map_err(Error::from))
    }

    async fn set(&mut self, key: String, value: Vec<u8>, time_to_live_ms: Option<u64>) -> wasmtime::Result<Result<(), Error>> {
        let call = self.call()?;
        call.effect(Effect::Deferred(Deferred::SetKey { key: key.clone(), value: value.clone(), time_to_live_ms }))?;
        call.overlay.insert(key, Some(value));
        Ok(Ok(()))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), Error>> {
        let call = self.call()?;
        call.effect(Effect::Deferred(Deferred::DeleteKey { key: key.clone() }))?;
        call.overlay.insert(key, None);
        Ok(Ok(()))
    }

    async fn increment(&mut self, key: String, delta: i64, time_to_live_ms: Option<u64>) -> wasmtime::Result<Result<i64, Error>> {
        self.call()?.unrepeatable |= delta != 0;
        Ok(self.mount()?.storage.keyvalue.increment(&self.mount()?.name, &key, delta, time_to_live_ms).await.map_err(Error::from))
    }

    async fn compare_and_set(&mut self, key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> wasmtime::Result<Result<bool, Error>> {
        self.call()?.unrepeatable = true;
        Ok(self.mount()?.storage.keyvalue.compare_and_set(&self.mount()?.name, &key, expected, value).await.map_err(Error::from))
    }

    async fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> wasmtime::Result<Result<Vec<String>, Error>> {
        if limit > LISTED_MAX {
            return Ok(Err(too_long_a_list()));
        }
        Ok(self.mount()?.storage.keyvalue.keys(&self.mount()?.name, &prefix, after.as_deref(), limit).await.map_err(Error::from))
    }

    async fn note(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<()> {
        let call = self.call()?;
        call.taken.add(Weight { pieces: 1, bytes: key.len() + value.len() })?;
        call.notes.insert(key, value);
        Ok(())
    }

    async fn noted(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.call()?.notes.get(&key).cloned())
    }

    async fn head_object(&mut self, key: String) -> wasmtime::Result<Result<ObjectInfo, Error>> {
        Ok(self.mount()?.object_info(&key).await.map(Into::into).map_err(Error::from))
    }

    async fn read_object(&mut self, key: String, range: Option<ByteRange>) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        // One byte more than there may be tells a large object from one that is too large.
        let bytes_max = TRANSFER_BYTES_MAX as u64;
        let (start, length) = range.map_or((0, u64::MAX), |range| (range.start, range.length));
        let read = self.mount()?.storage.objects.read(&self.mount()?.name, &key, Some((start, length.min(bytes_max + 1)))).await;
        Ok(match read {
            Ok(bytes) if bytes.len() > TRANSFER_BYTES_MAX => Err(Error::Limit(format!("more than {bytes_max} bytes at once"))),
            read => read.map(Vec::from).map_err(Error::from),
        })
    }

    async fn write_object(&mut self, key: String, content_type: String, content: Vec<u8>) -> wasmtime::Result<Result<ObjectInfo, Error>> {
        let has_quota = self.call()?.has_quota;
        let written = self.mount()?.write_object(has_quota, &key, &content_type, Bytes::from(content)).await;
        Ok(written.map(Into::into).map_err(Error::from))
    }

    async fn delete_object(&mut self, key: String) -> wasmtime::Result<Result<(), Error>> {
        self.call()?.effect(Effect::Deferred(Deferred::DeleteObject { key }))?;
        Ok(Ok(()))
    }

    async fn list_objects(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<(String, ObjectInfo)>, Error>> {
        if limit > LISTED_MAX {
            return Ok(Err(too_long_a_list()));
        }
        let listed = self.mount()?.storage.objects.list(&self.mount()?.name, &prefix, after.as_deref(), limit).await;
        Ok(listed.map(|objects| objects.into_iter().map(|(key, info)| (key, info.into())).collect()).map_err(Error::from))
    }

    async fn presign_download(&mut self, key: String, valid_ms: u64) -> wasmtime::Result<Result<Option<String>, Error>> {
        let mount = self.mount()?;
        Ok(mount.storage.objects.presign_download(&mount.name, &key, valid_ms).await.map_err(Error::from))
    }

    async fn presign_upload(
        &mut self,
        key: String,
        sha256: String,
        max_bytes: u64,
        valid_ms: u64,
    ) -> wasmtime::Result<Result<Option<String>, Error>> {
        let mount = self.mount()?;
        Ok(mount.storage.objects.presign_upload(&mount.name, &key, &sha256, max_bytes, valid_ms).await.map_err(Error::from))
    }
}

fn too_long_a_list() -> Error {
    Error::Limit(format!("more than {LISTED_MAX} names at once"))
}

impl From<storage::ObjectInfo> for ObjectInfo {
    fn from(info: storage::ObjectInfo) -> Self {
        Self { size: info.size, content_type: info.content_type, sha256: info.sha256, created: info.created_ms, etag: info.etag }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotFound => Error::NotFound,
            StorageError::Conflict => Error::Conflict,
            StorageError::Limit(what) => Error::Limit(what),
            StorageError::Unavailable(what) => Error::Unavailable(what),
        }
    }
}
