//! Configuration: one file (TOML, or JSON of the same shape), environment variables over it, flags over those.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::runtime::{Backends, GUEST_COMPONENT, MountSettings, RuntimeSettings};
use crate::server::ServerSettings;
use crate::server::address::Network;
use crate::server::limits::Limits;
use crate::server::tls::TlsFiles;
use crate::storage::Storage;
use crate::storage::memory::MemoryKeyValue;
use crate::storage::sqlite::SqliteKeyValue;

mod check;
mod folder;
mod log;
pub(crate) mod message;
mod places;
mod tls;

pub use folder::DataFolder;
pub use log::log_filter;
pub use places::{ExecutorPlace, ObjectsPlace, Place, Places, PubSubPlace};

/// The configuration that serves when none is given: every protocol at its default path.
const DEMONSTRATION: &str = include_str!("demonstration.toml");

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The text is not valid, or has an unknown key; the message names it.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong, and where.
        message: String,
    },
    /// A value does not make sense.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A backend does not open.
    #[error("{key} {value:?}: {message}")]
    Backend {
        /// The key.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// Why.
        message: String,
    },
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the main listener.
    pub listen: String,
    /// Folder of the embedded defaults.
    pub data: PathBuf,
    /// `sqlite:FOLDER`, `sqlite:FOLDER?synchronous=off` (not durable) or `postgres://…`; default: SQLite in `data`.
    pub executor: Option<String>,
    /// Where objects and key-value facts are.
    pub storage: StorageConfig,
    /// `memory:`, `postgres:` (the executor's server) or `postgres://…`.
    pub pubsub: String,
    /// Opens what is meant for whoever runs the server.
    pub admin_token: Option<String>,
    /// Certificate of the main listener; none: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// What clients may take.
    pub limits: Limits,
    /// Addresses and networks of proxies that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<String>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// A component file instead of the one that is built in.
    pub component: Option<PathBuf>,
    /// The mounts.
    #[serde(rename = "mount")]
    pub mounts: Vec<MountConfig>,
    /// Where the file is: what it names is looked for there. Empty where there is none.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8787".into(),
            data: "./data".into(),
            executor: None,
            storage: StorageConfig::default(),
            pubsub: "memory:".into(),
            admin_token: None,
            tls: None,
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            log: LogConfig::default(),
            component: None,
            mounts: Vec::new(),
            folder: PathBuf::new(),
        }
    }
}

/// Where objects and key-value facts are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// `file:FOLDER` or `memory:`; default: files in `data`.
    pub objects: Option<String>,
    /// `sqlite:FOLDER` or `memory:`; default: SQLite in `data`.
    pub keyvalue: Option<String>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `pretty` or `json`.
    pub format: LogFormat,
    /// A level, or directives such as `info,syncline::component=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, level: "info".into() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// One mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    /// Data namespace and label of its metrics; default: the protocol's name.
    pub name: Option<String>,
    /// The protocol.
    pub protocol: String,
    /// Where it is served; default: the protocol's own path.
    pub path: Option<String>,
    /// A listener of its own.
    pub listen: Option<String>,
    /// Certificate of that listener; none: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// An app component.
    pub app: Option<PathBuf>,
    /// The protocol's settings.
    pub settings: Option<Map<String, Value>>,
    /// A JSON file with the protocol's settings.
    pub settings_file: Option<PathBuf>,
    /// Bytes that its databases and objects may hold together.
    pub quota_bytes: Option<u64>,
}

/// What environment variables or flags say over a file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `listen`.
    pub listen: Option<String>,
    /// `data`.
    pub data: Option<PathBuf>,
    /// `executor`.
    pub executor: Option<String>,
    /// `storage.objects`.
    pub objects: Option<String>,
    /// `storage.keyvalue`.
    pub keyvalue: Option<String>,
    /// `pubsub`.
    pub pubsub: Option<String>,
    /// `admin_token`.
    pub admin_token: Option<String>,
    /// `log.format`.
    pub log_format: Option<LogFormat>,
    /// `log.level`.
    pub log_level: Option<String>,
}

impl Config {
    /// The demonstration configuration.
    pub fn demonstration() -> Result<Self, ConfigError> {
        Self::parse(DEMONSTRATION, Path::new("the built-in configuration.toml"))
    }

    /// Reads a file: JSON where its name ends in `.json`, else TOML. Files that it names are looked for beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::parse(&read(path)?, path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let of_mounts = config.mounts.iter_mut().flat_map(|mount| [&mut mount.settings_file, &mut mount.app]);
        for file in of_mounts.chain([&mut config.component]).flatten() {
            *file = folder.join(&*file);
        }
        for tls in config.mounts.iter_mut().map(|mount| &mut mount.tls).chain([&mut config.tls]).flatten() {
            tls.certificate = folder.join(&tls.certificate);
            tls.key = folder.join(&tls.key);
        }
        config.folder = folder.to_owned();
        Ok(config)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let json = path.extension().is_some_and(|extension| extension == "json");
        let parsed = if json {
            serde_json::from_str(text).map_err(|error| message::of_json(&error))
        } else {
            toml::from_str(text).map_err(|error| message::of_toml(&error, text))
        };
        parsed.map_err(|message| ConfigError::Parse { path: path.display().to_string(), message })
    }

    /// Lets something else have the last word.
    pub fn overridden(mut self, by: Overrides) -> Self {
        let Overrides { listen, data, executor, objects, keyvalue, pubsub, admin_token, log_format, log_level } = by;
        self.listen = listen.unwrap_or(self.listen);
        self.data = data.unwrap_or(self.data);
        self.executor = executor.or(self.executor);
        self.storage.objects = objects.or(self.storage.objects);
        self.storage.keyvalue = keyvalue.or(self.storage.keyvalue);
        self.pubsub = pubsub.unwrap_or(self.pubsub);
        self.admin_token = admin_token.or(self.admin_token);
        self.log.format = log_format.unwrap_or(self.log.format);
        self.log.level = log_level.unwrap_or(self.log.level);
        self
    }

    /// The mounts with their settings read.
    pub fn mount_settings(&self) -> Result<Vec<MountSettings>, ConfigError> {
        self.mounts.iter().enumerate().map(|(index, mount)| mount.resolve(index, &self.listen)).collect()
    }

    /// The component: the file that is named, or the one that is built in.
    pub fn component(&self) -> Result<Cow<'static, [u8]>, ConfigError> {
        match &self.component {
            None => Ok(Cow::Borrowed(GUEST_COMPONENT)),
            Some(path) => match std::fs::read(path) {
                Ok(bytes) => Ok(Cow::Owned(bytes)),
                Err(error) => Err(ConfigError::Read { path: path.display().to_string(), error }),
            },
        }
    }

    /// The keys outside of mounts that differ in another configuration and that only a restart can change.
    pub fn restart_keys(&self, other: &Config) -> Vec<&'static str> {
        let differing = [
            ("listen", self.listen != other.listen),
            ("data", self.data != other.data),
            ("executor", self.executor != other.executor),
            ("storage", self.storage != other.storage),
            ("pubsub", self.pubsub != other.pubsub),
            ("admin_token", self.admin_token != other.admin_token),
            ("limits", self.limits != other.limits),
            ("trusted_proxies", self.trusted_proxies != other.trusted_proxies),
            ("log", self.log != other.log),
            ("tls", self.tls_differs(other)),
        ];
        differing.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// How the run time is set.
    pub fn runtime_settings(&self) -> RuntimeSettings {
        // wasmtime wants an absolute path. Where there is none, the code is compiled anew at each start.
        let cache = std::path::absolute(self.data.join("cache")).ok();
        RuntimeSettings { cache, folders_in: self.folder.clone(), ..RuntimeSettings::default() }
    }

    /// How the server is set.
    pub fn server_settings(&self) -> Result<ServerSettings, ConfigError> {
        if self.admin_token.as_deref() == Some("") {
            return Err(ConfigError::Value { key: "admin_token".into(), message: "must not be empty".into() });
        }
        if let Some((key, message)) = self.limits.problem() {
            return Err(ConfigError::Value { key: format!("limits.{key}"), message: message.into() });
        }
        let trusted_proxies: Result<Vec<Network>, _> = self.trusted_proxies.iter().map(|proxy| proxy.parse()).collect();
        Ok(ServerSettings {
            listen: self.listen.clone(),
            admin_token: self.admin_token.clone(),
            tls: self.tls_by_listener()?,
            limits: self.limits.clone(),
            trusted_proxies: trusted_proxies
                .map_err(|error| ConfigError::Value { key: "trusted_proxies".into(), message: error.to_string() })?,
        })
    }

    /// Opens the backends.
    pub async fn open_backends(&self) -> Result<Backends, ConfigError> {
        let Places { executor, objects, keyvalue, pubsub } = self.places()?;
        let executor = executor.open().await?;
        let objects = objects.open().await?;
        let keyvalue: Arc<dyn crate::storage::KeyValue> = match keyvalue.folder {
            Some(folder) => {
                Arc::new(SqliteKeyValue::open(folder).await.map_err(|error| backend("storage.keyvalue", &keyvalue.url, &error))?)
            }
            None => Arc::new(MemoryKeyValue::default()),
        };
        Ok(Backends { executor, storage: Storage { keyvalue, objects }, pubsub: pubsub.open().await? })
    }

    /// Where the backends keep what they are given.
    pub fn places(&self) -> Result<Places, ConfigError> {
        let data = self.data.display();
        let url = self.executor.clone().unwrap_or_else(|| format!("sqlite:{data}"));
        let executor = ExecutorPlace::parse(url)?;
        let objects = self.storage.objects.clone().unwrap_or_else(|| format!("file:{}", self.data.join("objects").display()));
        let objects = ObjectsPlace::parse(objects)?;
        let keyvalue = self.storage.keyvalue.clone().unwrap_or_else(|| format!("sqlite:{data}"));
        let keyvalue = Place::parse("storage.keyvalue", keyvalue, "sqlite")?;
        let pubsub = PubSubPlace::parse(&self.pubsub, &executor)?;
        Ok(Places { executor, objects, keyvalue, pubsub })
    }
}

impl MountConfig {
    fn resolve(&self, index: usize, main_listen: &str) -> Result<MountSettings, ConfigError> {
        let key = |key: &str| format!("mount[{index}].{key}");
        let mut settings = match (&self.settings, &self.settings_file) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::Value { key: key("settings_file"), message: "cannot be given beside `settings`".into() });
            }
            (Some(settings), None) => settings.clone(),
            (None, Some(path)) => serde_json::from_str(&read(path)?)
                .map_err(|error| ConfigError::Parse { path: path.display().to_string(), message: message::of_json(&error) })?,
            (None, None) => Map::new(),
        };
        if let Some(path) = &self.path {
            for name in ["path", "basePath", "base_path", "syncPath", "sync_path"] {
                if settings.get(name).is_some_and(|other| other != path.as_str()) {
                    return Err(ConfigError::Value { key: key("path"), message: format!("{path:?} is not what `settings.{name}` says") });
                }
            }
            settings.insert("path".into(), Value::String(path.clone()));
        }
        let listen = self.listen.as_deref().unwrap_or(main_listen);
        if settings.get("listen").is_some_and(|other| other != listen) {
            return Err(ConfigError::Value { key: key("listen"), message: format!("{listen:?} is not what `settings.listen` says") });
        }
        if self.name.as_deref() == Some("") {
            return Err(ConfigError::Value { key: key("name"), message: "must not be empty".into() });
        }
        if self.quota_bytes == Some(0) {
            return Err(ConfigError::Value { key: key("quota_bytes"), message: "must be above 0; leave it out for no limit".into() });
        }
        Ok(MountSettings {
            quota_bytes: self.quota_bytes,
            name: self.name.clone().unwrap_or_else(|| self.protocol.clone()),
            protocol: self.protocol.clone(),
            settings,
            app: self.app.clone(),
            listen: listen.to_owned(),
        })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.display().to_string(), error })
}

fn split(url: &str) -> (&str, &str) {
    url.split_once(':').unwrap_or((url, ""))
}

fn backend(key: &'static str, value: &str, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Backend { key, value: without_secrets(value), message: error.to_string() }
}

/// A URL without user, password and options.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some(scheme) = url.find("://") else { return url.to_owned() };
    let (scheme, rest) = url.split_at(scheme + 3);
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, place)| ("…@", place));
    let (place, options) = rest.split_once('?').map_or((rest, ""), |(place, _)| (place, "?…"));
    format!("{scheme}{hidden}{place}{options}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in ["lisen = \"x\"", "[storage]\nobject = \"x\"", "[[mount]]\nprotocol = \"secsync\"\ncolour = 1"] {
            let message = Config::parse(text, Path::new("a.toml")).unwrap_err().to_string();
            assert!(message.contains("unknown field"), "{message}");
        }
        assert!(Config::parse(r#"{"listen": 1}"#, Path::new("a.json")).is_err());
    }

    #[test]
    fn toml_and_json_have_the_same_shape_and_overrides_win() {
        let from_toml = Config::parse("listen = \"127.0.0.1:1\"\n[[mount]]\nprotocol = \"secsync\"\n", Path::new("a.toml")).unwrap();
        let from_json = Config::parse(r#"{"listen":"127.0.0.1:1","mount":[{"protocol":"secsync"}]}"#, Path::new("a.json")).unwrap();
        assert_eq!(format!("{from_toml:?}"), format!("{from_json:?}"));
        let overridden = from_json.overridden(Overrides { listen: Some("127.0.0.1:2".into()), ..Overrides::default() });
        assert_eq!(overridden.listen, "127.0.0.1:2");
        assert_eq!(overridden.mount_settings().unwrap()[0].listen, "127.0.0.1:2");
    }

    #[test]
    fn a_path_or_an_address_that_is_said_twice_must_be_the_same() {
        let config = |path| {
            let text = format!("[[mount]]\nprotocol = \"secsync\"\npath = \"/a\"\nsettings = {{ path = \"{path}\" }}");
            Config::parse(&text, Path::new("a.toml")).unwrap().mount_settings()
        };
        assert!(config("/a").is_ok());
        assert!(config("/b").unwrap_err().to_string().starts_with("mount[0].path"));
        let listening = "listen = \"127.0.0.1:1\"\n[[mount]]\nprotocol = \"secsync\"\nsettings = { listen = \"127.0.0.1:2\" }";
        let refused = Config::parse(listening, Path::new("a.toml")).unwrap().mount_settings().unwrap_err();
        assert!(refused.to_string().starts_with("mount[0].listen"), "{refused}");
    }

    #[test]
    fn limits_and_proxies_are_checked_by_name() {
        let settings = |text| Config::parse(text, Path::new("a.toml")).unwrap().server_settings();
        let set = settings("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n[limits]\nconnections = 7").unwrap();
        assert_eq!((set.limits.connections, set.trusted_proxies.len()), (7, 2));
        let message = |text| settings(text).unwrap_err().to_string();
        assert!(message("trusted_proxies = [\"proxy\"]").starts_with("trusted_proxies: \"proxy\""));
        assert!(message("[limits]\nburst_seconds = 0").starts_with("limits.burst_seconds: "));
        assert!(Config::parse("[limits]\nconnexions = 7", Path::new("a.toml")).is_err());
    }

    #[test]
    fn passwords_of_backends_are_not_shown() {
        assert_eq!(without_secrets("postgres://me:secret@db/x"), "postgres://…@db/x");
        assert_eq!(without_secrets("postgres://me:se@cret?@db/x?password=secret"), "postgres://…@db/x?…");
        assert_eq!(without_secrets("sqlite:./a@b"), "sqlite:./a@b");
    }

    const WHOLE: &str = "listen = \"127.0.0.1:1\"\nadmin_token = \"secret-token\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n[limits]\nconnections = 7\n\
                         [storage]\nobjects = \"file:./a\"\n[log]\nlevel = \"info\"\n[tls]\ncertificate = \"a\"\nkey = \"b\"\n\
                         [[mount]]\nprotocol = \"secsync\"\nsettings = { path = \"/a\", access = { policy = [{ documents = [\"*\"] }] } }\n";

    /// A configuration of which a piece was replaced by something else.
    fn mutated() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<String>(),
            "[\\[\\]{}=\"'\\n#., 0-9a-z_-]{0,12}",
            Just("\n[[mount]]\n".to_owned()),
            Just("99999999999999999999".to_owned()),
            "[\\[{]{1,600}",
        ];
        let whole =
            prop_oneof![Just(WHOLE.to_owned()), Just(serde_json::to_string(&toml::from_str::<toml::Value>(WHOLE).unwrap()).unwrap())];
        (whole, any::<proptest::sample::Index>(), 0_usize..12, piece).prop_map(|(whole, at, length, piece)| {
            let characters: Vec<char> = whole.chars().collect();
            let (start, end) = (at.index(characters.len()), (at.index(characters.len()) + length).min(characters.len()));
            characters[..start].iter().copied().chain(piece.chars()).chain(characters[end..].iter().copied()).collect()
        })
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_on_one_line_without_its_secrets(text in prop_oneof![4 => mutated(), 1 => any::<String>()]) {
            for file in ["a.toml", "a.json"] {
                let said = match Config::parse(&text, Path::new(file)) {
                    Ok(config) => [config.server_settings().err(), config.mount_settings().err(), config.places().err()].map(|error| {
                        error.map_or_else(String::new, |error| error.to_string())
                    }).concat(),
                    Err(error) => error.to_string(),
                };
                prop_assert!(!said.contains('\n') && !said.contains("secret-token"), "{said}");
            }
        }
    }
}
