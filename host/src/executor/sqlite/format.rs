//! Files of this program: each appears whole or not at all, carries its kind and version, and is refused by name where
//! it is not what it should be. Nothing that is refused is changed.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::folder::sync_folder;
use super::statement::executor_error;
use crate::executor::ExecutorError;

/// How long SQLite waits for a lock that somebody else holds. Within the process nobody holds one for longer than the
/// checkpoint of a closing connection.
const BUSY_MS_MAX: u64 = 500;

/// Largest text, blob, row or statement: SQLite's own limit of 1 GB would let one statement fill the memory.
const VALUE_BYTES_MAX: i32 = 64 << 20;

/// The kind and version of a file, held in its header (`application_id`, `user_version`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileFormat {
    /// Four letters.
    pub(crate) application: u32,
    /// Grows with every change that older programs do not understand.
    pub(crate) version: u32,
}

/// Databases of components.
pub(crate) const DATABASE_FORMAT: FileFormat = FileFormat { application: u32::from_be_bytes(*b"SYNd"), version: 1 };

/// Which file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file that is at a path now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        let (device, inode) = (std::os::unix::fs::MetadataExt::dev(&metadata), std::os::unix::fs::MetadataExt::ino(&metadata));
        #[cfg(not(unix))]
        let (device, inode) = (0, u64::from(metadata.is_file()));
        Ok(Self { device, inode })
    }

    /// Checks that the path still leads to this file: what is written to a file that was moved or deleted is lost.
    pub(crate) fn check(self, path: &Path) -> Result<(), ExecutorError> {
        match Self::of(path) {
            Ok(found) if found == self => Ok(()),
            Ok(_) => Err(refused(path, "was replaced while it was in use: restart the server")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(refused(path, "was moved or deleted while it was in use: put it back, or restore a backup, and restart the server"))
            }
            Err(error) => Err(failed_at(path, error)),
        }
    }
}

/// Behind the name of a file or folder: an empty file that says that it was made. What was made is never made anew.
pub(crate) const MADE: &str = ".made";

/// Refuses what is not there any more, in words that say what to do.
pub(crate) fn refuse_if_gone(path: &Path) -> Result<(), String> {
    let made = beside(path, MADE);
    if !made.exists() || path.exists() {
        return Ok(());
    }
    Err(format!(
        "{} is gone: put it back, or restore a backup; to begin anew without what it held remove {}",
        path.display(),
        made.display()
    ))
}

/// Notes that a file or folder was made. Blocks.
pub(crate) fn note_made(path: &Path) -> io::Result<()> {
    match fs::File::create_new(beside(path, MADE)) {
        Ok(file) => file.sync_all().and_then(|()| sync_folder(path.parent().unwrap_or(Path::new(".")))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a file of this program; where there is none, and never was, one is made. Write-ahead logging is on, and nothing
/// else is set.
pub(crate) fn open_file(path: &Path, format: FileFormat) -> Result<Connection, ExecutorError> {
    if found(path)?.is_none() {
        let log = beside(path, "-wal");
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0) {
            // A new file in its place would throw the log away.
            return Err(refused(path, format!("is gone, but its log {} is there: put it back, or restore a backup", log.display())));
        }
        refuse_if_gone(path).map_err(ExecutorError::Unavailable)?;
        create_file(path, format)?;
    }
    let connection = open_existing(path, format)?;
    note_made(path).map_err(|error| failed_at(&beside(path, MADE), error))?;
    Ok(connection)
}

/// Opens a file of this program.
pub(crate) fn open_existing(path: &Path, format: FileFormat) -> Result<Connection, ExecutorError> {
    let failed = |error: rusqlite::Error| named(path, executor_error(error));
    match found(path)? {
        None => return Err(refused(path, "is not there: restore a backup")),
        // SQLite would take it for a new database.
        Some(metadata) if metadata.len() == 0 => return Err(refused(path, "is empty, so it is damaged: restore a backup")),
        Some(_) => {}
    }
    let connection = open_raw(path, OpenFlags::empty()).map_err(failed)?;
    // Before anything is read: reading makes a log, which would be as read-only as the file, and stay so.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(refused(path, "cannot be written: its permissions, or the disk, allow reading only"));
    }
    // SQLite keeps both as signed 32-bit numbers.
    let number = |name: &str| connection.query_row(name, [], |row| row.get::<_, i32>(0)).map(i32::cast_unsigned).map_err(failed);
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    number("SELECT count(*) FROM sqlite_schema")?;
    if application != format.application {
        return Err(refused(path, "is not a file of this program"));
    }
    let known = format.version;
    if version > known {
        let newer = format!("has file format {version}, written by a newer version of this program, which knows {known}");
        return Err(refused(path, newer));
    }
    if version < known {
        return Err(refused(path, format!("has file format {version}, which this program cannot read; it knows {known}")));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(refused(path, format!("cannot be used: the file system allows no write-ahead log ({mode})")));
    }
    connection.execute_batch("PRAGMA cell_size_check = ON").map_err(failed)?;
    Ok(connection)
}

/// Opens a connection to what is there.
pub(super) fn open_raw(path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    // No mutex: a connection is used by one thread at a time, which the borrow checker sees to.
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    Ok(connection)
}

/// Gives back so many free pages at the end of a file, moving pages in use to the front.
pub(crate) fn vacuum(connection: &Connection, pages: u32) -> Result<(), rusqlite::Error> {
    // It gives a row for each page, and goes on only when asked for the next.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// An error with the file that it is about, as far as it is about a file.
pub(crate) fn named(path: &Path, error: ExecutorError) -> ExecutorError {
    match error {
        ExecutorError::Unavailable(what) => failed_at(path, what),
        other => other,
    }
}

fn failed_at(path: &Path, error: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Unavailable(format!("{}: {error}", path.display()))
}

fn refused(path: &Path, why: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Unavailable(format!("{} {why}", path.display()))
}

/// What is at a path; none where there is nothing.
fn found(path: &Path) -> Result<Option<Metadata>, ExecutorError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(_) => Err(refused(path, "is in the way: it is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed_at(path, error)),
    }
}

/// Makes a file beside its place and moves it there when it is whole and on disk. So a file without content is never
/// one that was only just begun.
fn create_file(path: &Path, format: FileFormat) -> Result<(), ExecutorError> {
    let failed = |error: io::Error| failed_at(path, error);
    let new = beside(path, ".new");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        // A crash may have left it.
        match fs::remove_file(beside(&new, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    write_header(&new, format).map_err(|error| named(path, executor_error(error)))?;
    // Never over a file that somebody else has made meanwhile.
    match fs::hard_link(&new, path) {
        Ok(()) => fs::remove_file(&new).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&new).map_err(failed)?,
        // Not every file system has links.
        Err(_) => fs::rename(&new, path).map_err(failed)?,
    }
    sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(failed)
}

fn write_header(path: &Path, format: FileFormat) -> Result<(), rusqlite::Error> {
    let connection = open_raw(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    let FileFormat { application, version } = format;
    let application = application.cast_signed();
    // Vacuuming in steps can only be chosen before there is anything in the file.
    connection.execute_batch(&format!(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;
         BEGIN IMMEDIATE; PRAGMA application_id = {application}; PRAGMA user_version = {version}; COMMIT"
    ))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

/// The name of a file with something behind it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
