//! `syncline:host/storage`: key-value facts and objects of the mount whose call is under way.

use crate::back::{Back, Opened};
use crate::bindings::exports::syncline::host::storage::{Error, ObjectInfo};
use crate::call::{Call, Deferred};
use crate::objects::{self, Folder, Objects, check_key, rows, storage_error};
use crate::sql::{self, Dialect, Value};
use crate::store::keyvalue;

/// Keys or objects in one listing.
const LISTED_MAX: u32 = 10_000;
/// Bytes that are read at once.
const READ_BYTES_MAX: u64 = 64 << 20;
/// Longest key of a fact.
const FACT_KEY_BYTES_MAX: usize = 64 << 10;

/// What must not be split: the errors of the database, and those of the storage alone.
type Done<T> = Result<Result<T, Error>, sql::Error>;

impl Back {
    fn in_call<T>(&self, run: impl FnOnce(&Back, &mut Call) -> Done<T>) -> Result<T, Error> {
        self.with_call(run).unwrap_or_else(|error| Err(storage_error(error)))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.in_call(|back, call| {
            if let Some(own) = call.overlay.get(key) {
                return Ok(Ok(own.clone()));
            }
            let (mount, now_ms) = (call.mount.clone(), back.now_ms());
            back.read(call, |run| keyvalue::get(run, &mount, key, now_ms)).map(Ok)
        })
    }

    /// Sets a key when the effects are released.
    pub fn set(&self, key: String, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), Error> {
        self.in_call(|_, call| {
            if key.len() > FACT_KEY_BYTES_MAX {
                return Ok(Err(Error::Limit("size of a key".into())));
            }
            call.overlay.insert(key.clone(), Some(value.clone()));
            call.defer(Deferred::Set { key, value, time_to_live_ms });
            Ok(Ok(()))
        })
    }

    /// Removes a key when the effects are released.
    pub fn delete(&self, key: String) -> Result<(), Error> {
        self.in_call(|_, call| {
            call.overlay.insert(key.clone(), None);
            call.defer(Deferred::Delete { key });
            Ok(Ok(()))
        })
    }

    /// Adds to a counter, at once.
    pub fn increment(&self, key: &str, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, Error> {
        if delta == 0 {
            return self.counter(key);
        }
        self.in_call(|back, call| {
            if key.len() > FACT_KEY_BYTES_MAX {
                return Ok(Err(Error::Limit("size of a key".into())));
            }
            call.unrepeatable = true;
            let write = keyvalue::increment(&call.mount, key, delta, time_to_live_ms, back.now_ms());
            let rows = back.write_lasting(call, write, false)?.rows;
            Ok(match rows.first().and_then(|row| row.first()) {
                Some(Value::Integer(sum)) => Ok(*sum),
                _ => Err(Error::Conflict),
            })
        })
    }

    fn counter(&self, key: &str) -> Result<i64, Error> {
        let kept = self.in_call(|back, call| {
            let (mount, now_ms) = (call.mount.clone(), back.now_ms());
            back.read(call, |run| keyvalue::get(run, &mount, key, now_ms)).map(Ok)
        })?;
        match kept {
            None => Ok(0),
            Some(value) => std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or(Error::Conflict),
        }
    }

    /// Sets a key if it holds what is expected, at once.
    pub fn compare_and_set(&self, key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<bool, Error> {
        self.in_call(|back, call| {
            if key.len() > FACT_KEY_BYTES_MAX {
                return Ok(Err(Error::Limit("size of a key".into())));
            }
            call.unrepeatable = true;
            let write = keyvalue::compare_and_set(&call.mount, key, expected, value, back.now_ms());
            Ok(Ok(!back.write_lasting(call, write, false)?.rows.is_empty()))
        })
    }

    /// Keys in order.
    pub fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, Error> {
        check_limit(limit)?;
        self.in_call(|back, call| {
            let (mount, now_ms) = (call.mount.clone(), back.now_ms());
            back.read(call, |run| keyvalue::keys(run, &mount, prefix, after, limit, now_ms)).map(Ok)
        })
    }

    /// A word for the other parts of the call.
    pub fn note(&self, key: String, value: Vec<u8>) {
        self.try_call(|call| {
            if call.weigh(key.len() + value.len()) {
                call.notes.insert(key, value);
            }
        });
    }

    /// What was noted.
    pub fn noted(&self, key: &str) -> Option<Vec<u8>> {
        self.try_call(|call| call.notes.get(key).cloned()).flatten()
    }

    /// The folder of a key, and the path in it.
    pub fn folder_of(&self, mount: &str, key: &str) -> Option<(Folder, String)> {
        let mounts = self.mounts.borrow();
        let found = |folder: &crate::bindings::exports::syncline::spin::adapter::Folder| {
            let relative = key.strip_prefix(&folder.prefix)?.to_owned();
            Some((Folder::new(&folder.prefix, &folder.path), relative))
        };
        mounts.get(mount)?.folders.iter().find_map(found)
    }

    /// Files are never written.
    pub fn refuse_folder(&self, mount: &str, key: &str) -> Result<(), Error> {
        match self.folder_of(mount, key) {
            Some(_) => Err(Error::Limit("files of a folder are never written".into())),
            None => Ok(()),
        }
    }

    /// What is known of an object.
    pub fn head_object(&self, key: &str) -> Result<ObjectInfo, Error> {
        self.in_call(|back, call| {
            if let Some((folder, relative)) = back.folder_of(&call.mount, key) {
                return Ok(folder.head(&relative));
            }
            let (opened, mount) = (back.opened()?, call.mount.clone());
            match &opened.objects {
                Objects::Rows(_) => Ok(back.read(call, |run| rows::head(run, &mount, key))?.map(|row| row.info).ok_or(Error::NotFound)),
                Objects::Bucket(bucket) => Ok(bucket.head(&mount, key)),
            }
        })
    }

    /// An object outside of calls.
    pub fn find_object(&self, opened: &Opened, mount: &str, key: &str) -> Result<Option<ObjectInfo>, Error> {
        let found = match &opened.objects {
            Objects::Rows(database) => {
                let found = rows::head(&mut |template, parameters| database.run(template, parameters), mount, key);
                return found.map(|row| row.map(|row| row.info)).map_err(storage_error);
            }
            Objects::Bucket(bucket) => bucket.head(mount, key),
        };
        match found {
            Ok(info) => Ok(Some(info)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of an object, or a piece of them.
    pub fn read_object(&self, key: &str, range: Option<(u64, u64)>) -> Result<Vec<u8>, Error> {
        self.in_call(|back, call| {
            if let Some((folder, relative)) = back.folder_of(&call.mount, key) {
                return Ok(folder.read(&relative, range, READ_BYTES_MAX));
            }
            let (opened, mount) = (back.opened()?, call.mount.clone());
            match &opened.objects {
                Objects::Rows(_) => back.read(call, |run| read_rows(run, &mount, key, range)),
                Objects::Bucket(bucket) => Ok(bucket.head(&mount, key).and_then(|info| {
                    let (start, length) = objects::clamp(info.size, range);
                    check_length(length)?;
                    if length == 0 { Ok(Vec::new()) } else { bucket.read(&mount, key, &info.etag, start, length) }
                })),
            }
        })
    }

    /// Makes or replaces an object, at once.
    pub fn write_object(&self, key: &str, content_type: &str, content: Vec<u8>) -> Result<ObjectInfo, Error> {
        self.in_call(|back, call| {
            let (opened, mount) = (back.opened()?, call.mount.clone());
            let size = content.len() as u64;
            let allowed = check_key(key).and_then(|()| back.refuse_folder(&mount, key)).and_then(|()| {
                if size > opened.settings.object_bytes_max { Err(Error::Limit("size of an object".into())) } else { Ok(()) }
            });
            let allowed = allowed.and_then(|()| match opened.settings.quota_bytes {
                Some(_) if back.room(&opened, &mount, key)? < size => Err(Error::Limit("quota of the mount".into())),
                _ => Ok(()),
            });
            if let Err(error) = allowed {
                return Ok(Err(error));
            }
            let database = match &opened.objects {
                Objects::Rows(database) => database,
                Objects::Bucket(bucket) => {
                    let sha256 = objects::sha256(&content);
                    return Ok(bucket.write(&mount, key, content_type, &sha256, content));
                }
            };
            let id = (back.ports.clock.random() >> 1).cast_signed();
            let (writes, info) = rows::write(&mount, key, content_type, &content, id, back.now_ms());
            if call.root.is_some() && database.dialect() == Dialect::Sqlite {
                for write in writes {
                    back.write_lasting(call, write, false)?;
                }
            } else {
                let written = database.write(|link| {
                    for (template, parameters) in &writes {
                        link.run(&database.own(template), parameters)?;
                    }
                    Ok(())
                });
                call.noted(written)?;
            }
            Ok(Ok(info))
        })
    }

    /// How many bytes an object under a key may have, for the quota of the mount.
    pub fn room(&self, opened: &Opened, mount: &str, key: &str) -> Result<u64, Error> {
        let Some(quota) = opened.settings.quota_bytes else { return Ok(u64::MAX) };
        let before = self.find_object(opened, mount, key)?.map_or(0, |info| info.size);
        let others = opened.objects.object_bytes(mount)?.saturating_sub(before);
        // What is as small as what it replaces always may come.
        Ok(quota.saturating_sub(others).max(before))
    }

    /// Removes an object when the effects are released.
    pub fn delete_object(&self, key: String) -> Result<(), Error> {
        self.in_call(|back, call| {
            if let Err(error) = back.refuse_folder(&call.mount, &key) {
                return Ok(Err(error));
            }
            call.defer(Deferred::DeleteObject { key });
            Ok(Ok(()))
        })
    }

    /// Removes an object.
    pub fn remove_object(&self, opened: &Opened, mount: &str, key: &str) -> Result<(), sql::Error> {
        match &opened.objects {
            Objects::Rows(database) => database.write(|link| {
                for (template, parameters) in rows::delete(mount, key) {
                    link.run(&database.own(template), &parameters)?;
                }
                Ok(())
            }),
            Objects::Bucket(bucket) => bucket.delete(mount, key).map_err(|error| sql::Error::Unavailable(format!("{error:?}"))),
        }
    }

    /// Objects in order.
    pub fn list_objects(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, Error> {
        check_limit(limit)?;
        self.in_call(|back, call| {
            let (opened, mount) = (back.opened()?, call.mount.clone());
            let listed = match &opened.objects {
                Objects::Rows(_) => Ok(back.read(call, |run| rows::list(run, &mount, prefix, after, limit))?),
                Objects::Bucket(bucket) => bucket.list(&mount, prefix, after, limit),
            };
            Ok(listed.and_then(|listed| back.with_files(&mount, listed, prefix, after, limit)))
        })
    }

    fn with_files(
        &self,
        mount: &str,
        mut listed: Vec<(String, ObjectInfo)>,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, ObjectInfo)>, Error> {
        let folders = self.mounts.borrow().get(mount).map(|mount| mount.folders.clone()).unwrap_or_default();
        for folder in folders.iter().filter(|folder| folder.prefix.starts_with(prefix) || prefix.starts_with(&folder.prefix)) {
            listed.extend(Folder::new(&folder.prefix, &folder.path).list()?);
        }
        listed.retain(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        listed.sort_by(|(left, _), (right, _)| left.cmp(right));
        listed.truncate(limit as usize);
        Ok(listed)
    }

    /// A URL that gives the object; none where the store cannot sign.
    pub fn presign_download(&self, key: &str, valid_ms: u64) -> Result<Option<String>, Error> {
        self.presign("GET", key, valid_ms)
    }

    /// A URL that takes the object. The store compares neither hash nor size: who reads the object first does.
    pub fn presign_upload(&self, key: &str, valid_ms: u64) -> Result<Option<String>, Error> {
        self.in_call(|back, call| Ok(back.refuse_folder(&call.mount, key)))?;
        self.presign("PUT", key, valid_ms)
    }

    fn presign(&self, method: &str, key: &str, valid_ms: u64) -> Result<Option<String>, Error> {
        self.in_call(|back, call| {
            let opened = back.opened()?;
            Ok(match &opened.objects {
                Objects::Bucket(bucket) if back.folder_of(&call.mount, key).is_none() => {
                    bucket.presign(method, &call.mount, key, valid_ms).map(Some)
                }
                _ => Ok(None),
            })
        })
    }
}

fn read_rows(run: sql::Run<'_>, mount: &str, key: &str, range: Option<(u64, u64)>) -> Done<Vec<u8>> {
    let Some(row) = rows::head(run, mount, key)? else { return Ok(Err(Error::NotFound)) };
    let (mut at, length) = objects::clamp(row.info.size, range);
    if let Err(error) = check_length(length) {
        return Ok(Err(error));
    }
    let (end, mut content) = (at + length, Vec::new());
    while at < end {
        let piece = rows::piece(run, row.id, at, end - at)?;
        at += piece.len() as u64;
        content.extend_from_slice(&piece);
    }
    Ok(Ok(content))
}

fn check_limit(limit: u32) -> Result<(), Error> {
    if limit > LISTED_MAX {
        return Err(Error::Limit(format!("more than {LISTED_MAX} names at once")));
    }
    Ok(())
}

fn check_length(length: u64) -> Result<(), Error> {
    if length > READ_BYTES_MAX {
        return Err(Error::Limit(format!("more than {READ_BYTES_MAX} bytes at once")));
    }
    Ok(())
}
