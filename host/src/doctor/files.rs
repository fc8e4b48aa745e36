//! What lies in the data folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::Check;
use crate::backup::restore::UNFINISHED;
use crate::executor::sqlite::backup::find_databases;
use crate::executor::sqlite::folder::is_of_known_format;
use crate::executor::sqlite::format::{DATABASE_FORMAT, FileFormat, MADE, refuse_if_gone};
use crate::storage::StorageError;
use crate::storage::files::{object_files, verify_object};
use crate::storage::sqlite::{FILE as KEYVALUE, FORMAT as KEYVALUE_FORMAT};

/// Objects whose content is compared with its hash, unless all are.
const OBJECTS_SAMPLED: usize = 100;
/// So many bad files are named.
const NAMED_MAX: usize = 5;

const RESTORE: &str = "keep a copy of the folder and restore a backup";

/// The folder itself.
pub(super) fn data_folder(data: &Path) -> Vec<Check> {
    let subject = "data folder";
    let shown = data.display();
    if !data.exists() {
        return vec![Check::ok(subject, format!("{shown} is not there yet; the first start makes it"))];
    }
    let mode = match std::fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => metadata.permissions().mode(),
        Ok(_) => return vec![Check::failed(subject, format!("{shown} is not a folder: name another one in `data`"))],
        Err(error) => return vec![Check::failed(subject, format!("{shown}: {error}"))],
    };
    let mut checks = Vec::new();
    if data.join(UNFINISHED).exists() {
        checks.push(Check::failed(subject, format!("a restore into {shown} was not finished: empty it and restore again")));
    }
    if let Err(error) = is_of_known_format(data) {
        checks.push(Check::failed(subject, error.to_string()));
    }
    match rustix::fs::access(data, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Err(error) => checks.push(Check::failed(subject, format!("{shown} cannot be used by this user: {error}"))),
        Ok(()) if mode & 0o077 != 0 => {
            checks.push(Check::warning(subject, format!("others may look into {shown}: chmod 700 {shown}")));
        }
        Ok(()) => checks.push(Check::ok(subject, shown.to_string())),
    }
    checks
}

/// All databases below a folder: one check each where it is bad, one for all that are good.
pub(super) fn databases(folder: &Path) -> Vec<Check> {
    let subject = "databases";
    let found = match find_databases(folder) {
        Ok(found) => found,
        Err(error) => return vec![Check::failed(subject, format!("{}: {error}", folder.display()))],
    };
    let mut checks: Vec<_> = found
        .iter()
        .filter_map(|relative| check_database(&folder.join(relative), DATABASE_FORMAT).err())
        .chain(gone_databases(folder))
        .map(|problem| Check::failed("database", problem))
        .collect();
    if checks.is_empty() {
        checks.push(Check::ok(subject, format!("{} files are whole", found.len())));
    }
    checks
}

/// What is said of databases that were made and are not there.
fn gone_databases(folder: &Path) -> Vec<String> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mounts = entries(folder).filter(|path| path.is_dir());
    let named = mounts.flat_map(|mount| entries(&mount)).filter_map(|path| path.to_str()?.strip_suffix(MADE).map(PathBuf::from));
    named.filter_map(|path| refuse_if_gone(&path).err()).collect()
}

/// The file of key-value facts; nothing where there is none.
pub(super) fn keyvalue(folder: &Path) -> Option<Check> {
    let path = folder.join(KEYVALUE);
    if let Err(problem) = refuse_if_gone(&path) {
        return Some(Check::failed("key-value facts", problem));
    }
    path.exists().then(|| match check_database(&path, KEYVALUE_FORMAT) {
        Ok(()) => Check::ok("key-value facts", "the file is whole"),
        Err(problem) => Check::failed("key-value facts", problem),
    })
}

fn check_database(path: &Path, format: FileFormat) -> Result<(), String> {
    let shown = path.display();
    let damaged = |error: &dyn std::fmt::Display| format!("{shown} is damaged ({error}): {RESTORE}");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| format!("{shown} cannot be opened: {error}"))?;
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        // SQLite would take it for a new one.
        return Err(damaged(&"it is empty"));
    }
    let number = |name: &str| connection.query_row(name, [], |row| row.get::<_, i32>(0)).map_err(|error| damaged(&error));
    let (application, version) = (number("PRAGMA application_id")?.cast_unsigned(), number("PRAGMA user_version")?.cast_unsigned());
    if application != format.application {
        return Err(format!("{shown} is not a file of this program: move it away"));
    }
    if version > format.version {
        return Err(format!("{shown} has file format {version}, this version knows up to {}: use a newer version", format.version));
    }
    let mut statement = connection.prepare("PRAGMA quick_check(3)").map_err(|error| damaged(&error))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match lines.map_err(|error| damaged(&error))?.as_slice() {
        [line] if line == "ok" => Ok(()),
        lines => Err(damaged(&lines.join("; ").replace('\n', " "))),
    }
}

/// All objects below a folder.
pub(super) fn objects(folder: &Path, full: bool) -> Check {
    let subject = "objects";
    if let Err(problem) = refuse_if_gone(folder) {
        return Check::failed(subject, problem);
    }
    let files = match object_files(folder) {
        Ok(files) => files,
        Err(error) => return Check::failed(subject, format!("{}: {error}", folder.display())),
    };
    let step = if full { 1 } else { files.len().div_ceil(OBJECTS_SAMPLED).max(1) };
    let (mut bad, mut compared) = (Vec::new(), 0);
    for (index, path) in files.iter().enumerate() {
        let content = index % step == 0;
        match verify_object(path, content) {
            Ok(()) => compared += usize::from(content),
            // A server may have removed it meanwhile.
            Err(StorageError::NotFound) => {}
            Err(error) => bad.push(error.to_string()),
        }
    }
    if bad.is_empty() {
        let how = if compared == files.len() { String::new() } else { " (--full compares all)".to_owned() };
        return Check::ok(subject, format!("{} files, the content of {compared} compared{how}", files.len()));
    }
    let count = bad.len();
    bad.truncate(NAMED_MAX);
    Check::failed(subject, format!("{count} of {} files are bad: {}: {RESTORE}", files.len(), bad.join("; ")))
}
