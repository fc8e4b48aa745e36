//! The Spin variable `config`: one JSON object that says what is kept where and which mounts there are. Its keys mean what they mean
//! in the configuration of the server (docs/configuration.md).

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::address::Network;
use crate::bindings::syncline::spin::adapter;

mod message;
mod places;
#[cfg(test)]
mod tests;

/// How long a transaction may stay open.
const TRANSACTION_MS: u64 = 5000;
/// The same for rare work that must be done as one.
const LONG_MS: u64 = 60 * 60 * 1000;
/// The name that stands for what is no mount's.
const OWN_NAME: &str = "syncline";

/// Why a configuration cannot be used. Says nothing of values that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not JSON of this shape, or has an unknown key; the message names it.
    #[error("config: {0}")]
    Parse(String),
    /// A value does not make sense.
    #[error("config: {key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
}

impl ConfigError {
    fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }
}

/// What must not be shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, to be handed on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    executor: Secret,
    storage: Storage,
    pubsub: Secret,
    limits: Limits,
    trusted_proxies: Vec<String>,
    admin_token: Option<Secret>,
    tick_token: Option<Secret>,
    gateway: Gateway,
    mount: Vec<WrittenMount>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            executor: Secret("sqlite:default".into()),
            storage: Storage::default(),
            pubsub: Secret("sql:".into()),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            admin_token: None,
            tick_token: None,
            gateway: Gateway::default(),
            mount: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Storage {
    keyvalue: String,
    objects: String,
    s3_access_key: Option<Secret>,
    s3_secret_key: Option<Secret>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { keyvalue: "default".into(), objects: "database".into(), s3_access_key: None, s3_secret_key: None }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Gateway {
    secret: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMount {
    name: Option<String>,
    protocol: String,
    path: Option<String>,
    settings: Option<Map<String, Value>>,
    settings_file: Option<String>,
    #[serde(default)]
    quota_bytes: u64,
}

/// What clients may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest body that is read into memory, whatever a protocol allows.
    pub max_body_bytes: u64,
    /// A stream ends after so long, for hosts that cut answers off; 0: it does not.
    pub stream_ms: u64,
    /// Streams at once, over all instances. Fewer than a host has instances: each stream of the portable build takes one.
    pub streams: u32,
    /// Bytes of an object at most.
    pub object_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: 10 << 20, stream_ms: 0, streams: 100, object_bytes: 1 << 30 }
    }
}

/// A mount as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct MountConfig {
    /// Its name.
    pub name: String,
    /// The protocol.
    pub protocol: String,
    /// Where it is configured to be; none: at the protocol's own path.
    pub path: Option<String>,
    /// The settings as JSON, `path` among them.
    pub settings: String,
}

/// The whole configuration.
#[derive(Debug)]
pub struct Config {
    /// For the back adapter.
    pub settings: adapter::Settings,
    /// What clients may take.
    pub limits: Limits,
    /// Who is believed when they say whom they speak for.
    pub trusted_proxies: Vec<Network>,
    /// Opens what is meant for whoever runs the deployment.
    pub admin_token: Option<Secret>,
    /// Opens `POST /internal/tick`.
    pub tick_token: Option<Secret>,
    /// Shared with gateways; none: there are none.
    pub gateway_secret: Option<Secret>,
    /// The mounts.
    pub mounts: Vec<MountConfig>,
}

impl Config {
    /// Reads a configuration. Files that it names are those of the component.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let written: Written = serde_json::from_str(text).map_err(|error| ConfigError::Parse(message::of_json(&error)))?;
        for (key, secret) in
            [("admin_token", &written.admin_token), ("tick_token", &written.tick_token), ("gateway.secret", &written.gateway.secret)]
        {
            if secret.as_ref().is_some_and(|secret| secret.0.is_empty()) {
                return Err(ConfigError::value(key, "must not be empty"));
            }
        }
        for (key, value) in [("limits.max_body_bytes", written.limits.max_body_bytes), ("limits.object_bytes", written.limits.object_bytes)]
        {
            if value == 0 {
                return Err(ConfigError::value(key, "must be above 0"));
            }
        }
        let trusted_proxies: Result<Vec<Network>, _> = written.trusted_proxies.iter().map(|proxy| proxy.parse()).collect();
        let limits = adapter::Limits {
            transaction_ms: TRANSACTION_MS,
            long_ms: LONG_MS,
            object_bytes: written.limits.object_bytes,
            quota_bytes: quota(&written.mount)?,
        };
        let settings = adapter::Settings {
            database: places::database(&written.executor)?,
            key_value: places::label("storage.keyvalue", &written.storage.keyvalue)?,
            objects: places::objects(&written.storage)?,
            redis: places::redis(&written.pubsub)?,
            gateway_secret: written.gateway.secret.as_ref().map(|secret| secret.expose().to_owned()),
            limits,
        };
        Ok(Self {
            settings,
            limits: written.limits,
            trusted_proxies: trusted_proxies.map_err(|error| ConfigError::value("trusted_proxies", error.to_string()))?,
            admin_token: written.admin_token,
            tick_token: written.tick_token,
            gateway_secret: written.gateway.secret,
            mounts: mounts(written.mount)?,
        })
    }
}

/// The quota of all mounts: what the back adapter keeps counts for each of them alike.
fn quota(mounts: &[WrittenMount]) -> Result<Option<u64>, ConfigError> {
    let Some(first) = mounts.first() else { return Ok(None) };
    match mounts.iter().position(|mount| mount.quota_bytes != first.quota_bytes) {
        Some(index) => {
            Err(ConfigError::value(format!("mount[{index}].quota_bytes"), "must be that of mount[0]: under Spin all mounts have the same"))
        }
        None => Ok((first.quota_bytes > 0).then_some(first.quota_bytes)),
    }
}

fn mounts(written: Vec<WrittenMount>) -> Result<Vec<MountConfig>, ConfigError> {
    let mut mounts: Vec<MountConfig> = Vec::with_capacity(written.len());
    for (index, mount) in written.into_iter().enumerate() {
        let mount = mount.resolve(index)?;
        let key = || format!("mount[{index}].name");
        if mount.name == OWN_NAME {
            return Err(ConfigError::value(key(), format!("cannot be {OWN_NAME:?}, which stands for the server itself")));
        }
        if mounts.iter().any(|other| other.name == mount.name) {
            return Err(ConfigError::value(
                key(),
                format!("{:?} is another mount's too; give one of them a `name` of its own", mount.name),
            ));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

impl WrittenMount {
    fn resolve(self, index: usize) -> Result<MountConfig, ConfigError> {
        let key = |key: &str| format!("mount[{index}].{key}");
        let mut settings = match (self.settings, self.settings_file) {
            (Some(_), Some(_)) => return Err(ConfigError::value(key("settings_file"), "cannot be given beside `settings`")),
            (Some(settings), None) => settings,
            (None, Some(path)) => {
                let text = std::fs::read_to_string(Path::new("/").join(&path))
                    .map_err(|error| ConfigError::value(key("settings_file"), format!("{path}: {error}")))?;
                serde_json::from_str(&text)
                    .map_err(|error| ConfigError::value(key("settings_file"), format!("{path}: {}", message::of_json(&error))))?
            }
            (None, None) => Map::new(),
        };
        if let Some(path) = &self.path {
            for name in ["path", "basePath", "base_path", "syncPath", "sync_path"] {
                if settings.get(name).is_some_and(|other| other != path.as_str()) {
                    return Err(ConfigError::value(key("path"), format!("{path:?} is not what `settings.{name}` says")));
                }
            }
            settings.insert("path".into(), Value::String(path.clone()));
        }
        if self.name.as_deref() == Some("") {
            return Err(ConfigError::value(key("name"), "must not be empty"));
        }
        let name = self.name.unwrap_or_else(|| self.protocol.clone());
        Ok(MountConfig { name, protocol: self.protocol, path: self.path, settings: Value::Object(settings).to_string() })
    }
}
