//! Where the backends keep what they are given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ConfigError, backend, split};
use crate::executor::Executor;
use crate::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use crate::executor::sqlite::{SqliteExecutor, SqliteSettings, Synchronous};
use crate::pubsub::PubSub;
use crate::pubsub::memory::MemoryPubSub;
use crate::pubsub::postgres::PostgresPubSub;
use crate::storage::Objects;
use crate::storage::files::FileObjects;
use crate::storage::memory::MemoryObjects;
use crate::storage::s3::{S3Address, S3Objects};

/// Where a backend keeps what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<F> {
    /// As configured.
    pub url: String,
    /// The folder.
    pub folder: F,
}

/// Where the backends keep what they are given; no folder: in memory.
#[derive(Clone)]
pub struct Places {
    /// Databases.
    pub executor: ExecutorPlace,
    /// Objects.
    pub objects: ObjectsPlace,
    /// Key-value facts.
    pub keyvalue: Place<Option<PathBuf>>,
    /// Publications.
    pub pubsub: PubSubPlace,
}

/// Where objects are.
#[derive(Clone)]
pub enum ObjectsPlace {
    /// Files in a folder.
    Files(Place<PathBuf>),
    /// Nowhere: they end with the process.
    Memory,
    /// A bucket; several processes may share it.
    S3 {
        /// As configured.
        url: String,
        /// What it says.
        address: S3Address,
    },
}

impl ObjectsPlace {
    const KEY: &str = "storage.objects";

    /// The folder of those that are files.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Files(place) => Some(&place.folder),
            Self::Memory | Self::S3 { .. } => None,
        }
    }

    /// Opens the objects there.
    pub(super) async fn open(self) -> Result<Arc<dyn Objects>, ConfigError> {
        match self {
            Self::Files(Place { url, folder }) => {
                Ok(Arc::new(FileObjects::open(folder).await.map_err(|error| backend(Self::KEY, &url, &error))?))
            }
            Self::Memory => Ok(Arc::new(MemoryObjects::default())),
            Self::S3 { url, address } => Ok(Arc::new(S3Objects::open(address).await.map_err(|error| backend(Self::KEY, &url, &error))?)),
        }
    }

    pub(super) fn parse(url: String) -> Result<Self, ConfigError> {
        match split(&url) {
            ("memory", "") => Ok(Self::Memory),
            ("file", folder) if is_folder(folder) => Ok(Self::Files(Place { folder: folder.into(), url })),
            ("s3", _) => match S3Address::parse(&url) {
                Ok(address) => Ok(Self::S3 { url, address }),
                Err(error) => Err(backend(Self::KEY, &url, &error)),
            },
            _ => Err(backend(Self::KEY, &url, &"is not one of file:FOLDER, s3://BUCKET/PREFIX, memory:")),
        }
    }
}

/// Where databases are.
#[derive(Clone)]
pub enum ExecutorPlace {
    /// Files in a folder, and when what is written to them counts as being on disk.
    Sqlite(Place<PathBuf>, Synchronous),
    /// A server; several processes may share it.
    Postgres {
        /// As configured.
        url: String,
        /// What it says.
        address: Box<PostgresAddress>,
    },
}

impl ExecutorPlace {
    /// The folder of those that are files.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(place, _) => Some(&place.folder),
            Self::Postgres { .. } => None,
        }
    }

    /// Opens the databases there.
    pub(super) async fn open(self) -> Result<Arc<dyn Executor>, ConfigError> {
        match self {
            Self::Sqlite(place, synchronous) => {
                if synchronous == Synchronous::Off {
                    let folder = place.folder.display();
                    tracing::warn!(%folder, "writes are not synced to disk and may be lost with the machine: for tests and benchmarks only");
                }
                let opened = SqliteExecutor::start(SqliteSettings { synchronous, ..SqliteSettings::new(place.folder) }).await;
                Ok(Arc::new(opened.map_err(|error| backend("executor", &place.url, &error))?))
            }
            Self::Postgres { url, address } => {
                let opened = PostgresExecutor::start(PostgresSettings::new(*address)).await;
                Ok(Arc::new(opened.map_err(|error| backend("executor", &url, &error))?))
            }
        }
    }

    pub(super) fn parse(url: String) -> Result<Self, ConfigError> {
        let (place, synchronous) = synchronous(&url)?;
        match split(&place) {
            ("sqlite", folder) if is_folder(folder) => Ok(Self::Sqlite(Place { folder: folder.into(), url }, synchronous)),
            ("postgres" | "postgresql", _) => {
                let address = PostgresAddress::parse(&url).map_err(|error| backend("executor", &url, &error))?;
                Ok(Self::Postgres { url, address: Box::new(address) })
            }
            _ => Err(backend("executor", &url, &"is not one of sqlite:FOLDER, postgres://USER@HOST/DATABASE")),
        }
    }
}

/// What carries publications between processes.
#[derive(Clone)]
pub enum PubSubPlace {
    /// Nothing: there is one process.
    Memory,
    /// A PostgreSQL server.
    Postgres {
        /// As configured.
        url: String,
        /// What it says.
        address: Box<PostgresAddress>,
    },
}

impl PubSubPlace {
    const KEY: &str = "pubsub";

    /// `postgres:` alone is the server of the executor. Processes that publish to each other must share their data.
    pub(super) fn parse(url: &str, executor: &ExecutorPlace) -> Result<Self, ConfigError> {
        let of_executor = match executor {
            ExecutorPlace::Postgres { url, .. } => Some(url),
            ExecutorPlace::Sqlite(..) => None,
        };
        match (split(url), of_executor) {
            (("memory", ""), _) => Ok(Self::Memory),
            (("postgres" | "postgresql", _), None) => {
                Err(backend(Self::KEY, url, &"servers that publish to each other share their data: set executor = \"postgres://…\" too"))
            }
            (("postgres" | "postgresql", ""), Some(of_executor)) => Self::of_postgres(of_executor),
            (("postgres" | "postgresql", _), Some(_)) => Self::of_postgres(url),
            _ => Err(backend(Self::KEY, url, &"is not one of memory:, postgres:, postgres://USER@HOST/DATABASE")),
        }
    }

    fn of_postgres(url: &str) -> Result<Self, ConfigError> {
        let address = PostgresAddress::parse(url).map_err(|error| backend(Self::KEY, url, &error))?;
        Ok(Self::Postgres { url: url.to_owned(), address: Box::new(address) })
    }

    /// Opens it.
    pub(super) async fn open(self) -> Result<Arc<dyn PubSub>, ConfigError> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryPubSub::default())),
            Self::Postgres { url, address } => {
                let started = PostgresPubSub::start(PostgresSettings::new(*address)).await;
                Ok(Arc::new(started.map_err(|error| backend(Self::KEY, &url, &error))?))
            }
        }
    }
}

/// A path may begin with two slashes, but none is written that way, and every other kind of backend is.
fn is_folder(folder: &str) -> bool {
    !folder.is_empty() && !folder.starts_with("//")
}

impl Place<Option<PathBuf>> {
    pub(super) fn parse(key: &'static str, url: String, scheme: &str) -> Result<Self, ConfigError> {
        let folder = match split(&url) {
            ("memory", "") => None,
            (found, folder) if found == scheme && is_folder(folder) => Some(PathBuf::from(folder)),
            _ => return Err(backend(key, &url, &format!("is not one of {scheme}:FOLDER, memory:"))),
        };
        Ok(Self { url, folder })
    }
}

/// The place of `PLACE` or `PLACE?synchronous=full|off`, and which of the two.
fn synchronous(url: &str) -> Result<(String, Synchronous), ConfigError> {
    let (place, synchronous) = match url.split_once("?synchronous=") {
        None => (url, Synchronous::Full),
        Some((place, "full")) => (place, Synchronous::Full),
        Some((place, "off")) => (place, Synchronous::Off),
        Some(_) => return Err(backend("executor", url, &"synchronous is not one of full, off")),
    };
    Ok((place.to_owned(), synchronous))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn writes_are_synced_unless_the_executor_says_otherwise() {
        let places = |url: &str| Config { executor: Some(url.to_owned()), ..Config::default() }.places();
        for (url, folder, synchronous) in [
            ("sqlite:./a?b", "./a?b", Synchronous::Full),
            ("sqlite:./a?synchronous=full", "./a", Synchronous::Full),
            ("sqlite:./a?synchronous=off", "./a", Synchronous::Off),
        ] {
            let ExecutorPlace::Sqlite(place, found) = places(url).unwrap().executor else { panic!("{url}") };
            assert_eq!((place.folder, found), (folder.into(), synchronous));
        }
        let message = places("sqlite:./a?synchronous=OFF").err().expect("a wrong word").to_string();
        assert!(message.contains("synchronous is not one of full, off"), "{message}");
    }

    #[test]
    fn an_executor_is_a_folder_or_a_server_and_no_password_is_shown() {
        let parse = |url: &str| ExecutorPlace::parse(url.to_owned());
        assert!(matches!(parse("postgres://me:secret@db/notes?schema_prefix=a1"), Ok(ExecutorPlace::Postgres { .. })));
        assert!(parse("postgres://me@db/notes").is_ok_and(|place| place.folder().is_none()));
        assert!(parse("sqlite:./a").is_ok_and(|place| place.folder() == Some(Path::new("./a"))));
        for url in ["mysql://me:secret@db/x", "postgres://me:secret@db/x?sslmode=no", "postgres://me:secret@db:port/x", "sqlite:"] {
            let message = parse(url).err().expect(url).to_string();
            assert!(message.starts_with("executor ") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn publications_go_through_a_server_that_the_data_is_on() {
        let places = |executor: &str, pubsub: &str| {
            Config { executor: Some(executor.to_owned()), pubsub: pubsub.to_owned(), ..Config::default() }.places()
        };
        let server = "postgres://me:secret@db/notes?schema_prefix=a1";
        for (pubsub, expected) in [("postgres:", server), ("postgres://me:secret@other/notes", "postgres://me:secret@other/notes")] {
            let Ok(PubSubPlace::Postgres { url, .. }) = places(server, pubsub).map(|places| places.pubsub) else { panic!("{pubsub}") };
            assert_eq!(url, expected);
        }
        assert!(matches!(places(server, "memory:"), Ok(Places { pubsub: PubSubPlace::Memory, .. })));
        for (executor, pubsub, words) in [
            ("sqlite:./a", "postgres:", "share their data"),
            (server, "redis://me:secret@db/", "is not one of"),
            (server, "postgres://me:secret@db/x?sslmode=no", "sslmode"),
        ] {
            let message = places(executor, pubsub).err().expect(pubsub).to_string();
            assert!(message.starts_with("pubsub ") && message.contains(words) && !message.contains("secret"), "{message}");
        }
    }
}
