//! Where the back adapter keeps what it is given.

use super::{ConfigError, Secret, Storage};
use crate::bindings::syncline::spin::adapter::{Bucket, Database, Objects};

/// The region of a bucket that names none, as in signatures.
const REGION: &str = "us-east-1";

/// `sqlite:LABEL` or `postgres://…`.
pub(super) fn database(written: &Secret) -> Result<Database, ConfigError> {
    let text = written.expose();
    match text.split_once(':') {
        Some(("sqlite", name)) => label("executor", name).map(Database::Sqlite),
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => Ok(Database::Postgres(text.to_owned())),
        _ => Err(ConfigError::value("executor", "is not one of sqlite:LABEL, postgres://USER@HOST/DATABASE")),
    }
}

/// A label of the manifest.
pub(super) fn label(key: &str, text: &str) -> Result<String, ConfigError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(ConfigError::value(key, format!("{text:?} is no label, such as default")));
    }
    Ok(text.to_owned())
}

/// `sql:` or `redis://…`.
pub(super) fn redis(written: &Secret) -> Result<Option<String>, ConfigError> {
    let text = written.expose();
    match text.split_once(':') {
        Some(("sql", "")) => Ok(None),
        Some(("redis" | "rediss", rest)) if rest.starts_with("//") => Ok(Some(text.to_owned())),
        _ => Err(ConfigError::value("pubsub", "is not one of sql:, redis://HOST:PORT")),
    }
}

/// `database`, or a bucket and who signs for it.
pub(super) fn objects(storage: &Storage) -> Result<Objects, ConfigError> {
    const KEY: &str = "storage.objects";
    if storage.objects == "database" {
        return Ok(Objects::Database);
    }
    let Some(rest) = storage.objects.strip_prefix("s3://") else {
        return Err(ConfigError::value(KEY, "is not one of database, s3://BUCKET?endpoint=URL&region=REGION"));
    };
    let (name, options) = rest.split_once('?').unwrap_or((rest, ""));
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(ConfigError::value(KEY, format!("{name:?} is no name of a bucket")));
    }
    let (mut endpoint, mut region) = (None, REGION.to_owned());
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("endpoint", url)) if url.starts_with("https://") || url.starts_with("http://") => {
                endpoint = Some(url.trim_end_matches('/').to_owned());
            }
            Some(("endpoint", _)) => return Err(ConfigError::value(KEY, "endpoint is not a URL of http or https")),
            Some(("region", name)) if !name.is_empty() => name.clone_into(&mut region),
            _ => return Err(ConfigError::value(KEY, "its options are endpoint and region")),
        }
    }
    let key = |key: &str, secret: &Option<Secret>| match secret {
        Some(secret) if !secret.expose().is_empty() => Ok(secret.expose().to_owned()),
        _ => Err(ConfigError::value(format!("storage.{key}"), "is missing, and a bucket needs it")),
    };
    Ok(Objects::Bucket(Bucket {
        endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
        region,
        name: name.to_owned(),
        access_key: key("s3_access_key", &storage.s3_access_key)?,
        secret_key: key("s3_secret_key", &storage.s3_secret_key)?,
    }))
}
