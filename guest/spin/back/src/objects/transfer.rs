//! Objects on their way past the logic: written and read piece by piece.

use std::fs::File;
use std::io::Read;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::{Objects, PIECE_BYTES, clamp, folders, hex, rows, storage_error};
use crate::back::{Back, Opened};
use crate::bindings::exports::syncline::host::storage::{Error, ObjectInfo};
use crate::bindings::exports::syncline::spin::adapter::{Stored, UploadFailure};
use crate::sql;

/// Bytes of a part in a bucket: stores want at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Bytes that are asked of a bucket at once.
const FETCH_BYTES: u64 = 4 << 20;

/// What of an upload has left the memory.
enum Sent {
    /// Nothing yet.
    Nothing,
    /// So many pieces, as rows.
    Pieces(u64),
    /// Parts in a bucket.
    Parts { upload: String, etags: Vec<String> },
}

/// A body that becomes an object. Dropped before its end it leaves nothing.
pub struct Upload {
    opened: Rc<Opened>,
    mount: String,
    key: String,
    content_type: String,
    sha256: Option<String>,
    bytes_max: u64,
    id: i64,
    digest: Sha256,
    size: u64,
    held: Vec<u8>,
    sent: Sent,
    failure: Option<UploadFailure>,
    done: bool,
}

impl Upload {
    /// A body that begins.
    pub fn new(
        back: &Back,
        mount: String,
        key: String,
        content_type: String,
        sha256: Option<String>,
        max_bytes: u64,
    ) -> Result<Self, Error> {
        let opened = back.opened().map_err(storage_error)?;
        super::check_key(&key)?;
        back.refuse_folder(&mount, &key)?;
        let bytes_max = max_bytes.min(opened.settings.object_bytes_max).min(back.room(&opened, &mount, &key)?);
        let id = (back.ports.clock.random() >> 1).cast_signed();
        let digest = Sha256::new();
        let (size, held, sent) = (0, Vec::new(), Sent::Nothing);
        Ok(Self { opened, mount, key, content_type, sha256, bytes_max, id, digest, size, held, sent, failure: None, done: false })
    }

    /// Takes the next bytes.
    pub fn write(&mut self, back: &Back, bytes: &[u8]) -> Result<(), UploadFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let done = self.take(back, bytes);
        self.failure = done.err();
        done
    }

    fn take(&mut self, back: &Back, bytes: &[u8]) -> Result<(), UploadFailure> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.bytes_max {
            return Err(UploadFailure::TooLarge);
        }
        self.digest.update(bytes);
        let whole = match self.opened.objects {
            Objects::Rows(_) => PIECE_BYTES,
            Objects::Bucket(_) => PART_BYTES,
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            // The last piece stays here until it is known not to be the last: small objects are written at once.
            if self.held.len() == whole {
                self.flush(back).map_err(|error| self.failed(back, &error))?;
            }
            let (some, others) = rest.split_at(rest.len().min(whole - self.held.len()));
            self.held.extend_from_slice(some);
            rest = others;
        }
        Ok(())
    }

    /// Sends what is held.
    fn flush(&mut self, back: &Back) -> Result<(), Error> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Ok(());
        }
        match &self.opened.objects {
            Objects::Rows(database) => {
                let number = if let Sent::Pieces(number) = self.sent { number } else { 0 };
                let (id, now_ms) = (self.id, back.now_ms());
                let written = database.write(|link| {
                    if number == 0 {
                        let (template, parameters) = rows::begin_upload(id, now_ms);
                        link.run(&database.own(template), &parameters)?;
                    }
                    let (template, parameters) = rows::insert_piece(id, number, &held);
                    link.run(&database.own(template), &parameters).map(drop)
                });
                written.map_err(storage_error)?;
                self.sent = Sent::Pieces(number + 1);
            }
            Objects::Bucket(bucket) => {
                if matches!(self.sent, Sent::Nothing) {
                    let upload = bucket.begin_parts(&self.mount, &self.key, &self.content_type, self.sha256.as_deref())?;
                    self.sent = Sent::Parts { upload, etags: Vec::new() };
                }
                if let Sent::Parts { upload, etags } = &mut self.sent {
                    etags.push(bucket.send_part(&self.mount, &self.key, upload, etags.len() + 1, held)?);
                }
            }
        }
        Ok(())
    }

    fn failed(&self, back: &Back, error: &Error) -> UploadFailure {
        let error = format!("{error:?}");
        back.log_own("warn", "a body could not become an object", &[("mount", self.mount.as_str()), ("error", error.as_str())]);
        UploadFailure::Unavailable
    }

    /// Makes it an object.
    pub fn finish(mut self, back: &Back) -> Result<Stored, UploadFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let sha256 = hex(&std::mem::take(&mut self.digest).finalize());
        if self.sha256.as_ref().is_some_and(|expected| *expected != sha256) {
            return Err(UploadFailure::WrongHash);
        }
        let placed = back.find_object(&self.opened, &self.mount, &self.key).map(|found| found.is_some());
        let placed = placed.and_then(|existed| self.place(back, &sha256).map(|()| existed));
        match placed {
            Ok(existed) => {
                self.done = true;
                Ok(Stored { size: self.size, sha256, existed })
            }
            Err(error) => Err(self.failed(back, &error)),
        }
    }

    fn place(&mut self, back: &Back, sha256: &str) -> Result<(), Error> {
        if !matches!(self.sent, Sent::Nothing) {
            self.flush(back)?;
        }
        match &self.opened.objects {
            Objects::Rows(database) => {
                let mut writes = Vec::new();
                if !self.held.is_empty() {
                    writes.push(rows::insert_piece(self.id, 0, &self.held));
                }
                writes.extend(rows::place(&self.mount, &self.key, &self.content_type, self.id, self.size, sha256, back.now_ms()));
                if !matches!(self.sent, Sent::Nothing) {
                    writes.push(rows::end_upload(self.id));
                }
                let written = database.write(|link| {
                    for (template, parameters) in &writes {
                        link.run(&database.own(template), parameters)?;
                    }
                    Ok(())
                });
                written.map_err(storage_error)
            }
            Objects::Bucket(bucket) => match &self.sent {
                Sent::Parts { upload, etags } => bucket.end_parts(&self.mount, &self.key, upload, etags),
                _ => bucket.write(&self.mount, &self.key, &self.content_type, sha256, std::mem::take(&mut self.held)).map(drop),
            },
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // What cannot be removed now is found later: as an upload that took too long, or by a rule of the bucket.
        match (&self.opened.objects, &self.sent) {
            (Objects::Rows(database), Sent::Pieces(_)) => {
                let _ = database.write(|link| {
                    for (template, parameters) in [rows::delete_pieces(self.id), rows::end_upload(self.id)] {
                        link.run(&database.own(template), &parameters)?;
                    }
                    Ok::<(), sql::Error>(())
                });
            }
            (Objects::Bucket(bucket), Sent::Parts { upload, .. }) => drop(bucket.abort_parts(&self.mount, &self.key, upload)),
            _ => {}
        }
    }
}

/// Where the bytes come from.
enum Source {
    Rows { id: i64 },
    Bucket { held: Vec<u8> },
    File(File),
}

/// An object that is read piece by piece.
pub struct Download {
    opened: Rc<Opened>,
    mount: String,
    key: String,
    info: ObjectInfo,
    length: u64,
    at: u64,
    end: u64,
    source: Source,
}

impl Download {
    /// Opens an object; none where there is none.
    pub fn open(back: &Back, mount: String, key: String, range: Option<(u64, u64)>) -> Result<Option<Self>, Error> {
        let opened = back.opened().map_err(storage_error)?;
        let (info, source) = match back.folder_of(&mount, &key) {
            Some((folder, relative)) => match folder.open(&relative, range) {
                Ok((file, info, _)) => (info, Source::File(file)),
                Err(Error::NotFound) => return Ok(None),
                Err(error) => return Err(error),
            },
            None => match &opened.objects {
                Objects::Rows(database) => {
                    let found = rows::head(&mut |template, parameters| database.run(template, parameters), &mount, &key);
                    let Some(row) = found.map_err(storage_error)? else { return Ok(None) };
                    (row.info, Source::Rows { id: row.id })
                }
                Objects::Bucket(bucket) => match bucket.head(&mount, &key) {
                    Ok(info) => (info, Source::Bucket { held: Vec::new() }),
                    Err(Error::NotFound) => return Ok(None),
                    Err(error) => return Err(error),
                },
            },
        };
        let (at, length) = clamp(info.size, range);
        Ok(Some(Self { opened, mount, key, info, length, at, end: at + length, source }))
    }

    /// How many bytes come.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What the object is.
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// The next bytes; none at the end.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let left = self.end - self.at;
        if left == 0 {
            return Ok(None);
        }
        let piece = match &mut self.source {
            Source::File(file) => {
                let mut piece = Vec::new();
                file.take(left.min(PIECE_BYTES as u64)).read_to_end(&mut piece).map_err(folders::failed)?;
                piece
            }
            Source::Rows { id } => match &self.opened.objects {
                Objects::Rows(database) => {
                    let found = rows::piece(&mut |template, parameters| database.run(template, parameters), *id, self.at, left);
                    found.map_err(storage_error)?
                }
                Objects::Bucket(_) => Vec::new(),
            },
            Source::Bucket { held } => {
                if held.is_empty()
                    && let Objects::Bucket(bucket) = &self.opened.objects
                {
                    *held = bucket.read(&self.mount, &self.key, &self.info.etag, self.at, left.min(FETCH_BYTES))?;
                }
                held.drain(..held.len().min(PIECE_BYTES)).collect()
            }
        };
        if piece.is_empty() {
            return Err(Error::Unavailable("the object ended early".into()));
        }
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }
}
