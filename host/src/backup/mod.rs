//! Backups: all databases, key-value facts and objects as they were at one moment, copied while writers go on.
//!
//! [`back_up`] holds every writer still for the milliseconds that it takes each backend to *pin* its view
//! ([`Pinned`]); what is pinned is then copied at leisure. The layout of a backup:
//!
//! ```text
//! FOLDER/
//!   manifest.json      written last: without it the folder is no backup
//!   data/…             as below a data folder
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::executor::ExecutorError;
use crate::executor::sqlite::folder::create_folder;
use crate::runtime::Backends;

pub mod manifest;
pub mod restore;
mod target;
#[cfg(test)]
mod tests;

pub use self::manifest::{FileEntry, MANIFEST, Manifest};
pub use self::target::Target;

/// Where everything that is restored lies in a backup.
pub const DATA: &str = "data";

/// How long writers are held still at most. Those that wait meanwhile give up after four seconds.
const STANDSTILL_MAX: Duration = Duration::from_secs(2);
/// How often a standstill is tried.
const STANDSTILL_ATTEMPTS: u32 = 3;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something in the folder.
    #[error("{} is not empty{}", folder.display(), if *unfinished { ": a backup that was not finished lies there" } else { "" })]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// It holds `data` without a manifest.
        unfinished: bool,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A backend does not say what it holds.
    #[error("{backend}: {message}")]
    Backend {
        /// `executor`, `keyvalue` or `objects`.
        backend: &'static str,
        /// Why.
        message: String,
    },
    /// Writers could not be held still in time.
    #[error("the databases were too busy to be held still; try again")]
    Busy,
    /// Whoever asked for it is gone, or the server stops.
    #[error("the backup was called off")]
    CalledOff,
}

impl BackupError {
    /// An error of a file.
    pub fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// What a backend adds to a backup: its files as they were when it was pinned, whatever is written since.
/// Dropping it gives the view up.
pub trait Pinned: Send {
    /// Copies them to a target. Blocks.
    fn copy(self: Box<Self>, target: &mut Target) -> Result<(), BackupError>;
}

/// What a backend pins that keeps nothing beyond the end of the process.
pub struct NothingPinned;

impl Pinned for NothingPinned {
    fn copy(self: Box<Self>, _target: &mut Target) -> Result<(), BackupError> {
        Ok(())
    }
}

/// All writers of an executor are held still, and a view of all its databases is pinned.
pub struct Standstill {
    /// The view.
    pub databases: Box<dyn Pinned>,
    /// Dropping this lets the writers go on.
    pub writers: Box<dyn Send>,
}

/// Calls a backup off from outside.
#[derive(Clone, Debug, Default)]
pub struct CallOff(Arc<AtomicBool>);

impl CallOff {
    /// It ends soon, with [`BackupError::CalledOff`].
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), BackupError> {
        if self.0.load(Ordering::Relaxed) { Err(BackupError::CalledOff) } else { Ok(()) }
    }
}

/// Copies everything that the backends hold into a folder, which must be new or empty. What is left of a backup that
/// failed is removed.
pub async fn back_up(backends: &Backends, folder: &Path, call_off: CallOff) -> Result<Manifest, BackupError> {
    let folder = std::path::absolute(folder).map_err(|error| BackupError::io(folder, error))?;
    let prepared = folder.clone();
    let made = blocking(move || prepare(&prepared)).await?;
    let copied = copy_all(backends, &folder, call_off).await;
    if copied.is_err() {
        let leftover = if made { folder.clone() } else { folder.join(DATA) };
        // Without a manifest it is no backup anyway.
        if let Err(error) = blocking(move || std::fs::remove_dir_all(&leftover).map_err(|error| BackupError::io(&leftover, error))).await {
            tracing::warn!(%error, "the rest of a failed backup could not be removed");
        }
    }
    copied
}

async fn copy_all(backends: &Backends, folder: &Path, call_off: CallOff) -> Result<Manifest, BackupError> {
    let parts = pin(backends).await?;
    let mut target = Target::new(folder.to_owned(), call_off);
    blocking(move || {
        // Databases first: as long as their view is pinned their logs grow.
        for part in parts {
            part.copy(&mut target)?;
        }
        target.seal()
    })
    .await
}

/// Pins all backends at one moment.
async fn pin(backends: &Backends) -> Result<Vec<Box<dyn Pinned>>, BackupError> {
    let failed = |backend, error: &dyn std::fmt::Display| BackupError::Backend { backend, message: error.to_string() };
    for _ in 0..STANDSTILL_ATTEMPTS {
        let pinning = async {
            let standstill = backends.executor.stand_still().await.map_err(|error| match error {
                ExecutorError::Unavailable(why) => failed("executor", &why),
                other => failed("executor", &other),
            })?;
            // In between nothing becomes durable: whatever objects and facts the databases know of is there.
            let keyvalue = backends.storage.keyvalue.pin().await.map_err(|error| failed("keyvalue", &error))?;
            let objects = backends.storage.objects.pin().await.map_err(|error| failed("objects", &error))?;
            drop(standstill.writers);
            Ok(vec![standstill.databases, keyvalue, objects])
        };
        if let Ok(pinned) = timeout(STANDSTILL_MAX, pinning).await {
            return pinned;
        }
    }
    Err(BackupError::Busy)
}

/// Makes the folder, or sees that it is empty; whether it made it.
fn prepare(folder: &Path) -> Result<bool, BackupError> {
    let failed = |error| BackupError::io(folder, error);
    let made = !folder.exists();
    create_folder(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let unfinished = folder.join(DATA).is_dir() && !folder.join(MANIFEST).exists();
        return Err(BackupError::NotEmpty { folder: folder.to_owned(), unfinished });
    }
    let data = folder.join(DATA);
    create_folder(&data).map_err(|error| BackupError::io(&data, error))?;
    Ok(made)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BackupError> + Send + 'static) -> Result<T, BackupError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(BackupError::io(Path::new("backup"), std::io::Error::other(error))))
}
