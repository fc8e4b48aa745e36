//! What the front adapter says at `open`, checked.

use std::fmt;

use crate::bindings::exports::syncline::spin::adapter;

/// Text that is never shown: an address with a password, a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text in.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever must have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Where SQL is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A label of Spin's SQLite.
    Sqlite(String),
    /// The address of a PostgreSQL server.
    Postgres(Secret),
}

/// A bucket that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Without a `/` at the end.
    pub endpoint: String,
    /// As in signatures.
    pub region: String,
    /// Its name.
    pub name: String,
    /// Who signs.
    pub access_key: String,
    /// With what.
    pub secret_key: Secret,
}

/// What is kept where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// SQL.
    pub place: Place,
    /// A label of Spin's key-value stores.
    pub key_value: String,
    /// Where objects are; none: in the database.
    pub bucket: Option<Bucket>,
    /// A Redis server.
    pub redis: Option<Secret>,
    /// What gateways share with us; none: there are none.
    pub gateway_secret: Option<Secret>,
    /// How long a transaction may stay open.
    pub transaction_ms: u64,
    /// The same in calls that may take long.
    pub long_ms: u64,
    /// Bytes of an object.
    pub object_bytes_max: u64,
    /// Bytes that a mount may keep in objects.
    pub quota_bytes: Option<u64>,
}

/// What is wrong with settings. Nothing here quotes a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A label is empty.
    #[error("{0}: the label is empty")]
    Label(&'static str),
    /// Not the address of a PostgreSQL server.
    #[error("executor: is not postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Postgres,
    /// Not the address of a Redis server.
    #[error("pubsub: is not redis://HOST:PORT")]
    Redis,
    /// Not an http or https URL without a path.
    #[error("storage.objects: the endpoint is not http://HOST:PORT or https://HOST:PORT")]
    Endpoint,
    /// A bucket without a name, a region or keys.
    #[error("storage.objects: {0} is missing")]
    Bucket(&'static str),
}

impl Settings {
    /// Checks what the front adapter says.
    pub fn new(given: adapter::Settings) -> Result<Self, SettingsError> {
        let place = match given.database {
            adapter::Database::Sqlite(label) if label.is_empty() => return Err(SettingsError::Label("executor")),
            adapter::Database::Sqlite(label) => Place::Sqlite(label),
            adapter::Database::Postgres(address) if has_scheme(&address, &["postgres://", "postgresql://"]) => {
                Place::Postgres(Secret::new(address))
            }
            adapter::Database::Postgres(_) => return Err(SettingsError::Postgres),
        };
        if given.key_value.is_empty() {
            return Err(SettingsError::Label("storage.keyvalue"));
        }
        let bucket = match given.objects {
            adapter::Objects::Database => None,
            adapter::Objects::Bucket(bucket) => Some(checked_bucket(bucket)?),
        };
        if given.redis.as_deref().is_some_and(|address| !has_scheme(address, &["redis://", "rediss://"])) {
            return Err(SettingsError::Redis);
        }
        let adapter::Limits { transaction_ms, long_ms, object_bytes, quota_bytes } = given.limits;
        Ok(Self {
            place,
            key_value: given.key_value,
            bucket,
            redis: given.redis.map(Secret::new),
            gateway_secret: given.gateway_secret.map(Secret::new),
            transaction_ms,
            long_ms,
            object_bytes_max: object_bytes,
            quota_bytes,
        })
    }
}

fn has_scheme(address: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| address.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

fn checked_bucket(given: adapter::Bucket) -> Result<Bucket, SettingsError> {
    let endpoint = given.endpoint.trim_end_matches('/').to_owned();
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@', ' '])) {
        return Err(SettingsError::Endpoint);
    }
    for (what, text) in
        [("bucket", &given.name), ("region", &given.region), ("s3_access_key", &given.access_key), ("s3_secret_key", &given.secret_key)]
    {
        if text.is_empty() {
            return Err(SettingsError::Bucket(what));
        }
    }
    Ok(Bucket { endpoint, region: given.region, name: given.name, access_key: given.access_key, secret_key: Secret::new(given.secret_key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> adapter::Settings {
        adapter::Settings {
            database: adapter::Database::Postgres("postgres://me:hush@127.0.0.1/db".into()),
            key_value: "default".into(),
            objects: adapter::Objects::Bucket(adapter::Bucket {
                endpoint: "http://127.0.0.1:9000/".into(),
                region: "eu-1".into(),
                name: "notes".into(),
                access_key: "id".into(),
                secret_key: "hush".into(),
            }),
            redis: Some("redis://:hush@127.0.0.1".into()),
            gateway_secret: Some("hush".into()),
            limits: adapter::Limits { transaction_ms: 1000, long_ms: 2000, object_bytes: 10, quota_bytes: None },
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let settings = Settings::new(given()).unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
        assert_eq!(settings.bucket.unwrap().endpoint, "http://127.0.0.1:9000");
    }

    #[test]
    fn what_cannot_be_right_is_said() {
        let wrong = |change: fn(&mut adapter::Settings)| {
            let mut settings = given();
            change(&mut settings);
            Settings::new(settings).unwrap_err()
        };
        assert_eq!(wrong(|settings| settings.database = adapter::Database::Sqlite(String::new())), SettingsError::Label("executor"));
        assert_eq!(wrong(|settings| settings.database = adapter::Database::Postgres("mysql://a".into())), SettingsError::Postgres);
        assert_eq!(wrong(|settings| settings.key_value.clear()), SettingsError::Label("storage.keyvalue"));
        assert_eq!(wrong(|settings| settings.redis = Some("127.0.0.1".into())), SettingsError::Redis);
        for endpoint in ["", "ftp://a", "http://a/b", "https://key:secret@a"] {
            let mut settings = given();
            if let adapter::Objects::Bucket(bucket) = &mut settings.objects {
                bucket.endpoint = endpoint.into();
            }
            assert_eq!(Settings::new(settings), Err(SettingsError::Endpoint), "{endpoint}");
        }
    }
}
