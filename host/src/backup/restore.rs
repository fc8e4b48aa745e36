//! A backup becomes a data folder.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::{FileEntry, MANIFEST, Manifest, ManifestError};
use super::target::CHUNK_BYTES;
use super::{BackupError, DATA};
use crate::executor::sqlite::FolderError;
use crate::executor::sqlite::folder::{FolderLock, create_folder, hex, sync_folder};

/// Lies in a data folder as long as a restore into it is not finished: nothing is served from such a folder.
pub const UNFINISHED: &str = "restore.unfinished";

/// What may lie in a data folder that a backup is restored into.
const HARMLESS: [&str; 2] = ["lock", "cache"];

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder has no manifest.
    #[error("{} is not a backup: it has no {MANIFEST}", .0.display())]
    NotABackup(PathBuf),
    /// The manifest cannot be used.
    #[error("{}: {error}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        error: ManifestError,
    },
    /// A file is missing, or is not what the manifest says.
    #[error("the backup is damaged: {} {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The data folder holds something.
    #[error("{} is not empty; name a new folder, or move away what is there{}", .folder.display(), if *.unfinished { " (an earlier restore was not finished)" } else { "" })]
    NotEmpty {
        /// The data folder.
        folder: PathBuf,
        /// What it holds is part of a restore.
        unfinished: bool,
    },
    /// The data folder is in use, or cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] BackupError),
}

/// Makes a data folder of a backup. Every file is checked before the first one is written. Blocks.
pub fn restore(backup: &Path, data: &Path) -> Result<Manifest, RestoreError> {
    let manifest = check(backup)?;
    create_folder(data).map_err(|error| BackupError::io(data, error))?;
    // One that was there may be open to others.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(|error| BackupError::io(data, error))?;
    let lock = FolderLock::take(data, "lock")?;
    refuse_unless_empty(data)?;
    let marker = data.join(UNFINISHED);
    let failed = |error| BackupError::io(&marker, error);
    File::create_new(&marker).and_then(|file| file.sync_all()).and_then(|()| sync_folder(data)).map_err(failed)?;
    let mut folders = std::collections::BTreeSet::new();
    for file in &manifest.files {
        let (from, to) = (backup.join(DATA).join(&file.path), data.join(&file.path));
        let folder = to.parent().unwrap_or(data);
        create_folder(folder).map_err(|error| BackupError::io(folder, error))?;
        folders.insert(folder.to_owned());
        let mut written = File::create_new(&to).map_err(|error| BackupError::io(&to, error))?;
        // Once more, as it may have changed since it was checked.
        compare(&from, file, |chunk| written.write_all(chunk).map_err(|error| BackupError::io(&to, error)))?;
        written.sync_all().map_err(|error| BackupError::io(&to, error))?;
    }
    for folder in folders.iter().rev() {
        sync_folder(folder).map_err(|error| BackupError::io(folder, error))?;
    }
    std::fs::remove_file(&marker).and_then(|()| sync_folder(data)).map_err(failed)?;
    drop(lock);
    Ok(manifest)
}

/// Sees whether a folder is a backup, and whole. Blocks.
pub fn check(backup: &Path) -> Result<Manifest, RestoreError> {
    let path = backup.join(MANIFEST);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(RestoreError::NotABackup(backup.to_owned())),
        Err(error) => return Err(BackupError::io(&path, error).into()),
    };
    let manifest = Manifest::parse(&text).map_err(|error| RestoreError::Manifest { path, error })?;
    for file in &manifest.files {
        compare(&backup.join(DATA).join(&file.path), file, |_| Ok(()))?;
    }
    Ok(manifest)
}

/// Reads a file of a backup, which must be what the manifest says.
fn compare(path: &Path, expected: &FileEntry, mut take: impl FnMut(&[u8]) -> Result<(), BackupError>) -> Result<(), RestoreError> {
    let damaged = |what| RestoreError::Damaged { path: path.to_owned(), what };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => damaged("is missing"),
        _ => BackupError::io(path, error).into(),
    };
    let mut file = File::open(path).map_err(failed)?;
    let (mut chunk, mut size_bytes, mut digest) = (vec![0; CHUNK_BYTES], 0, Sha256::new());
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => break,
            length => {
                take(&chunk[..length])?;
                digest.update(&chunk[..length]);
                size_bytes += length as u64;
            }
        }
    }
    if size_bytes != expected.size_bytes {
        return Err(damaged("has another length"));
    }
    if hex(&digest.finalize()) != expected.sha256 {
        return Err(damaged("has another content"));
    }
    Ok(())
}

fn refuse_unless_empty(data: &Path) -> Result<(), RestoreError> {
    let failed = |error| BackupError::io(data, error);
    for entry in std::fs::read_dir(data).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name.to_str().is_some_and(|name| HARMLESS.contains(&name)) {
            return Err(RestoreError::NotEmpty { folder: data.to_owned(), unfinished: data.join(UNFINISHED).exists() });
        }
    }
    Ok(())
}
