//! The folder that a backup is written to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::{FileEntry, MANIFEST, Manifest};
use super::{BackupError, CallOff, DATA};
use crate::executor::sqlite::folder::{create_folder, hex, sync_folder};
use crate::storage::memory::system_clock;

/// Bytes read or written at once.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// A backup that is being written.
pub struct Target {
    folder: PathBuf,
    files: Vec<FileEntry>,
    /// Folders with entries that are not on disk yet.
    folders: BTreeSet<PathBuf>,
    call_off: CallOff,
}

impl Target {
    pub(super) fn new(folder: PathBuf, call_off: CallOff) -> Self {
        Self { folder, files: Vec::new(), folders: BTreeSet::new(), call_off }
    }

    /// An error once the backup has been called off. To be asked every now and then.
    pub fn check(&self) -> Result<(), BackupError> {
        self.call_off.check()
    }

    /// Where a file is to be written; `relative` is its place below a data folder. Its folder is made.
    pub fn place(&mut self, relative: &Path) -> Result<PathBuf, BackupError> {
        self.check()?;
        let path = self.folder.join(DATA).join(relative);
        let folder = path.parent().unwrap_or(&self.folder);
        if self.folders.insert(folder.to_owned()) {
            create_folder(folder).map_err(|error| BackupError::io(folder, error))?;
        }
        Ok(path)
    }

    /// The file at the place of `relative` is complete. It is brought to disk and listed.
    pub fn finished(&mut self, relative: &Path) -> Result<(), BackupError> {
        let path = self.place(relative)?;
        let failed = |error| BackupError::io(&path, error);
        let mut file = File::open(&path).map_err(failed)?;
        let mut digest = Sha256::new();
        let size_bytes = self.read_all(&mut file, &path, |chunk| {
            digest.update(chunk);
            Ok(())
        })?;
        file.sync_all().map_err(failed)?;
        self.list(relative, size_bytes, digest)
    }

    /// Copies a file's rest to the place of `relative`, brings it to disk and lists it.
    pub fn copy(&mut self, source: &mut File, relative: &Path) -> Result<(), BackupError> {
        let path = self.place(relative)?;
        let failed = |error| BackupError::io(&path, error);
        let mut file = File::create_new(&path).map_err(failed)?;
        let mut digest = Sha256::new();
        let size_bytes = self.read_all(source, &path, |chunk| {
            digest.update(chunk);
            file.write_all(chunk).map_err(failed)
        })?;
        file.sync_all().map_err(failed)?;
        self.list(relative, size_bytes, digest)
    }

    fn read_all(&self, source: &mut File, path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), BackupError>) -> Result<u64, BackupError> {
        let (mut chunk, mut size_bytes) = (vec![0; CHUNK_BYTES], 0);
        loop {
            self.check()?;
            match source.read(&mut chunk).map_err(|error| BackupError::io(path, error))? {
                0 => return Ok(size_bytes),
                length => {
                    take(&chunk[..length])?;
                    size_bytes += length as u64;
                }
            }
        }
    }

    fn list(&mut self, relative: &Path, size_bytes: u64, digest: Sha256) -> Result<(), BackupError> {
        let text = relative.to_str().ok_or_else(|| {
            BackupError::io(relative, std::io::Error::new(std::io::ErrorKind::InvalidInput, "the name of the file is not UTF-8"))
        })?;
        self.files.push(FileEntry { path: text.to_owned(), size_bytes, sha256: hex(&digest.finalize()) });
        Ok(())
    }

    /// Brings all names to disk and then writes the manifest, which makes it a backup.
    pub(super) fn seal(self) -> Result<Manifest, BackupError> {
        self.check()?;
        let data = self.folder.join(DATA);
        for folder in self.folders.iter().rev().chain([&data]) {
            sync_folder(folder).map_err(|error| BackupError::io(folder, error))?;
        }
        let manifest = Manifest::new(self.files, system_clock()());
        let (path, temporary) = (self.folder.join(MANIFEST), self.folder.join(format!("{MANIFEST}.unfinished")));
        let failed = |error| BackupError::io(&path, error);
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(std::io::Error::other(error)))?;
        let mut file = File::create_new(&temporary).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&temporary, &path).and_then(|()| sync_folder(&self.folder)).map_err(failed)?;
        Ok(manifest)
    }
}
