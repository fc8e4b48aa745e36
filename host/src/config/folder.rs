//! The data folder of a process.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError};
use crate::backup::restore::UNFINISHED;
use crate::executor::sqlite::folder::{FolderLock, create_folder};

/// The data folder, which belongs to one process at a time.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// None where the executor works in the same folder: it takes the lock itself.
    _lock: Option<FolderLock>,
}

impl DataFolder {
    /// The folder, as a whole path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Config {
    /// Makes the data folder where there is none, for its owner alone, and takes it for this process. Refused where a
    /// restore was not finished.
    pub fn take_data_folder(&self) -> Result<DataFolder, ConfigError> {
        let failed = |error| ConfigError::Read { path: self.data.display().to_string(), error };
        if self.data.exists() && !self.data.is_dir() {
            let message = format!("{} is not a folder", self.data.display());
            return Err(ConfigError::Value { key: "data".into(), message });
        }
        create_folder(&self.data).map_err(failed)?;
        let path = self.data.canonicalize().map_err(failed)?;
        if path.join(UNFINISHED).exists() {
            let message = format!("{}: a restore into it was not finished; empty the folder and restore again", self.data.display());
            return Err(ConfigError::Value { key: "data".into(), message });
        }
        let places = self.places()?;
        let executors = places.executor.folder().and_then(|folder| folder.canonicalize().ok());
        let lock = match executors {
            Some(executors) if executors == path => None,
            _ => Some(
                FolderLock::take(&path, "lock").map_err(|error| ConfigError::Value { key: "data".into(), message: error.to_string() })?,
            ),
        };
        Ok(DataFolder { path, _lock: lock })
    }
}
