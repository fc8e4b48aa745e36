//! Objects in a bucket of a store that speaks S3: AWS, R2, MinIO and others.
//!
//! The object of a mount is `PREFIX/MOUNT/KEY`, with what is not a letter, a digit or one of `- _ . /` as `%XX`. Several processes may
//! share it. A listing is in the order of these names, which for keys of plain characters is the order of the keys.

mod address;
mod http;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hyper::Method;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{Attribute, Attributes, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore as _, ObjectStoreExt as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

pub use address::{S3Address, S3AddressError};
use writer::S3Writer;

use super::memory::clamp_range;
use super::{ObjectInfo, ObjectReader, ObjectWriter, Objects, OpenObject, StorageError};
use crate::executor::sqlite::folder::hex;

/// What the store is asked takes at most so long, with all that is tried again; reading and sending bodies is bounded piece by piece.
const OPERATION_MAX: Duration = Duration::from_secs(90);
/// A piece of a body comes within so long.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// Longest name of an object in a bucket.
const NAME_BYTES_MAX: usize = 1024;
/// Objects that a store lists at once.
const PAGE_COUNT: usize = 1000;
/// Characters of keys that stay as they are, beside letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// What stands for nothing between two `/`: a name in a bucket cannot have that.
const EMPTY: &str = "%";
/// The metadata that holds the hash of a content.
const SHA256: &str = "sha256";

/// A bucket and the place in it.
struct Bucket {
    client: AmazonS3,
    address: S3Address,
}

/// Objects in a bucket.
pub struct S3Objects {
    bucket: Arc<Bucket>,
}

/// An object as the store sends it.
struct S3Reader {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
}

impl S3Objects {
    /// Opens the place in a bucket, which must answer.
    pub async fn open(address: S3Address) -> Result<Self, S3AddressError> {
        let bucket = Arc::new(Bucket { client: address.client()?, address });
        bucket.list(&bucket.address.prefix, None, 1).await?;
        Ok(Self { bucket })
    }
}

impl Bucket {
    /// What the names of a mount's objects begin with.
    fn place(&self, mount: &str) -> String {
        format!("{}{}/", self.address.prefix, segment(mount))
    }

    fn location(&self, mount: &str, key: &str) -> Result<Path, StorageError> {
        let name = format!("{}{}", self.place(mount), encoded(key));
        if name.len() > NAME_BYTES_MAX {
            return Err(StorageError::Limit("size of a key".to_owned()));
        }
        Path::parse(&name).map_err(|error| StorageError::Unavailable(error.to_string()))
    }

    async fn list(&self, prefix: &str, after: Option<String>, count: usize) -> object_store::Result<Vec<ObjectMeta>> {
        let options = PaginatedListOptions { offset: after, max_keys: Some(count), ..PaginatedListOptions::default() };
        Ok(self.client.list_paginated(Some(prefix), options).await?.result.objects)
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult, StorageError> {
        within(self.client.get_opts(location, options)).await
    }
}

/// One part of a key, as a part of a name.
fn segment(text: &str) -> String {
    match text {
        "" => EMPTY.to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(text, ESCAPED).to_string(),
    }
}

fn encoded(key: &str) -> String {
    key.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The key of a name; none where it is the name of something else.
fn decoded(name: &str) -> Option<String> {
    let part = |part: &str| match part {
        EMPTY => Some(String::new()),
        _ => percent_decode_str(part).decode_utf8().ok().map(|text| text.into_owned()),
    };
    let key = name.split('/').map(part).collect::<Option<Vec<_>>>()?.join("/");
    // Names that no key has may be somebody else's.
    (encoded(&key) == name).then_some(key)
}

fn attributes(content_type: &str, sha256: Option<&str>) -> Attributes {
    let mut attributes = Attributes::new();
    if !content_type.is_empty() {
        attributes.insert(Attribute::ContentType, content_type.to_owned().into());
    }
    if let Some(sha256) = sha256 {
        attributes.insert(Attribute::Metadata(SHA256.into()), sha256.to_owned().into());
    }
    attributes
}

fn etag(given: Option<&str>) -> String {
    given.unwrap_or_default().trim_matches('"').to_owned()
}

fn info(meta: &ObjectMeta, attributes: &Attributes) -> ObjectInfo {
    let text = |attribute| attributes.get(&attribute).map(|value| value.as_ref().to_owned());
    ObjectInfo {
        size: meta.size,
        content_type: text(Attribute::ContentType).unwrap_or_default(),
        sha256: text(Attribute::Metadata(SHA256.into())),
        created_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        etag: etag(meta.e_tag.as_deref()),
    }
}

fn storage_error(error: object_store::Error) -> StorageError {
    match error {
        object_store::Error::NotFound { .. } => StorageError::NotFound,
        object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. } => StorageError::Conflict,
        other => StorageError::Unavailable(other.to_string()),
    }
}

/// What the store says, if it says it in time.
async fn within<T>(work: impl Future<Output = object_store::Result<T>>) -> Result<T, StorageError> {
    match timeout(OPERATION_MAX, work).await {
        Ok(result) => result.map_err(storage_error),
        Err(_) => Err(StorageError::Unavailable("the store does not answer".to_owned())),
    }
}

#[async_trait]
impl ObjectReader for S3Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            match timeout(PIECE_MAX, self.stream.next()).await {
                Ok(Some(Ok(piece))) if piece.is_empty() => {}
                Ok(piece) => return piece.transpose().map_err(storage_error),
                Err(_) => return Err(StorageError::Unavailable("the store does not send".to_owned())),
            }
        }
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        let location = self.bucket.location(mount, key)?;
        let found = self.bucket.get(&location, GetOptions { head: true, ..GetOptions::default() }).await?;
        Ok(info(&found.meta, &found.attributes))
    }

    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        let mut open = self.open(mount, key, range).await?;
        let length = usize::try_from(open.length).map_err(|_| StorageError::Limit("memory".to_owned()))?;
        let mut content = Vec::new();
        content.try_reserve_exact(length).map_err(|_| StorageError::Limit("memory".to_owned()))?;
        while let Some(piece) = open.reader.next().await? {
            content.extend_from_slice(&piece);
        }
        Ok(content.into())
    }

    async fn write(&self, mount: &str, key: &str, content_type: &str, content: Bytes) -> Result<ObjectInfo, StorageError> {
        let sha256 = hex(&Sha256::digest(&content));
        let mut writer = self.create(mount, key, content_type).await?;
        writer.write(content).await?;
        writer.finish(&sha256).await
    }

    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        let location = self.bucket.location(mount, key)?;
        let range = match range {
            None => None,
            Some(_) => {
                // A store refuses a range that begins behind the end, or is empty.
                let known = self.head(mount, key).await?;
                let (start, length) = clamp_range(known.size, range);
                if length == 0 {
                    return Ok(OpenObject {
                        info: known,
                        length,
                        reader: Box::new(S3Reader { stream: futures_util::stream::empty().boxed() }),
                    });
                }
                Some(GetRange::Bounded(start..start + length))
            }
        };
        let found = self.bucket.get(&location, GetOptions { range, ..GetOptions::default() }).await?;
        let info = info(&found.meta, &found.attributes);
        let length = found.range.end - found.range.start;
        Ok(OpenObject { info, length, reader: Box::new(S3Reader { stream: found.into_stream() }) })
    }

    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        let location = self.bucket.location(mount, key)?;
        Ok(Box::new(S3Writer::new(self.bucket.clone(), location, content_type)))
    }

    async fn presign_download(&self, mount: &str, key: &str, valid_ms: u64) -> Result<Option<String>, StorageError> {
        self.bucket.presigned(Method::GET, mount, key, valid_ms).await
    }

    /// The store compares neither hash nor size: who reads the object first does.
    async fn presign_upload(&self, mount: &str, key: &str, _: &str, _: u64, valid_ms: u64) -> Result<Option<String>, StorageError> {
        self.bucket.presigned(Method::PUT, mount, key, valid_ms).await
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        let location = self.bucket.location(mount, key)?;
        match within(self.bucket.client.delete(&location)).await {
            Err(StorageError::NotFound) => Ok(()),
            other => other,
        }
    }

    /// The content type and the hash are not part of a listing.
    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let place = self.bucket.place(mount);
        // What follows the last `/` is compared here: alone it may be written otherwise than as a whole.
        let folder = prefix.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{}/", encoded(folder)));
        let within_folder = format!("{place}{folder}");
        let (mut listed, mut after) = (Vec::new(), after.map(|after| format!("{place}{}", encoded(after))));
        while listed.len() < limit as usize {
            let page = within(self.bucket.list(&within_folder, after.clone(), PAGE_COUNT)).await?;
            let (whole, last) = (page.len() < PAGE_COUNT, page.last().map(|meta| meta.location.to_string()));
            let keyed = page.iter().filter_map(|meta| {
                let key = decoded(meta.location.as_ref().strip_prefix(&place)?)?;
                key.starts_with(prefix).then(|| (key, info(meta, &Attributes::new())))
            });
            listed.extend(keyed.take(limit as usize - listed.len()));
            if whole {
                break;
            }
            after = last;
        }
        Ok(listed)
    }

    async fn ready(&self) -> Result<(), StorageError> {
        within(self.bucket.list(&self.bucket.address.prefix, None, 1)).await.map(drop)
    }
}

impl Bucket {
    async fn presigned(&self, method: Method, mount: &str, key: &str, valid_ms: u64) -> Result<Option<String>, StorageError> {
        if !self.address.presigns {
            return Ok(None);
        }
        let location = self.location(mount, key)?;
        let url = within(self.client.signed_url(method, &location, Duration::from_millis(valid_ms))).await?;
        Ok(Some(url.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_plain_keys_are_the_keys() {
        assert_eq!(encoded("plasma/blobs/0a1b/00ff"), "plasma/blobs/0a1b/00ff");
        assert_eq!(encoded("/a//../b c/ü"), "%/a/%/%2E%2E/b%20c/%C3%BC");
        assert_eq!(decoded("somebody else's"), None);
    }

    proptest! {
        #[test]
        fn every_key_has_a_name_of_its_own_that_gives_it_back(key in "(/|\\.|%|a|[^a]){0,12}") {
            let name = encoded(&key);
            prop_assert_eq!(decoded(&name), Some(key));
            let location = Path::parse(&name).unwrap();
            prop_assert_eq!(location.as_ref(), name);
        }
    }
}
